"""An hour in the life of a machine, simulated: requests, loads on demand, evictions, keep-alive, optimisations.

The supervisor here is a small one that uses `decide` and `superfluous` as the real one does. The models take memory
over time, more during a load than after it, and give it back when they are gone; what the "kernel" measures is
looked at in every step.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loaderd.scheduler import Claim, Decision, Snapshot, Wish, decide, superfluous
from loaderd.states import ModelState
from tests.loaderd.fleets import MIB

MIN_RESIDENCY_SECONDS = 30.0
LOAD_WAIT_SECONDS = 60.0
OPTIMIZATION_INTERVAL_SECONDS = 600.0
MAX_CONCURRENT_LOADS = 2
OTHER_PROGRAMS_BYTES = 100 * MIB


@dataclass
class Model:
    """What is true of a model (the scheduler does not see it), and what the supervisor knows."""

    model_id: str
    peak: int
    resident: int
    estimate: int
    load_seconds: float
    busy_share: float = 0.0
    pinned: bool = False
    priority: int = 50
    autoload: bool = True
    keep_alive_seconds: float | None = None

    state: ModelState = ModelState.UNLOADED
    since: float = 0.0
    measured: bool = False
    reserved: int = 0
    holds: int = 0
    ends_at: float = 0.0
    in_flight: list[float] = field(default_factory=list)
    asked_at: float = -1e6
    minutes: deque[int] = field(default_factory=lambda: deque(maxlen=60))

    @property
    def expected_peak(self) -> int:
        return self.peak if self.measured else self.estimate


class Machine:
    """The models of one machine and its supervisor, with a clock of its own."""

    def __init__(self, models: list[Model], budget: int, seed: int = 0) -> None:
        self.now = 0.0
        self.models = {model.model_id: model for model in models}
        self.budget = budget
        self.memory = budget + OTHER_PROGRAMS_BYTES
        self.rng = random.Random(seed)
        self.queue: list[tuple[int, float, Wish]] = []
        self.told: Counter[str] = Counter()
        self.settled_budget = True
        self.room_promised_to = ""
        self.optimized_at = 0.0

    # What the supervisor sees.

    def claims(self) -> list[Claim]:
        return [
            self.claim(model)
            for model in self.models.values()
            if model.state in (ModelState.LOADING, ModelState.LOADED, ModelState.UNLOADING)
        ]

    def counted(self, model: Model) -> int:
        if model.state == ModelState.LOADING:
            return model.reserved
        return max(model.holds, model.resident) if model.state == ModelState.LOADED else model.holds

    def claim(self, model: Model) -> Claim:
        return Claim(
            model.model_id,
            model.state,
            self.counted(model),
            frees_bytes=model.holds,
            pinned=model.pinned,
            priority=model.priority,
            in_flight=len(model.in_flight),
            idle_seconds=self.now - max(model.asked_at, model.since),
            resident_seconds=self.now - model.since,
            usage_share=sum(minute > self.now / 60 - 60 for minute in model.minutes) / 60,
            reload_seconds=model.load_seconds,
        )

    def snapshot(self) -> Snapshot:
        return Snapshot(self.claims(), self.budget, available_bytes=self.memory - OTHER_PROGRAMS_BYTES - self.held())

    def held(self) -> int:
        return sum(model.holds for model in self.models.values())

    # What people and programs do.

    def ask(self, model_id: str) -> None:
        """A prediction: answered, waiting for a load, or refused with a reason."""
        model = self.models[model_id]
        model.asked_at = self.now
        minute = int(self.now / 60)
        if not model.minutes or model.minutes[-1] != minute:
            model.minutes.append(minute)
        if model.state == ModelState.LOADED:
            model.in_flight.append(self.now + self.rng.uniform(0.01, 4.0))
            self.told["answered"] += 1
        elif model.autoload:
            self.told["waits for a load"] += 1
            self.request_load(model_id)
        else:
            self.told["refused: not loaded"] += 1

    def request_load(self, model_id: str) -> None:
        model = self.models[model_id]
        waiting = any(wish.model_id == model_id for _, _, wish in self.queue)
        if waiting or model.state in (ModelState.LOADING, ModelState.LOADED):
            return
        wish = Wish(model_id, model.expected_peak, priority=model.priority, measured=model.measured)
        self.queue.append((-model.priority, self.now, wish))
        self.queue.sort(key=lambda entry: entry[:2])

    def unload(self, model: Model) -> None:
        assert model.state == ModelState.LOADED
        model.state = ModelState.UNLOADING
        model.ends_at = max([self.now + self.rng.uniform(0.1, 3.0), *model.in_flight])

    # What the supervisor does.

    def step(self, seconds: float = 1.0) -> None:
        self.now += seconds
        for model in self.models.values():
            self.live(model)
        for entry in [entry for entry in self.queue if self.now - entry[1] > LOAD_WAIT_SECONDS]:
            self.queue.remove(entry)
            self.told["gave up waiting"] += 1
        if self.now - self.optimized_at >= OPTIMIZATION_INTERVAL_SECONDS:
            self.optimize(pressure_percent=85.0)
        for model in self.models.values():
            idle = self.now - max(model.asked_at, model.since)
            kept = model.keep_alive_seconds is None or idle < model.keep_alive_seconds or model.in_flight
            if model.state == ModelState.LOADED and not kept and not model.pinned:
                self.unload(model)
        while self.admit():
            pass

    def live(self, model: Model) -> None:
        """Lets its processes take and give back memory, and its requests end."""
        model.in_flight = [end for end in model.in_flight if end > self.now]
        if model.state == ModelState.LOADING:
            done = min(1.0, (self.now - model.since) / model.load_seconds)
            model.holds = int(model.peak * done)
            if self.now >= model.ends_at:
                model.state, model.since, model.measured, model.holds = (
                    ModelState.LOADED,
                    self.now,
                    True,
                    model.resident,
                )
        elif model.state == ModelState.LOADED:
            model.holds = int(model.resident * self.rng.uniform(0.85, 1.0))
        elif model.state == ModelState.UNLOADING and self.now >= model.ends_at:
            model.state, model.holds, model.in_flight = ModelState.UNLOADED, 0, []

    def optimize(self, pressure_percent: float | None) -> None:
        self.optimized_at = self.now
        for victim in superfluous(
            self.snapshot(),
            min_residency_seconds=MIN_RESIDENCY_SECONDS,
            unused_timeout_seconds=1800.0,
            low_usage_threshold=0.1,
            pressure_percent=pressure_percent,
        ):
            self.assert_may_go(self.models[victim.model_id], priority=100)
            self.told["optimised away"] += 1
            self.unload(self.models[victim.model_id])

    def admit(self) -> bool:
        """The first of the queue: begins its load, makes room for it, or waits. Whether to look again at once."""
        loading = sum(model.state == ModelState.LOADING for model in self.models.values())
        if not self.queue or loading >= MAX_CONCURRENT_LOADS:
            return False
        wish = self.queue[0][2]
        model = self.models[wish.model_id]
        if model.state != ModelState.UNLOADED:  # it is still being unloaded; then it is loaded again
            return False
        plan = decide(self.snapshot(), wish, min_residency_seconds=MIN_RESIDENCY_SECONDS)
        self.told[plan.decision] += 1
        if self.room_promised_to == wish.model_id:
            assert plan.decision in (Decision.FITS, Decision.WAITS), "evicted for, and then no room"
        match plan.decision:
            case Decision.FITS:
                model.state, model.since = ModelState.LOADING, self.now
                model.reserved, model.ends_at = wish.bytes, self.now + model.load_seconds
                self.room_promised_to = ""
                self.queue.pop(0)
                return True
            case Decision.EVICTS:
                assert plan.victims
                for victim in plan.victims:
                    evicted = self.models[victim.model_id]
                    self.assert_may_go(evicted, wish.priority)
                    assert victim.bytes == evicted.holds > 0, "an eviction without effect"
                    self.told["evicted"] += 1
                    self.unload(evicted)
                self.room_promised_to = wish.model_id
                return False
            case Decision.WAITS:
                assert plan.wait_seconds is None or 0 < plan.wait_seconds <= MIN_RESIDENCY_SECONDS
                return False
            case _:
                assert model.expected_peak > self.free_at_best(wish.priority)
                self.queue.pop(0)
                return True

    def free_at_best(self, priority: int) -> int:
        """What is left when everything that may ever be evicted for this priority is gone."""
        loaded = [model for model in self.models.values() if model.state == ModelState.LOADED]
        return self.budget - sum(self.counted(m) for m in loaded if m.pinned or m.priority > priority)

    # What must hold.

    def assert_may_go(self, model: Model, priority: int) -> None:
        assert model.state == ModelState.LOADED
        assert not model.pinned
        assert not model.in_flight
        assert self.now - model.since >= MIN_RESIDENCY_SECONDS
        assert model.priority <= priority

    def assert_sound(self) -> None:
        counted, held = sum(map(self.counted, self.models.values())), self.held()
        assert held <= counted, "a model holds more than it counts for"
        if self.settled_budget:
            assert counted <= self.budget, "over the budget"
            assert held <= self.budget, "over the budget, as measured"
        else:  # it was lowered: nothing may begin until the sum is back under it
            self.settled_budget = counted <= self.budget
        promised = sum(m.reserved - m.holds for m in self.models.values() if m.state == ModelState.LOADING)
        assert promised + held + OTHER_PROGRAMS_BYTES <= self.memory, "more promised than the machine has"


def make_models(rng: random.Random, count: int) -> list[Model]:
    made = []
    for number in range(count):
        resident = rng.randint(10, 220) * MIB
        peak = int(resident * rng.uniform(1.0, 1.8))
        made.append(
            Model(
                f"m{number}",
                peak,
                resident,
                estimate=int(peak * rng.uniform(1.0, 3.0)),
                load_seconds=rng.choice([0.2, 1.0, 4.0, 15.0]),
                busy_share=rng.choice([0.002, 0.01, 0.05, 0.5]),
                pinned=rng.random() < 0.1,
                priority=rng.choice([20, 50, 50, 50, 80]),
                autoload=rng.random() < 0.9,
                keep_alive_seconds=rng.choice([None, None, 120.0]),
            )
        )
    return made


PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]  # to explain a failure takes tracing: minutes


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(st.integers(0, 2**32))
def test_an_hour_of_twelve_models_over_600_mib(seed: int) -> None:
    rng = random.Random(seed)
    machine = Machine(make_models(rng, 12), 600 * MIB, seed)
    asked = 0
    for _ in range(3600):
        for model in machine.models.values():
            if rng.random() < model.busy_share:
                asked += 1
                machine.ask(model.model_id)
        machine.step()
        machine.assert_sound()
    told = machine.told
    assert told["answered"] + told["waits for a load"] + told["refused: not loaded"] == asked
    for _ in range(int(LOAD_WAIT_SECONDS) + 30):  # nobody asks any more: every wish comes to its end
        machine.step()
        machine.assert_sound()
    assert not machine.queue
    assert all(model.state != ModelState.LOADING for model in machine.models.values())


def test_an_hour_has_something_of_everything() -> None:
    """One that is known: what the random hours prove would be little if nothing happened in them."""
    rng = random.Random(3)
    machine = Machine(make_models(rng, 12), 600 * MIB, seed=3)
    for _ in range(3600):
        for model in machine.models.values():
            if rng.random() < model.busy_share:
                machine.ask(model.model_id)
        machine.step()
    told = machine.told
    assert all(told[decision] > 0 for decision in (Decision.FITS, Decision.EVICTS, Decision.WAITS)), told
    assert min(told["answered"], told["evicted"]) > 20, told


class LivingFleet(RuleBasedStateMachine):
    """The same machine with people at it: whatever they do, and in whatever order, it stays within its means."""

    @initialize(seed=st.integers(0, 2**32), budget=st.integers(200, 900))
    def start(self, seed: int, budget: int) -> None:
        self.machine = Machine(make_models(random.Random(seed), 8), budget * MIB, seed)

    MODELS = st.integers(0, 7).map(lambda number: f"m{number}")

    @rule(model_id=MODELS, times=st.integers(1, 3))
    def ask(self, model_id: str, times: int) -> None:
        for _ in range(times):
            self.machine.ask(model_id)
        self.machine.step(0.1)

    @rule(model_id=MODELS)
    def load(self, model_id: str) -> None:
        self.machine.request_load(model_id)
        self.machine.step(0.1)

    @rule(model_id=MODELS)
    def unload(self, model_id: str) -> None:
        model = self.machine.models[model_id]
        if model.state == ModelState.LOADED:
            self.machine.unload(model)
        self.machine.step(0.1)

    @rule(model_id=MODELS, pinned=st.booleans(), priority=st.sampled_from([0, 50, 100]))
    def decide_policy(self, model_id: str, pinned: bool, priority: int) -> None:
        self.machine.room_promised_to = ""  # who was evictable may be no more
        self.machine.models[model_id].pinned = pinned
        self.machine.models[model_id].priority = priority

    @precondition(lambda self: self.machine.settled_budget)
    @rule(share=st.floats(0.5, 1.5))
    def change_budget(self, share: float) -> None:
        self.machine.room_promised_to = ""
        self.machine.budget = min(int(self.machine.budget * share), self.machine.memory - OTHER_PROGRAMS_BYTES)
        self.machine.settled_budget = False

    @rule()
    def optimize(self) -> None:
        self.machine.optimize(None)

    @rule(steps=st.integers(1, 12), seconds=st.sampled_from([0.2, 3.0, 50.0]))
    def live_on(self, steps: int, seconds: float) -> None:
        for _ in range(steps):
            self.machine.step(seconds)
            self.machine.assert_sound()

    @invariant()
    def is_sound(self) -> None:
        if hasattr(self, "machine"):
            self.machine.assert_sound()


def test_people_at_a_fleet() -> None:
    short = settings(max_examples=80, stateful_step_count=30, deadline=None, phases=PHASES)
    run_state_machine_as_test(LivingFleet, settings=short)
