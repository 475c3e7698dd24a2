"""A candidate gets its share and its copies, and the two versions' answers are counted side by side."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from loaderd import histogram
from loaderd.gateway.routes import Route, Split
from loaderd.gateway.shadow import MAX_COPIES
from loaderd.gateway.tally import TRACES_PER_SECOND, Ledger
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import EVERYTHING, Served, serving
from tests.loaderd.gateway.door import SECONDS, TOKEN

ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("pair"), "double", "drifting") as served:
        yield served


@pytest.fixture
def split(pair: Served) -> Served:
    """double-v1 and drifting-v1, which always disagree; `double` is their lineage, and double-v1 is live."""
    pair.reset()
    return pair


def share(
    served: Served, percent: float = 0.0, shadow: bool = False, candidate: str = "drifting-v1", **more: Any
) -> None:
    aliases = {"live": "double-v1", "candidate": candidate}
    served.door.route(
        served.table, {"double": {"aliases": aliases, "candidate_percent": percent, "shadow": shadow}}, **more
    )


def infer(served: Served, path: str = "double") -> httpx.Response:
    return served.http.post(f"/v2/models/{path}/infer", json=ROW)


def answered_by_live(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0])


def seen(served: Served, *, requests: int, compared: int = 0) -> dict[str, Any]:
    """What was told of the pair so far, added up, once it covers so many answers and comparisons."""
    total: dict[str, Any] = {}
    while total.get("live_requests", 0) + total.get("candidate_requests", 0) < requests or (
        total.get("compared", 0) < compared
    ):
        for told in served.door.seen.get(timeout=SECONDS)["comparisons"]:
            assert (told["lineage"], told["live"], told["candidate"]) == ("double", "double-v1", "drifting-v1")
            for key, value in told.items():
                if isinstance(value, list):
                    total[key] = histogram.merged([total.get(key, []), value])
                elif isinstance(value, (int, float)):
                    total[key] = total.get(key, 0) + value
    return total


class TestSplit:
    def test_a_share_of_the_bare_name_goes_to_the_candidate(self, split: Served) -> None:
        share(split, 50.0)
        by_live = [answered_by_live(infer(split)) for _ in range(60)].count(True)
        assert 10 < by_live < 50, "one in a hundred million falls outside by chance"
        total = seen(split, requests=60)
        assert (total["live_requests"], total["candidate_requests"]) == (by_live, 60 - by_live)
        assert sum(total["live_histogram"]) == by_live
        assert (total["live_errors"], total["candidate_errors"], total["compared"]) == (0, 0, 0)
        assert total["live_latency_seconds"] > 0

    def test_ids_versions_and_aliases_are_never_split(self, split: Served) -> None:
        share(split, 100.0)
        for path in ("double-v1", "double/versions/1", "double/versions/live"):
            assert answered_by_live(infer(split, path))
        assert not answered_by_live(infer(split, "double/versions/candidate"))
        assert not answered_by_live(infer(split))
        assert seen(split, requests=1)["candidate_requests"] == 1

    def test_a_candidate_that_is_not_ready_leaves_everything_to_live(self, split: Served) -> None:
        split.change("drifting-v1", state="unloading", sockets=[])
        share(split, 100.0)
        assert answered_by_live(infer(split))
        assert split.door.seen.empty()

    def test_the_plain_prediction_is_split_too(self, split: Served) -> None:
        share(split, 100.0)
        answer = split.door.private().post("/internal/models/double/predict", json={"inputs": [[1, 2]]})
        assert answer.json()["model_id"] == "drifting-v1"
        assert seen(split, requests=1)["candidate_requests"] == 1

    def test_what_the_candidate_fails_is_counted_as_its_error(self, tmp_path: Path) -> None:
        with serving(tmp_path, "double", "drifting") as served, ThreadPoolExecutor(1) as pool:
            share(served, 100.0)
            candidate = served.models["drifting-v1"].process
            os.kill(candidate.pid, signal.SIGSTOP)
            doomed = pool.submit(infer, served)
            wait_until(lambda: served.door.in_flight() == 1)
            os.kill(candidate.pid, signal.SIGKILL)
            assert doomed.result().status_code == 503
            total = seen(served, requests=1)
            assert (total["candidate_requests"], total["candidate_errors"], total["live_requests"]) == (1, 1, 0)


class TestShadow:
    def test_the_candidate_gets_a_copy_and_the_answers_are_compared(self, split: Served) -> None:
        share(split, shadow=True)
        before = split.models["drifting-v1"].stats()["requests"]
        assert all(answered_by_live(infer(split)) for _ in range(10))
        total = seen(split, requests=20, compared=20)
        assert (total["live_requests"], total["candidate_requests"]) == (10, 10)
        assert (total["compared"], total["disagreed"], total["dropped"]) == (20, 20, 0)
        assert split.models["drifting-v1"].stats()["requests"] == before + 10

    def test_binary_answers_are_compared(self, split: Served) -> None:
        share(split, shadow=True)
        x = np.array([[1, 2], [3, 4]], dtype=np.float32)
        with InferenceServerClient(f"127.0.0.1:{split.door.port}") as triton:
            given = InferInput("x", [2, 2], "FP32")
            given.set_data_from_numpy(x)
            result = triton.infer("double", [given], headers={"Authorization": f"Token {TOKEN}"})
            np.testing.assert_array_equal(result.as_numpy("y"), x * 2)
        total = seen(split, requests=2, compared=2)
        assert (total["compared"], total["disagreed"]) == (2, 2)

    def test_what_live_refuses_is_not_copied(self, split: Served) -> None:
        share(split, shadow=True)
        assert split.http.post("/v2/models/double/infer", json={"inputs": []}).status_code == 400
        assert answered_by_live(infer(split))
        assert seen(split, requests=2)["candidate_requests"] == 1

    def test_a_candidate_that_hangs_delays_nobody_and_copies_past_the_bound_are_dropped(self, tmp_path: Path) -> None:
        with serving(tmp_path, "double", "drifting") as served:
            share(served, shadow=True)
            assert answered_by_live(infer(served))
            seen(served, requests=2, compared=2)
            candidate = served.models["drifting-v1"].process.pid
            os.kill(candidate, signal.SIGSTOP)
            assert all(answered_by_live(infer(served)) for _ in range(MAX_COPIES + 5))
            os.kill(candidate, signal.SIGCONT)
            total = seen(served, requests=MAX_COPIES + 5 + MAX_COPIES)
            assert (total["candidate_requests"], total["dropped"]) == (MAX_COPIES, 5)
            assert "\nmodelhub_gateway_shadow_dropped_total 5\n" in metrics(served)

    def test_a_candidate_that_dies_is_only_counted(self, tmp_path: Path) -> None:
        with serving(tmp_path, "double", "drifting") as served:
            share(served, shadow=True)
            assert answered_by_live(infer(served))
            assert seen(served, requests=2, compared=2)["candidate_errors"] == 0
            candidate = served.models["drifting-v1"].process
            os.kill(candidate.pid, signal.SIGSTOP)
            assert answered_by_live(infer(served))
            os.kill(candidate.pid, signal.SIGKILL)
            assert seen(served, requests=2)["candidate_errors"] == 1


def metrics(served: Served) -> str:
    return served.http.get("/metrics").raise_for_status().text


class TestTraces:
    @pytest.mark.parametrize(
        ("path", "route"), [("double-v1", "direct"), ("double", "live"), ("double/versions/1", "direct")]
    )
    def test_a_traced_prediction_tells_where_its_time_went(self, split: Served, path: str, route: str) -> None:
        share(split, sampling_rate=1.0)
        assert answered_by_live(infer(split, path))
        (trace,) = split.door.seen.get(timeout=SECONDS)["traces"]
        assert (trace["model_id"], trace["route"], trace["user"], trace["status"]) == ("double-v1", route, "ada", 200)
        assert (trace["items"], trace["batch_items"]) == (2, 2)
        assert 0 < trace["compute_seconds"] < trace["total_seconds"] < SECONDS
        assert 0 <= trace["queue_seconds"] < trace["total_seconds"]

    def test_a_traced_binary_answer_keeps_its_form(self, split: Served) -> None:
        share(split, 100.0, sampling_rate=1.0)
        with InferenceServerClient(f"127.0.0.1:{split.door.port}") as triton:
            given = InferInput("x", [1, 2], "FP32")
            given.set_data_from_numpy(np.zeros((1, 2), dtype=np.float32))
            result = triton.infer("double", [given], headers={"Authorization": f"Token {TOKEN}"})
            assert result.as_numpy("y").shape == (1, 2)
        told = split.door.seen.get(timeout=SECONDS)
        assert [(trace["model_id"], trace["route"]) for trace in told["traces"]] == [("drifting-v1", "candidate")]
        assert [told["candidate_requests"] for told in told["comparisons"]] == [1]

    def test_a_traced_plain_prediction_names_the_user_of_the_api(self, split: Served) -> None:
        share(split, sampling_rate=1.0)
        answer = split.door.private("grace").post("/internal/models/double/predict", json={"inputs": [[1, 2]]})
        assert answer.json()["model_id"] == "double-v1"
        (trace,) = split.door.seen.get(timeout=SECONDS)["traces"]
        assert (trace["user"], trace["items"]) == ("grace", 1)

    def test_a_refused_one_is_traced_with_its_status(self, split: Served) -> None:
        share(split, sampling_rate=1.0)
        assert split.http.post("/v2/models/double/infer", json={"inputs": []}).status_code == 400
        (trace,) = split.door.seen.get(timeout=SECONDS)["traces"]
        assert (trace["status"], trace["items"], trace["compute_seconds"]) == (400, 0, None)

    def test_there_are_at_most_some_a_second(self) -> None:
        ledger = Ledger()
        assert [ledger.picks(1.0) for _ in range(100)].count(True) == TRACES_PER_SECOND
        assert not any(ledger.picks(0.0) for _ in range(100))


class TestMetrics:
    def test_they_need_a_token_and_hold_both_parts(self, split: Served) -> None:
        assert split.door.http(token=None).get("/metrics").status_code == 401
        split.door.answer = lambda message: "modelhub_models 2\n" if message["command"] == "metrics" else []
        infer(split, "double-v1")
        answer = split.http.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.text.startswith("modelhub_models 2\n# HELP modelhub_gateway_requests_total")
        assert 'modelhub_gateway_requests_total{door="public",status="2xx"}' in answer.text
        assert 'modelhub_gateway_requests_in_flight{door="public"} 1\n' in answer.text

    def test_requests_are_counted_by_class(self, split: Served) -> None:
        def count(status: str) -> int:
            lines = metrics(split).splitlines()
            start = f'modelhub_gateway_requests_total{{door="public",status="{status}"}} '
            return sum(int(line.removeprefix(start)) for line in lines if line.startswith(start))

        before = count("4xx")
        assert split.http.get("/v2/models/nothing/ready").status_code == 404
        assert count("4xx") == before + 1

    def test_they_are_for_the_tcp_door_only(self, split: Served) -> None:
        assert split.door.private().get("/metrics").status_code == 404

    def test_no_permission_is_needed(self, split: Served) -> None:
        split.door.allow({TOKEN: {"user": "scraper", "permissions": [], "expires_at": None}})
        wait_until(lambda: infer(split, "double-v1").status_code == 403)
        assert metrics(split)
        split.door.allow(EVERYTHING)


def test_what_a_client_did_wrong_is_no_error_of_a_version() -> None:
    ledger = Ledger()
    live, candidate = (Route(f"spam-v{number}", "spam", str(number), "loaded", sockets=("/s",)) for number in (1, 2))
    tally = ledger.of(Split("spam", live, candidate, 5.0, False))
    for status in (200, 400, 429, 500, 504):
        tally.live.add(0.01, status)
    told = ledger.take()
    assert told is not None
    (comparison,) = told["comparisons"]
    assert (comparison["live_requests"], comparison["live_errors"]) == (3, 2)
    assert comparison["candidate_histogram"] == []
    assert ledger.take() is None
