"""May it be loaded, and what has to happen first."""

from __future__ import annotations

from collections.abc import Sequence

from loaderd.scheduler import sentences
from loaderd.scheduler.cover import cheapest_cover
from loaderd.scheduler.plan import Decision, Kept, Plan, Victim
from loaderd.scheduler.protection import for_good, for_now, is_young, residency_left_seconds
from loaderd.scheduler.regret import regret_seconds, why_it
from loaderd.scheduler.room import (
    Amounts,
    added,
    claim_end,
    counted,
    eviction,
    helps,
    less,
    parts_of,
    room_for,
)
from loaderd.scheduler.snapshot import Claim, Snapshot, Wish
from loaderd.states import ModelState


def decide(snapshot: Snapshot, wish: Wish, *, min_residency_seconds: float) -> Plan:
    """Whether the wish fits, what has to go for it, what it waits for, or why it cannot be.

    The victims are the cheapest set (`regret_seconds`) that makes room for both RAM and GPU together with what is
    being unloaded already, none of them superfluous. Who carries a plan out decides again before the load begins:
    that room is there only when the victims and those being unloaded are gone.

    WAITS is answered where evictions that the rules allow now do not make room and will later: models have requests
    in flight, were loaded moments ago, are `protected`, or are being loaded (such a model may be evicted later, or
    keep less than it was promised). Each of these ends, and is then decided anew. REFUSED: not even then.
    Costs some 0.1 ms, and a few ms for a hundred models that could go.
    """
    others = counted(snapshot, wish)
    lacking = room_for(snapshot, wish).lacking(wish)
    if not any(lacking):
        return _plan(snapshot, wish, Decision.FITS)

    leaving = [claim for claim in others if claim.state == ModelState.UNLOADING]
    lacking = less(lacking, added(claim_end(claim) for claim in leaving))
    if not any(lacking):
        return _plan(snapshot, wish, Decision.WAITS, waits_for=[(claim, "is being unloaded") for claim in leaving])

    useful = [c for c in others if c.state == ModelState.LOADED and helps(eviction(c), lacking)]
    loading = [c for c in others if c.state == ModelState.LOADING and helps(claim_end(c), lacking)]
    lasting = {claim.model_id: for_good(claim, wish) for claim in useful}
    passing = {claim.model_id: for_now(claim, min_residency_seconds) for claim in useful}
    kept = [(claim, lasting[claim.model_id] or passing[claim.model_id]) for claim in useful]
    kept = [(claim, reason) for claim, reason in kept if reason]
    free_to_go = [claim for claim in useful if not lasting[claim.model_id] and not passing[claim.model_id]]
    victims = _cheapest(free_to_go, lacking)
    if victims is not None:
        return _plan(snapshot, wish, Decision.EVICTS, victims=victims, kept=kept)

    later = [claim for claim in useful if passing[claim.model_id] and not lasting[claim.model_id]]
    # What a load under way keeps in the end is not known before; it may be much less than its peak.
    kept += [(claim, "is being loaded") for claim in loading]
    back = added([*map(eviction, free_to_go), *map(eviction, later), *map(claim_end, loading)])
    if not any(less(lacking, back)):
        return _plan(
            snapshot,
            wish,
            Decision.WAITS,
            kept=kept,
            wait_seconds=_earliest_residency_end(later, min_residency_seconds),
            waits_for=[
                *((claim, "is being unloaded") for claim in leaving),
                *((claim, passing[claim.model_id]) for claim in later),
                *((claim, "is being loaded") for claim in loading),
            ],
        )
    return _plan(snapshot, wish, Decision.REFUSED, kept=kept, evictable=free_to_go)


def _cheapest(candidates: Sequence[Claim], lacking: Amounts) -> list[Claim] | None:
    """The victims, those that free the most first; None when all of them do not make room."""
    chosen = cheapest_cover(
        [regret_seconds(claim) for claim in candidates], [eviction(claim) for claim in candidates], lacking
    )
    if chosen is None:
        return None
    return sorted((candidates[index] for index in chosen), key=lambda claim: (-claim.frees_bytes, claim.model_id))


def _earliest_residency_end(claims: Sequence[Claim], min_residency_seconds: float) -> float | None:
    young = [claim for claim in claims if is_young(claim, min_residency_seconds)]
    ends = [residency_left_seconds(claim, min_residency_seconds) for claim in young]
    return min(ends, default=None)


def _plan(
    snapshot: Snapshot,
    wish: Wish,
    decision: Decision,
    *,
    victims: Sequence[Claim] = (),
    kept: Sequence[tuple[Claim, str]] = (),
    wait_seconds: float | None = None,
    waits_for: Sequence[tuple[Claim, str]] = (),
    evictable: Sequence[Claim] = (),
) -> Plan:
    others, room = counted(snapshot, wish), room_for(snapshot, wish)
    taken = parts_of(others)
    return Plan(
        decision=decision,
        model_id=wish.model_id,
        needed_bytes=wish.bytes,
        needed_gpu_bytes=wish.gpu_bytes,
        measured=wish.measured,
        used_bytes=taken.used_bytes,
        reserved_bytes=taken.reserved_bytes,
        headroom_bytes=taken.headroom_bytes,
        free_bytes=room.free_bytes,
        budget_bytes=snapshot.budget_bytes,
        gpu_used_bytes=sum(claim.gpu_bytes for claim in others),
        gpu_free_bytes=room.free_gpu_bytes,
        gpu_budget_bytes=snapshot.gpu_budget_bytes,
        victims=tuple(Victim(c.model_id, c.frees_bytes, c.frees_gpu_bytes, why_it(c)) for c in victims),
        kept=(
            *(Kept(claim.model_id, claim.frees_bytes, reason) for claim, reason in kept),
            *(Kept(claim.model_id, claim.frees_bytes, "its eviction would not be enough") for claim in evictable),
        ),
        wait_seconds=wait_seconds,
        sentence=sentences.of(decision, snapshot, wish, victims, kept, waits_for, evictable),
    )
