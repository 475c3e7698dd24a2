"""Fleets for tests of the scheduler: made by hand in MiB, made at random, and checked without the scheduler's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from loaderd.scheduler import Claim, Snapshot, Wish
from loaderd.states import ModelState

MIB = 2**20
MIN_RESIDENCY_SECONDS = 30.0


def claim(model_id: str, mib: int, *, gpu: int = 0, **changes: Any) -> Claim:
    """Loaded for an hour, idle since, seldom asked, wished; holds what it counts for."""
    values: dict[str, Any] = {
        "state": ModelState.LOADED,
        "bytes": mib * MIB,
        "frees_bytes": mib * MIB,
        "gpu_bytes": gpu * MIB,
        "frees_gpu_bytes": gpu * MIB,
        "idle_seconds": 3600.0,
        "resident_seconds": 3600.0,
        "usage_share": 0.02,
        "reload_seconds": 1.0,
    }
    return Claim(model_id, **{**values, **changes})


def snapshot(*claims: Claim, budget: int | None = 1000, **limits: int) -> Snapshot:
    """limits: gpu_budget, available, gpu_free, in MiB."""
    names = {"gpu_budget": "gpu_budget_bytes", "available": "available_bytes", "gpu_free": "gpu_free_bytes"}
    more = {names[name]: mib * MIB for name, mib in limits.items()}
    return Snapshot(claims, budget_bytes=None if budget is None else budget * MIB, **more)


def wish(mib: int, model_id: str = "new", *, gpu: int = 0, **changes: Any) -> Wish:
    return Wish(model_id, mib * MIB, gpu * MIB, **changes)


def fits_when_gone(held: Snapshot, asked: Wish, gone: Iterable[str]) -> bool:
    """Whether the wish would fit if these were gone: written down once more, in the plainest way."""
    without = {*gone, asked.model_id, asked.replaces}
    staying = [one for one in held.claims if one.model_id not in without]
    ended = [one for one in held.claims if one.model_id in without]

    def fits(of: Callable[[Claim], int], now: Callable[[Claim], int], needed: int, limit: Any, left: Any) -> bool:
        if needed == 0:
            return True
        in_budget = limit is None or sum(map(of, staying)) + needed <= limit
        promised = sum(max(0, of(one) - now(one)) for one in staying if one.state == ModelState.LOADING)
        on_machine = left is None or promised + needed <= left + sum(map(now, ended))
        return in_budget and on_machine

    ram = fits(lambda c: c.bytes, lambda c: c.frees_bytes, asked.bytes, held.budget_bytes, held.available_bytes)
    gpu = fits(
        lambda c: c.gpu_bytes, lambda c: c.frees_gpu_bytes, asked.gpu_bytes, held.gpu_budget_bytes, held.gpu_free_bytes
    )
    return ram and gpu


def unloading_of(held: Snapshot) -> set[str]:
    return {one.model_id for one in held.claims if one.state == ModelState.UNLOADING}


def may_go(one: Claim, asked: Wish) -> bool:
    """The rules for victims, written down once more."""
    return (
        one.state == ModelState.LOADED
        and not one.pinned
        and one.in_flight == 0
        and one.resident_seconds >= MIN_RESIDENCY_SECONDS
        and not one.protected
        and one.model_id not in asked.protected
        and one.priority <= asked.priority
    )


PRIORITIES = st.sampled_from([0, 40, 50, 50, 50, 60, 100])
AMOUNTS = st.integers(1, 400)


@st.composite
def claims(draw: st.DrawFn, model_id: str) -> Claim:
    held, gpu = draw(AMOUNTS), draw(st.one_of(st.just(0), AMOUNTS))
    return claim(
        model_id,
        held,
        gpu=gpu,
        state=draw(st.sampled_from([ModelState.LOADED] * 6 + [ModelState.LOADING, ModelState.UNLOADING])),
        frees_bytes=draw(st.integers(0, held)) * MIB,
        frees_gpu_bytes=draw(st.integers(0, gpu)) * MIB,
        pinned=draw(st.integers(0, 9)) == 0,
        priority=draw(PRIORITIES),
        in_flight=draw(st.sampled_from([0, 0, 0, 0, 0, 3])),
        idle_seconds=draw(st.floats(0, 20_000)),
        resident_seconds=draw(st.sampled_from([0.0, 29.9, 30.0, 900.0, 1e6])),
        usage_share=draw(st.floats(0, 1)),
        reload_seconds=draw(st.sampled_from([0.0, 0.05, 1.0, 12.0])),
        wished=draw(st.integers(0, 4)) > 0,
        protected=draw(st.sampled_from(["", "", "", "", "takes over from another"])),
    )


@st.composite
def snapshots(draw: st.DrawFn, max_models: int = 10) -> Snapshot:
    """Up to `max_models` models; limits around what they hold, so that loads fit, evict, wait and are refused."""
    fleet = tuple(draw(claims(f"m{number}")) for number in range(draw(st.integers(0, max_models))))
    limits = st.one_of(st.none(), st.floats(0.5, 1.6))

    def limit(held: int, share: float | None, more: int) -> int | None:
        return None if share is None else int(held * share) + more * MIB

    return Snapshot(
        fleet,
        budget_bytes=limit(sum(one.bytes for one in fleet), draw(limits), draw(st.integers(0, 300))),
        gpu_budget_bytes=limit(sum(one.gpu_bytes for one in fleet), draw(limits), draw(st.integers(0, 300))),
        available_bytes=draw(st.one_of(st.none(), st.integers(0, 800).map(lambda mib: mib * MIB))),
        gpu_free_bytes=draw(st.one_of(st.none(), st.integers(0, 800).map(lambda mib: mib * MIB))),
    )


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    return Wish(
        draw(st.sampled_from(["new", "new", "new", "m0"])),
        draw(st.integers(1, 1200)) * MIB,
        draw(st.one_of(st.just(0), AMOUNTS)) * MIB,
        priority=draw(PRIORITIES),
        measured=draw(st.booleans()),
        protected=frozenset(draw(st.sets(st.sampled_from(["m1", "m2"])))),
        replaces=draw(st.sampled_from([None, None, None, "m3"])),
    )
