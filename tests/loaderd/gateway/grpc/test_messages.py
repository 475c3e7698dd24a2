"""inference.proto says what the public definition says: names, numbers and types, as the real client has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2

from loaderd.errors import InvalidInput
from loaderd.gateway.grpc import messages

OURS = FileDescriptorSet.FromString(messages.COMPILED.read_bytes()).file[0]
NAMES = [message.name for message in OURS.message_type if message.name != "Unoffered"]


def theirs(name: str) -> Any:
    for module in (service_pb2, model_config_pb2):
        if name in module.DESCRIPTOR.message_types_by_name:
            return module.DESCRIPTOR.message_types_by_name[name]
    raise AssertionError(f"the client knows no message {name}")


def fields(descriptor: Any) -> dict[str, tuple[Any, ...]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in descriptor.fields
    }


def compare(ours: Any, its: Any) -> None:
    known = fields(its)
    assert {name: known.get(name) for name in fields(ours)} == fields(ours), ours.full_name
    for enum in ours.enum_types:
        assert enum.values_by_number.keys() == its.enum_types_by_name[enum.name].values_by_number.keys()
    for nested in ours.nested_types:
        compare(nested, its.nested_types_by_name[nested.name])


@pytest.mark.parametrize("name", NAMES)
def test_messages_have_the_public_numbers(name: str) -> None:
    compare(messages.message_class(name).DESCRIPTOR, theirs(name))


@pytest.mark.parametrize("name", [name for name in NAMES if name in service_pb2.DESCRIPTOR.message_types_by_name])
def test_only_configurations_leave_fields_out(name: str) -> None:
    assert fields(messages.message_class(name).DESCRIPTOR).keys() == fields(theirs(name)).keys()


def test_every_call_of_the_service_is_there() -> None:
    public = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert messages.SERVICE.full_name == public.full_name

    def shapes(service: Any) -> dict[str, tuple[bool, bool]]:
        return {method.name: (method.client_streaming, method.server_streaming) for method in service.methods}

    assert shapes(messages.SERVICE) == shapes(public)


def test_the_datatypes_are_the_public_ones() -> None:
    (ours,) = OURS.enum_type
    public = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"]
    assert {value.name: value.number for value in ours.value} == {value.name: value.number for value in public.values}


def test_the_compiled_form_is_that_of_the_source(tmp_path: Path) -> None:
    """`make proto` makes it anew."""
    folder, compiled = messages.COMPILED.parent, tmp_path / "compiled.binpb"
    sources = ["inference.proto", "health.proto"]
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={compiled}", *sources]) == 0
    assert compiled.read_bytes() == messages.COMPILED.read_bytes()


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no ModelReadyRequest"):
        messages.parsed(messages.message_class("ModelReadyRequest"), b"\xff\xff")
