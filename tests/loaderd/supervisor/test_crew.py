"""Several processes serve one model: they share its requests, and one that dies is replaced while the others go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from loaderd.protocol import ModelSpec
from loaderd.supervisor.crew import _sum

from .conftest import RunningDaemon

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


def test_an_unload_ends_all(crew: RunningDaemon) -> None:
    pids = crew.model("toy-v1")["pids"]
    ended = crew.unload("toy-v1")
    assert ended["result"]["status"] == "unloaded"
    assert ended["result"]["freed_bytes"] > 0
    assert not any(map(psutil.pid_exists, pids))
    assert crew.model("toy-v1")["pids"] == []


def test_counters_of_several_are_added() -> None:
    one = {"requests": 2, "busy_seconds": 0.5, "histogram": [1, 1], "sizes": [[1, 2, 0.1]], "last_error": ""}
    other = {"requests": 3, "busy_seconds": 0.2, "histogram": [0, 2, 1], "sizes": [[1, 1, 0.1], [4, 1, 0.5]]}
    merged = _sum([one, other])
    assert (merged["requests"], merged["busy_seconds"], merged["histogram"]) == (5, 0.5, [1, 3, 1])
    assert merged["sizes"] == [[1, 3, pytest.approx(0.2)], [4, 1, 0.5]]
