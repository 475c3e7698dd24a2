"""What the console's templates say with: bytes, durations, states, moments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from modelhub.console.words import tone_of

register = template.Library()

UNKNOWN = "–"


@register.filter
def size(count: float | None) -> str:
    """Bytes in the binary unit that fits, as everywhere in Modelhub: 412 MiB; a dash when unknown."""
    if count is None:
        return UNKNOWN
    sign, left = ("-" if count < 0 else ""), abs(float(count))
    for unit in ("B", "KiB", "MiB"):
        if left < 1024:
            return f"{sign}{left:.0f} {unit}"
        left /= 1024
    return f"{sign}{left:.1f} GiB" if left < 1024 else f"{sign}{left / 1024:.1f} TiB"


@register.filter
def milliseconds(value: float | None) -> str:
    """Milliseconds with as many digits as mean something; a dash when unknown."""
    if value is None:
        return UNKNOWN
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


@register.filter
def seconds(value: float | None) -> str:
    return UNKNOWN if value is None else milliseconds(value * 1000)


@register.filter
def rate(value: float | None) -> str:
    """Requests per second."""
    if value is None:
        return UNKNOWN
    return "0/s" if not value else f"{value:.2f}/s" if value < 10 else f"{value:.0f}/s"


@register.filter
def percent(share: float | None) -> str:
    """A share of 0.0 to 1.0 as percent."""
    if share is None:
        return UNKNOWN
    return f"{share:.0%}" if share in (0.0, 1.0) else f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


@register.filter
def tone(word: str | None) -> str:
    return tone_of(word)


@register.simple_tag
def state(word: str | None, title: str = "") -> SafeString:
    """A label with colour, sign and word."""
    if not word:
        return format_html('<span class="mh-subtle">{}</span>', UNKNOWN)
    shown = str(word).replace("_", " ").lower()
    return format_html('<span class="mh-state mh-state--{}" title="{}">{}</span>', tone_of(shown), title, shown)


@register.simple_tag
def moment(at: datetime | None, how: str = "ago") -> SafeString:
    """A moment as an age that counts in the browser, with the moment itself as title.

    how: "ago", "for" (a duration up to now) or "until" (what is to come).
    """
    if at is None:
        return format_html('<span class="mh-subtle">{}</span>', UNKNOWN)
    told = timezone.localtime(at)
    return format_html(
        '<time datetime="{}" data-mh-age="{}" title="{}">{}</time>',
        told.isoformat(timespec="milliseconds"),
        how,
        f"{told:%Y-%m-%d %H:%M:%S %Z}",
        f"{told:%Y-%m-%d %H:%M:%S}",
    )


@register.filter
def get(mapping: Any, key: str) -> Any:
    """mapping[key], or None."""
    return mapping.get(key) if hasattr(mapping, "get") else None
