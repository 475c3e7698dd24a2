"""Generated text in a trace: one span, with the moment of its first part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from tests.contract.clients.test_openai import LOAD_SECONDS, registered, write  # noqa: F401 - a fixture
from tests.loaderd.gateway.conftest import EVERYTHING, Served
from tests.loaderd.gateway.door import TOKEN, Door, row
from tests.loaderd.gateway.observing.collector import Collector, collecting
from tests.loaderd.gateway.observing.gateways import Log, wait_for_exporter
from tests.loaderd.generation.writer import SUBJECTS
from tests.loaderd.worker.process import ModelProcess

pytestmark = [pytest.mark.xdist_group("transformers"), pytest.mark.timeout(240)]

SPAN_ID = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    collector: Collector,
    write: Callable[[Path], None],  # noqa: F811 - the fixture
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("text")
    (folder / "writer").mkdir()
    write(folder / "writer")
    with ExitStack() as stack:
        model = stack.enter_context(ModelProcess(registered("writer", folder / "writer"), folder / "writer.sock"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
            door = stack.enter_context(Door(folder))
        door.listening()
        model.channel.settimeout(LOAD_SECONDS)
        model.ready()
        door.allow(EVERYTHING)
        door.route({"writer-v1": row(model, model.signature)}, slow_request_seconds=1e-9)
        served = Served(door, door.http(), {}, {})
        wait_for_exporter(served)
        yield served


def test_a_streamed_text_is_one_span_with_its_first_part_and_its_stages(served: Served, collector: Collector) -> None:
    log, trace_id = Log(served.door), f"{1:032x}"
    subject, answer = next(iter(SUBJECTS.items()))
    address = f"http://127.0.0.1:{served.door.port}/v1"
    with openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="writer",
            messages=[{"role": "user", "content": subject}],
            temperature=0,
            stream=True,
            extra_headers={"traceparent": f"00-{trace_id}-{SPAN_ID}-01"},
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer
    told = collector.of_trace(trace_id, 3)
    predict, queue, compute = told["predict"], told["queue"], told["compute"]
    first_part = predict.events["first part"]
    assert predict.start_ns < first_part < predict.end_ns
    assert predict.start_ns <= queue.start_ns <= queue.end_ns == compute.start_ns < compute.end_ns <= predict.end_ns
    assert predict.attributes["http.route"] == "/v1/chat/completions"
    assert (predict.attributes["modelhub.model.id"], predict.attributes["modelhub.items"]) == ("writer-v1", 1)
    assert predict.attributes["http.response.body.size"] > len(text)
    assert all(answer not in str(span) and subject not in str(span) for span in collector.spans)
    (line,) = log.slow()
    assert 0 < line["first_part_seconds"] <= line["total_seconds"]
    assert line["compute_seconds"] > 0
    assert answer not in str(line)
