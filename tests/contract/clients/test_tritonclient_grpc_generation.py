"""Generated text, piece by piece, over `tritonclient[grpc]`'s stream, from a real model."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from loaderd.errors import InvalidInput
from loaderd.gateway.grpc import generating, transcoding
from loaderd.gateway.grpc.transcoding import ModelInferRequest
from tests.contract.clients.conftest import HEADERS as HTTP_HEADERS
from tests.contract.clients.test_openai import LOAD_SECONDS, registered, write  # noqa: F401 - a fixture
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import Door
from tests.loaderd.generation.writer import SUBJECTS
from tests.loaderd.worker.process import ModelProcess, spec

HEADERS = {key.lower(): value for key, value in HTTP_HEADERS.items()}
SECONDS = 30.0
PROMPT = "<|user|>Délai<|assistant|>"

pytestmark = [pytest.mark.xdist_group("transformers"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def standing(
    tmp_path_factory: pytest.TempPathFactory,
    write: Callable[[Path], None],  # noqa: F811 - the fixture
) -> Iterator[Served]:
    """writer-v1 writes, classifier-v1 does not."""
    folder = tmp_path_factory.mktemp("grpc")
    (folder / "writer").mkdir()
    write(folder / "writer")
    specs = [spec("classifier"), registered("writer", folder / "writer")]
    with ExitStack() as stack:
        models = [stack.enter_context(ModelProcess(model, folder / f"{model.lineage}.sock")) for model in specs]
        door = stack.enter_context(Door(folder, "--grpc-port", "0"))
        door.listening()
        grpc_port = door.event()["port"]
        for model in models:
            model.channel.settimeout(LOAD_SECONDS)
            model.ready()
        yield Served(door, door.http(), {model.spec.model_id: model for model in models}, {}, grpc_port)


@pytest.fixture
def told(served: Served) -> Iterator[Callable[..., list[tuple[Any, Any]]]]:
    """Asks for one text over a stream; returns all that was called back until the final response."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=HEADERS)

        def ask(text: str, name: str = "writer", **parameters: Any) -> list[tuple[Any, Any]]:
            given = InferInput("text", [1], "BYTES")
            given.set_data_from_numpy(np.array([text], dtype=object))
            client.async_stream_infer(name, [given], request_id="seven", parameters=parameters)
            called = [answers.get(timeout=SECONDS)]
            while called[-1][1] is None and not is_final(called[-1][0]):
                called.append(answers.get(timeout=SECONDS))
            return called

        yield ask
        client.stop_stream()


def is_final(result: Any) -> bool:
    final: bool = result.get_response().parameters["triton_final_response"].bool_param
    return final


def written(called: list[tuple[Any, Any]]) -> str:
    return "".join(result.as_numpy("generated_text")[0].decode() for result, _ in called[:-1])


def test_it_comes_in_pieces_and_the_last_response_says_so(told: Callable[..., Any]) -> None:
    called = told(PROMPT, stream=True, temperature=0.0)
    assert written(called) == SUBJECTS["Délai"]
    assert len(called) > 5
    assert [is_final(result) for result, _ in called] == [False] * (len(called) - 1) + [True]
    responses = [result.get_response() for result, _ in called]
    assert {(one.id, one.model_name, one.model_version) for one in responses} == {("seven", "writer", "1")}
    assert responses[-2].parameters["finish_reason"].string_param == "stop"
    usage = {key: value.int64_param for key, value in responses[-1].parameters.items() if key.endswith("_tokens")}
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 20


def test_wishes_are_kept(told: Callable[..., Any]) -> None:
    short = told(PROMPT, stream=True, temperature=0.0, max_tokens=3)
    assert short[-2][0].get_response().parameters["finish_reason"].string_param == "length"
    assert written(told(PROMPT, stream=True, temperature=0.0, stop="livraison")) == "Très désolé : la "


def test_without_the_parameter_it_comes_at_once(told: Callable[..., Any]) -> None:
    ((result, error),) = told(PROMPT)
    assert error is None
    assert result.as_numpy("generated_text")[0].decode().startswith(SUBJECTS["Délai"])


def test_what_cannot_be_is_told(told: Callable[..., Any]) -> None:
    for name, parameters, sentence in (
        ("writer", {"temperature": 9.0}, "temperature must be a number from 0 to 2"),
        ("classifier", {}, "does not generate text"),
        ("nothing", {}, 'No model named "nothing"'),
    ):
        ((result, error),) = told(PROMPT, name, stream=True, **parameters)
        assert result is None
        assert sentence in error.message()


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "text", "datatype": "BYTES", "shape": [2], "contents": {"bytes_contents": [b"a", b"b"]}},
        {"name": "other", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a"]}},
        {"name": "text", "datatype": "INT32", "shape": [1], "contents": {"int_contents": [0]}},
    ],
)
def test_anything_but_one_text_is_refused(entry: dict[str, Any]) -> None:
    asked = transcoding.read(ModelInferRequest(model_name="writer", inputs=[entry]).SerializeToString())
    with pytest.raises(InvalidInput, match="needs one input"):
        generating.body(asked)


def test_a_text_that_is_no_utf8_is_refused() -> None:
    entry = {"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"\xff"]}}
    asked = transcoding.read(ModelInferRequest(model_name="writer", inputs=[entry]).SerializeToString())
    with pytest.raises(InvalidInput, match="is no UTF-8"):
        generating.body(asked)
