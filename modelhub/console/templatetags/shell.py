"""What the templates of the admin's shell ask: which groups are seen, what an empty list says, which row is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import template
from django.template import Context
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from modelhub.console.empty import Empty, empty_of

register = template.Library()

# As unfold names the checkbox of every row.
_NAME_OF_CHECKBOX = 'aria-label="Select record"'


@register.filter
def is_seen(group: Mapping[str, Any]) -> bool:
    """Whether the user may see an entry of this group of the sidebar."""
    return any(item.get("has_permission") for item in group["items"])


@register.filter
def selecting(cell: SafeString, instance: object) -> SafeString:
    """A list's cell; its checkbox says which row it chooses."""
    if _NAME_OF_CHECKBOX not in cell:
        return cell
    name = conditional_escape(f"Select {instance}").replace('"', "&quot;")
    return mark_safe(cell.replace(_NAME_OF_CHECKBOX, f'aria-label="{name}"', 1))  # noqa: S308 (escaped)


@register.simple_tag(takes_context=True)
def empty_state(context: Context, changelist: Any) -> Empty:
    return empty_of(context.request, changelist)
