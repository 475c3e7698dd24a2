"""The page between a button and its command: it states what would happen, and asks for the reason. Looks, acts not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse

from loaderd.errors import LoaderdError
from loaderd.scheduler import Decision

# A plan is a question to loaderd; a page asks so many at most.
MOST_PLANS = 20


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command would do to `name`, in a sentence.

    is_possible: False when it would be refused, and the sentence says why. needs_gap: it is possible only if nobody
    answers for a while. details: more lines.
    """

    name: str
    sentence: str
    is_possible: bool = True
    needs_gap: bool = False
    details: tuple[str, ...] = ()


def effect_of(name: str, plan: Callable[[], Mapping[str, Any]]) -> Effect:
    """What `plan()` (of lifecycle.planning) says, or why it cannot be done."""
    try:
        found = plan()
    except LoaderdError as error:
        return Effect(name, error.message, is_possible=False)
    needs_gap = bool(found.get("needs_gap"))
    unloaded = [*found.get("evict", ()), *found.get("victims", ())]
    return Effect(
        name,
        str(found.get("sentence", "")),
        is_possible=needs_gap or found.get("decision") != Decision.REFUSED,
        needs_gap=needs_gap,
        details=tuple(f"{victim['model_id']}: {victim['reason']}" for victim in unloaded),
    )


def confirmation(
    request: HttpRequest,
    site: AdminSite,
    *,
    title: str,
    effects: Sequence[Effect],
    submit: str,
    back: str,
    action: str = "",
    hidden: Sequence[tuple[str, Any]] = (),
    left_out: int = 0,
) -> TemplateResponse:
    """The page. action: where its form is posted ("" : here). hidden: what the form sends along.

    left_out: how many more the command concerns, whose effects are not told.
    """
    context = {
        **site.each_context(request),
        "title": title,
        "effects": effects,
        "is_possible": any(effect.is_possible for effect in effects),
        "needs_gap": any(effect.needs_gap for effect in effects),
        "are_many": len(effects) + left_out > 1,
        "submit_label": submit,  # `submit` is a word of the button component
        "back": back,
        "action": action,
        "hidden": hidden,
        "left_out": left_out,
    }
    return TemplateResponse(request, "console/confirm.html", context)
