from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from loaderd.gateway.grpc.messages import HEALTH, SERVICE, message_class
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import TOKEN

METADATA = (("authorization", f"Bearer {TOKEN}"),)
SECONDS = 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("grpc"), "echo", "double", grpc=True) as served:
        yield served


class Stub:
    """Calls the door with our own message classes: the client's may say less than the wire can."""

    def __init__(self, port: int | None) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED)

    def close(self) -> None:
        self._channel.close()

    def method(self, name: str) -> Any:
        """The call of this name; requests may be bytes, too."""
        service = HEALTH if name == "Check" else SERVICE
        told = service.methods_by_name[name]
        kind = "stream_stream" if told.client_streaming else "unary_unary"
        return getattr(self._channel, kind)(
            f"/{service.full_name}/{name}",
            request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
            response_deserializer=message_class(told.output_type.full_name).FromString,
        )

    def __call__(self, call: str, /, *, metadata: Any = METADATA, timeout: float = SECONDS, **fields: Any) -> Any:
        service = HEALTH if call == "Check" else SERVICE
        request = message_class(service.methods_by_name[call].input_type.full_name)(**fields)
        return self.method(call)(request, metadata=metadata, timeout=timeout)


@pytest.fixture
def stub(served: Served) -> Iterator[Stub]:
    stub = Stub(served.grpc_port)
    yield stub
    stub.close()


def echo(*texts: str, **fields: Any) -> dict[str, Any]:
    """The fields of a ModelInferRequest."""
    return {
        "model_name": "echo",
        "inputs": [
            {
                "name": "text",
                "datatype": "BYTES",
                "shape": [len(texts)],
                "contents": {"bytes_contents": [text.encode() for text in texts]},
            }
        ],
        **fields,
    }


def echoed(response: Any) -> list[str]:
    """The texts of an echo's first output."""
    data, at, texts = response.raw_output_contents[0], 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return texts
