"""The messages and calls of `inference.proto` and `health.proto`, from their compiled form.

They live in a pool of descriptors of their own, so that a process may also import a client's classes of the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from loaderd.errors import InvalidInput

COMPILED = Path(__file__).with_name("compiled.binpb")

_POOL = DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
    _POOL.Add(_file)

SERVICE = _POOL.FindServiceByName("inference.GRPCInferenceService")
HEALTH = _POOL.FindServiceByName("grpc.health.v1.Health")


def message_class(name: str) -> Any:
    """The class of a message of inference.proto, such as "ModelInferRequest", or of a full name."""
    return GetMessageClass(_POOL.FindMessageTypeByName(name if "." in name else f"inference.{name}"))


def parsed(kind: Any, data: bytes) -> Any:
    """The message of this class that the bytes hold; raises InvalidInput."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidInput(f"The call's bytes are no {kind.DESCRIPTOR.name} of inference.proto.") from None
