"""What a collector gets of predictions that a real gateway sends to real model processes."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import TOKEN
from tests.loaderd.gateway.grpc.conftest import Stub, echo
from tests.loaderd.gateway.observing.collector import Collector, Told, collecting
from tests.loaderd.gateway.observing.gateways import Log, serving_with, spans, wait_for_exporter

pytestmark = pytest.mark.timeout(240)

SECRET = "the text that was asked"
SPAN_ID = "00f067aa0ba902b7"
SERVER, INTERNAL = 2, 1
ERROR = 2

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Served]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "door-under-test",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests,service.name=not this one",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with serving_with(tmp_path_factory.mktemp("spans"), variables, "echo", "double", grpc=True) as served:
        served.door.route(served.table)
        wait_for_exporter(served)
        yield served


@pytest.fixture
def served(standing: Served) -> Served:
    standing.reset()
    return standing


def new_trace_id() -> str:
    return f"{next(_numbers):032x}"


def infer(
    served: Served,
    text: str = SECRET,
    *,
    name: str = "echo",
    http: httpx.Client | None = None,
    items: int = 1,
    **headers: str,
) -> httpx.Response:
    document = {
        "id": "r-7",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [items], "data": [text] * items}],
    }
    return (http or served.http).post(f"/v2/models/{name}/infer?why={SECRET}", json=document, headers=headers)


def inside(inner: Told, outer: Told) -> bool:
    return outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns


def test_a_callers_trace_goes_on_through_gateway_queue_and_model(served: Served, collector: Collector) -> None:
    trace_id, before = new_trace_id(), time.time_ns()
    answer = infer(served, items=3, traceparent=f"00-{trace_id}-{SPAN_ID}-01", tracestate="vendor=1, other=2")
    after = time.time_ns()
    assert answer.json()["outputs"][0]["data"] == [SECRET] * 3
    told = collector.of_trace(trace_id, 3)
    predict, queue, compute = told["predict"], told["queue"], told["compute"]
    assert (predict.parent_id, queue.parent_id, compute.parent_id) == (SPAN_ID, predict.span_id, predict.span_id)
    assert (predict.kind, queue.kind, compute.kind) == (SERVER, INTERNAL, INTERNAL)
    assert len({predict.span_id, queue.span_id, compute.span_id, SPAN_ID}) == 4
    assert before <= predict.start_ns < predict.end_ns
    assert predict.start_ns < after
    assert inside(queue, predict)
    assert inside(compute, predict)
    assert queue.end_ns == compute.start_ns
    assert compute.end_ns > compute.start_ns
    assert {span.trace_state for span in told.values()} == {"vendor=1,other=2"}
    assert predict.attributes == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "url.path": "/v2/models/echo/infer",
        "http.response.status_code": 200,
        "http.request.body.size": len(answer.request.content),
        "http.response.body.size": len(answer.content),
        "enduser.id": "ada",
        "modelhub.door": "public",
        "modelhub.model.id": "echo-v1",
        "modelhub.model.version": "1",
        "modelhub.model.lineage": "echo",
        "modelhub.route": "live",
        "modelhub.items": 3,
        "modelhub.batch_items": 3,
        "modelhub.request_id": "r-7",
    }
    assert compute.attributes == {"modelhub.items": 3, "modelhub.batch_items": 3}
    assert (predict.status, predict.events) == (0, {})
    assert predict.resource["service.name"] == "door-under-test"
    assert predict.resource["deployment.environment.name"] == "tests"
    assert predict.resource["telemetry.sdk.language"] == "python"
    assert collector.requests[-1]["authorization"] == "Bearer s3cret"


def test_nothing_of_what_was_asked_is_told(served: Served, collector: Collector) -> None:
    trace_id = new_trace_id()
    infer(served, SECRET, traceparent=f"00-{trace_id}-{SPAN_ID}-01")
    collector.of_trace(trace_id, 3)
    assert all(SECRET not in str(span) and TOKEN not in str(span) for span in collector.spans)


def test_the_time_in_the_queue_is_told_apart_from_the_time_in_the_model(served: Served, collector: Collector) -> None:
    trace_id = new_trace_id()
    infer(served, "sleep:0.25", traceparent=f"00-{trace_id}-{SPAN_ID}-01")
    compute = collector.of_trace(trace_id, 3)["compute"]
    assert 0.25e9 <= compute.end_ns - compute.start_ns < 5e9


def test_a_caller_who_does_not_sample_gets_no_spans(served: Served, collector: Collector) -> None:
    unsampled, sampled = new_trace_id(), new_trace_id()
    assert infer(served, traceparent=f"00-{unsampled}-{SPAN_ID}-00").status_code == 200
    assert infer(served, traceparent=f"00-{sampled}-{SPAN_ID}-01").status_code == 200
    collector.of_trace(sampled, 3)  # one queue: what came before it is there as well
    assert unsampled not in {span.trace_id for span in collector.spans}


@pytest.mark.parametrize("header", [None, "", "nonsense", f"00-{'0' * 32}-{SPAN_ID}-01", "é" * 55])
def test_without_a_valid_parent_a_trace_begins_here(served: Served, collector: Collector, header: str | None) -> None:
    before = {span.trace_id for span in collector.spans}
    headers = {} if header is None else {"traceparent": header, "tracestate": "a=b"}
    document = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = served.http.post("/v2/models/echo/infer", json=document, headers=list(encoded.items()))
    assert answer.status_code == 200
    wait_until(lambda: {span.trace_id for span in collector.spans} - before, 30, "a new trace")
    (trace_id,) = {span.trace_id for span in collector.spans} - before
    told = collector.of_trace(trace_id, 3)
    assert (told["predict"].parent_id, told["predict"].trace_state) == ("", "")
    assert int(trace_id, 16)


def test_an_error_has_its_code_and_of_the_models_own_the_stages(served: Served, collector: Collector) -> None:
    unknown, refused, broken = new_trace_id(), new_trace_id(), new_trace_id()
    assert infer(served, name="nobody", traceparent=f"00-{unknown}-{SPAN_ID}-01").status_code == 404
    assert infer(served, "refuse", traceparent=f"00-{refused}-{SPAN_ID}-01").status_code == 400
    assert infer(served, "boom", traceparent=f"00-{broken}-{SPAN_ID}-01").status_code == 500
    predict = collector.of_trace(unknown, 1)["predict"]
    assert (predict.attributes["error.type"], predict.attributes["http.response.status_code"]) == (
        "model_not_found",
        404,
    )
    assert predict.status == 0  # a client's mistake is no error of the server, as the conventions have it
    predict = collector.of_trace(refused, 3)["predict"]
    assert (predict.attributes["error.type"], predict.status) == ("invalid_input", 0)
    predict = collector.of_trace(broken, 3)["predict"]
    assert (predict.status, predict.status_message) == (ERROR, "prediction_failed")
    assert predict.attributes["error.type"] == "prediction_failed"


def test_who_is_not_known_makes_no_spans(served: Served, collector: Collector) -> None:
    nobody, known = new_trace_id(), new_trace_id()
    http = served.door.http(token=None)
    assert infer(served, http=http, traceparent=f"00-{nobody}-{SPAN_ID}-01").status_code == 401
    infer(served, traceparent=f"00-{known}-{SPAN_ID}-01")
    collector.of_trace(known, 3)
    assert nobody not in {span.trace_id for span in collector.spans}


def test_a_client_that_leaves_is_told_as_such(served: Served, collector: Collector, gate: Path) -> None:
    trace_id = new_trace_id()
    impatient = httpx.Client(base_url=served.http.base_url, headers=served.http.headers, timeout=0.3)
    with impatient, pytest.raises(httpx.ReadTimeout):
        infer(served, f"gate:{gate}", http=impatient, traceparent=f"00-{trace_id}-{SPAN_ID}-01")
    predict = collector.of_trace(trace_id, 1)["predict"]
    gate.write_bytes(b"go on")
    assert predict.attributes["error.type"] == "client_left"
    assert "http.response.status_code" not in predict.attributes
    assert predict.end_ns - predict.start_ns >= 0.2e9


def test_the_private_doors_plain_prediction(served: Served, collector: Collector) -> None:
    trace_id = new_trace_id()
    headers = {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}
    answer = served.door.private("grace").post(
        "/internal/models/echo-v1/predict", json={"inputs": [SECRET]}, headers=headers
    )
    assert answer.status_code == 200
    predict = collector.of_trace(trace_id, 3)["predict"]
    assert predict.attributes["http.route"] == "/internal/models/{model}/predict"
    assert (predict.attributes["enduser.id"], predict.attributes["modelhub.door"]) == ("grace", "private")
    assert (predict.attributes["modelhub.route"], predict.attributes["modelhub.items"]) == ("direct", 1)


def test_grpc_has_the_same_spans(served: Served, collector: Collector) -> None:
    one, streamed, wrong = new_trace_id(), new_trace_id(), new_trace_id()
    stub = Stub(served.grpc_port)

    def metadata(trace_id: str) -> tuple[tuple[str, str], ...]:
        return (
            ("authorization", f"Bearer {TOKEN}"),
            ("traceparent", f"00-{trace_id}-{SPAN_ID}-01"),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        )

    try:
        stub("ModelInfer", metadata=metadata(one), **echo("a", "b", id="from-grpc"))
        requests = [echo_request(text) for text in ("one", "two")]
        answers = list(stub.method("ModelStreamInfer")(iter(requests), metadata=metadata(streamed), timeout=20))
        assert [answer.error_message for answer in answers] == ["", ""]
        with pytest.raises(Exception, match="nobody"):
            stub("ModelInfer", metadata=metadata(wrong), **(echo("a") | {"model_name": "nobody"}))
    finally:
        stub.close()
    told = collector.of_trace(one, 3)
    assert told["predict"].parent_id == SPAN_ID
    assert told["predict"].trace_state == "a=1,b=2"
    expected = {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "enduser.id": "ada",
        "modelhub.door": "grpc",
        "modelhub.model.id": "echo-v1",
        "modelhub.items": 2,
        "modelhub.request_id": "from-grpc",
    }
    assert {name: told["predict"].attributes.get(name) for name in expected} == expected
    wait_until(lambda: sum(span.trace_id == streamed for span in collector.spans) == 6, 30)
    of_stream = [span for span in collector.spans if span.trace_id == streamed and span.name == "predict"]
    assert [span.attributes["rpc.method"] for span in of_stream] == ["ModelStreamInfer"] * 2
    refused = collector.of_trace(wrong, 1)["predict"]
    assert (refused.attributes["error.type"], refused.attributes["rpc.grpc.status_code"]) == ("model_not_found", 5)


def echo_request(text: str) -> Any:
    from loaderd.gateway.grpc.transcoding import ModelInferRequest

    return ModelInferRequest(**echo(text, id=text))


def test_a_kept_answer_has_no_stages_and_says_so(served: Served, collector: Collector) -> None:
    served.change("echo-v1", load="one", cache_ttl_seconds=60.0)
    computed, kept = new_trace_id(), new_trace_id()
    first = infer(served, "kept", traceparent=f"00-{computed}-{SPAN_ID}-01")
    again = infer(served, "kept", traceparent=f"00-{kept}-{SPAN_ID}-01")
    assert (first.status_code, again.content) == (200, first.content)
    assert "modelhub.cache" not in collector.of_trace(computed, 3)["predict"].attributes
    assert collector.of_trace(kept, 1)["predict"].attributes["modelhub.cache"] == "hit"


def test_management_is_no_prediction(served: Served, collector: Collector) -> None:
    trace_id, known = new_trace_id(), new_trace_id()
    header = {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}
    assert served.http.get("/v2/models/echo", headers=header).status_code == 200
    assert served.http.post("/v2/repository/index", headers=header).status_code == 200
    infer(served, traceparent=f"00-{known}-{SPAN_ID}-01")
    collector.of_trace(known, 3)
    assert trace_id not in {span.trace_id for span in collector.spans}


def test_what_became_of_the_spans_is_in_the_metrics(served: Served, collector: Collector) -> None:
    wait_until(lambda: spans(served) == {"exported": len(collector.spans), "failed": 0, "dropped": 0}, 30)


def test_the_configured_sampler_decides_where_the_caller_does_not(tmp_path: Path, collector: Collector) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with serving_with(tmp_path, variables, "echo") as served:
        wait_for_exporter(served)
        trace_id, before = new_trace_id(), len(collector.spans)
        assert infer(served).status_code == 200
        infer(served, traceparent=f"00-{trace_id}-{SPAN_ID}-01")
        predict = collector.of_trace(trace_id, 3)["predict"]
        assert predict.resource["service.name"] == "modelhub-gateway"
        assert len(collector.spans) == before + 3


def test_a_collector_that_hangs_costs_nobody_a_prediction(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as hanging:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{hanging.getsockname()[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_BSP_MAX_QUEUE_SIZE": "12",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "6",
        }
        with serving_with(tmp_path, variables, "echo") as served:
            wait_for_exporter(served)
            began = time.monotonic()
            for _ in range(100):
                assert infer(served).status_code == 200
            assert time.monotonic() - began < 10  # the exporter's own time limit, which none of them waits for
            assert spans(served) == {"exported": 0, "failed": 0, "dropped": 3 * 100 - 12}
            served.door.process.terminate()
            assert served.door.process.wait(10) == 0


def test_a_collector_that_is_away_costs_spans_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    with serving_with(tmp_path, variables, "echo") as served:
        wait_for_exporter(served)
        assert infer(served).status_code == 200
        wait_until(lambda: spans(served) == {"exported": 0, "failed": 3, "dropped": 0}, 30)
        assert infer(served).status_code == 200


def test_variables_that_are_not_understood_leave_the_door_open(tmp_path: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "-5"}
    with serving_with(tmp_path, variables, "echo") as served:
        log = Log(served.door)
        wait_until(lambda: any("no spans are exported" in line for line in log.lines), 60, "it says why")
        assert infer(served).status_code == 200
        assert spans(served) == {}
