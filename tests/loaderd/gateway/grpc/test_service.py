"""Tokens, statuses, limits and cancellation of the gRPC door, in a real gateway process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode

from loaderd.errors import InsufficientMemory, LoadFailed, ModelTimeout
from loaderd.gateway.grpc.messages import SERVICE
from loaderd.gateway.grpc.transcoding import ModelInferRequest
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import TOKEN, grant
from tests.loaderd.gateway.grpc.conftest import METADATA, Stub, echo, echoed

OPEN = {"ServerLive", "ServerReady"}
UNARY = [method.name for method in SERVICE.methods if not method.client_streaming]
ROW_BYTES = 4


def doubled(size_bytes: int, **fields: Any) -> dict[str, Any]:
    """A request whose raw tensor has so many bytes."""
    columns = size_bytes // ROW_BYTES
    entry = {"name": "x", "datatype": "FP32", "shape": [1, columns]}
    return {
        "model_name": "double",
        "inputs": [entry],
        "raw_input_contents": [np.ones(columns, dtype=np.float32).tobytes()],
        **fields,
    }


def request_of(fields: dict[str, Any]) -> bytes:
    request: bytes = ModelInferRequest(**fields).SerializeToString()
    return request


def refusal(call: Any) -> tuple[StatusCode, str, str]:
    """(status, sentence, the error's word) of a call that fails."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    error: Any = refused.value
    return error.code(), error.details(), dict(error.trailing_metadata()).get("modelhub-code", "")


class TestTokens:
    @pytest.mark.parametrize("name", UNARY)
    def test_each_call_but_the_two_of_health_needs_one(self, stub: Stub, name: str) -> None:
        if name in OPEN:
            assert stub(name, metadata=()) is not None
            return
        code, sentence, word = refusal(lambda: stub(name, metadata=()))
        assert (code, word) == (StatusCode.UNAUTHENTICATED, "not_authenticated")
        assert sentence == "A token is needed: send the metadata authorization: Bearer <token>."

    @pytest.mark.parametrize(
        ("authorization", "sentence"),
        [("Bearer other", "This token is not known"), ("Basic abc", "must be: Token <token>")],
    )
    def test_a_wrong_one_is_refused(self, stub: Stub, authorization: str, sentence: str) -> None:
        code, told, _ = refusal(lambda: stub("ServerMetadata", metadata=(("authorization", authorization),)))
        assert code == StatusCode.UNAUTHENTICATED
        assert sentence in told

    @pytest.mark.parametrize("scheme", ["Bearer", "Token", "bearer"])
    def test_a_right_one_is_taken(self, stub: Stub, scheme: str) -> None:
        metadata = (("authorization", f"{scheme} {TOKEN}"),)
        assert echoed(stub("ModelInfer", metadata=metadata, **echo("a"))) == ["a"]

    def test_rights_are_those_of_the_user(self, stub: Stub, served: Served) -> None:
        served.door.allow({TOKEN: grant("eve")})
        for name, fields in (
            ("ModelInfer", echo("a")),
            ("RepositoryModelLoad", {"model_name": "echo-v1"}),
            ("RepositoryModelUnload", {"model_name": "echo-v1"}),
        ):
            code, sentence, _ = refusal(lambda name=name, fields=fields: stub(name, **fields))
            assert code == StatusCode.PERMISSION_DENIED, name
            assert sentence.startswith("eve may not ")
        assert stub("ModelReady", name="echo").ready

    def test_without_one_a_large_message_is_not_read(self, stub: Stub, served: Served) -> None:
        """The call is refused when its headers have come."""
        request = request_of(doubled(60 * 2**20))
        with Peak(served.door.process.pid) as peak:
            code, _, _ = refusal(lambda: stub.method("ModelInfer")(request, metadata=()))
        assert code == StatusCode.UNAUTHENTICATED
        assert peak.grown_bytes < 30 * 2**20


class TestStatuses:
    @pytest.mark.parametrize(
        ("fields", "code", "sentence"),
        [
            (echo("a", model_name="nothing"), StatusCode.NOT_FOUND, 'No model named "nothing"'),
            (echo("a", model_version="9"), StatusCode.NOT_FOUND, "in version 9"),
            (echo("refuse"), StatusCode.INVALID_ARGUMENT, "this text is refused"),
            (echo("boom"), StatusCode.INTERNAL, "the model is broken"),
            ({"model_name": "echo"}, StatusCode.INVALID_ARGUMENT, 'lacks the input "text"'),
            (echo("a", outputs=[{"name": "nothing"}]), StatusCode.INVALID_ARGUMENT, 'has no output "nothing"'),
        ],
    )
    def test_of_predictions(self, stub: Stub, fields: dict[str, Any], code: StatusCode, sentence: str) -> None:
        told = refusal(lambda: stub("ModelInfer", **fields))
        assert told[0] == code
        assert sentence in told[1]

    def test_bytes_that_are_no_request(self, stub: Stub) -> None:
        for name in ("ModelInfer", "ModelReady"):
            method = stub.method(name)
            code, sentence, _ = refusal(lambda method=method: method(b"\xff\xff", metadata=METADATA))
            assert (code, sentence) == (
                StatusCode.INVALID_ARGUMENT,
                f"The call's bytes are no {name}Request of inference.proto.",
            )

    def test_of_a_model_that_is_not_loaded(self, stub: Stub, served: Served) -> None:
        served.change("echo-v1", state="unloaded", sockets=[], signature=None)
        for name, fields in (("ModelInfer", echo("a")), ("ModelMetadata", {"name": "echo"})):
            code, sentence, word = refusal(lambda name=name, fields=fields: stub(name, **fields))
            assert (code, word) == (StatusCode.FAILED_PRECONDITION, "model_not_loaded")
            assert "load it with" in sentence
        assert not stub("ModelReady", name="echo").ready
        assert not stub("ModelReady", name="nothing").ready
        assert stub("ServerReady").ready

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (InsufficientMemory("it does not fit."), StatusCode.RESOURCE_EXHAUSTED),
            (LoadFailed("it is broken."), StatusCode.INTERNAL),
            (ModelTimeout("it took too long."), StatusCode.DEADLINE_EXCEEDED),
        ],
    )
    def test_of_a_load_that_fails(self, stub: Stub, served: Served, error: Any, code: StatusCode) -> None:
        served.door.answer = lambda message: {"state": "failed", "result": None, "error": error.to_message()}
        told = refusal(lambda: stub("RepositoryModelLoad", model_name="echo-v1"))
        assert told == (code, error.message, error.code)

    @pytest.mark.parametrize("name", [name for name in UNARY if "SharedMemory" in name or "Setting" in name])
    def test_of_what_is_not_offered(self, stub: Stub, name: str) -> None:
        code, sentence, word = refusal(lambda: stub(name))
        assert (code, word) == (StatusCode.UNIMPLEMENTED, "not_offered")
        assert sentence.startswith(f"{name}: ")


class TestHealth:
    SERVING = 1

    def test_orchestrators_ask_without_a_token(self, stub: Stub) -> None:
        for service in ("", "inference.GRPCInferenceService"):
            assert stub("Check", metadata=(), service=service).status == self.SERVING

    def test_of_another_service_nothing_is_known(self, stub: Stub) -> None:
        code, sentence, _ = refusal(lambda: stub("Check", metadata=(), service="other"))
        assert code == StatusCode.NOT_FOUND
        assert "there is inference.GRPCInferenceService" in sentence


class TestDeadlines:
    @pytest.fixture
    def patient(self, tmp_path: Path) -> Iterator[Served]:
        with serving(tmp_path, "echo", grpc=True, predict_timeout_seconds=1.0) as served:
            yield served

    def test_the_servers_own_is_told_with_a_sentence(self, patient: Served, gate: Path) -> None:
        stub = Stub(patient.grpc_port)
        code, sentence, word = refusal(lambda: stub("ModelInfer", **echo(f"gate:{gate}")))
        gate.write_bytes(b"")
        stub.close()
        assert (code, word) == (StatusCode.DEADLINE_EXCEEDED, "model_timeout")
        assert sentence.startswith("echo-v1 gave no answer within 1 s")

    def test_a_call_that_sends_no_request_ends(self, patient: Served) -> None:
        channel = grpc.insecure_channel(f"127.0.0.1:{patient.grpc_port}")
        never = threading.Event()

        def requests() -> Iterator[bytes]:
            never.wait(20)
            yield b""

        call = channel.stream_unary(f"/{SERVICE.full_name}/ModelInfer")
        code, sentence, _ = refusal(lambda: call(requests(), metadata=METADATA, timeout=15))
        never.set()
        channel.close()
        assert code == StatusCode.DEADLINE_EXCEEDED
        assert "was not complete within 1 s" in sentence

    @pytest.mark.parametrize("leaves_by", ["deadline", "cancelling"])
    def test_nobody_computes_for_a_client_that_left(
        self, stub: Stub, served: Served, gate: Path, leaves_by: str
    ) -> None:
        """What is queued behind the busy call is dropped, and the door has nothing in flight."""
        model = served.models["echo-v1"]
        answered = model.stats()["items"]
        busy = stub.method("ModelInfer").future(request_of(echo(f"gate:{gate}")), metadata=METADATA, timeout=20)
        wait_until(lambda: model.stats()["in_flight"] == 1, what="the model is busy")
        timeout = 0.2 if leaves_by == "deadline" else 20
        left = stub.method("ModelInfer").future(request_of(echo("left")), metadata=METADATA, timeout=timeout)
        wait_until(lambda: model.stats()["in_flight"] == 2 or left.done(), what="the second request is queued")
        if leaves_by == "cancelling":
            left.cancel()
        else:
            assert left.code() == StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: model.stats()["in_flight"] == 1, what="the second request is dropped")
        gate.write_bytes(b"")
        assert echoed(busy.result()) == [f"gate:{gate}"]
        assert model.stats()["items"] == answered + 1


class Peak:
    """The most memory that a process took while this was entered, over what it had."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._reset = Path(f"/proc/{pid}/clear_refs")
        self.grown_bytes = 0

    def __enter__(self) -> Peak:
        self._reset.write_text("5")  # VmHWM begins anew
        self._before = self._read("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.grown_bytes = self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        (line,) = [line for line in self._status.read_text().splitlines() if line.startswith(name)]
        return int(line.split()[1]) * 1024


class TestLimits:
    def test_large_tensors_go_both_ways(self, stub: Stub) -> None:
        response = stub("ModelInfer", **doubled(60 * 2**20))
        assert len(response.raw_output_contents[0]) == 60 * 2**20
        assert np.frombuffer(response.raw_output_contents[0], dtype=np.float32)[-1] == 2.0

    def test_a_message_that_is_too_large_is_refused(self, stub: Stub) -> None:
        code, sentence, _ = refusal(lambda: stub("ModelInfer", **doubled(65 * 2**20)))
        assert code == StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in sentence
        assert echoed(stub("ModelInfer", **echo("after"))) == ["after"]

    @pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    def test_compressed_messages_are_taken(self, stub: Stub, algorithm: grpc.Compression) -> None:
        response, _ = stub.method("ModelInfer").with_call(
            request_of(doubled(2**20)), metadata=METADATA, compression=algorithm
        )
        assert len(response.raw_output_contents[0]) == 2**20

    def test_what_inflates_to_too_much_is_refused_before_it_does(self, stub: Stub, served: Served) -> None:
        bomb = bytes(2**30)
        peak = Peak(served.door.process.pid)
        with peak:
            code, sentence, _ = refusal(
                lambda: stub.method("ModelInfer")(bomb, metadata=METADATA, compression=grpc.Compression.Gzip)
            )
        assert code == StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in sentence
        assert peak.grown_bytes < 300 * 2**20
