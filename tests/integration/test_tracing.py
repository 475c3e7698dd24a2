"""A trace through the running product: API, inference door, model process; and what none of them may see or tell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loaderd.gateway.observing.slow import PREFIX
from tests import environment
from tests.deadline import wait_until
from tests.loaderd.gateway.observing.collector import Collector, collecting
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("tracing")]

MODEL = "sentiment-sklearn-v1.0"
TEXT = "The third delivery in a row that never came. What do I pay you for?"
SPAN_ID = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def stack(sample_store: Path, collector: Collector) -> Iterator[Stack]:
    folder = environment.fresh_folder()
    shutil.copytree(sample_store, folder / "models")
    stack = Stack(
        folder / "state",
        folder / "models",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20s3cret",
        OTEL_SERVICE_NAME="the-product",
        OTEL_BSP_SCHEDULE_DELAY="100",
        SLOW_REQUEST_SECONDS="0.000001",
    )
    try:
        yield stack.start()
    finally:
        stack.end()
        environment.remove_folder(folder)


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[httpx.Client]:
    with stack.api() as api:
        assert api.post(f"/api/models/{MODEL}/load").status_code == 200
        headers = dict(stack.headers)
        url = f"http://{stack.inference}/metrics"
        wait_until(lambda: "modelhub_gateway_spans_total" in httpx.get(url, headers=headers).text, 60, "an exporter")
        yield api


def test_a_trace_goes_through_the_api_and_through_the_door(
    stack: Stack, api: httpx.Client, collector: Collector
) -> None:
    by_api, by_door = f"{1:032x}", f"{2:032x}"
    answer = api.post(
        f"/api/models/{MODEL}/predict", json={"inputs": [TEXT]}, headers={"traceparent": f"00-{by_api}-{SPAN_ID}-01"}
    )
    assert answer.status_code == 200, answer.text
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}
    httpx.post(
        f"http://{stack.inference}/v2/models/{MODEL}/infer",
        json={"inputs": [tensor]},
        headers={**stack.headers, "traceparent": f"00-{by_door}-{SPAN_ID}-01"},
    ).raise_for_status()
    for trace_id, door in ((by_api, "private"), (by_door, "public")):
        told = collector.of_trace(trace_id, 3)
        predict = told["predict"]
        assert told.keys() == {"predict", "queue", "compute"}
        assert (predict.parent_id, predict.attributes["modelhub.door"]) == (SPAN_ID, door)
        assert (predict.attributes["modelhub.model.id"], predict.attributes["enduser.id"]) == (MODEL, "ada")
        assert predict.resource["service.name"] == "the-product"
        stack.wait_for_output(f'"trace_id":"{trace_id}"', 20)
    assert collector.requests[-1]["authorization"] == "Bearer s3cret"
    assert all(TEXT not in str(span) for span in collector.spans)
    assert not [line for line in stack.output if PREFIX in line and TEXT in line]


def test_only_the_gateway_knows_how_the_collector_is_reached(stack: Stack, api: httpx.Client) -> None:
    commands = {process: " ".join(process.cmdline()) for process in stack.family()}
    gateways = [process for process, command in commands.items() if "-m loaderd.gateway" in command]
    zygotes = [process for process, command in commands.items() if "-m loaderd.zygote" in command]
    model = psutil.Process(api.get(f"/api/models/{MODEL}").json()["runtime"]["pid"])
    assert gateways
    assert zygotes
    assert all(process.environ()["OTEL_EXPORTER_OTLP_HEADERS"] for process in gateways)
    for process in (*zygotes, model):
        assert not [name for name in process.environ() if name.startswith("OTEL_")], process


def test_where_requests_spend_their_time_is_in_the_metrics(stack: Stack) -> None:
    text = httpx.get(f"http://{stack.inference}/metrics", headers=dict(stack.headers)).raise_for_status().text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    of_model = {sample.name for sample in samples if sample.labels.get("model") == MODEL}
    assert of_model >= {
        "modelhub_request_seconds_bucket",
        "modelhub_queue_seconds_total",
        "modelhub_compute_seconds_total",
        "modelhub_input_seconds_total",
        "modelhub_infer_seconds_total",
        "modelhub_output_seconds_total",
        "modelhub_batch_items_bucket",
    }
    (slow,) = [sample.value for sample in samples if sample.name == "modelhub_gateway_slow_requests_total"]
    assert slow >= 2
