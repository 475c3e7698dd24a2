"""What pages of records say with: values as programs see them."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

register = template.Library()


@register.filter(name="json")
def in_json(value: Any) -> SafeString:
    """Pretty, in the type of machines."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return format_html('<pre class="mh-code mh-json" tabindex="0">{}</pre>', text)


@register.filter
def short(text: str, characters: int = 120) -> SafeString:
    """Its beginning, with all of it as title where something was cut."""
    cut = Truncator(text).chars(characters)
    if cut == text:
        return format_html('<span class="mh-break">{}</span>', text)
    return format_html('<span class="mh-break" title="{}">{}</span>', text[:2000], cut)
