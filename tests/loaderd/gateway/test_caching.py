"""The response cache at a real gateway: what goes past it, what it is told and tells, and what befalls the model.

`drifting-v1` answers otherwise each time, so a kept answer is known by being the same.
"""

from __future__ import annotations

import gzip
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from loaderd import protocol
from loaderd.gateway.cache import MAX_BODY_BYTES
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import SECONDS

PATH = "/v2/models/drifting-v1/infer"
KEPT = {"cache_ttl_seconds": 600.0, "load": "d.1"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("pair"), "double", "drifting") as served:
        yield served


@pytest.fixture
def caching(pair: Served) -> Served:
    """double-v1 and drifting-v1, whose answers are kept; nothing is, yet."""
    pair.reset()
    for model_id in pair.table:
        pair.table[model_id] |= KEPT
    pair.door.route(pair.table)
    forget(pair)
    return pair


def forget(served: Served, model_id: str | None = None) -> int:
    """Has the gateway forget, as the supervisor does; how many answers it forgot."""
    protocol.send(served.door.channel, {"event": "forget_answers", "serial": 77, "model_id": model_id})
    told = served.door.event()
    assert (told["event"], told["serial"]) == ("forgot_answers", 77)
    return int(told["forgotten"])


def ask(served: Served, x: float = 0.0, path: str = PATH) -> list[float]:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [x, 0]}]}
    values: list[float] = served.http.post(path, json=body).raise_for_status().json()["outputs"][0]["data"]
    return values


def told(served: Served, **wanted: int) -> dict[str, Any]:
    """What was told of drifting-v1's cache, added up, once it covers what is wanted."""
    sums: Counter[str] = Counter()
    while not wanted.items() <= sums.items():
        for row in served.door.kept.get(timeout=SECONDS)["models"]:
            if row["model_id"] == "drifting-v1":
                sums.update({name: row[name] for name in ("hits", "shared", "misses")})
                sums["entries"] = row["entries"]
    return dict(sums)


def test_what_it_did_is_told(caching: Served) -> None:
    assert ask(caching) == ask(caching) == ask(caching)
    assert ask(caching, 100.0) != ask(caching)
    assert told(caching, hits=3, misses=2)["entries"] == 2


def test_all_doors_and_forms_of_a_body_share_it(caching: Served) -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]}'
    first = caching.http.post(PATH, content=body).content
    packed = caching.http.post(PATH, content=gzip.compress(body), headers={"Content-Encoding": "gzip"}).content
    in_pieces = caching.http.post(PATH, content=iter([body[:10], body[10:]])).content
    within = caching.door.private().post(PATH, content=body).content
    assert first == packed == in_pieces == within
    assert told(caching, hits=3)["misses"] == 1


def test_a_copy_for_later_is_bulk_or_not_the_same(caching: Served) -> None:
    assert ask(caching) == ask(caching)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.0, 0]}]}
    bulk = caching.http.post(PATH, json=body, headers={"X-Modelhub-Priority": "bulk"}).json()
    assert bulk["outputs"][0]["data"] == ask(caching)


def test_a_body_that_is_too_large_to_be_hashed_goes_past_it(caching: Served) -> None:
    columns = MAX_BODY_BYTES // 2
    body = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, columns], "data": [0.0] * columns}]})
    assert len(body) > MAX_BODY_BYTES
    first, second = (caching.http.post(PATH, content=body).raise_for_status().content for _ in range(2))
    assert first != second


@pytest.mark.parametrize("split", [{"candidate_percent": 100.0}, {"shadow": True}], ids=["split", "shadow"])
def test_a_kept_answer_counts_for_its_version_and_is_copied(caching: Served, split: dict[str, Any]) -> None:
    aliases = {"live": "double-v1", "candidate": "drifting-v1"}
    caching.door.route(caching.table, {"double": {"aliases": aliases, **split}})
    for _ in range(5):
        ask(caching, path="/v2/models/double/infer")
    counts: Counter[str] = Counter()
    while counts["candidate_requests"] < 5:
        for comparison in caching.door.seen.get(timeout=SECONDS)["comparisons"]:
            counts.update({name: comparison[name] for name in ("live_requests", "candidate_requests")})
    assert counts["live_requests"] == (5 if "shadow" in split else 0)
    assert forget(caching, "double-v1") == (1 if "shadow" in split else 0)
    assert forget(caching, "drifting-v1") == (0 if "shadow" in split else 1), "copies are not kept"


def test_what_the_supervisor_forgets_is_computed_again(caching: Served) -> None:
    first = ask(caching)
    assert forget(caching, "double-v1") == 0
    assert ask(caching) == first
    assert forget(caching, "drifting-v1") == 1
    assert ask(caching) != first


@pytest.mark.parametrize(
    "change", [{"load": "d.2"}, {"cache_ttl_seconds": 0.0}, {"cacheable": False}], ids=["load", "off", "moody"]
)
def test_a_table_that_says_otherwise_counts_at_once(caching: Served, change: dict[str, Any]) -> None:
    first = ask(caching)
    caching.change("drifting-v1", **change)
    assert ask(caching) != first


def test_less_room_counts_at_once(caching: Served) -> None:
    first = ask(caching)
    caching.door.route(caching.table, cache_max_bytes=1)
    assert ask(caching) != first
    caching.door.route(caching.table)


class TestSharing:
    """echo-v1 blocks at a gate, so that who asks meanwhile is known to wait for it."""

    @pytest.fixture
    def gated(self, fresh: Served) -> Served:
        fresh.change("echo-v1", **KEPT)
        return fresh

    @staticmethod
    def ask(served: Served, text: str) -> httpx.Response:
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]}
        return served.http.post("/v2/models/echo-v1/infer", json=body)

    def begin(self, served: Served, pool: ThreadPoolExecutor, gate: Path, count: int) -> list[Future[httpx.Response]]:
        """So many identical requests, all of which the gateway has."""
        asked = [pool.submit(self.ask, served, f"gate:{gate}") for _ in range(count)]
        wait_until(lambda: served.door.in_flight() == count, SECONDS)
        return asked

    def test_one_of_many_asks_the_model(self, gated: Served, gate: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            asked = self.begin(gated, pool, gate, 8)
            gate.write_bytes(b"")  # one opening: a second call of the model would wait for ever
            answers = {answer.result(SECONDS).content for answer in asked}
        assert len(answers) == 1

    def test_the_death_of_the_process_is_told_to_all(self, gated: Served, gate: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            asked = self.begin(gated, pool, gate, 4)
            os.kill(gated.models["echo-v1"].process.pid, signal.SIGKILL)
            assert [answer.result(SECONDS).status_code for answer in asked] == [503] * 4
        lost = gated.door.seen.get(timeout=SECONDS)["lost"]
        assert [(each["model_id"], each["requests"]) for each in lost] == [("echo-v1", 4)]

    def test_a_bad_request_is_told_to_each_that_makes_it(self, gated: Served) -> None:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: self.ask(gated, "refuse"), range(4)))
        assert [(answer.status_code, "refused" in answer.text) for answer in answers] == [(400, True)] * 4
