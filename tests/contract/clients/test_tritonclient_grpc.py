"""`tritonclient[grpc]`, synchronous and asynchronous, works here as it does against Triton."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
    KeepAliveOptions,
    aio,
    service_pb2,
)
from tritonclient.grpc.auth import BasicAuth
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from tests.contract.clients.conftest import HEADERS as HTTP_HEADERS
from tests.contract.clients.conftest import Keeper
from tests.contract.clients.test_tritonclient_http import LOADED, VALUES
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import TOKEN
from tests.loaderd.gateway.grpc.conftest import METADATA

HEADERS = {key.lower(): value for key, value in HTTP_HEADERS.items()}
SECONDS = 20.0


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    with serving(folder, "mirror", "classifier", "double", "echo", grpc=True) as served:
        yield served


@pytest.fixture
def served(standing: Served) -> Served:
    standing.reset()
    standing.door.answer = Keeper(standing)
    return standing


@pytest.fixture
def address(served: Served) -> str:
    return f"127.0.0.1:{served.grpc_port}"


@pytest.fixture
def triton(address: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(address) as client:
        yield client


def mirrored() -> list[InferInput]:
    """An input of each datatype."""
    inputs = []
    for datatype, value in VALUES.items():
        given = InferInput(datatype.lower(), list(value.shape), datatype)
        given.set_data_from_numpy(value)
        inputs.append(given)
    return inputs


def text_input(*texts: str) -> InferInput:
    given = InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array(texts, dtype=object))
    return given


def again(result: InferResult, datatype: str) -> np.ndarray:
    array: np.ndarray = result.as_numpy(f"{datatype.lower()}_again")
    return np.vectorize(bytes.decode, otypes=[object])(array) if array.dtype == object else array


class TestHealth:
    def test_live_and_ready_need_no_token(self, triton: InferenceServerClient) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()

    def test_a_model_is_ready_when_that_version_is_loaded(self, triton: InferenceServerClient, served: Served) -> None:
        assert triton.is_model_ready("echo-v1", headers=HEADERS)
        assert triton.is_model_ready("echo", "1", headers=HEADERS)
        assert not triton.is_model_ready("echo", "2", headers=HEADERS)
        assert not triton.is_model_ready("nothing", headers=HEADERS)
        served.change("echo-v1", state="loading", sockets=[])
        assert not triton.is_model_ready("echo", headers=HEADERS)
        assert triton.is_server_ready()


class TestDatatypes:
    def test_all_come_back_as_they_went(self, triton: InferenceServerClient) -> None:
        outputs = [InferRequestedOutput(f"{datatype.lower()}_again") for datatype in reversed(VALUES)]
        result = triton.infer("mirror", mirrored(), outputs=outputs, headers=HEADERS)
        assert [output.name for output in result.get_response().outputs] == [output.name() for output in outputs]
        for datatype, value in VALUES.items():
            np.testing.assert_array_equal(again(result, datatype), value, err_msg=datatype)
            assert result.get_output(f"{datatype.lower()}_again").datatype == datatype

    def test_typed_contents(self, address: str) -> None:
        """As clients of other languages send them."""
        request = service_pb2.ModelInferRequest(model_name="double")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.5, 1.5])
        texts = service_pb2.ModelInferRequest(model_name="echo")
        texts.inputs.add(name="text", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"a", b"b"])
        with grpc.insecure_channel(address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            rows = InferResult(stub.ModelInfer(request, metadata=METADATA))
            echoes = InferResult(stub.ModelInfer(texts, metadata=METADATA))
        assert rows.as_numpy("y").tolist() == [[1.0, 3.0]]
        assert echoes.as_numpy("echo").tolist() == [b"a", b"b"]

    def test_what_is_no_number_survives(self, triton: InferenceServerClient) -> None:
        odd = np.array([[np.nan, np.inf], [-np.inf, 0.0]])
        floats = ("FP16", "BF16", "FP32", "FP64")
        inputs = mirrored()
        for given in inputs:
            if given.datatype() in floats:
                given.set_data_from_numpy(odd.astype(VALUES[given.datatype()].dtype))
        result = triton.infer("mirror", inputs, headers=HEADERS)
        for datatype in floats:
            np.testing.assert_array_equal(again(result, datatype).astype("f8"), odd)

    def test_a_tensor_without_elements(self, triton: InferenceServerClient) -> None:
        given = InferInput("x", [3, 0], "FP32")
        given.set_data_from_numpy(np.empty((3, 0), dtype=np.float32))
        result = triton.infer("double", [given], headers=HEADERS)
        assert list(result.get_output("y").shape) == [3, 0]
        assert result.as_numpy("y").size == 0


class TestRequests:
    def test_names_versions_and_ids_are_kept(self, triton: InferenceServerClient) -> None:
        result = triton.infer("echo", [text_input("a")], model_version="1", request_id="seven", headers=HEADERS)
        response = result.get_response()
        assert (response.id, response.model_name, response.model_version) == ("seven", "echo", "1")
        as_json = result.get_response(as_json=True)
        assert [output["name"] for output in as_json["outputs"]] == ["echo", "length", "batch"]

    def test_several_at_once_are_answered_each(self, triton: InferenceServerClient) -> None:
        told: queue.Queue[tuple[InferResult, Any]] = queue.Queue()
        for number in range(16):
            triton.async_infer(
                "echo",
                [text_input(f"text {number}")],
                callback=lambda result, error: told.put((result, error)),
                request_id=str(number),
                headers=HEADERS,
            )
        answers = [told.get(timeout=SECONDS) for _ in range(16)]
        assert [error for _, error in answers] == [None] * 16
        assert {result.get_response().id: result.as_numpy("echo")[0].decode() for result, _ in answers} == {
            str(number): f"text {number}" for number in range(16)
        }

    def test_priority_timeout_and_parameters_of_ones_own(self, triton: InferenceServerClient) -> None:
        result = triton.infer(
            "echo",
            [text_input("first")],
            priority=1,
            timeout=5_000_000,
            parameters={"tenant": "blue", "share": 0.5, "n": 3, "is": True},
            headers=HEADERS,
        )
        assert result.as_numpy("echo").tolist() == [b"first"]

    def test_sequences_are_refused(self, triton: InferenceServerClient) -> None:
        for sequence_id in (7, "seven"):
            with pytest.raises(InferenceServerException, match='The parameter "sequence_id" is refused') as refused:
                triton.infer("echo", [text_input("a")], sequence_id=sequence_id, headers=HEADERS)
            assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"

    def test_the_best_classes(self, triton: InferenceServerClient) -> None:
        wanted = InferRequestedOutput("probabilities", class_count=2)
        best = triton.infer("classifier", [text_input("so so!!!", "no")], outputs=[wanted], headers=HEADERS)
        told = np.vectorize(bytes.decode, otypes=[object])(best.as_numpy("probabilities"))
        assert told.tolist() == [["0.625:0:negative", "0.375:1:positive"], ["1.0:0:negative", "0.0:1:positive"]]
        assert best.get_output("probabilities").datatype == "BYTES"

    def test_shared_memory_is_refused_with_a_sentence(self, triton: InferenceServerClient) -> None:
        given = text_input("a")
        given.set_shared_memory("region", 5)
        with pytest.raises(InferenceServerException, match='"text" asks for shared memory, which is not offered'):
            triton.infer("echo", [given], headers=HEADERS)
        wanted = InferRequestedOutput("echo")
        wanted.set_shared_memory("region", 5)
        with pytest.raises(InferenceServerException, match='"echo" asks for shared memory, which is not offered'):
            triton.infer("echo", [text_input("a")], outputs=[wanted], headers=HEADERS)

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_compressed(self, triton: InferenceServerClient, algorithm: str) -> None:
        x = np.arange(30_000, dtype=np.float32).reshape(100, 300)
        given = InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        result = triton.infer("double", [given], headers=HEADERS, compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("y"), x * 2)

    def test_a_large_tensor(self, triton: InferenceServerClient) -> None:
        x = np.arange(8_000_000, dtype=np.float32).reshape(8, -1)
        given = InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        result = triton.infer("double", [given], headers=HEADERS)
        np.testing.assert_array_equal(result.as_numpy("y"), x * 2)

    def test_errors_carry_status_and_sentence(self, triton: InferenceServerClient, served: Served) -> None:
        served.change("double-v1", state="unloaded", sockets=[])
        for name, text, code, sentence in (
            ("nothing", "a", "NOT_FOUND", 'No model named "nothing"'),
            ("echo", "boom", "INTERNAL", "the model is broken"),
            ("echo", "refuse", "INVALID_ARGUMENT", "this text is refused"),
            ("double", "a", "FAILED_PRECONDITION", "double-v1 is unloaded"),
        ):
            with pytest.raises(InferenceServerException, match=sentence) as refused:
                triton.infer(name, [text_input(text)], headers=HEADERS)
            assert refused.value.status() == f"StatusCode.{code}"
        with pytest.raises(InferenceServerException, match="A token is needed") as refused:
            triton.infer("echo", [text_input("a")])
        assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        triton.register_plugin(BasicAuth("ada", "secret"))
        with pytest.raises(InferenceServerException, match="must be: Token <token>, or Bearer <token>"):
            triton.infer("echo", [text_input("a")])

    def test_its_own_deadline(self, triton: InferenceServerClient, tmp_path: Path) -> None:
        until = tmp_path / "until"
        with pytest.raises(InferenceServerException) as late:
            triton.infer("echo", [text_input(f"spin:{until}")], client_timeout=0.3, headers=HEADERS)
        until.touch()
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert triton.infer("echo", [text_input("after")], headers=HEADERS).as_numpy("echo").tolist() == [b"after"]

    def test_cancelling(self, triton: InferenceServerClient, served: Served, tmp_path: Path) -> None:
        until, told = tmp_path / "until", queue.Queue[Any]()
        context = triton.async_infer(
            "echo",
            [text_input(f"spin:{until}")],
            callback=lambda result, error: told.put(error),
            headers=HEADERS,
        )
        served.models["echo-v1"].wait_for(in_flight=1)
        context.cancel()
        assert told.get(timeout=SECONDS).status() == "StatusCode.CANCELLED"
        served.models["echo-v1"].wait_for(in_flight=0)
        until.touch()

    def test_eager_keep_alive_is_allowed(self, address: str) -> None:
        options = KeepAliveOptions(
            keepalive_time_ms=10_000,
            keepalive_timeout_ms=5_000,
            keepalive_permit_without_calls=True,
            http2_max_pings_without_data=0,
        )
        with InferenceServerClient(address, keepalive_options=options) as client:
            assert client.is_server_live()


class TestStreams:
    def test_requests_and_errors_over_one_stream(self, triton: InferenceServerClient) -> None:
        told: queue.Queue[tuple[InferResult | None, Any]] = queue.Queue()
        triton.start_stream(lambda result, error: told.put((result, error)), headers=HEADERS)
        for number in range(20):
            triton.async_stream_infer("echo", [text_input(f"text {number}")], request_id=str(number))
        answers = [told.get(timeout=SECONDS) for _ in range(20)]
        assert {result.get_response().id: result.as_numpy("echo")[0].decode() for result, _ in answers if result} == {
            str(number): f"text {number}" for number in range(20)
        }
        triton.async_stream_infer("nothing", [text_input("a")])
        result, error = told.get(timeout=SECONDS)
        assert result is None
        assert 'No model named "nothing"' in error.message()
        triton.async_stream_infer("echo", [text_input("after")], enable_empty_final_response=True)
        result, error = told.get(timeout=SECONDS)
        assert error is None
        assert result is not None
        assert result.get_response().parameters["triton_final_response"].bool_param
        triton.stop_stream()

    def test_without_ids_answers_come_in_order(self, triton: InferenceServerClient) -> None:
        told: queue.Queue[tuple[InferResult, Any]] = queue.Queue()
        triton.start_stream(lambda result, error: told.put((result, error)), headers=HEADERS)
        names = ["echo", "classifier"] * 15
        for name in names:
            triton.async_stream_infer(name, [text_input("a")])
        assert [told.get(timeout=SECONDS)[0].get_response().model_name for _ in names] == names
        triton.stop_stream()

    def test_a_stream_that_is_refused(self, triton: InferenceServerClient) -> None:
        told: queue.Queue[Any] = queue.Queue()
        triton.start_stream(lambda result, error: told.put(error))
        assert told.get(timeout=SECONDS).status() == "StatusCode.UNAUTHENTICATED"
        triton.stop_stream(cancel_requests=True)

    def test_stopping_with_requests_in_flight(
        self, triton: InferenceServerClient, served: Served, tmp_path: Path
    ) -> None:
        until = tmp_path / "until"
        triton.start_stream(lambda result, error: None, headers=HEADERS)
        triton.async_stream_infer("echo", [text_input(f"spin:{until}")])
        served.models["echo-v1"].wait_for(in_flight=1)
        triton.stop_stream(cancel_requests=True)
        served.models["echo-v1"].wait_for(in_flight=0)
        until.touch()


class TestTheAsynchronousClient:
    def test_everything_in_one_go(self, address: str) -> None:
        async def ask() -> None:
            async with aio.InferenceServerClient(address) as client:
                assert await client.is_server_live()
                assert await client.is_server_ready()
                assert await client.is_model_ready("echo", headers=HEADERS)
                metadata = await client.get_model_metadata("echo", headers=HEADERS, as_json=True)
                assert metadata["outputs"][0] == {"name": "echo", "datatype": "BYTES", "shape": ["-1"]}
                assert (await client.get_model_config("echo", headers=HEADERS)).config.max_batch_size == 64
                results = await asyncio.gather(
                    *(
                        client.infer("echo", [text_input(f"text {number}")], request_id=str(number), headers=HEADERS)
                        for number in range(16)
                    )
                )
                assert [result.as_numpy("echo")[0].decode() for result in results] == [
                    f"text {number}" for number in range(16)
                ]
                assert [result.get_response().id for result in results] == [str(number) for number in range(16)]
                await client.load_model("echo-v1", headers=HEADERS)
                await client.unload_model("echo-v1", headers=HEADERS)
                index = await client.get_model_repository_index(headers=HEADERS)
                assert {entry.name for entry in index.models} == {*LOADED, "spam-v1"}
                told = await client.get_inference_statistics("echo", headers=HEADERS)
                assert told.model_stats[0].inference_stats.success.count >= 16
                with pytest.raises(InferenceServerException, match="the model is broken") as refused:
                    await client.infer("echo", [text_input("boom")], headers=HEADERS)
                assert refused.value.status() == "StatusCode.INTERNAL"

        asyncio.run(ask())

    def test_a_stream(self, address: str) -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in range(20):
                name = "nothing" if number == 7 else "echo"
                yield {
                    "model_name": name,
                    "inputs": [text_input(f"text {number}")],
                    "request_id": str(number),
                    "enable_empty_final_response": True,
                }

        async def ask() -> list[tuple[InferResult | None, Any]]:
            async with aio.InferenceServerClient(address) as client:
                answers = client.stream_infer(requests(), headers=HEADERS)
                return [answer async for answer in answers]

        answers = asyncio.run(ask())
        assert sorted(int(result.get_response().id) for result, _ in answers if result is not None) == [
            number for number in range(20) if number != 7
        ]
        (error,) = [error for _, error in answers if error is not None]
        assert 'No model named "nothing"' in error.message()


class TestStatistics:
    def test_what_was_done_is_counted(self, triton: InferenceServerClient) -> None:
        def entry() -> Any:
            (only,) = triton.get_inference_statistics("classifier", headers=HEADERS).model_stats
            return only

        before = entry()
        for texts in (["a", "b", "c"], ["d!"]):
            triton.infer("classifier", [text_input(*texts)], headers=HEADERS)
        now = entry()
        assert (now.name, now.version) == ("classifier", "1")
        assert now.inference_count - before.inference_count == 4
        assert now.execution_count - before.execution_count == 2
        assert now.last_inference > before.last_inference
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            after, earlier = getattr(now.inference_stats, part), getattr(before.inference_stats, part)
            assert after.count - earlier.count == 2, part
            assert after.ns > earlier.ns, part
        assert {1, 3} <= {batch.batch_size for batch in now.batch_stats}
        assert (now.memory_usage[0].type, now.memory_usage[0].byte_size) == ("CPU", 30_000_000)

    def test_of_all_models_and_of_none(self, triton: InferenceServerClient) -> None:
        told = triton.get_inference_statistics(headers=HEADERS, as_json=True)
        assert {entry["name"] for entry in told["model_stats"]} == LOADED
        with pytest.raises(InferenceServerException, match='No model named "nothing"') as refused:
            triton.get_inference_statistics("nothing", headers=HEADERS)
        assert refused.value.status() == "StatusCode.NOT_FOUND"


class TestDescriptions:
    def test_the_server(self, triton: InferenceServerClient) -> None:
        told = triton.get_server_metadata(headers=HEADERS)
        assert told.name == "modelhub"
        assert "statistics" in told.extensions

    def test_a_model(self, triton: InferenceServerClient) -> None:
        for version in ("", "1"):
            assert triton.get_model_metadata("classifier", version, headers=HEADERS, as_json=True) == {
                "name": "classifier",
                "versions": ["1"],
                "platform": "in-test",
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": ["-1"]}],
                "outputs": [
                    {"name": "label", "datatype": "BYTES", "shape": ["-1"]},
                    {"name": "probabilities", "datatype": "FP32", "shape": ["-1", "2"]},
                ],
            }

    def test_its_configuration(self, triton: InferenceServerClient) -> None:
        config = triton.get_model_config("mirror", headers=HEADERS, as_json=True)["config"]
        assert (config["name"], config["backend"], config["max_batch_size"]) == ("mirror", "in-test", 64)
        kinds = {entry["name"]: entry["data_type"] for entry in config["input"]}
        assert kinds == {name.lower(): "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}" for name in VALUES}
        assert config["parameters"]["model_id"] == {"string_value": "mirror-v1"}
        assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 1024


class TestRepository:
    def test_the_index(self, triton: InferenceServerClient) -> None:
        index = triton.get_model_repository_index(headers=HEADERS).models
        assert {entry.name: entry.state for entry in index} == {
            **dict.fromkeys(LOADED, "READY"),
            "spam-v1": "UNAVAILABLE",
        }

    def test_loading_and_unloading(self, triton: InferenceServerClient, served: Served) -> None:
        triton.load_model("echo-v1", headers=HEADERS)
        triton.unload_model("echo-v1", headers=HEADERS, unload_dependents=True)
        triton.unload_model("echo", headers=HEADERS)
        assert served.door.answer.ended == [  # type: ignore[attr-defined]
            ("load", "echo-v1", "ada"),
            ("unload", "echo-v1", "ada"),
            ("unload", "echo-v1", "ada"),
        ]
        with pytest.raises(InferenceServerException, match="spam-v1 could not be loaded: no memory"):
            triton.load_model("spam", headers=HEADERS)
        for refused in ({"config": "{}"}, {"files": {"file:1/model.pkl": b"bytes"}, "config": "{}"}):
            with pytest.raises(InferenceServerException, match="is refused: models are loaded as they are registered"):
                triton.load_model("echo-v1", headers=HEADERS, **refused)


class TestWhatIsNotOffered:
    def test_the_client_is_told(self, triton: InferenceServerClient) -> None:
        for ask in (
            lambda: triton.get_trace_settings("echo", headers=HEADERS),
            lambda: triton.update_trace_settings("echo", {"trace_rate": "1"}, headers=HEADERS),
            lambda: triton.get_log_settings(headers=HEADERS),
            lambda: triton.update_log_settings({"log_info": True}, headers=HEADERS),
            lambda: triton.get_system_shared_memory_status(headers=HEADERS),
            lambda: triton.register_system_shared_memory("a", "/a", 4, headers=HEADERS),
            lambda: triton.unregister_system_shared_memory(headers=HEADERS),
            lambda: triton.get_cuda_shared_memory_status(headers=HEADERS),
            lambda: triton.unregister_cuda_shared_memory(headers=HEADERS),
        ):
            with pytest.raises(InferenceServerException) as refused:
                ask()
            assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
            assert refused.value.message().endswith(".")


def test_the_token_is_the_one_of_http() -> None:
    assert HEADERS["authorization"] == f"Bearer {TOKEN}"
