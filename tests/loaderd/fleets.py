"""Fleets for tests of the scheduler: made by hand in MiB, made at random, and checked without the scheduler's code."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import strategies as st

from loaderd.scheduler import Claim, Snapshot, Wish
from loaderd.states import ModelState

MIB = 2**20
MIN_RESIDENCY_SECONDS = 30.0


def claim(model_id: str, mib: int, *, gpu: int = 0, **changes: Any) -> Claim:
    """Loaded for an hour, idle since, seldom asked; holds what it counts for."""
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


PRIORITIES = [0, 40, 50, 50, 50, 60, 100]
SEEDS = st.integers(0, 2**32)


STATES = [ModelState.LOADED] * 6 + [ModelState.LOADING, ModelState.UNLOADING]


def random_claim(rng: random.Random, model_id: str) -> Claim:
    """Any claim; what it gives back may be nothing, and less than what it counts for."""
    held, gpu = rng.randint(1, 400), rng.choice([0, rng.randint(1, 400)])
    return claim(
        model_id,
        held,
        gpu=gpu,
        state=rng.choice(STATES),
        frees_bytes=rng.choice([0, held, held, rng.randint(0, held)]) * MIB,
        frees_gpu_bytes=rng.choice([0, gpu, gpu, rng.randint(0, gpu)]) * MIB,
        pinned=rng.random() < 0.1,
        priority=rng.choice(PRIORITIES),
        in_flight=rng.choice([0, 0, 0, 0, 0, 3]),
        idle_seconds=rng.uniform(0, 20_000),
        resident_seconds=rng.choice([0.0, 29.9, 30.0, 900.0, 1e6]),
        usage_share=rng.random(),
        reload_seconds=rng.choice([0.0, 0.05, 1.0, 12.0]),
        protected=rng.choice(["", "", "", "", "takes over from another"]),
    )


def random_snapshot(rng: random.Random, models: int) -> Snapshot:
    """Limits lie around what the fleet holds, so that loads fit, evict, wait and are refused."""
    fleet = tuple(random_claim(rng, f"m{number}") for number in range(models))

    def limit(held: int) -> int | None:
        return rng.choice([None, int(held * rng.uniform(0.5, 1.6)) + rng.randint(0, 300) * MIB])

    return Snapshot(
        fleet,
        budget_bytes=limit(sum(one.bytes for one in fleet)),
        gpu_budget_bytes=limit(sum(one.gpu_bytes for one in fleet)),
        available_bytes=rng.choice([None, rng.randint(0, 800) * MIB]),
        gpu_free_bytes=rng.choice([None, rng.randint(0, 800) * MIB]),
    )


def random_wish(rng: random.Random) -> Wish:
    return Wish(
        rng.choice(["new", "new", "new", "m0"]),
        rng.randint(1, 1200) * MIB,
        rng.choice([0, rng.randint(1, 400)]) * MIB,
        priority=rng.choice(PRIORITIES),
        measured=rng.random() < 0.5,
        protected=frozenset(rng.sample(["m1", "m2"], rng.randint(0, 2))),
        replaces=rng.choice([None, None, None, "m3"]),
    )


def snapshots(max_models: int = 10) -> st.SearchStrategy[Snapshot]:
    """From a seed: drawn value by value, a fleet takes longer to make than to plan for."""
    return st.builds(
        lambda seed, models: random_snapshot(random.Random(seed), models), SEEDS, st.integers(0, max_models)
    )


def wishes() -> st.SearchStrategy[Wish]:
    return st.builds(lambda seed: random_wish(random.Random(seed)), SEEDS)
