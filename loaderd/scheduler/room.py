"""The arithmetic of memory: what is free, what a load lacks, what each model's end gives back.

Two limits bound each resource. The *budget* is compared with the sum of the claims' `bytes`, which holds promises
too: a load under way counts with its peak, a loaded model with its highest. What the *machine* has left is what the
kernel measured, less what loads under way were promised and have not taken yet. So the end of a loaded model gives
its `bytes` back to the budget, and to the machine only what it really holds, `frees_bytes`. GPU alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loaderd.scheduler.snapshot import Claim, Snapshot, Wish
from loaderd.states import ModelState

Amounts = tuple[int, int, int, int]
"""Bytes by limit, in the order of the fields of `Room`."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free under each limit, signed; None: there is no such limit."""

    budget: int | None
    machine: int | None
    gpu_budget: int | None
    gpu: int | None

    def lacking(self, wish: Wish) -> Amounts:
        """What the wish lacks under each limit, 0 where it fits. A resource that it does not use never lacks."""

        def short(needed: int, free: int | None) -> int:
            return 0 if needed <= 0 or free is None else max(0, needed - free)

        return (
            short(wish.bytes, self.budget),
            short(wish.bytes, self.machine),
            short(wish.gpu_bytes, self.gpu_budget),
            short(wish.gpu_bytes, self.gpu),
        )

    @property
    def free_bytes(self) -> int | None:
        return _least(self.budget, self.machine)

    @property
    def free_gpu_bytes(self) -> int | None:
        return _least(self.gpu_budget, self.gpu)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class Parts:
    """What claims count for under the budget, by why: see `loaderd.scheduler.plan.Plan`."""

    used_bytes: int
    reserved_bytes: int
    headroom_bytes: int


def parts_of(claims: Sequence[Claim]) -> Parts:
    used = sum(claim.frees_bytes for claim in claims)
    reserved = sum(_promised(claim) for claim in claims)
    return Parts(used, reserved, sum(claim.bytes for claim in claims) - used - reserved)


def counted(snapshot: Snapshot, wish: Wish) -> list[Claim]:
    """The claims beside the wish: without its own model (it is not counted twice) and the one that it replaces."""
    return [claim for claim in snapshot.claims if claim.model_id not in (wish.model_id, wish.replaces)]


def room_for(snapshot: Snapshot, wish: Wish) -> Room:
    """What is free for the wish, before anything is evicted."""
    kept = counted(snapshot, wish)
    gone = [claim for claim in snapshot.claims if claim.model_id in (wish.model_id, wish.replaces)]
    back = added(claim_end(claim) for claim in gone)

    def left(limit: int | None, taken: int) -> int | None:
        return None if limit is None else limit - taken

    return Room(
        budget=left(snapshot.budget_bytes, sum(claim.bytes for claim in kept)),
        machine=left(snapshot.available_bytes, sum(_promised(claim) for claim in snapshot.claims) - back[1]),
        gpu_budget=left(snapshot.gpu_budget_bytes, sum(claim.gpu_bytes for claim in kept)),
        gpu=left(snapshot.gpu_free_bytes, sum(_promised_gpu(claim) for claim in snapshot.claims) - back[3]),
    )


def _promised(claim: Claim) -> int:
    """What a load under way may still take."""
    return max(0, claim.bytes - claim.frees_bytes) if claim.state == ModelState.LOADING else 0


def _promised_gpu(claim: Claim) -> int:
    return max(0, claim.gpu_bytes - claim.frees_gpu_bytes) if claim.state == ModelState.LOADING else 0


def claim_end(claim: Claim) -> Amounts:
    """What comes back under each limit once the model is gone."""
    return (
        claim.bytes,
        claim.frees_bytes + _promised(claim),
        claim.gpu_bytes,
        claim.frees_gpu_bytes + _promised_gpu(claim),
    )


def eviction(claim: Claim) -> Amounts:
    """What the eviction of a loaded model gives for sure: nothing of a resource of which it holds nothing now."""
    ram, gpu = claim.frees_bytes > 0, claim.frees_gpu_bytes > 0
    return (
        claim.bytes if ram else 0,
        claim.frees_bytes if ram else 0,
        claim.gpu_bytes if gpu else 0,
        claim.frees_gpu_bytes if gpu else 0,
    )


def added(amounts: Iterable[Amounts]) -> Amounts:
    total = [0, 0, 0, 0]
    for amount in amounts:
        for limit, value in enumerate(amount):
            total[limit] += value
    return (total[0], total[1], total[2], total[3])


def less(lacking: Amounts, back: Amounts) -> Amounts:
    """What still lacks when `back` has come back."""
    first, second, third, fourth = (max(0, short - more) for short, more in zip(lacking, back, strict=True))
    return (first, second, third, fourth)


def helps(back: Amounts, lacking: Amounts) -> bool:
    """Whether it gives something of what lacks."""
    return any(more > 0 and short > 0 for more, short in zip(back, lacking, strict=True))
