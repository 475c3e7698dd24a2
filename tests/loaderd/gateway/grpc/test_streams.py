"""ModelStreamInfer: many requests on one call."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from loaderd.gateway.grpc.streams import MAX_IN_FLIGHT
from loaderd.gateway.grpc.transcoding import ModelInferRequest
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import TOKEN, grant
from tests.loaderd.gateway.grpc.conftest import METADATA, SECONDS, Stub, echo, echoed


class Stream:
    """A stream that a test writes to and reads from as it likes."""

    def __init__(self, stub: Stub, metadata: Any = METADATA) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.call = stub.method("ModelStreamInfer")(iter(self._requests.get, None), metadata=metadata, timeout=SECONDS)

    def send(self, **fields: Any) -> None:
        self._requests.put(ModelInferRequest(**fields))

    def send_bytes(self, message: bytes) -> None:
        self._requests.put(message)

    def half_close(self) -> None:
        self._requests.put(None)

    def receive(self) -> Any:
        return next(self.call)


@pytest.fixture
def stream(stub: Stub) -> Iterator[Stream]:
    stream = Stream(stub)
    yield stream
    stream.half_close()
    stream.call.cancel()


def double(**fields: Any) -> dict[str, Any]:
    return {
        "model_name": "double",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "contents": {"fp32_contents": [1.5]}}],
        **fields,
    }


def code_of(stream: Stream) -> StatusCode:
    """The status that a stream ends with."""
    with pytest.raises(grpc.RpcError) as ended:
        stream.receive()
    code: StatusCode = ended.value.code()  # type: ignore[attr-defined]
    return code


def test_each_request_has_its_answer_and_the_stream_an_end(stream: Stream) -> None:
    count = 3 * MAX_IN_FLIGHT
    for number in range(count):
        stream.send(**echo(f"text {number}", id=str(number)))
    stream.half_close()
    answers = {answer.infer_response.id: answer for answer in stream.call}
    assert {number: echoed(answer.infer_response) for number, answer in answers.items()} == {
        str(number): [f"text {number}"] for number in range(count)
    }
    assert all(answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers.values())
    assert stream.call.code() == StatusCode.OK


def test_those_with_ids_overtake_a_slow_one(stream: Stream, gate: Path) -> None:
    stream.send(**echo(f"gate:{gate}", id="slow"))
    stream.send(**double(id="quick"))
    assert stream.receive().infer_response.id == "quick"
    gate.write_bytes(b"")
    assert stream.receive().infer_response.id == "slow"


def test_those_without_ids_keep_their_order(stream: Stream, served: Served, gate: Path) -> None:
    stream.send(**echo(f"gate:{gate}"))
    stream.send(**double())
    stream.send(**double(id="named"))
    stream.send_bytes(b"\xff")
    assert stream.receive().infer_response.id == "named"
    assert served.models["double-v1"].stats()["in_flight"] == 0
    gate.write_bytes(b"")
    assert stream.receive().infer_response.model_name == "echo"
    assert stream.receive().infer_response.model_name == "double"
    assert stream.receive().error_message.startswith("The call's bytes are no ModelInferRequest")


def test_an_error_is_an_answer_and_the_stream_goes_on(stream: Stream) -> None:
    for fields, sentence in (
        (echo("boom", id="1"), "the model is broken"),
        (echo("a", id="2", model_name="nothing"), 'No model named "nothing"'),
        ({"model_name": "echo", "id": "3"}, 'lacks the input "text"'),
    ):
        stream.send(**fields)
        answer = stream.receive()
        assert sentence in answer.error_message
        assert answer.infer_response.id == fields["id"]
    stream.send(**echo("after"))
    assert echoed(stream.receive().infer_response) == ["after"]


def test_a_client_may_have_errors_end_the_stream(stub: Stub) -> None:
    stream = Stream(stub, (*METADATA, ("triton_grpc_error", "true")))
    stream.send(**echo("fine"))
    assert echoed(stream.receive().infer_response) == ["fine"]
    stream.send(**echo("a", model_name="nothing"))
    assert code_of(stream) == StatusCode.NOT_FOUND
    stream.half_close()


def test_it_needs_a_token_all_along(stub: Stub, served: Served) -> None:
    without = Stream(stub, ())
    assert code_of(without) == StatusCode.UNAUTHENTICATED
    without.half_close()
    stream = Stream(stub)
    stream.send(**echo("a"))
    stream.receive()
    served.door.allow({})
    served.door.route(served.table)  # answered, so the tokens before it are in force
    stream.send(**echo("b"))
    assert code_of(stream) == StatusCode.UNAUTHENTICATED
    stream.half_close()


def test_it_needs_the_right_to_predict(stub: Stub, served: Served) -> None:
    served.door.allow({TOKEN: grant("eve", "load")})
    stream = Stream(stub)
    assert code_of(stream) == StatusCode.PERMISSION_DENIED
    stream.half_close()


def test_a_client_that_leaves_takes_its_requests_along(stub: Stub, served: Served, gate: Path) -> None:
    model = served.models["echo-v1"]
    stream = Stream(stub)
    stream.send(**echo(f"gate:{gate}", id="busy"))
    wait_until(lambda: model.stats()["in_flight"] == 1, what="the model is busy")
    for number in range(5):
        stream.send(**echo(f"queued {number}", id=str(number)))
    wait_until(lambda: model.stats()["in_flight"] == 6, what="all requests are with the model")
    stream.call.cancel()
    stream.half_close()
    wait_until(lambda: model.stats()["in_flight"] == 0, what="nobody waits any more")
    gate.write_bytes(b"")


def test_no_more_are_read_than_may_be_in_flight(stub: Stub, served: Served, gate: Path) -> None:
    model = served.models["echo-v1"]
    stream = Stream(stub)
    stream.send(**echo(f"gate:{gate}", id="busy"))
    for number in range(MAX_IN_FLIGHT + 20):
        stream.send(**echo(f"queued {number}", id=str(number)))
    wait_until(lambda: model.stats()["in_flight"] == MAX_IN_FLIGHT, what="the stream is full")
    stub("ServerLive")  # the door works on
    assert model.stats()["in_flight"] == MAX_IN_FLIGHT
    gate.write_bytes(b"")
    stream.half_close()
    assert len(list(stream.call)) == MAX_IN_FLIGHT + 21
