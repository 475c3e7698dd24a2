"""The door's statistics are those of the processes as they are when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import psutil

from loaderd.protocol import ModelSpec
from tests.loaderd.supervisor.conftest import RunningDaemon

Toy = Callable[..., ModelSpec]


def statistics(daemon: RunningDaemon, *path: str) -> list[dict[str, Any]]:
    address = daemon.client.ping()["inference"]
    url = "/".join([f"http://{address['host']}:{address['port']}/v2/models", *path, "stats"])
    answer = httpx.get(url, headers={"Authorization": "Token everything"}, timeout=20).raise_for_status()
    entries: list[dict[str, Any]] = answer.json()["model_stats"]
    return entries


def test_they_are_up_to_the_moment_and_begin_anew_with_a_load(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    (before,) = statistics(serving, "toy-v1")
    assert (before["name"], before["version"]) == ("toy-v1", "1")
    assert before["inference_stats"]["success"] == {"count": 0, "ns": 0}
    for texts in (["a", "b"], ["c"]):
        assert serving.predict("toy-v1", *texts).status_code == 200
    (now,) = statistics(serving, "toy")
    assert (now["name"], now["inference_count"]) == ("toy", 3)
    assert now["execution_count"] == before["execution_count"] + 2
    assert now["inference_stats"]["success"]["count"] == 2
    assert now["inference_stats"]["success"]["ns"] > now["inference_stats"]["compute_infer"]["ns"] > 0
    assert now["memory_usage"][0]["byte_size"] > 2**20
    serving.unload("toy-v1")
    serving.load(toy("toy-v2", version="2"))
    (again,) = statistics(serving)
    assert (again["name"], again["inference_count"]) == ("toy-v2", 0)


def test_a_process_that_does_not_answer_tells_its_last_ones(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy("stuck"))
    serving.load(toy("steady"))
    assert serving.predict("stuck", "hello").status_code == 200
    serving.wait(lambda: serving.of_kind("Usage", model_id="stuck"))
    process = psutil.Process(serving.pid_of("stuck"))
    process.suspend()
    try:
        told = {entry["name"]: entry["inference_count"] for entry in statistics(serving)}
    finally:
        process.resume()
    assert told == {"stuck": 1, "steady": 0}
