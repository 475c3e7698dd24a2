"""A plan in words: the sum, what happens for it, and what a person can do."""

from __future__ import annotations

from collections.abc import Sequence

from loaderd.scheduler.plan import Decision
from loaderd.scheduler.room import Parts, Room, counted, parts_of, room_for
from loaderd.scheduler.snapshot import Claim, Snapshot, Wish
from loaderd.scheduler.wording import MIB, listed, size

ADVICE = {
    "budget": "unload a model or raise {settings}",
    "machine": "unload a model or end other programs of this machine",
    "gpu_budget": "unload a model that uses the GPU or raise {settings}",
    "gpu": "unload a model that uses the GPU or end other programs that use it",
}
"""By the limit (the field of `Room`) that stands in the way. settings: those of the budget that are too small."""


def of(
    decision: Decision,
    snapshot: Snapshot,
    wish: Wish,
    victims: Sequence[Claim],
    kept: Sequence[tuple[Claim, str]],
    waits_for: Sequence[tuple[Claim, str]],
    evictable: Sequence[Claim],
) -> str:
    """The sentence of a plan. kept, waits_for: with why each does not give its memory now. evictable: of a refusal,
    what could go and would not be enough."""
    room = room_for(snapshot, wish)
    if wish.joins:
        need = f"{wish.model_id} with another process needs {_needed(wish)}"
        sum_ = f"{need}; without all of it {_free(snapshot, room, wish)}"
    else:
        need = f"Loading {wish.model_id} needs {_needed(wish)}"
        sum_ = f"{need}; {_free(snapshot, room, wish)}"
    gap = f" once {wish.replaces} is unloaded" if wish.replaces else ""
    if decision == Decision.FITS:
        return f"{sum_}{gap}: it fits."
    if decision == Decision.EVICTS:
        return f"{sum_}{gap}; it evicts {_named(victims)} ({_gives(victims)})."
    if decision == Decision.WAITS:
        return f"{sum_}{gap}; it waits for {listed([f'{claim.model_id} ({why})' for claim, why in waits_for])}."
    too_large = _larger_than_a_limit(snapshot, wish)
    if too_large:
        limit, field = too_large
        advice = _advice(field, snapshot, wish, ()).partition(" or ")[2]
        return f"{need}, more than the {limit} that all models together may hold; {advice}."
    held = [f"{claim.model_id} ({size(claim.frees_bytes)}): {reason}" for claim, reason in kept]
    parts = [
        f"{sum_}{gap}",
        f"evicting {_named(evictable)} would give {_gives(evictable)}" if evictable else "nothing can be evicted",
        *([f"kept are {listed(held)}"] if held else []),
        _advice(_field_in_the_way(room, wish), snapshot, wish, counted(snapshot, wish)),
    ]
    return "; ".join(parts) + "."


def _needed(wish: Wish) -> str:
    """ "210 MiB and 1.2 GiB of GPU memory (measured)"."""
    gpu = f" and {size(wish.gpu_bytes)} of GPU memory" if wish.gpu_bytes > 0 else ""
    return f"{size(wish.bytes)}{gpu} ({'measured' if wish.measured else 'estimated'})"


def _free(snapshot: Snapshot, room: Room, wish: Wish) -> str:
    """ "390 MiB of 600 MiB are free", or by how much the models hold more than they may."""
    taken = parts_of(counted(snapshot, wish))
    parts = [_free_of(room.budget, room.machine, snapshot.budget_bytes, "", "the machine", taken)]
    if wish.gpu_bytes > 0:
        parts.append(_free_of(room.gpu_budget, room.gpu, snapshot.gpu_budget_bytes, " of GPU memory", "the GPU"))
    return ", and ".join(part for part in parts if part) or "there is no limit"


def _free_of(
    budget_left: int | None,
    machine_left: int | None,
    budget: int | None,
    of_what: str,
    machine: str,
    taken: Parts | None = None,
) -> str:
    if machine_left is not None and (budget_left is None or machine_left < budget_left):
        if machine_left < 0:
            return f"{machine} lacks {size(-machine_left)} for the loads that are under way already"
        return f"{machine} has {size(machine_left)} left"
    if budget_left is None or budget is None:
        return ""
    if taken is not None and taken.headroom_bytes >= MIB:
        kept = f"{size(taken.headroom_bytes)} are kept for loaded models that held so much more before"
        if budget_left >= 0:
            return f"{size(budget_left)} of {size(budget)} are free and {kept}"
        if budget_left + taken.headroom_bytes >= 0:
            return f"nothing of {size(budget)} is free: {kept}"
    if budget_left < 0:
        return f"the models hold {size(-budget_left)}{of_what} more than the {size(budget)} that they may"
    return f"{size(budget_left)} of {size(budget)}{of_what} are free"


def _named(claims: Sequence[Claim]) -> str:
    return listed([claim.model_id for claim in claims])


def _gives(claims: Sequence[Claim]) -> str:
    gpu = sum(claim.frees_gpu_bytes for claim in claims)
    return size(sum(claim.frees_bytes for claim in claims)) + (f" and {size(gpu)} of GPU memory" if gpu else "")


def _larger_than_a_limit(snapshot: Snapshot, wish: Wish) -> tuple[str, str] | None:
    """(the limit in words, the field of `Room`) that the need passes even with no other model."""
    if snapshot.budget_bytes is not None and wish.bytes > snapshot.budget_bytes:
        return size(snapshot.budget_bytes), "budget"
    if snapshot.gpu_budget_bytes is not None and wish.gpu_bytes > snapshot.gpu_budget_bytes:
        return f"{size(snapshot.gpu_budget_bytes)} of GPU memory", "gpu_budget"
    return None


def _advice(field: str, snapshot: Snapshot, wish: Wish, beside: Sequence[Claim]) -> str:
    """What a person can do so that the wish fits beside these."""
    if field == "gpu_budget":
        settings, needed = snapshot.gpu_budget_settings, wish.gpu_bytes + sum(claim.gpu_bytes for claim in beside)
    else:
        settings, needed = snapshot.budget_settings, wish.bytes + sum(claim.bytes for claim in beside)
    too_small = [name for name, limit_bytes in settings.items() if limit_bytes < needed]
    return ADVICE[field].format(settings=listed(too_small) or "the budget")


def _field_in_the_way(room: Room, wish: Wish) -> str:
    """The limit that lacks the most."""
    fields = ("budget", "machine", "gpu_budget", "gpu")
    return max(zip(room.lacking(wish), fields, strict=True), key=lambda pair: pair[0])[1]
