"""What a command would do, in the words of who asks for it: made of the plan that loaderd answers at this moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.urls import reverse

from loaderd.errors import InsufficientMemory, LoaderdError, LoaderUnreachable
from loaderd.scheduler import Decision
from modelhub.console.advice import Way, ways_after
from modelhub.console.templatetags.console import size
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.permissions import UNLOAD
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.models import ModelVersion

# A plan is a question to loaderd, and a page waits for its answers: so many, and for so long.
MOST_PLANS = 20
PLAN_SECONDS = 5.0
NAMED_VICTIMS = 2

Plan = Callable[[], Mapping[str, Any]]
Words = Callable[[Mapping[str, Any]], "Effect"]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command would do to `name`.

    headline: the effect in a line. sentence: the sum behind it. is_possible: False when it would be refused, and then
    headline and sentence say why, and ways lead to what is to be done first. needs_gap: it is possible only if nobody
    answers for a while. details: more lines. tone: of the headline, as `words` names tones.
    """

    name: str
    headline: str = ""
    sentence: str = ""
    is_possible: bool = True
    needs_gap: bool = False
    details: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()
    tone: str = "info"


def effects_of(
    versions: Sequence[ModelVersion],
    plan: Callable[[ModelVersion], Mapping[str, Any]],
    words: Callable[[ModelVersion, Mapping[str, Any]], Effect],
    user: Any,
) -> list[Effect]:
    """The effect on each. After PLAN_SECONDS the rest is not asked for: their effects are not known."""
    until = time.monotonic() + PLAN_SECONDS
    return [
        effect_of(version, partial(plan, version), partial(words, version), user)
        if time.monotonic() < until
        else _untold(version.model_id, "those before took as long")
        for version in versions
    ]


def effect_of(version: ModelVersion | None, plan: Plan, words: Words, user: Any) -> Effect:
    """What `plan()` (of lifecycle.planning) says, put into words by `words`; else why it cannot be done.

    version: None for what concerns all models.
    """
    name = "all models" if version is None else version.model_id
    try:
        return words(plan())
    except LoaderUnreachable as error:
        return _away(name) or _untold(name, str(error.__cause__ or error.message))
    except LoaderdError as error:
        return refusal(name, error, version, user)


def _away(name: str) -> Effect | None:
    loader = loader_view()
    if loader.reachable:
        return None
    headline = (
        f"loaderd is away ({loader.why_unreachable()}), so nothing can be loaded, unloaded or switched. Start it with "
        "`make up`, then ask again."
    )
    return Effect(name, headline, is_possible=False, tone="bad")


def _untold(name: str, why: str) -> Effect:
    headline = f"What this would do is not known: loaderd runs and did not tell within {PLAN_SECONDS:g} s ({why})."
    sentence = "It can be asked for all the same, and is done as soon as loaderd gets to it."
    return Effect(name, headline, sentence, tone="warn")


def refusal(name: str, error: LoaderdError, version: ModelVersion | None, user: Any) -> Effect:
    """Why it would be refused, and where to go first."""
    ways = tuple(ways_after(error.to_message(), version, user))
    return Effect(name, "This is not possible now.", error.message, is_possible=False, ways=ways, tone="bad")


# In words


def _evicted(victims: Sequence[Mapping[str, Any]]) -> str:
    """ "topic-v2 (idle 3 h)", or how many; they are listed then."""
    if len(victims) <= NAMED_VICTIMS:
        return " and ".join(f"{victim['model_id']} ({victim['reason']})" for victim in victims)
    return f"{len(victims)} models"


def _listed(victims: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{victim['model_id']} ({victim['reason']}): {size(victim['bytes'])}" for victim in victims)


def _loads(plan: Mapping[str, Any], name: str) -> str:
    """ "Loads 412 MiB; will evict topic-v2 (idle 3 h)"."""
    gpu = f" and {size(plan['needed_gpu_bytes'])} of GPU memory" if plan.get("needed_gpu_bytes") else ""
    taken = f"{size(plan['needed_bytes'])}{gpu}" if plan.get("needed_bytes") is not None else name
    evicted = plan.get("evict") or ()
    if evicted:
        return f"Loads {taken}; will evict {_evicted(evicted)}"
    return f"Loads {taken}" + ("; waits until there is room" if plan.get("decision") == Decision.WAITS else "")


def _room_ways(user: Any) -> tuple[Way, ...]:
    return tuple(ways_after({"code": InsufficientMemory.code}, None, user))


def loading(version: ModelVersion, plan: Mapping[str, Any], user: Any) -> Effect:
    sentence = str(plan.get("sentence", ""))
    name = version.model_id
    if version.status == Status.LOADED and version.desired_state == DesiredState.LOADED:
        why = "It is loaded already: nothing would change."
        if version.is_stale_in_memory:
            why += " Its files changed since: unload it, then load it, to use the new ones."
        ways = _unload_way(version, user) if version.is_stale_in_memory else ()
        return Effect(name, why, is_possible=False, ways=ways)
    if plan.get("decision") == Decision.REFUSED:
        return Effect(name, "It does not fit.", sentence, is_possible=False, ways=_room_ways(user), tone="bad")
    evicted = plan.get("evict") or ()
    details = _listed(evicted) if len(evicted) > NAMED_VICTIMS else ()
    return Effect(name, f"{_loads(plan, name)}.", sentence, details=details)


def _unload_way(version: ModelVersion, user: Any) -> tuple[Way, ...]:
    if not user.has_perm(UNLOAD):
        return ()
    return (Way("Unload", reverse("admin:registry_modelversion_unload", args=[version.pk])),)


def unloading(version: ModelVersion, plan: Mapping[str, Any], live_of: str | None) -> Effect:
    """live_of: the name of the lineage whose live version it is."""
    name, sentence = version.model_id, str(plan.get("sentence", ""))
    if version.status == Status.UNLOADED and version.desired_state == DesiredState.UNLOADED:
        return Effect(name, "It is not loaded: there is nothing to unload.", is_possible=False)
    if version.status != Status.LOADED or plan.get("frees_bytes") is None:
        return Effect(name, "", sentence)
    gpu = f" and {size(plan['frees_gpu_bytes'])} of GPU memory" if plan.get("frees_gpu_bytes") else ""
    flying = plan.get("in_flight") or 0
    after = f"; {flying} request{'' if flying == 1 else 's'} in flight will be finished first" if flying else ""
    details: tuple[str, ...] = ()
    if live_of is not None:
        back = (
            "the next request loads it again (autoload)"
            if version.autoload
            else "nobody answers for that name until it is loaded again or another version is activated"
        )
        details = (f"It is the live version of {live_of}: {back}.",)
    return Effect(name, f"Frees {size(plan['frees_bytes'])}{gpu}{after}.", details=details)


def switching(version: ModelVersion, plan: Mapping[str, Any], user: Any, *, is_rollback: bool) -> Effect:
    """Of an activation or rollback: which version it replaces, what becomes of that, and what it takes."""
    name, lineage = version.model_id, version.lineage.name
    sentence, replaces = str(plan.get("sentence", "")), plan.get("replaces")
    is_loaded = version.status == Status.LOADED
    if replaces == name and is_loaded:
        return Effect(name, f"It is live in {lineage} already: nothing would change.", is_possible=False)
    if plan.get("decision") == Decision.REFUSED and not plan.get("needs_gap"):
        stays = f" {replaces} stays live." if replaces else ""
        return Effect(
            name, f"It does not fit, not even in place of the live version.{stays}" if replaces else "It does not fit.",
            sentence, is_possible=False, ways=_room_ways(user), tone="bad",
        )  # fmt: skip
    takes = "It is loaded already" if is_loaded else _loads(plan, name)
    if not replaces:
        headline = f"Makes {name} the live version of {lineage}, which has none. {takes}."
        return Effect(name, headline, sentence)
    if replaces == name:
        return Effect(name, f"{name} is the live version of {lineage} and is not loaded. {takes}.", sentence)
    headline = f"Makes {name} live in {lineage} in place of {replaces}. {takes}."
    if plan.get("needs_gap"):
        fate = (
            f"Both do not fit together: {replaces} is unloaded first, and nobody answers for {lineage} until {name} is "
            "loaded. If that fails, it is loaded again."
        )
    else:
        fate = f"{replaces} answers until {name} does; then it finishes its requests and is unloaded."
    details = [fate, *(_listed(plan.get("evict") or ()) if len(plan.get("evict") or ()) > NAMED_VICTIMS else ())]
    if is_rollback:
        details.append(f"{replaces} is marked as left by a rollback: a later rollback passes it over.")
    needs_gap = bool(plan.get("needs_gap"))
    tone = "warn" if needs_gap else "info"
    return Effect(name, headline, sentence, needs_gap=needs_gap, details=tuple(details), tone=tone)


def optimising(plan: Mapping[str, Any]) -> Effect:
    victims = plan.get("victims") or ()
    sentence = str(plan.get("sentence", ""))
    if not victims:
        return Effect("all models", "There is nothing to unload.", sentence, is_possible=False)
    count = f"{len(victims)} model{'' if len(victims) == 1 else 's'}"
    freed = f"Frees {size(plan['frees_bytes'])}" if plan.get("frees_bytes") is not None else "Frees memory"
    return Effect("all models", f"{freed}: {count} will be unloaded.", details=_listed(victims))
