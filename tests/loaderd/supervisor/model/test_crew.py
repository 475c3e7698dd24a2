"""Several processes serve one model: they share its requests, and one that dies is replaced while the others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loaderd.errors import ModelProcessDied
from loaderd.protocol import ModelSpec
from loaderd.supervisor.model import crew as crew_module
from loaderd.supervisor.model.crew import Crew, _sum
from tests.loaderd.supervisor.conftest import RunningDaemon

pytestmark = pytest.mark.timeout(120)
Toy = Callable[..., ModelSpec]


def answering(daemon: RunningDaemon, requests: int = 16) -> set[int]:
    """The pids that answer when several ask at once."""
    with ThreadPoolExecutor(requests) as pool:
        answers = list(pool.map(lambda _: daemon.predict("toy-v1", "slow 0.05"), range(requests)))
    assert {answer.status_code for answer in answers} == {200}
    return {int(answer.json()["predictions"][0]["output"]) for answer in answers}


@pytest.fixture
def crew(serving: RunningDaemon, toy: Toy) -> RunningDaemon:
    """toy-v1, served by two processes."""
    assert serving.load(replace(toy(), instances=2))["error"] is None
    return serving


def test_both_serve_and_count_as_one(crew: RunningDaemon) -> None:
    model = crew.model("toy-v1")
    assert answering(crew) == set(model["pids"])
    assert len(model["pids"]) == 2
    crew.wait(lambda: crew.model("toy-v1")["counters"].get("requests") == 16)
    counters = crew.model("toy-v1")["counters"]
    assert sum(counters["histogram"]) == 16
    assert (counters["processes"], counters["missing_processes"]) == (2, 0)
    both = sum(memory for pid in model["pids"] if (memory := psutil.Process(pid).memory_full_info().uss))
    assert crew.model("toy-v1")["private_bytes"] > both / 2


def test_one_that_dies_is_replaced_while_the_other_serves(crew: RunningDaemon) -> None:
    before = crew.model("toy-v1")
    assert answering(crew) == set(before["pids"])
    crew.wait(lambda: crew.model("toy-v1")["counters"].get("requests") == 16)
    killed, left = before["pids"]
    os.kill(killed, signal.SIGKILL)
    crew.wait(lambda: killed not in crew.model("toy-v1")["pids"])
    crew.wait(lambda: len(crew.model("toy-v1")["pids"]) == 2)
    pids = set(crew.model("toy-v1")["pids"])
    assert left in pids
    crew.wait(lambda: answering(crew) == pids)
    assert crew.states("toy-v1") == ["loading", "loaded"], "it was loaded all the time"
    assert crew.model("toy-v1")["counters"]["requests"] >= 16, "what the dead one counted stays counted"


def test_one_that_hangs_is_ended_and_replaced(crew: RunningDaemon) -> None:
    crew.set_rules(hang_seconds=1.0)
    stopped, left = crew.model("toy-v1")["pids"]
    os.kill(stopped, signal.SIGSTOP)
    crew.wait(lambda: stopped not in crew.model("toy-v1")["pids"] and len(crew.model("toy-v1")["pids"]) == 2)
    assert left in crew.model("toy-v1")["pids"]
    assert not psutil.pid_exists(stopped)
    crew.wait(lambda: crew.model("toy-v1")["health"]["status"] == "healthy")


def test_the_last_one_that_dies_is_a_crash(crew: RunningDaemon) -> None:
    pids = crew.model("toy-v1")["pids"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # neither may be replaced before both are dead
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    crew.wait(lambda: len(crew.of_state("toy-v1", state="loaded")) == 2)
    after = crew.model("toy-v1")["pids"]
    assert len(after) == 2
    assert not set(after) & set(pids)


MIB = 2**20


def test_one_for_which_there_is_no_room_waits_and_nobody_goes_for_it(
    start_serving: Callable[..., RunningDaemon], toy: Toy
) -> None:
    daemon = start_serving(
        rules={"max_memory_bytes": 410 * MIB, "max_memory_percent": 100.0},
    )
    assert daemon.load(replace(toy(megabytes=60, peak_mib=200), instances=2))["error"] is None
    assert daemon.load(toy("other", megabytes=150))["error"] is None
    left, killed = daemon.model("toy-v1")["pids"]
    os.kill(killed, signal.SIGKILL)
    daemon.wait(lambda: "waits for memory" in daemon.model("toy-v1")["reason"])
    told = daemon.model("toy-v1")
    assert (told["state"], told["pids"], told["instances"]) == ("loaded", [left], 2)
    assert told["reason"].startswith(
        "1 of 2 processes serve it; another one waits for memory: toy-v1 with another process needs "
    )
    assert "other" in told["reason"]
    daemon.wait(lambda: daemon.model("toy-v1")["health"]["status"] == "degraded")
    assert daemon.model("toy-v1")["health"]["reason"].startswith("1 of 2 processes serve it; another one waits")
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:toy-v1", is_open=True))
    assert answering(daemon) == {left}
    assert daemon.states("other") == ["loading", "loaded"]
    assert daemon.load(toy("small", megabytes=1))["error"] is None, "it holds up no other load"
    assert daemon.unload("small")["error"] is None
    assert daemon.unload("other")["error"] is None
    daemon.wait(lambda: len(daemon.model("toy-v1")["pids"]) == 2)
    daemon.wait(lambda: daemon.model("toy-v1")["reason"] == "2 of 2 processes serve it")
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:toy-v1", is_open=False))
    daemon.wait(lambda: daemon.model("toy-v1")["health"]["status"] == "healthy")
    assert daemon.states("toy-v1") == ["loading", "loaded"]


def test_one_that_is_on_its_way_has_its_memory_reserved(start_serving: Callable[..., RunningDaemon], toy: Toy) -> None:
    daemon = start_serving()
    assert daemon.load(replace(toy(load_seconds=1.0, peak_mib=200), instances=2))["error"] is None
    os.kill(daemon.model("toy-v1")["pids"][1], signal.SIGKILL)
    daemon.wait(lambda: daemon.client.status()["facts"]["budget"]["reserved_bytes"] > 100 * MIB)
    daemon.wait(lambda: len(daemon.model("toy-v1")["pids"]) == 2)
    assert daemon.client.status()["facts"]["budget"]["reserved_bytes"] == 0


def test_one_that_cannot_be_forked_is_admitted_as_the_cold_start_that_it_is(
    start_serving: Callable[..., RunningDaemon], toy: Toy
) -> None:
    daemon = start_serving(rules={"max_memory_bytes": 4000 * MIB, "max_memory_percent": 100.0})
    assert daemon.load(replace(toy(framework="toy-threaded", peak_mib=40), instances=2))["error"] is None
    assert daemon.model("toy-v1")["forked"] is False
    os.kill(daemon.model("toy-v1")["pids"][1], signal.SIGKILL)
    daemon.wait(lambda: "2 of 2" in daemon.model("toy-v1")["reason"])
    waits = [report["reason"] for report in daemon.of_state("toy-v1", state="loaded")]
    assert any("another one is started cold, which takes more memory: " in reason for reason in waits)


def test_an_unload_ends_the_wait_for_memory(start_serving: Callable[..., RunningDaemon], toy: Toy) -> None:
    daemon = start_serving(rules={"max_memory_bytes": 410 * MIB, "max_memory_percent": 100.0})
    assert daemon.load(replace(toy(megabytes=60, peak_mib=200), instances=2))["error"] is None
    assert daemon.load(toy("other", megabytes=150))["error"] is None
    os.kill(daemon.model("toy-v1")["pids"][1], signal.SIGKILL)
    daemon.wait(lambda: "waits for memory" in daemon.model("toy-v1")["reason"])
    assert daemon.unload("toy-v1")["result"]["status"] == "unloaded"
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:toy-v1", is_open=False))
    assert daemon.unload("other")["error"] is None
    assert daemon.model("toy-v1")["pids"] == []


def test_an_unload_ends_all(crew: RunningDaemon) -> None:
    pids = crew.model("toy-v1")["pids"]
    ended = crew.unload("toy-v1")
    assert ended["result"]["status"] == "unloaded"
    assert ended["result"]["freed_bytes"] > 0
    assert not any(map(psutil.pid_exists, pids))
    assert crew.model("toy-v1")["pids"] == []


def test_replacements_that_keep_dying_are_given_up_and_the_other_serves(
    start_serving: Callable[..., RunningDaemon], toy: Toy
) -> None:
    daemon = start_serving(rules={"max_load_attempts": 1})
    assert daemon.load(replace(toy(), instances=2))["error"] is None
    left, died = daemon.model("toy-v1")["pids"]
    os.kill(died, signal.SIGKILL)
    daemon.wait(lambda: died not in (pids := daemon.model("toy-v1")["pids"]) and len(pids) == 2)
    os.kill(daemon.model("toy-v1")["pids"][1], signal.SIGKILL)
    alert = daemon.wait(lambda: daemon.of_kind("AlertReport", key="gave_up:toy-v1"))[0]
    assert alert["is_open"]
    assert "lacks 1 of its processes" in alert["message"]
    daemon.wait(lambda: daemon.model("toy-v1")["health"]["status"] == "degraded")
    assert daemon.model("toy-v1")["pids"] == [left]
    assert answering(daemon) == {left}
    assert daemon.unload("toy-v1")["result"]["status"] == "unloaded"
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="gave_up:toy-v1", is_open=False))


def test_the_pid_that_is_told_is_of_a_process_that_lives(crew: RunningDaemon) -> None:
    first, _ = crew.model("toy-v1")["pids"]
    os.kill(first, signal.SIGKILL)
    crew.wait(lambda: len(crew.model("toy-v1")["pids"]) == 2 and first not in crew.model("toy-v1")["pids"])
    assert crew.pid_of("toy-v1") == crew.model("toy-v1")["pids"][0]


# What is asked of several, with processes that answer as the test says


class Process:
    """Answers at once. death: what its canary and its drain raise. killed: why it was ended as hung."""

    def __init__(self, **counters: Any) -> None:
        self.child = SimpleNamespace(is_alive=True, pid=id(self))
        self.counters: dict[str, Any] = counters
        self.data_socket = Path("/nowhere.sock")
        self.death: ModelProcessDied | None = None
        self.before_answer: Callable[[], Any] = lambda: None
        self.is_drained = False
        self.killed = ""

    def die(self) -> None:
        self.child.is_alive = False
        self.death = ModelProcessDied("it died", exit_signal=9)

    async def _answer(self) -> None:
        self.before_answer()
        if self.death is not None:
            raise self.death
        for _ in range(5):  # others are heard first
            await asyncio.sleep(0)

    async def sample(self) -> dict[str, Any]:
        await self._answer()
        return self.counters

    async def canary(self) -> dict[str, Any]:
        await self._answer()
        return {"ok": True, "seconds": 0.5, "reason": ""}

    async def drain(self) -> None:
        await self._answer()
        self.is_drained = True

    def end_hung(self, why: str) -> None:
        self.killed = why


def crew_of(*processes: Process) -> Crew:
    made = Crew(processes[0])  # type: ignore[arg-type]
    for process in processes[1:]:
        made.add(process)  # type: ignore[arg-type]
    return made


def test_one_that_dies_while_all_are_drained_leaves_the_others_their_time() -> None:
    dead, other = Process(), Process()
    dead.die()
    with pytest.raises(ModelProcessDied):
        asyncio.run(crew_of(dead, other).drain())
    assert other.is_drained


def test_one_that_leaves_while_all_are_sampled_casts_no_suspicion_on_the_others() -> None:
    leaving, second, third = Process(busy_seconds=0.0), Process(busy_seconds=1.0), Process(busy_seconds=2.0)
    made = crew_of(leaving, second, third)

    def leave() -> None:
        leaving.die()
        made.lose(leaving)  # type: ignore[arg-type]

    leaving.before_answer = leave
    assert asyncio.run(made.sample())
    made.end_hung("one model call ran too long", "silent")
    assert (second.killed, third.killed) == ("", "one model call ran too long")


def test_a_canary_goes_on_with_the_others_when_one_dies() -> None:
    dead, other = Process(), Process()
    made = crew_of(dead, other)
    dead.before_answer = dead.die
    assert asyncio.run(made.canary())["ok"]
    other.die()
    with pytest.raises(ModelProcessDied):
        asyncio.run(made.canary())


def test_the_process_whose_door_is_silent_is_the_one_that_is_ended_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "SAMPLE_SECONDS", 0.05)
    busy, silent = Process(busy_seconds=9.0), Process(busy_seconds=0.0)
    made = crew_of(busy, silent)
    with socket.socket(socket.AF_UNIX) as listening:  # takes connections, and answers none
        silent.data_socket = tmp_path / "silent.sock"
        listening.bind(str(silent.data_socket))
        listening.listen()

        async def look() -> bool | None:
            answers_at = tmp_path / "answers.sock"

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(await reader.read(1024))  # a ping's answer is a message, any message
                await writer.drain()
                writer.close()

            busy.data_socket = answers_at
            async with await asyncio.start_unix_server(answer, str(answers_at)):
                found = await made.door_answers()
                assert await made.sample()
                return found

        assert asyncio.run(look()) is None
    made.end_hung("its door does not answer", "door")
    assert (busy.killed, silent.killed) == ("", "its door does not answer")


def test_the_one_in_the_longest_call_is_ended_for_its_call() -> None:
    quick, busy = Process(busy_seconds=0.1), Process(busy_seconds=9.0)
    made = crew_of(quick, busy)
    quick.before_answer = quick.die
    assert not asyncio.run(made.sample())
    made.end_hung("one model call ran too long", "busy")
    assert (quick.killed, busy.killed) == ("", "one model call ran too long")


def test_what_a_dead_one_had_at_its_fullest_is_gone_with_it_and_what_it_counted_is_not() -> None:
    left = Process(requests=1, max_queued=0, max_in_flight=1, in_flight=0, queued=0)
    made = crew_of(left)
    for _ in range(3):
        dead = Process(requests=5, max_queued=900, max_in_flight=950, in_flight=950, queued=900, histogram=[5])
        made.add(dead)  # type: ignore[arg-type]
        made.lose(dead)  # type: ignore[arg-type]
    counters = made.counters
    assert (counters["requests"], counters["histogram"]) == (16, [15])
    assert [counters[name] for name in ("max_queued", "max_in_flight", "in_flight", "queued")] == [0, 1, 0, 0]


def test_counters_of_several_are_added() -> None:
    one = {"requests": 2, "busy_seconds": 0.5, "histogram": [1, 1], "sizes": [[1, 2, 0.1]], "last_error": ""}
    other = {"requests": 3, "busy_seconds": 0.2, "histogram": [0, 2, 1], "sizes": [[1, 1, 0.1], [4, 1, 0.5]]}
    merged = _sum([one, other])
    assert (merged["requests"], merged["busy_seconds"], merged["histogram"]) == (5, 0.5, [1, 3, 1])
    assert merged["sizes"] == [[1, 3, pytest.approx(0.2)], [4, 1, 0.5]]
