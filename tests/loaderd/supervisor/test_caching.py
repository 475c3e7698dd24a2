"""The response cache from end to end: a daemon, its gateway, and a toy whose every computed answer is another one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from loaderd.protocol import ModelSpec
from tests.loaderd.supervisor.conftest import RunningDaemon

Toy = Callable[..., ModelSpec]
Start = Callable[..., RunningDaemon]

KEPT = {"cache_enabled": True, "sampling_rate": 0.0}  # a traced request is computed, for its course is told


@pytest.fixture
def caching(start_serving: Start) -> RunningDaemon:
    """A daemon that keeps the answers of all models."""
    return start_serving(rules=KEPT)


def ask(daemon: RunningDaemon, text: str = "count 0", model: str = "toy-v1") -> str:
    """The plain answer."""
    response = daemon.predict(model, text).raise_for_status()
    return str(response.json()["predictions"][0]["output"])


def door(daemon: RunningDaemon) -> httpx.Client:
    address = daemon.client.ping()["inference"]
    headers = {"Authorization": "Token everything"}
    return httpx.Client(base_url=f"http://{address['host']}:{address['port']}", headers=headers, timeout=20)


def infer(client: httpx.Client, text: str = "count 0", model: str = "toy-v1", **more: Any) -> dict[str, Any]:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]
    answer: dict[str, Any] = (
        client.post(f"/v2/models/{model}/infer", json={**more, "inputs": inputs}).raise_for_status().json()
    )
    return answer


def data(answer: dict[str, Any]) -> str:
    return str(answer["outputs"][0]["data"][0])


def figure(daemon: RunningDaemon, name: str, model: str = "toy-v1") -> float | None:
    """One of the cache's figures at the door's /metrics."""
    with door(daemon) as client:
        text = client.get("/metrics").raise_for_status().text
    found = re.search(rf'^modelhub_cache_{name}{{model="{model}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else None


def test_without_it_each_is_computed(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    assert ask(serving) != ask(serving)
    with door(serving) as client:
        assert data(infer(client)) != data(infer(client))
    assert figure(serving, "misses_total") is None


def test_who_asks_the_same_gets_the_same_and_others_do_not(caching: RunningDaemon, toy: Toy) -> None:
    caching.load(toy())
    assert ask(caching) == ask(caching)
    assert ask(caching) != ask(caching, "count 0.0")
    with door(caching) as client:
        first = infer(client)
        assert first == infer(client)
        by_lineage = infer(client, model="toy")
        assert by_lineage["model_name"] == "toy"
        assert data(by_lineage) != data(first), "the name is echoed, so it is another request"
        headers = {"Inference-Header-Content-Length": "0"}
        assert client.post("/v2/models/toy-v1/infer", json={}, headers=headers).status_code == 400


def test_each_request_gets_its_own_id(caching: RunningDaemon, toy: Toy) -> None:
    caching.load(toy())
    with door(caching) as client:
        one, other = infer(client, id="one"), infer(client, id="zwölf")
        assert (one["id"], other["id"]) == ("one", "zwölf")
        assert data(one) == data(other)
        without = infer(client)
        assert "id" not in without


def test_binary_answers_with_ids_stay_whole(caching: RunningDaemon, toy: Toy) -> None:
    caching.load(toy())
    outputs = [{"name": "answer", "parameters": {"binary_data": True}}]
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["count 0"]}]
    told = []
    with door(caching) as client:
        for name in ("1", "a longer one", "1"):
            document = {"id": name, "inputs": inputs, "outputs": outputs}
            answer = client.post("/v2/models/toy-v1/infer", json=document).raise_for_status()
            length = int(answer.headers["Inference-Header-Content-Length"])
            head, binary = httpx.Response(200, content=answer.content[:length]).json(), answer.content[length:]
            assert head["id"] == name
            assert len(binary) == head["outputs"][0]["parameters"]["binary_data_size"]
            told.append(binary)
    assert len(set(told)) == 1


def test_an_error_is_not_kept(caching: RunningDaemon, toy: Toy) -> None:
    caching.load(toy())
    with door(caching) as client:
        for _ in range(2):
            assert client.post("/v2/models/toy-v1/infer", json={"inputs": []}).status_code == 400
    assert figure(caching, "entries") in (None, 0)


def test_who_may_not_predict_gets_nothing(caching: RunningDaemon, toy: Toy) -> None:
    caching.load(toy())
    with door(caching) as client:
        infer(client)
        client.headers["Authorization"] = "Token nobody"
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            infer(client)


class TestPolicy:
    def test_a_model_decides_for_itself(self, start_serving: Start, toy: Toy) -> None:
        daemon = start_serving(rules={"sampling_rate": 0.0, "models": {"toy-v2": {"cache_enabled": True}}})
        daemon.load(toy())
        daemon.load(toy("toy-v2", version="2"))
        assert ask(daemon) != ask(daemon)
        assert ask(daemon, model="toy-v2") == ask(daemon, model="toy-v2")

    def test_it_counts_without_a_reload(self, serving: RunningDaemon, toy: Toy) -> None:
        serving.load(toy())
        assert ask(serving) != ask(serving)
        serving.set_rules(**KEPT)
        serving.wait(lambda: ask(serving) == ask(serving))
        first = ask(serving)
        serving.set_rules(cache_enabled=False)
        serving.wait(lambda: ask(serving) != first)

    def test_answers_grow_old(self, start_serving: Start, toy: Toy) -> None:
        daemon = start_serving(rules={**KEPT, "cache_ttl_seconds": 0.3})
        daemon.load(toy())
        first = ask(daemon)
        daemon.wait(lambda: ask(daemon) != first)

    def test_a_model_that_is_not_reproducible_is_asked_each_time(self, caching: RunningDaemon, toy: Toy) -> None:
        caching.load(toy(moody=True))
        assert ask(caching) != ask(caching)


class TestLoads:
    def test_no_answer_outlives_its_load(self, caching: RunningDaemon, toy: Toy) -> None:
        spec = toy()
        caching.load(spec)
        first = ask(caching)
        caching.unload("toy-v1")
        assert caching.predict("toy-v1", "count 0").status_code == 409
        caching.load(spec)
        assert ask(caching).split()[0] != first.split()[0], "another process"

    def test_none_outlives_a_crash(self, start_serving: Start, toy: Toy) -> None:
        daemon = start_serving(rules=KEPT, restart_pause_seconds=0.05)
        daemon.load(toy())
        first = ask(daemon)
        daemon.kill("toy-v1")
        daemon.wait(lambda: daemon.states("toy-v1").count("loaded") == 2)
        assert ask(daemon).split()[0] != first.split()[0]

    def test_a_new_live_version_answers_with_its_own(self, caching: RunningDaemon, toy: Toy) -> None:
        caching.load(toy())
        with door(caching) as client:
            first = infer(client, model="toy")
            assert infer(client, model="toy") == first
            spec = toy("toy-v2", version="2")
            caching.client.activate(spec, "activation", "ada", "activate", "", False)
            assert caching.end_of("activation")["error"] is None
            assert infer(client, model="toy")["model_version"] == "2"


class TestSharing:
    def test_identical_requests_at_the_same_time_are_computed_once(self, caching: RunningDaemon, toy: Toy) -> None:
        caching.load(toy())
        with ThreadPoolExecutor(16) as pool:
            answers = set(pool.map(lambda _: ask(caching, "count 0.5"), range(16)))
        assert len(answers) == 1
        caching.wait(lambda: (figure(caching, "shared_total") or 0) + (figure(caching, "hits_total") or 0) == 15)
        assert figure(caching, "misses_total") == 1

    def test_who_leaves_does_not_take_the_others_answer_along(self, caching: RunningDaemon, toy: Toy) -> None:
        caching.load(toy())
        with door(caching) as client, door(caching) as other, ThreadPoolExecutor(1) as pool:
            impatient = pool.submit(client.post, "/v2/models/toy-v1/infer", json=_slow(), timeout=0.3)
            caching.wait_in_flight("toy-v1")
            assert other.post("/v2/models/toy-v1/infer", json=_slow()).status_code == 200
            assert isinstance(impatient.exception(), httpx.ReadTimeout)


def _slow() -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["count 1.0"]}]}


class TestFigures:
    def test_hits_are_told_beside_the_requests_and_count_as_use(self, caching: RunningDaemon, toy: Toy) -> None:
        caching.load(toy())
        for _ in range(5):
            ask(caching)

        def told(name: str) -> int:
            return sum(report[name] for report in caching.of_kind("Usage", model_id="toy-v1"))

        caching.wait(lambda: (told("cache_hits"), told("cache_misses"), told("requests")) == (4, 1, 1))
        assert (figure(caching, "hits_total"), figure(caching, "misses_total")) == (4, 1)
        assert (figure(caching, "entries"), (figure(caching, "bytes") or 0) > 100) == (1, True)

    def test_statistics_of_the_protocol_are_since_the_load(self, caching: RunningDaemon, toy: Toy) -> None:
        spec = toy()
        caching.load(spec)
        for _ in range(3):
            ask(caching)

        def counts() -> tuple[int, int]:
            with door(caching) as client:
                (entry,) = client.get("/v2/models/toy-v1/stats").raise_for_status().json()["model_stats"]
            stats = entry["inference_stats"]
            return stats["cache_hit"]["count"], stats["cache_miss"]["count"]

        assert counts() == (2, 1)
        caching.unload("toy-v1")
        caching.load(spec)
        assert counts() == (0, 0)

    def test_who_is_answered_by_the_cache_is_not_idle(self, start_serving: Start, toy: Toy) -> None:
        daemon = start_serving(rules={**KEPT, "models": {"toy-v1": {"keep_alive_seconds": 3.0}}})
        daemon.load(toy())
        first = ask(daemon)
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            assert ask(daemon) == first, "it was unloaded for being idle"


def test_what_is_kept_ends_with_the_gateway(caching: RunningDaemon, toy: Toy) -> None:
    caching.load(toy())
    first = ask(caching)
    caching.wait(lambda: figure(caching, "entries") == 1)
    (gateway,) = (each for each in caching.descendants() if "loaderd.gateway" in each.cmdline())
    gateway.kill()
    caching.wait(lambda: not gateway.is_running() and caching.client.ping()["inference"])
    assert figure(caching, "entries") == 0
    assert ask(caching) != first
    caching.wait(lambda: figure(caching, "misses_total") == 2)


def test_several_gateways_keep_each_their_own_and_are_told_and_cleared_together(start_serving: Start, toy: Toy) -> None:
    daemon = start_serving(rules=KEPT, gateway_processes=2)
    daemon.load(toy())

    def ask_anew() -> str:
        with door(daemon) as client:  # the kernel gives a new connection to either
            return data(infer(client))

    answers = {ask_anew()}
    while len(answers) < 2:
        answers.add(ask_anew())
    daemon.wait(lambda: figure(daemon, "entries") == 2)
    assert {ask_anew() for _ in range(10)} <= answers
    assert daemon.client.forget_answers("toy-v1") == 2
    daemon.wait(lambda: figure(daemon, "entries") == 0)
    assert ask_anew() not in answers


class TestClearing:
    @pytest.mark.parametrize("model_id", ["toy-v1", None])
    def test_what_is_cleared_is_computed_again(self, caching: RunningDaemon, toy: Toy, model_id: str | None) -> None:
        caching.load(toy())
        first = ask(caching)
        assert caching.client.forget_answers("another") == 0
        assert ask(caching) == first
        assert caching.client.forget_answers(model_id) == 1
        assert ask(caching) != first
