"""The lines that a real gateway writes of slow predictions: of every door, and without what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import TOKEN
from tests.loaderd.gateway.grpc.conftest import Stub, echo
from tests.loaderd.gateway.observing.gateways import Log, figures

pytestmark = pytest.mark.timeout(180)

SECRET = "the text that was asked"
SPAN_ID = "00f067aa0ba902b7"
ALL = 1e-9  # seconds: every request is slow


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Log]]:
    with serving(tmp_path_factory.mktemp("slow"), "echo", "double", grpc=True) as served:
        yield served, Log(served.door)


@pytest.fixture
def served(standing: tuple[Served, Log]) -> Served:
    served = standing[0]
    served.reset()
    served.door.route(served.table, slow_request_seconds=ALL)
    return served


@pytest.fixture
def log(standing: tuple[Served, Log]) -> Log:
    standing[1].lines.clear()
    return standing[1]


def document(*texts: str, request_id: str | None = None) -> dict[str, Any]:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}]
    return {"inputs": inputs} if request_id is None else {"id": request_id, "inputs": inputs}


def only(log: Log) -> dict[str, Any]:
    wait_until(lambda: log.slow(), what="a line")
    (line,) = log.slow()
    return line


def known(line: dict[str, Any]) -> dict[str, Any]:
    """The line without its times."""
    return {name: value for name, value in line.items() if name != "at" and not name.endswith("_seconds")}


@pytest.mark.parametrize("way", ["short", "long"])
def test_the_line_of_a_slow_prediction(served: Served, log: Log, way: str) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{SPAN_ID}-00", "authorization": f"Token {TOKEN}"}
    if way == "long":
        headers["x-modelhub-priority"] = "interactive"
    answer = served.http.post(
        f"/v2/models/echo/infer?q={SECRET}", json=document(SECRET, "b", request_id="r-1"), headers=headers
    )
    line = only(log)
    assert known(line) == {
        "model_id": "echo-v1",
        "version": "1",
        "door": "public",
        "method": "POST",
        "path": "/v2/models/echo/infer",
        "status": 200,
        "items": 2,
        "request_bytes": len(answer.request.content),
        "response_bytes": len(answer.content),
        "user": "ada",
        "trace_id": "a" * 32,
        "request_id": "r-1",
    }
    assert 0 < line["total_seconds"] < 20
    assert not any(SECRET in line or TOKEN in line for line in log.lines)


def test_where_it_was_traced_the_line_says_where_the_time_went(served: Served, log: Log) -> None:
    served.door.route(served.table, slow_request_seconds=ALL, sampling_rate=1.0)
    served.http.post("/v2/models/echo/infer", json=document("sleep:0.05")).raise_for_status()
    line = only(log)
    assert 0.05 <= line["compute_seconds"] <= line["total_seconds"]
    assert 0 <= line["queue_seconds"] <= line["total_seconds"]
    assert (line["items"], line["batch_items"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "status", "code"), [("refuse", 400, "invalid_input"), ("boom", 500, "prediction_failed")]
)
def test_a_slow_error_has_its_code_and_not_its_sentence(
    served: Served, log: Log, text: str, status: int, code: str
) -> None:
    answer = served.http.post("/v2/models/echo/infer", json=document(text))
    line = only(log)
    assert (answer.status_code, line["status"], line["error"]) == (status, status, code)
    assert answer.json()["error"] not in str(line)


def test_what_is_refused_before_it_reached_a_model_is_told_as_well(served: Served, log: Log) -> None:
    served.http.post("/v2/models/nobody/infer", json=document("a"))
    line = only(log)
    assert (line["status"], line["error"], line["path"]) == (404, "model_not_found", "/v2/models/nobody/infer")
    assert "model_id" not in line


@pytest.mark.parametrize("way", ["short", "long"])
def test_a_client_that_left_is_told_without_a_status(served: Served, log: Log, gate: Path, way: str) -> None:
    headers = dict(served.http.headers) | ({"x-modelhub-priority": "interactive"} if way == "long" else {})
    impatient = httpx.Client(base_url=served.http.base_url, headers=headers, timeout=0.3)
    with impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post("/v2/models/echo/infer", json=document(f"gate:{gate}"))
    line = only(log)
    gate.write_bytes(b"go on")
    assert (line["error"], "status" in line, line["model_id"]) == ("client_left", False, "echo-v1")
    assert line["total_seconds"] > 0.2


def test_the_private_door_and_grpc(served: Served, log: Log) -> None:
    served.door.private("grace").post("/internal/models/echo/predict", json={"inputs": [SECRET]}).raise_for_status()
    line = only(log)
    assert (line["door"], line["user"], line["path"]) == ("private", "grace", "/internal/models/echo/predict")
    log.lines.clear()
    stub = Stub(served.grpc_port)
    try:
        metadata = (
            ("authorization", f"Bearer {TOKEN}"),
            ("traceparent", f"00-{'b' * 32}-{SPAN_ID}-01"),
            ("x-request-id", "x-1"),
        )
        stub("ModelInfer", metadata=metadata, **echo(SECRET, "b", id="from the message"))
    finally:
        stub.close()
    line = only(log)
    assert known(line) == {
        "model_id": "echo-v1",
        "version": "1",
        "door": "grpc",
        "method": "ModelInfer",
        "path": "/inference.GRPCInferenceService/ModelInfer",
        "status": 200,
        "items": 2,
        "request_bytes": line["request_bytes"],
        "response_bytes": line["response_bytes"],
        "user": "ada",
        "trace_id": "b" * 32,
        "request_id": "x-1",
    }
    assert line["request_bytes"] > len(SECRET)
    assert not any(SECRET in each or TOKEN in each for each in log.lines)


def test_a_clients_own_id_cannot_forge_a_line(served: Served, log: Log) -> None:
    forged = "x\nslow request {}\r\x1b[2J" + "y" * 500
    served.http.post("/v2/models/echo/infer", json=document("a", request_id=forged[:300])).raise_for_status()
    line = only(log)
    assert len(line["request_id"]) == 200
    assert line["request_id"].isprintable()
    log.lines.clear()
    served.http.post("/v2/models/echo/infer", json=document("a"), headers={"x-request-id": "z" * 999})
    assert only(log)["request_id"] == "z" * 199 + "…"


def test_only_what_is_slow_is_told_and_only_predictions(served: Served, log: Log) -> None:
    served.http.post("/v2/repository/index").raise_for_status()
    served.http.get("/v2/models/echo").raise_for_status()
    served.door.route(served.table, slow_request_seconds=0)
    served.http.post("/v2/models/echo/infer", json=document("never")).raise_for_status()
    served.door.route(served.table, slow_request_seconds=0.2)
    served.http.post("/v2/models/echo/infer", json=document("fast")).raise_for_status()
    served.http.post("/v2/models/echo/infer", json=document("sleep:0.25")).raise_for_status()
    line = only(log)
    assert line["total_seconds"] >= 0.25


def test_a_flood_of_them_is_counted(served: Served, log: Log) -> None:
    (before,) = figures(served, "modelhub_gateway_slow_requests_total").values()
    for _ in range(60):
        served.http.post("/v2/models/echo/infer", json=document("a")).raise_for_status()
    (after,) = figures(served, "modelhub_gateway_slow_requests_total").values()
    assert after == before + 60
    wait_until(lambda: any("more slow requests" in line for line in log.lines), what="the count")

    def told() -> int:
        more = [int(line.split(" more slow requests")[0].split()[-1]) for line in log.lines if "more slow" in line]
        return len(log.slow()) + sum(more)

    wait_until(lambda: told() == 60, what="each is told or counted")
    assert len(log.slow()) < 60


def test_lines_are_json(served: Served, log: Log) -> None:
    request_id = '"\\ \u65e5\u672c'
    served.http.post("/v2/models/echo/infer", json=document("a", request_id=request_id)).raise_for_status()
    assert only(log)["request_id"] == request_id
