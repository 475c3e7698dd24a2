"""`live` moves from version to version without a failed request; what fails on the way leaves everything as it was."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loaderd.errors import ActivationFailed, InsufficientMemory, LoaderdError, LoadFailed
from loaderd.protocol import ModelSpec
from loaderd.reporter import AliasMoved, Report
from loaderd.rules import LineageTraffic, Rules
from loaderd.states import LoadPhase, ModelState
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.lineages import Lineages
from tests.loaderd.supervisor.conftest import RunningDaemon
from tests.traffic import Traffic, text_request

GIB = 1 << 30


def spec(version: str, lineage: str = "spam") -> ModelSpec:
    return ModelSpec(f"{lineage}-v{version}", lineage, version, "toy", "toy", "/store", "d" * 64)


@dataclass
class Model:
    """As much of a ManagedModel as lineages look at."""

    model_id: str
    state: ModelState = ModelState.UNLOADED
    reason: str = ""
    spec: ModelSpec | None = None


class House:
    """Loads and unloads in memory, and writes down in order what it was asked for and what was told.

    on_load, on_publish: called before the thing happens; they may raise, wait, or change a model.
    """

    def __init__(self, *loaded: ModelSpec, live: str | None = None) -> None:
        self.config = DaemonConfig(Path("/r"), Path("/l"), Path("/c"), Path("/g"), predict_timeout_seconds=7.0)
        self.rules = Rules()
        self.models: dict[str, Model] = {}
        self.events: list[tuple[Any, ...]] = []
        self.moves: list[AliasMoved] = []
        self.on_load: Callable[[str, dict[str, Any]], Coroutine[Any, Any, None]] = _nothing
        self.on_publish: Callable[[], Coroutine[Any, Any, None]] = _nothing
        for one in loaded:
            self.models[one.model_id] = Model(one.model_id, ModelState.LOADED, spec=one)
        self.stopping = asyncio.Event()
        self.no_room: InsufficientMemory | None = None  # also once the live version is gone
        self.kept: list[str] = []  # whose place is kept now
        self.lineages = Lineages(self)  # type: ignore[arg-type]
        self.lineages.follow({} if live is None else {"spam": LineageTraffic({"live": live, "stable": "spam-v0"})})

    def model(self, model_id: str) -> Model:
        return self.models.setdefault(model_id, Model(model_id))

    async def load(self, spec: ModelSpec, operation_id: str | None, reason: str, **how: Any) -> dict[str, Any]:
        self.events.append(("load", spec.model_id, how))
        model = self.model(spec.model_id)
        model.spec = spec
        if model.state is not ModelState.LOADED:
            await self.on_load(spec.model_id, how)
            model.state = ModelState.LOADED
        return {"model_id": spec.model_id, "status": "loaded", "load_seconds": 1.5}

    async def unload(
        self,
        model_id: str,
        operation_id: str | None,
        reason: str,
        *,
        ends_wish: bool,
        cause: str,
        drain_seconds: float | None = None,
    ) -> dict[str, Any]:
        self.events.append(("unload", model_id, ends_wish, cause, drain_seconds))
        model = self.model(model_id)
        was_loaded, model.state = model.state is ModelState.LOADED, ModelState.UNLOADED
        return {"model_id": model_id, "freed_bytes": 100} if was_loaded else {"model_id": model_id}

    async def require_room_instead_of(self, live: str, spec: ModelSpec) -> None:
        self.events.append(("room asked", live, spec.model_id))
        if self.no_room is not None:
            raise self.no_room

    @contextmanager
    def place_kept(self, spec: ModelSpec) -> Iterator[None]:
        self.kept.append(spec.model_id)
        try:
            yield
        finally:
            self.kept.remove(spec.model_id)

    def progress(self, operation_id: str | None, model_id: str, phase: LoadPhase, share: float) -> None:
        self.events.append(("progress", phase, share))

    async def publish_routes(self) -> None:
        await self.on_publish()
        self.events.append(("published", self.lineages.live_of("spam")))

    def report(self, report: Report) -> None:
        assert isinstance(report, AliasMoved)
        self.events.append(("moved", report.model_id))
        self.moves.append(report)

    async def activate(self, version: str, *, kind: Any = "activate", allow_gap: bool = False) -> dict[str, Any]:
        return await self.lineages.activate(
            spec(version), "op", user="ada", kind=kind, reason="better", allow_gap=allow_gap
        )

    def told(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] in kinds]

    @property
    def loaded(self) -> set[str]:
        return {model_id for model_id, model in self.models.items() if model.state is ModelState.LOADED}


async def _nothing(*_: Any) -> None:
    pass


def raising(error: Exception, when: Callable[[str, dict[str, Any]], bool] = lambda *_: True) -> Any:
    async def on_load(model_id: str, how: dict[str, Any]) -> None:
        if when(model_id, how):
            raise error

    return on_load


TOO_SMALL = InsufficientMemory("spam-v2 needs 2 GiB and 1 GiB is free.", needed_bytes=2 * GIB)


class TestActivation:
    def test_the_new_version_is_loaded_beside_the_old_which_goes_when_the_door_has_moved(self) -> None:
        house = House(spec("1"), live="spam-v1")
        result = asyncio.run(house.activate("2"))
        assert result == {
            "model_id": "spam-v2",
            "status": "live",
            "previous": "spam-v1",
            "load_seconds": 1.5,
            "freed_bytes": 100,
            "gap_seconds": None,
        }
        assert house.events == [
            ("load", "spam-v2", {"protected": frozenset({"spam-v1"})}),
            ("progress", LoadPhase.SWITCHING, 0.0),
            ("published", "spam-v2"),
            ("moved", "spam-v2"),
            ("progress", LoadPhase.SWITCHING, 0.5),
            ("unload", "spam-v1", True, "replaced", 7.0),
        ]
        (move,) = house.moves
        assert (move.lineage, move.alias, move.previous, move.kind) == ("spam", "live", "spam-v1", "activate")
        assert (move.user, move.reason, move.operation_id, move.left_by_rollback) == ("ada", "better", "op", None)
        assert house.lineages.table()["spam"]["aliases"] == {"live": "spam-v2", "stable": "spam-v0"}

    def test_a_rollback_names_the_version_that_it_leaves(self) -> None:
        house = House(spec("2"), live="spam-v2")
        asyncio.run(house.activate("1", kind="rollback"))
        assert (house.moves[0].kind, house.moves[0].left_by_rollback) == ("rollback", "spam-v2")

    def test_the_first_version_of_a_lineage_needs_nothing_to_go(self) -> None:
        house = House()
        assert asyncio.run(house.activate("1"))["previous"] is None
        assert house.lineages.live_of("spam") == "spam-v1"
        assert house.told("load", "unload") == [("load", "spam-v1", {})]

    def test_a_live_version_that_is_not_loaded_is_replaced_and_its_wish_ends(self) -> None:
        house = House(live="spam-v1")
        house.model("spam-v1").state = ModelState.ERROR
        result = asyncio.run(house.activate("2"))
        assert (result["previous"], result["freed_bytes"]) == ("spam-v1", None)
        assert house.told("load", "unload") == [
            ("load", "spam-v2", {}),
            ("unload", "spam-v1", True, "replaced", 7.0),
        ]

    def test_what_is_live_and_loaded_is_confirmed_at_once(self) -> None:
        house = House(spec("1"), live="spam-v1")
        result = asyncio.run(house.activate("1"))
        assert (result["status"], result["previous"], result["load_seconds"]) == ("live", None, 0.0)
        assert (house.moves, house.lineages.moves) == ([], 0)

    def test_what_is_live_and_not_loaded_is_loaded(self) -> None:
        house = House(live="spam-v1")
        assert asyncio.run(house.activate("1"))["load_seconds"] == 1.5
        assert (house.loaded, house.moves) == ({"spam-v1"}, [])

    @pytest.mark.parametrize(
        ("percent", "shadow", "stays"), [(10.0, False, True), (0.0, True, True), (0.0, False, False)]
    )
    def test_an_old_version_that_answers_as_the_candidate_stays(
        self, percent: float, shadow: bool, stays: bool
    ) -> None:
        house = House(spec("1"))
        aliases = {"live": "spam-v1", "candidate": "spam-v1"}
        house.lineages.follow({"spam": LineageTraffic(aliases, percent, shadow)})
        asyncio.run(house.activate("2"))
        assert ("spam-v1" in house.loaded) is stays

    def test_activations_of_one_lineage_run_one_after_the_other(self) -> None:
        house = House(spec("1"), live="spam-v1")
        under_way = 0

        async def on_load(model_id: str, how: dict[str, Any]) -> None:
            nonlocal under_way
            under_way += 1
            await asyncio.sleep(0)
            assert under_way == 1
            under_way -= 1

        house.on_load = on_load

        async def both() -> list[dict[str, Any]]:
            return await asyncio.gather(house.activate("2"), house.activate("3"))

        second, third = asyncio.run(both())
        assert (second["previous"], third["previous"]) == ("spam-v1", "spam-v2")
        assert house.loaded == {"spam-v3"}

    def test_who_takes_part_is_known_when_its_turn_has_come(self) -> None:
        house = House(spec("1"), live="spam-v1")
        parts: list[list[bool]] = []

        async def on_load(model_id: str, how: dict[str, Any]) -> None:
            parts.append([house.lineages.takes_part("spam", f"spam-v{n}") for n in (1, 2, 3)])

        async def both() -> None:
            await asyncio.gather(house.activate("2"), house.activate("3"))

        house.on_load = on_load
        asyncio.run(both())
        assert parts == [[True, False, False], [False, True, False]]

    def test_a_move_is_counted_so_that_an_older_table_is_known_as_such(self) -> None:
        house = House(spec("1"), live="spam-v1")
        asyncio.run(house.activate("2"))
        assert house.lineages.moves == 1


class TestFailure:
    @pytest.mark.parametrize(
        ("found", "left"), [(ModelState.UNLOADED, ModelState.UNLOADED), (ModelState.ERROR, ModelState.ERROR)]
    )
    def test_the_new_version_is_left_as_it_was_found(self, found: ModelState, left: ModelState) -> None:
        house = House(spec("1"), live="spam-v1")
        house.model("spam-v2").state = found

        async def on_load(model_id: str, how: dict[str, Any]) -> None:
            house.model(model_id).state = ModelState.ERROR
            raise LoadFailed("spam-v2 answers its canary wrongly.")

        house.on_load = on_load
        with pytest.raises(LoadFailed):
            asyncio.run(house.activate("2"))
        assert house.model("spam-v2").state is left

    @pytest.mark.parametrize("error", [LoadFailed("spam-v2 could not be loaded.", log_tail="…"), TOO_SMALL])
    def test_a_failed_load_leaves_the_old_version_live(self, error: LoaderdError) -> None:
        house = House(spec("1"), live="spam-v1")
        house.on_load = raising(error)
        with pytest.raises(type(error), match=r"spam-v1 stays live\.$") as raised:
            asyncio.run(house.activate("2"))
        assert raised.value.facts["live"] == "spam-v1"
        assert raised.value.facts.items() >= error.facts.items()
        assert (house.loaded, house.moves, house.told("unload", "published")) == ({"spam-v1"}, [], [])
        assert house.lineages.live_of("spam") == "spam-v1"

    def test_two_that_do_not_fit_are_offered_a_gap(self) -> None:
        house = House(spec("1"), live="spam-v1")
        house.on_load = raising(TOO_SMALL)
        with pytest.raises(InsufficientMemory, match="With allow_gap spam-v1 is unloaded first") as raised:
            asyncio.run(house.activate("2"))
        assert raised.value.facts["offers_gap"] is True

    def test_a_new_version_that_dies_before_it_takes_over_is_not_made_live(self) -> None:
        house = House(spec("1"), live="spam-v1")

        async def dies() -> None:
            house.model("spam-v2").state = ModelState.ERROR

        house.on_publish = dies
        with pytest.raises(ActivationFailed, match="spam-v2 was loaded and is error .* spam-v1 stays live"):
            asyncio.run(house.activate("2"))
        assert house.told("published")[-1] == ("published", "spam-v1")
        assert house.told("unload") == [("unload", "spam-v2", False, "", 7.0)]
        assert (house.loaded, house.moves) == ({"spam-v1"}, [])

    def test_what_was_loaded_before_the_activation_stays_loaded_after_its_failure(self) -> None:
        house = House(spec("1"), spec("2"), live="spam-v1")

        async def fails() -> None:
            if house.lineages.live_of("spam") == "spam-v2":
                raise RuntimeError("the link to the gateway broke")

        house.on_publish = fails
        with pytest.raises(RuntimeError):
            asyncio.run(house.activate("2"))
        assert house.lineages.live_of("spam") == "spam-v1"
        assert (house.loaded, house.told("unload")) == ({"spam-v1", "spam-v2"}, [])

    def test_an_old_version_that_cannot_be_unloaded_does_not_undo_the_move(self) -> None:
        house = House(spec("1"), live="spam-v1")

        async def fails(*_: Any, **__: Any) -> dict[str, Any]:
            raise LoaderdError("no")

        house.unload = fails  # type: ignore[method-assign]
        assert asyncio.run(house.activate("2"))["status"] == "live"
        assert house.lineages.live_of("spam") == "spam-v2"


@dataclass
class Held:
    """A step at which an activation stops until it is let go."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, *_: Any) -> None:
        self.reached.set()
        await self.let_go.wait()


class TestCancellation:
    def test_before_the_move_everything_is_as_it_was(self) -> None:
        async def cancel() -> House:
            house = House(spec("1"), live="spam-v1")
            house.on_load = held = Held()
            activation = asyncio.create_task(house.activate("2"))
            await held.reached.wait()
            activation.cancel()
            with pytest.raises(asyncio.CancelledError):
                await activation
            return house

        house = asyncio.run(cancel())
        assert (house.loaded, house.moves) == ({"spam-v1"}, [])

    def test_while_the_door_moves_it_is_moved_back_and_the_new_one_goes(self) -> None:
        async def cancel() -> House:
            house = House(spec("1"), live="spam-v1")
            house.on_publish = held = Held()
            activation = asyncio.create_task(house.activate("2"))
            await held.reached.wait()
            activation.cancel()
            held.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await activation
            return house

        house = asyncio.run(cancel())
        assert house.told("published")[-1] == ("published", "spam-v1")
        assert (house.loaded, house.moves) == ({"spam-v1"}, [])

    def test_after_the_move_it_is_finished(self) -> None:
        async def cancel() -> tuple[House, dict[str, Any]]:
            house = House(spec("1"), live="spam-v1")
            held, unload = Held(), house.unload

            async def slowly(*what: Any, **how: Any) -> dict[str, Any]:
                await held()
                return await unload(*what, **how)

            house.unload = slowly  # type: ignore[method-assign]
            activation = asyncio.create_task(house.activate("2"))
            await held.reached.wait()
            activation.cancel()
            await asyncio.sleep(0)
            held.let_go.set()
            return house, await activation

        house, result = asyncio.run(cancel())
        assert (result["status"], house.loaded) == ("live", {"spam-v2"})


class TestGap:
    def beside(self, model_id: str, how: dict[str, Any]) -> bool:
        return model_id == "spam-v2" and "protected" in how

    def test_it_is_not_made_when_both_fit(self) -> None:
        house = House(spec("1"), live="spam-v1")
        result = asyncio.run(house.activate("2", allow_gap=True))
        assert (result["gap_seconds"], house.told("load")[0][2]) == (None, {"protected": frozenset({"spam-v1"})})

    def test_the_old_version_goes_first_and_keeps_its_wish_until_the_new_one_is_live(self) -> None:
        house = House(spec("1"), live="spam-v1")
        house.on_load = raising(TOO_SMALL, self.beside)
        result = asyncio.run(house.activate("2", allow_gap=True))
        assert result["gap_seconds"] >= 0
        assert result["freed_bytes"] == 100
        assert house.told("load", "unload", "moved")[1:] == [
            ("unload", "spam-v1", False, "", 7.0),
            ("load", "spam-v2", {}),
            ("moved", "spam-v2"),
            ("unload", "spam-v1", True, "replaced", 7.0),
        ]

    def test_it_is_not_made_when_the_new_version_would_not_fit_then_either(self) -> None:
        house = House(spec("1"), live="spam-v1")
        house.on_load = raising(TOO_SMALL, self.beside)
        house.no_room = InsufficientMemory("spam-v2 needs 9 GiB once spam-v1 is unloaded.", needed_bytes=9 * GIB)
        with pytest.raises(InsufficientMemory, match=r"once spam-v1 is unloaded\. spam-v1 stays live\.$") as raised:
            asyncio.run(house.activate("2", allow_gap=True))
        assert (raised.value.facts["needed_bytes"], raised.value.facts["live"]) == (9 * GIB, "spam-v1")
        assert house.told("room asked", "unload") == [("room asked", "spam-v1", "spam-v2")]
        assert (house.loaded, house.moves, house.lineages.table()["spam"]["in_gap"]) == ({"spam-v1"}, [], False)

    def test_the_old_version_is_loaded_again_when_the_new_one_fails(self) -> None:
        house = House(spec("1"), live="spam-v1")

        async def on_load(model_id: str, how: dict[str, Any]) -> None:
            if model_id == "spam-v2":
                raise LoadFailed("spam-v2 is broken.") if "protected" not in how else TOO_SMALL

        house.on_load = on_load
        with pytest.raises(LoadFailed, match=r"spam-v2 is broken\. spam-v1 stays live\."):
            asyncio.run(house.activate("2", allow_gap=True))
        assert (house.loaded, house.moves, house.lineages.live_of("spam")) == ({"spam-v1"}, [], "spam-v1")

    def test_a_cancelled_gap_ends_with_the_old_version_loaded(self) -> None:
        async def cancel() -> House:
            house = House(spec("1"), live="spam-v1")
            held = Held()

            async def on_load(model_id: str, how: dict[str, Any]) -> None:
                if model_id == "spam-v2" and "protected" in how:
                    raise TOO_SMALL
                if model_id == "spam-v2":
                    await held()

            house.on_load = on_load
            activation = asyncio.create_task(house.activate("2", allow_gap=True))
            await held.reached.wait()
            assert house.loaded == set()
            assert house.lineages.table()["spam"]["in_gap"] is True
            activation.cancel()
            with pytest.raises(asyncio.CancelledError):
                await activation
            assert house.lineages.table()["spam"]["in_gap"] is False
            return house

        assert asyncio.run(cancel()).loaded == {"spam-v1"}

    def test_the_room_that_it_makes_is_kept_for_whoever_is_loaded_next(self) -> None:
        house = House(spec("1"), live="spam-v1")
        kept: list[tuple[str, list[str]]] = []

        async def on_load(model_id: str, how: dict[str, Any]) -> None:
            kept.append((model_id, list(house.kept)))
            if model_id == "spam-v2":
                raise LoadFailed("spam-v2 is broken.") if "protected" not in how else TOO_SMALL

        house.on_load = on_load
        with pytest.raises(LoadFailed):
            asyncio.run(house.activate("2", allow_gap=True))
        assert kept == [("spam-v2", []), ("spam-v2", ["spam-v2"]), ("spam-v1", ["spam-v1"])]
        assert house.kept == []

    @pytest.mark.parametrize("stopped_during", ["spam-v2", "spam-v1"])
    def test_a_stop_does_not_wait_for_the_old_version_to_come_back(self, stopped_during: str) -> None:
        async def stop() -> House:
            house = House(spec("1"), live="spam-v1")
            held = Held()

            async def on_load(model_id: str, how: dict[str, Any]) -> None:
                if "protected" in how:
                    raise TOO_SMALL
                if model_id == stopped_during:
                    await held()
                raise LoadFailed("spam-v2 is broken.")

            house.on_load = on_load
            activation = asyncio.create_task(house.activate("2", allow_gap=True))
            await held.reached.wait()
            house.stopping.set()
            activation.cancel()
            with pytest.raises(asyncio.CancelledError):
                await activation
            return house

        house = asyncio.run(stop())
        loads = [model_id for _, model_id, _ in house.told("load")]
        assert loads == ["spam-v2", "spam-v2", *(["spam-v1"] if stopped_during == "spam-v1" else [])]
        assert house.told("unload") == [("unload", "spam-v1", False, "", 7.0)]
        assert (house.loaded, house.kept) == (set(), [])

    def test_it_says_so_when_neither_can_be_loaded(self) -> None:
        house = House(spec("1"), live="spam-v1")

        async def on_load(model_id: str, how: dict[str, Any]) -> None:
            if model_id == "spam-v1":
                raise LoadFailed("its file is gone.")
            raise LoadFailed("it is broken.") if "protected" not in how else TOO_SMALL

        house.on_load = on_load
        with pytest.raises(ActivationFailed) as raised:
            asyncio.run(house.activate("2", allow_gap=True))
        assert raised.value.message == (
            "spam-v2 could not take over (it is broken.), and spam-v1, which was unloaded for it, could not be loaded "
            "again: its file is gone."
        )
        assert raised.value.facts["cause"]["code"] == "load_failed"


SWITCHES = 50


class TestUnderLoad:
    """Real processes behind a real door."""

    def activate(self, daemon: RunningDaemon, spec: ModelSpec, *, allow_gap: bool = False) -> dict[str, Any]:
        operation_id = str(uuid.uuid4())
        daemon.client.activate(spec, operation_id, "ada", "activate", "", allow_gap)
        return daemon.end_of(operation_id)

    def traffic(self, daemon: RunningDaemon, **bodies: str) -> Traffic:
        """Asks the lineage and, where there is such a body, its alias `live`."""
        inference = daemon.client.ping()["inference"]
        address, headers = f"127.0.0.1:{inference['port']}", {"Authorization": "Token everything"}
        paths = {"name": "toy", "alias": "toy/versions/live"}
        targets = {paths[key]: text_request(text) for key, text in bodies.items()}
        return Traffic(address, headers, targets, per_second=100.0, clients=4)

    def test_fifty_switches_fail_no_request(self, serving: RunningDaemon, toy: Callable[..., ModelSpec]) -> None:
        versions = [toy("toy-v1"), toy("toy-v2", version="2")]
        assert self.activate(serving, versions[0])["error"] is None
        several_frames = "x" * 700_000
        with self.traffic(serving, name="slow 0.002", alias=several_frames) as traffic:
            serving.wait(lambda: len(traffic.of("toy")) > 20)
            for turn in range(1, SWITCHES + 1):
                end = self.activate(serving, versions[turn % 2])
                assert end["error"] is None, end
                assert end["result"]["previous"] == versions[(turn + 1) % 2].model_id
        assert [answer for answer in traffic.answers if not answer.is_good] == []
        counted = traffic.counted()
        assert counted["toy"][200] > 2 * SWITCHES
        assert counted["toy/versions/live"][200] > SWITCHES
        moves = [report["model_id"] for report in serving.of_kind("AliasMoved")]
        assert moves == [versions[turn % 2].model_id for turn in range(SWITCHES + 1)]
        assert {serving.model(model_id)["state"] for model_id in ("toy-v1", "toy-v2")} == {"loaded", "unloaded"}

    def test_in_a_stated_gap_requests_wait(
        self, start_serving: Callable[..., RunningDaemon], toy: Callable[..., ModelSpec]
    ) -> None:
        versions = [toy("toy-v1", megabytes=40), toy("toy-v2", version="2", megabytes=40, load_seconds=0.2)]
        daemon = start_serving(rules={"max_memory_bytes": 100 * 2**20})
        assert self.activate(daemon, versions[0])["error"] is None
        with self.traffic(daemon, name="sing") as traffic:
            daemon.wait(lambda: len(traffic.of("toy")) > 20)
            refused = self.activate(daemon, versions[1])["error"]
            assert (refused["code"], refused["facts"]["offers_gap"]) == ("insufficient_memory", True)
            end = self.activate(daemon, versions[1], allow_gap=True)
            assert end["error"] is None, end
            assert end["result"]["gap_seconds"] > 0.2
            assert end["result"]["freed_bytes"] > 40 * 2**20
        assert [answer for answer in traffic.answers if not answer.is_good] == []
        assert max(answer.seconds for answer in traffic.answers) > 0.2

    def test_no_gap_is_made_for_a_version_that_would_not_fit_in_it(
        self, start_serving: Callable[..., RunningDaemon], toy: Callable[..., ModelSpec]
    ) -> None:
        lineages = {"toy": {"aliases": {"live": "old"}}}
        serving = start_serving(rules={"max_memory_bytes": 130 * 2**20, "lineages": lineages})
        serving.load(toy("old", megabytes=60))
        error = self.activate(serving, toy("new", version="2", megabytes=200), allow_gap=True)["error"]
        assert (error["code"], error["facts"]["decision"]) == ("insufficient_memory", "refused")
        assert error["message"].endswith("old stays live.")
        assert serving.states("old") == ["loading", "loaded"]
        assert serving.predict("old", "hello").status_code == 200

    def test_a_gap_that_is_cancelled_while_the_old_version_drains_ends_with_it_loaded(
        self, start_serving: Callable[..., RunningDaemon], toy: Callable[..., ModelSpec]
    ) -> None:
        lineages = {"toy": {"aliases": {"live": "old"}}}
        serving = start_serving(rules={"max_memory_bytes": 130 * 2**20, "lineages": lineages})
        serving.load(toy("old", megabytes=60))
        answer = serving.predict_later("old", "slow 1")
        serving.wait_in_flight("old")
        operation_id = str(uuid.uuid4())
        new = toy("new", version="2", megabytes=60)
        serving.client.activate(new, operation_id, "ada", "activate", "", True)
        serving.wait(lambda: serving.model("old")["state"] == "unloading")
        serving.client.cancel(operation_id)
        assert serving.end_of(operation_id)["error"]["code"] == "cancelled"
        assert answer.result(20).status_code == 200
        assert serving.states("old") == ["loading", "loaded", "unloading", "unloaded", "loading", "loaded"]
        assert serving.predict("old", "hello").status_code == 200
        assert serving.unload("old")["result"]["status"] == "unloaded"

    def test_what_the_door_saw_of_a_shadowed_candidate_and_of_traces_is_reported(
        self, start_serving: Callable[..., RunningDaemon], toy: Callable[..., ModelSpec]
    ) -> None:
        aliases = {"live": "toy-v1", "candidate": "toy-v2"}
        daemon = start_serving(rules={"lineages": {"toy": {"aliases": aliases, "shadow": True}}, "sampling_rate": 1.0})
        for spec in (toy("toy-v1"), toy("toy-v2", version="2")):
            assert daemon.load(spec)["error"] is None
        with self.traffic(daemon, name="who answers: their pids differ") as traffic:
            daemon.wait(lambda: sum(report["compared"] for report in daemon.of_kind("Comparison")) > 5)
            traces = daemon.wait(lambda: daemon.of_kind("Trace", route="live"))
        comparisons = daemon.of_kind("Comparison", lineage="toy", live="toy-v1", candidate="toy-v2")
        compared = [(report["compared"], report["disagreed"]) for report in comparisons]
        assert compared == [(items, items) for items, _ in compared]
        assert (traces[0]["model_id"], traces[0]["user"], traces[0]["items"]) == ("toy-v1", "ada", 1)
        assert {answer.status for answer in traffic.answers} == {200}

    def test_a_version_that_cannot_be_loaded_leaves_the_live_one_answering(
        self, serving: RunningDaemon, toy: Callable[..., ModelSpec]
    ) -> None:
        assert self.activate(serving, toy("toy-v1"))["error"] is None
        with self.traffic(serving, name="sing") as traffic:
            serving.wait(lambda: len(traffic.of("toy")) > 20)
            end = self.activate(serving, toy("toy-v2", version="2", behaviour="raise"))
        assert end["error"]["message"].endswith("toy-v1 stays live.")
        assert traffic.bad("toy") == []
        assert serving.of_kind("AliasMoved", model_id="toy-v2") == []
        assert serving.model("toy-v1")["state"] == "loaded"
