"""Who may be loaded, and who has to go for it: small fleets that a person can follow, and random ones."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings

from loaderd.scheduler import Decision, Plan, Snapshot, Wish, decide, superfluous, why_nothing
from loaderd.scheduler.cover import MAX_NODES, _Search, cheapest_cover
from loaderd.scheduler.regret import regret_seconds
from loaderd.states import ModelState
from tests.loaderd.fleets import (
    MIB,
    MIN_RESIDENCY_SECONDS,
    claim,
    fits_when_gone,
    may_go,
    snapshot,
    snapshots,
    unloading_of,
    wish,
    wishes,
)


def plan(held: Snapshot, asked: Wish) -> Plan:
    return decide(held, asked, min_residency_seconds=MIN_RESIDENCY_SECONDS)


def victims(made: Plan) -> set[str]:
    return {victim.model_id for victim in made.victims}


class TestARoomyMachine:
    def test_a_load_that_fits_touches_nothing(self) -> None:
        made = plan(snapshot(claim("a", 600)), wish(400, measured=True))
        assert (made.decision, made.victims, made.kept) == (Decision.FITS, (), ())
        assert made.sentence == "Loading new needs 400 MiB (measured); 400 MiB of 1000 MiB are free: it fits."

    def test_without_limits_everything_fits(self) -> None:
        made = plan(snapshot(claim("a", 600), budget=None), wish(10_000))
        assert (made.decision, made.free_bytes) == (Decision.FITS, None)
        assert made.sentence == "Loading new needs 9.8 GiB (estimated); there is no limit: it fits."

    def test_a_load_without_gpu_memory_does_not_mind_a_full_gpu(self) -> None:
        assert plan(snapshot(claim("a", 1, gpu=900), gpu_budget=100), wish(100)).decision == Decision.FITS

    def test_the_sum_is_told(self) -> None:
        held = snapshot(
            claim("a", 300, gpu=10),
            claim("b", 200, gpu=20, state=ModelState.LOADING, frees_bytes=50 * MIB),
            claim("c", 100, state=ModelState.UNLOADING),
            gpu_budget=100,
        )
        made = plan(held, wish(50, gpu=5))
        assert (made.needed_bytes, made.needed_gpu_bytes) == (50 * MIB, 5 * MIB)
        assert (made.used_bytes, made.reserved_bytes, made.free_bytes) == (450 * MIB, 150 * MIB, 400 * MIB)
        assert (made.gpu_used_bytes, made.gpu_free_bytes, made.gpu_budget_bytes) == (30 * MIB, 70 * MIB, 100 * MIB)

    def test_what_is_kept_for_models_that_held_more_before_is_told_apart_from_what_they_hold(self) -> None:
        held = snapshot(claim("a", 500, frees_bytes=300 * MIB), claim("b", 100), budget=700)
        made = plan(held, wish(50))
        assert (made.used_bytes, made.headroom_bytes, made.free_bytes) == (400 * MIB, 200 * MIB, 100 * MIB)
        assert made.sentence == (
            "Loading new needs 50 MiB (estimated); 100 MiB of 700 MiB are free and 200 MiB are kept for loaded models "
            "that held so much more before: it fits."
        )
        made = plan(snapshot(claim("a", 500, frees_bytes=300 * MIB, pinned=True), budget=400), wish(50))
        assert "; nothing of 400 MiB is free: 200 MiB are kept for loaded models that held" in made.sentence


class TestOneProcessMore:
    def test_it_is_decided_on_with_what_the_model_holds(self) -> None:
        held = snapshot(claim("new", 300, frees_bytes=200 * MIB), claim("a", 500))
        made = plan(held, wish(450, joins=True))
        assert made.decision == Decision.FITS
        assert made.sentence == (
            "new with another process needs 450 MiB (estimated); without all of it 500 MiB of 1000 MiB are free: it "
            "fits."
        )
        assert plan(held, wish(550, joins=True, protected=frozenset({"a"}))).decision == Decision.REFUSED


class TestEviction:
    def test_the_one_that_nobody_asks_for_goes(self) -> None:
        held = snapshot(
            claim("busy", 500, idle_seconds=5, usage_share=0.9),
            claim("forgotten", 500, idle_seconds=9000, usage_share=0),
        )
        made = plan(held, wish(400))
        assert made.decision == Decision.EVICTS
        assert victims(made) == {"forgotten"}
        assert made.victims[0].reason == "idle 2 h, asked in 0 % of the last hour's minutes"
        assert made.sentence == (
            "Loading new needs 400 MiB (estimated); 0 MiB of 1000 MiB are free; it evicts forgotten (500 MiB)."
        )

    def test_one_model_goes_where_one_is_enough_and_the_smaller_of_two_equals(self) -> None:
        held = snapshot(*(claim(name, mib) for name, mib in (("a", 300), ("b", 300), ("c", 400))))
        assert victims(plan(held, wish(250))) <= {"a", "b"}
        assert victims(plan(held, wish(350))) == {"c"}

    def test_of_equals_the_one_that_loads_again_quickly_goes(self) -> None:
        held = snapshot(claim("slow", 500, reload_seconds=20), claim("quick", 500, reload_seconds=0.2))
        assert victims(plan(held, wish(100))) == {"quick"}

    def test_of_equals_the_lower_priority_goes(self) -> None:
        held = snapshot(claim("kept", 500, priority=60), claim("goes", 500, priority=40))
        assert victims(plan(held, wish(100, priority=60))) == {"goes"}

    def test_a_budget_that_was_lowered_is_made_up_for(self) -> None:
        held = snapshot(claim("a", 400), claim("b", 400), claim("c", 400, usage_share=1, idle_seconds=0), budget=600)
        made = plan(held, wish(100))
        assert made.free_bytes == -600 * MIB
        assert victims(made) == {"a", "b"}
        assert "the models hold 600 MiB more than the 600 MiB that they may" in made.sentence

    def test_gpu_memory_is_made_by_models_that_hold_some(self) -> None:
        held = snapshot(
            claim("ram only", 300), claim("gpu", 100, gpu=900, idle_seconds=60, usage_share=1), gpu_budget=1000
        )
        made = plan(held, wish(50, gpu=500))
        assert victims(made) == {"gpu"}
        assert (made.victims[0].bytes, made.victims[0].gpu_bytes) == (100 * MIB, 900 * MIB)

    def test_one_that_helps_both_is_better_than_one_for_each(self) -> None:
        held = snapshot(claim("ram", 500), claim("gpu", 0, gpu=500), claim("both", 500, gpu=500), gpu_budget=1000)
        assert victims(plan(held, wish(400, gpu=400))) == {"both"}

    def test_what_counts_and_what_comes_back_are_two_sums(self) -> None:
        """The claim of 500 leaves the budget whole; the machine gets only the 200 that the model holds now."""
        held = snapshot(claim("a", 500, frees_bytes=200 * MIB), claim("b", 500), available=100)
        assert victims(plan(held, wish(250))) <= {"a", "b"}
        assert victims(plan(held, wish(350))) == {"b"}
        made = plan(replace(held, available_bytes=10_000 * MIB), wish(450))
        assert made.victims[0].bytes in (200 * MIB, 500 * MIB)

    def test_a_model_that_gives_nothing_back_does_not_go(self) -> None:
        assert plan(snapshot(claim("hollow", 900, frees_bytes=0)), wish(200)).decision == Decision.REFUSED

    def test_promises_to_loads_under_way_are_no_free_memory(self) -> None:
        """300 are available, and a load that took 50 so far may take 200 more of them."""
        loading = claim("loading", 250, state=ModelState.LOADING, frees_bytes=50 * MIB)
        held = snapshot(loading, available=300, budget=None)
        assert plan(held, wish(100)).decision == Decision.FITS
        assert plan(held, wish(101)).decision == Decision.WAITS

    def test_a_model_is_not_counted_twice(self) -> None:
        held = snapshot(claim("new", 900, state=ModelState.LOADING), claim("a", 100))
        assert plan(held, wish(900)).decision == Decision.FITS
        assert plan(held, wish(901)).decision == Decision.EVICTS

    def test_the_replaced_model_counts_as_gone(self) -> None:
        held = snapshot(claim("old", 600, pinned=True), claim("a", 300), available=0)
        assert plan(held, wish(600)).decision == Decision.REFUSED
        made = plan(held, wish(600, replaces="old"))
        assert (made.decision, made.used_bytes) == (Decision.FITS, 300 * MIB)
        assert "once old is unloaded" in made.sentence
        assert victims(plan(held, wish(800, replaces="old"))) == {"a"}


KEPT = {
    "pinned": ({"pinned": True}, "pinned", Decision.REFUSED),
    "higher-priority": ({"priority": 80}, "priority 80 is above 50", Decision.REFUSED),
    "beside": ({"model_id": "live"}, "has to stay beside this load", Decision.REFUSED),
    "busy": ({"in_flight": 2}, "2 requests in flight", Decision.WAITS),
    "young": ({"resident_seconds": 4.0}, "loaded 4 s ago", Decision.WAITS),
    "protected": ({"protected": "takes over from b-v1"}, "takes over from b-v1", Decision.WAITS),
    "loading": ({"state": ModelState.LOADING}, "is being loaded", Decision.WAITS),
}


class TestWhoStays:
    @pytest.mark.parametrize("kind", KEPT)
    def test_a_protected_model_stays_and_its_reason_is_told(self, kind: str) -> None:
        changes, reason, decision = KEPT[kind]
        one = replace(claim("held", 900), **changes)
        made = plan(snapshot(one), wish(200, protected=frozenset({"live"})))
        assert (made.decision, made.victims) == (decision, ())
        assert [(kept.model_id, kept.bytes, kept.reason) for kept in made.kept] == [(one.model_id, 900 * MIB, reason)]
        assert reason in made.sentence

    @pytest.mark.parametrize("kind", KEPT)
    def test_another_goes_in_its_place(self, kind: str) -> None:
        changes, reason, _ = KEPT[kind]
        dearer = claim("dearer", 500, usage_share=1, idle_seconds=0, reload_seconds=30)
        made = plan(snapshot(replace(claim("held", 500), **changes), dearer), wish(200, protected=frozenset({"live"})))
        assert victims(made) == {"dearer"}
        assert reason in {kept.reason for kept in made.kept} or kind == "loading"

    def test_a_model_that_could_not_have_helped_is_not_named(self) -> None:
        held = snapshot(claim("ram only", 100, pinned=True), claim("gpu", 10, gpu=90), gpu_budget=100)
        assert plan(held, wish(10, gpu=50)).kept == ()

    def test_equal_priority_may_go(self) -> None:
        assert plan(snapshot(claim("a", 900, priority=70)), wish(200, priority=70)).decision == Decision.EVICTS


class TestWaiting:
    def test_memory_of_a_model_that_is_being_unloaded_is_waited_for(self) -> None:
        leaving = claim("leaving", 500, state=ModelState.UNLOADING)
        made = plan(snapshot(leaving, claim("idle", 500)), wish(400))
        assert (made.decision, made.victims, made.wait_seconds) == (Decision.WAITS, (), None)
        assert made.sentence.endswith("it waits for leaving (is being unloaded).")

    def test_no_more_is_evicted_than_lacks_beside_what_is_being_unloaded(self) -> None:
        held = snapshot(
            claim("leaving", 400, state=ModelState.UNLOADING),
            claim("small", 200),
            claim("large", 400, reload_seconds=2),
        )
        assert victims(plan(held, wish(500))) == {"small"}

    def test_the_earliest_end_of_a_residency_is_when_to_look_again(self) -> None:
        held = snapshot(claim("a", 400, resident_seconds=5), claim("b", 500, resident_seconds=12.5))
        made = plan(held, wish(200))
        assert (made.decision, made.wait_seconds) == (Decision.WAITS, 17.5)

    def test_requests_in_flight_have_no_end_that_is_known(self) -> None:
        assert plan(snapshot(claim("a", 900, in_flight=1)), wish(200)).wait_seconds is None

    def test_a_pinned_load_under_way_may_take_less_than_it_was_promised(self) -> None:
        """It is waited for; when it has taken all of it, the load is refused."""
        loading = claim("big", 900, state=ModelState.LOADING, frees_bytes=100 * MIB, pinned=True)
        assert plan(snapshot(loading), wish(200)).decision == Decision.WAITS
        loaded = replace(loading, state=ModelState.LOADED, frees_bytes=900 * MIB)
        assert plan(snapshot(loaded), wish(200)).decision == Decision.REFUSED

    def test_nothing_is_evicted_while_it_would_not_be_enough_yet(self) -> None:
        made = plan(snapshot(claim("idle", 400), claim("busy", 600, in_flight=1)), wish(800))
        assert (made.decision, made.victims) == (Decision.WAITS, ())


class TestRefusal:
    def test_the_sum_and_the_reasons_are_told(self) -> None:
        held = snapshot(
            claim("small", 120),
            claim("fixed", 300, pinned=True),
            claim("vip", 200, priority=80),
            budget=1024,
        )
        settings = {"MAX_MEMORY_USAGE_MB": 1024 * MIB, "MAX_MEMORY_USAGE_PERCENT": 1400 * MIB}
        held = replace(held, budget_settings=settings)
        made = plan(held, wish(812, "big", measured=True))
        assert made.sentence == (
            "Loading big needs 812 MiB (measured); 404 MiB of 1.0 GiB are free; evicting small would give 120 MiB; "
            "kept are fixed (300 MiB): pinned and vip (200 MiB): priority 80 is above 50; "
            "unload a model or raise MAX_MEMORY_USAGE_MB and MAX_MEMORY_USAGE_PERCENT."
        )
        assert plan(held, wish(700)).sentence.endswith("; unload a model or raise MAX_MEMORY_USAGE_MB.")
        assert [(kept.model_id, kept.reason) for kept in made.kept] == [
            ("fixed", "pinned"),
            ("vip", "priority 80 is above 50"),
            ("small", "its eviction would not be enough"),
        ]

    def test_a_load_larger_than_the_whole_budget_says_so(self) -> None:
        made = plan(snapshot(claim("a", 100)), wish(1001))
        assert made.decision == Decision.REFUSED
        assert made.sentence == (
            "Loading new needs 1001 MiB (estimated), more than the 1000 MiB that all models together may hold; "
            "raise the budget."
        )
        settings = {"MAX_MEMORY_USAGE_MB": 2000 * MIB, "MAX_MEMORY_USAGE_PERCENT": 1000 * MIB}
        made = plan(replace(snapshot(claim("a", 100)), budget_settings=settings), wish(1001))
        assert made.sentence.endswith("may hold; raise MAX_MEMORY_USAGE_PERCENT.")

    def test_a_machine_that_other_programs_fill_is_named(self) -> None:
        made = plan(snapshot(claim("a", 100), available=50), wish(200))
        assert "the machine has 50 MiB left; evicting a would give 100 MiB" in made.sentence
        assert made.sentence.endswith("unload a model or end other programs of this machine.")

    def test_a_gpu_that_is_too_small_is_named(self) -> None:
        made = plan(snapshot(gpu_budget=100), wish(1, gpu=200))
        assert "more than the 100 MiB of GPU memory that all models together may hold; raise the" in made.sentence
        made = plan(snapshot(claim("a", 1, gpu=60, pinned=True), gpu_budget=500, gpu_free=40), wish(1, gpu=200))
        assert "the GPU has 40 MiB left; nothing can be evicted; kept are a (1.0 MiB): pinned" in made.sentence
        assert made.sentence.endswith("or end other programs that use it.")

    def test_many_models_are_not_all_named(self) -> None:
        made = plan(snapshot(*(claim(f"m{number}", 100, pinned=True) for number in range(9))), wish(500))
        assert "m4 (100 MiB): pinned and 4 more" in made.sentence
        assert len(made.kept) == 9


def test_a_plan_is_json() -> None:
    made = plan(snapshot(claim("a", 900, gpu=3), claim("p", 50, pinned=True), gpu_budget=9), wish(200, gpu=1))
    assert json.loads(json.dumps(made.to_message())) == {
        "decision": "evicts",
        "model_id": "new",
        "needed_bytes": 200 * MIB,
        "needed_gpu_bytes": MIB,
        "measured": False,
        "used_bytes": 950 * MIB,
        "reserved_bytes": 0,
        "headroom_bytes": 0,
        "free_bytes": 50 * MIB,
        "budget_bytes": 1000 * MIB,
        "gpu_used_bytes": 3 * MIB,
        "gpu_free_bytes": 6 * MIB,
        "gpu_budget_bytes": 9 * MIB,
        "evict": [
            {
                "model_id": "a",
                "bytes": 900 * MIB,
                "gpu_bytes": 3 * MIB,
                "reason": "idle 1 h, asked in 2 % of the last hour's minutes",
            }
        ],
        "kept": [{"model_id": "p", "bytes": 50 * MIB, "reason": "pinned"}],
        "wait_seconds": None,
        "sentence": "Loading new needs 200 MiB and 1.0 MiB of GPU memory (estimated); 50 MiB of 1000 MiB are free, "
        "and 6.0 MiB of 9.0 MiB of GPU memory are free; it evicts a (900 MiB and 3.0 MiB of GPU memory).",
    }


class TestRandomFleets:
    @settings(max_examples=600, deadline=None)
    @given(snapshots(), wishes())
    def test_a_plan_keeps_every_rule(self, held: Snapshot, asked: Wish) -> None:
        made, leaving = plan(held, asked), unloading_of(held)
        by_id = {one.model_id: one for one in held.claims}
        assert not victims(made) & {asked.model_id, asked.replaces}
        assert all(may_go(by_id[name], asked) for name in victims(made)), "a victim that the rules protect"
        assert all(victim.bytes or victim.gpu_bytes for victim in made.victims), "an eviction without effect"
        assert not victims(made) & {kept.model_id for kept in made.kept}
        match made.decision:
            case Decision.FITS:
                assert fits_when_gone(held, asked, ())
                assert not made.victims
            case Decision.EVICTS:
                assert not fits_when_gone(held, asked, leaving), "an eviction where waiting was enough"
                assert fits_when_gone(held, asked, leaving | victims(made)), "over the budget"
                for name in victims(made):
                    assert not fits_when_gone(held, asked, leaving | victims(made) - {name}), f"{name} was superfluous"
            case _:
                assert not fits_when_gone(held, asked, ())
                assert not made.victims
        assert json.loads(json.dumps(made.to_message()))["decision"] == made.decision
        assert made.sentence.endswith(".")

    @settings(max_examples=400, deadline=None)
    @given(snapshots(max_models=7), wishes())
    def test_no_other_set_is_cheaper(self, held: Snapshot, asked: Wish) -> None:
        made, leaving = plan(held, asked), unloading_of(held)
        others = [one for one in held.claims if one.model_id not in (asked.model_id, asked.replaces)]
        # Who gives nothing back of a resource now is not counted on for it, even where its claim would be gone.
        candidates = [one for one in others if may_go(one, asked) and (one.frees_bytes or one.frees_gpu_bytes)]
        sets = itertools.chain.from_iterable(itertools.combinations(candidates, n) for n in range(len(candidates) + 1))
        enough = [
            chosen
            for chosen in sets
            if fits_when_gone(counted_for_sure(held, chosen), asked, leaving | {one.model_id for one in chosen})
        ]
        if made.decision == Decision.EVICTS:
            chosen = [one for one in candidates if one.model_id in victims(made)]
            cheapest = min(sum(map(regret_seconds, chosen)) for chosen in enough)
            assert sum(map(regret_seconds, chosen)) == pytest.approx(cheapest)
        elif made.decision in (Decision.WAITS, Decision.REFUSED) and not fits_when_gone(held, asked, leaving):
            assert not enough, "evictions would have made room"

    @settings(max_examples=400, deadline=None)
    @given(snapshots(), wishes())
    def test_a_load_is_refused_only_when_time_cannot_help(self, held: Snapshot, asked: Wish) -> None:
        """With every request ended, every residency over, and every load done that keeps nothing in the end."""
        made = plan(held, asked)
        ended = [one for one in held.claims if one.state != ModelState.LOADED]
        later = Snapshot(
            tuple(
                replace(one, in_flight=0, protected="", resident_seconds=1e9)
                for one in held.claims
                if one.state == ModelState.LOADED
            ),
            held.budget_bytes,
            held.gpu_budget_bytes,
            _plus(held.available_bytes, sum(one.frees_bytes for one in ended)),
            _plus(held.gpu_free_bytes, sum(one.frees_gpu_bytes for one in ended)),
        )
        possible = plan(later, asked).decision in (Decision.FITS, Decision.EVICTS)
        if made.decision == Decision.REFUSED:
            assert not possible
        elif made.decision == Decision.WAITS:
            assert possible, "a wait that nothing ends"

    @settings(max_examples=400, deadline=None)
    @given(snapshots(), wishes())
    def test_more_memory_never_makes_it_worse(self, held: Snapshot, asked: Wish) -> None:
        order = [Decision.FITS, Decision.EVICTS, Decision.WAITS, Decision.REFUSED]
        if plan(held, asked).decision == Decision.FITS:
            more = replace(held, budget_bytes=_plus(held.budget_bytes, MIB), available_bytes=None)
            assert plan(more, asked).decision == Decision.FITS
        worst = plan(replace(held, budget_bytes=0), asked).decision
        assert order.index(plan(held, asked).decision) <= order.index(worst)


def _plus(limit: int | None, more: int) -> int | None:
    return None if limit is None else limit + more


def counted_for_sure(held: Snapshot, chosen: tuple) -> Snapshot:
    """The snapshot in which what these hold only by promise stays counted: their end does not give it for sure."""
    hollow = tuple(
        replace(
            one,
            model_id=f"promise of {one.model_id}",
            bytes=0 if one.frees_bytes else one.bytes,
            gpu_bytes=0 if one.frees_gpu_bytes else one.gpu_bytes,
            frees_bytes=0,
            frees_gpu_bytes=0,
        )
        for one in chosen
    )
    return replace(held, claims=(*held.claims, *hollow))


class TestTheCheapestCover:
    def test_random_problems_against_every_subset(self) -> None:
        for seed in range(150):
            rng = random.Random(seed)
            count = rng.randint(1, 9)
            gives = [[rng.choice([0, rng.randint(1, 50)]) for _ in range(4)] for _ in range(count)]
            costs = [rng.choice([0.1, 1.0, rng.uniform(0.01, 9)]) for _ in range(count)]
            lacking = [rng.choice([0, rng.randint(1, 120)]) for _ in range(4)]
            sets = [[i for i in range(count) if bits >> i & 1] for bits in range(2**count)]
            enough = [s for s in sets if all(sum(gives[i][c] for i in s) >= lacking[c] for c in range(4))]
            found = cheapest_cover(costs, gives, lacking)
            assert (found is None) == (not enough), seed
            if found is not None:
                cheapest = min(sum(costs[i] for i in s) for s in enough)
                assert found in enough, seed
                assert sum(costs[i] for i in found) == pytest.approx(cheapest), seed

    @pytest.mark.parametrize(("count", "above"), [(40, 1.15), (200, 1.05)])
    def test_large_fleets_are_searched_within_a_bound_and_well(self, count: int, above: float) -> None:
        """None superfluous, and near the bound that no set can beat: filling up by price, the last one in part."""
        for seed in range(10):
            rng = random.Random(seed)
            gives = [[rng.randint(10, 400)] for _ in range(count)]
            costs = [rng.uniform(0.01, 5) for _ in range(count)]
            lacking = [sum(give for (give,) in gives) // 3]
            found = cheapest_cover(costs, gives, lacking)
            assert found is not None
            total = sum(gives[i][0] for i in found)
            assert total >= lacking[0]
            assert all(total - gives[i][0] < lacking[0] for i in found)
            bound, left = 0.0, float(lacking[0])
            for i in sorted(range(count), key=lambda i: costs[i] / gives[i][0]):
                part = min(1.0, left / gives[i][0])
                bound, left = bound + part * costs[i], left - part * gives[i][0]
            assert sum(costs[i] for i in found) <= above * bound, seed

    def test_large_fleets_lose_none_that_is_superfluous_in_every_resource(self) -> None:
        for seed in range(15):
            rng = random.Random(seed)
            gives = [[rng.choice([0, rng.randint(1, 400)]) for _ in range(4)] for _ in range(60)]
            costs = [rng.choice([0.01, 1.0, 3.0]) for _ in range(60)]
            lacking = [sum(give[column] for give in gives) // rng.choice([2, 3, 9]) for column in range(4)]
            found = cheapest_cover(costs, gives, lacking)
            assert found is not None
            spare = [sum(gives[i][c] for i in found) - lacking[c] for c in range(4)]
            assert min(spare) >= 0
            assert all(any(gives[i][c] > spare[c] for c in range(4)) for i in found), seed

    def test_no_size_is_searched_without_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Prices close together and two resources: the bound hardly ever turns the search back."""
        visits = 0
        cost_ahead = _Search._cost_ahead

        def counted(search: _Search, at: int, left: tuple[int, ...]) -> float:
            nonlocal visits
            visits += 1
            return cost_ahead(search, at, left)

        monkeypatch.setattr(_Search, "_cost_ahead", counted)
        most = 0
        for count in (9, 16, 100):
            for seed in range(10):
                rng, visits = random.Random(seed), 0
                gives = [[rng.randint(100, 400), rng.randint(100, 400)] for _ in range(count)]
                costs = [give[0] * rng.uniform(0.99, 1.01) for give in gives]
                found = cheapest_cover(costs, gives, [sum(give[c] for give in gives) // 3 for c in range(2)])
                assert found is not None
                assert visits <= MAX_NODES, (count, seed)
                most = max(most, visits)
        assert most == MAX_NODES, "some of these are searched to the bound"

    def test_a_fleet_of_equals_is_not_tried_in_every_order(self) -> None:
        assert cheapest_cover([1.0] * 16, [[10]] * 16, [75]) == list(range(8))


def test_the_use_of_a_young_model_is_told_of_the_minutes_since_its_first_load() -> None:
    held = snapshot(claim("a", 900, usage_share=1 / 3, watched_minutes=3))
    reason = plan(held, wish(200)).victims[0].reason
    assert reason == "idle 1 h, asked in 1 of the 3 minutes since loaderd first loaded it"
    held = snapshot(claim("a", 900, usage_share=0.0, watched_minutes=1))
    assert plan(held, wish(200)).victims[0].reason.endswith("asked in 0 of the 1 minute since loaderd first loaded it")


class TestSuperfluous:
    RULES = {"min_residency_seconds": 30.0, "unused_timeout_seconds": 24 * 3600.0, "low_usage_threshold": 0.1}

    def ids(self, held: Snapshot, pressure_percent: float | None = None) -> list[str]:
        return [victim.model_id for victim in superfluous(held, **self.RULES, pressure_percent=pressure_percent)]

    def test_the_longest_unused_go_first_then_the_little_used(self) -> None:
        held = snapshot(
            claim("seldom", 10, usage_share=0.09, reload_seconds=5),
            claim("rarely", 10, usage_share=0.01),
            claim("unused", 10, idle_seconds=24 * 3600),
            claim("long unused", 10, idle_seconds=72 * 3600),
            claim("used", 10, usage_share=0.1),
        )
        assert self.ids(held) == ["long unused", "unused", "rarely", "seldom"]
        reasons = [victim.reason for victim in superfluous(held, **self.RULES, pressure_percent=None)]
        assert reasons[:2] == ["not asked for 3 days", "not asked for 24 h"]
        assert reasons[2] == "asked in 1 % of the last hour's minutes, idle 1 h"

    def test_what_was_asked_moments_ago_is_in_use(self) -> None:
        assert self.ids(snapshot(claim("a", 10, usage_share=0.01, idle_seconds=599))) == []
        assert self.ids(snapshot(claim("a", 10, usage_share=0.01, idle_seconds=600))) == ["a"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"pinned": True},
            {"in_flight": 1},
            {"resident_seconds": 29.0},
            {"protected": "takes over"},
            {"state": ModelState.LOADING},
            {"state": ModelState.UNLOADING},
        ],
        ids=lambda changes: next(iter(changes)) + "-" + str(next(iter(changes.values()))),
    )
    def test_protected_models_stay_whatever_the_reason(self, changes: dict) -> None:
        one = claim("a", 10, idle_seconds=9e9, usage_share=0)
        assert self.ids(snapshot(one)) == ["a"]
        assert self.ids(snapshot(replace(one, **changes))) == []

    def test_when_nothing_is_superfluous_the_sentence_says_what_keeps_each(self) -> None:
        rules = {"min_residency_seconds": 5.0, "low_usage_threshold": 0.1}
        assert why_nothing(snapshot(), **rules) == "Nothing is superfluous: no model is loaded."
        held = snapshot(
            claim("fixed", 10, pinned=True),
            claim("asked", 10, idle_seconds=45, usage_share=0),
            claim("new", 10, resident_seconds=4, idle_seconds=4),
            claim("loaded", 10, idle_seconds=599, usage_share=0),
            claim("busy", 10, in_flight=1),
            claim("used", 10, usage_share=0.1),
            claim("coming", 10, state=ModelState.LOADING),
        )
        assert self.ids(held) == []
        assert why_nothing(held, **rules) == (
            "Nothing is superfluous; kept are fixed (pinned); "
            "asked and loaded (asked or loaded within the last 10 min); new (loaded less than 5 s ago); "
            "busy (requests in flight); used (asked in 10 % of the minutes or more)."
        )

    def test_by_itself_it_takes_the_little_used_only_while_memory_is_short(self) -> None:
        fleet = [claim(name, 300, usage_share=0, idle_seconds=3600 * hours) for name, hours in (("b", 2), ("a", 3))]
        used = claim("used", 350, usage_share=1, idle_seconds=0)
        assert self.ids(snapshot(*fleet, used), pressure_percent=96) == []
        assert self.ids(snapshot(*fleet, used), pressure_percent=80) == ["a"]
        assert self.ids(snapshot(*fleet, used), pressure_percent=50) == ["a", "b"]
        assert self.ids(snapshot(*fleet, used, budget=None), pressure_percent=1) == []

    def test_a_short_gpu_is_eased_by_models_that_hold_some_of_it(self) -> None:
        held = snapshot(claim("ram", 10), claim("gpu", 10, gpu=90), gpu_budget=100)
        assert self.ids(held, pressure_percent=80) == ["gpu"]

    def test_what_goes_anyway_eases_the_pressure(self) -> None:
        held = snapshot(claim("unused", 500, idle_seconds=9e9), claim("little", 400, usage_share=0))
        assert self.ids(held, pressure_percent=80) == ["unused"]

    @settings(max_examples=400, deadline=None)
    @given(snapshots())
    def test_random_fleets_lose_nobody_who_is_protected(self, held: Snapshot) -> None:
        by_id = {one.model_id: one for one in held.claims}
        for pressure in (None, 80.0):
            found = superfluous(held, **self.RULES, pressure_percent=pressure)
            assert len({victim.model_id for victim in found}) == len(found)
            for victim in found:
                assert may_go(by_id[victim.model_id], Wish("x", 1, priority=100))
                assert victim.bytes == by_id[victim.model_id].frees_bytes
