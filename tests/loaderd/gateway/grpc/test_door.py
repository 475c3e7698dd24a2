"""The gRPC door's port, its end, and what the metrics say of it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from tests.loaderd.gateway.conftest import EVERYTHING, Served, serving
from tests.loaderd.gateway.door import Door
from tests.loaderd.gateway.grpc.conftest import METADATA, Stub, echo, echoed
from tests.loaderd.gateway.grpc.test_service import refusal, request_of
from tests.loaderd.gateway.grpc.test_streams import Stream
from tests.ports import free_port


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A gateway for one test, which may end it."""
    with serving(tmp_path, "echo", grpc=True) as served:
        yield served


def test_a_port_in_use_is_told_and_http_goes_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Door(tmp_path, "--grpc-port", str(port)) as door:
            door.listening()
            event = door.event()
            assert (event["event"], event["port"]) == ("grpc", None)
            assert event["error"]["code"] == "grpc_port_in_use"
            assert event["error"]["message"].startswith(
                f"The gRPC door cannot listen on 127.0.0.1:{port} (Address already in use); stop what uses it or set"
            )
            door.route({})
            assert door.http().get("/v2/health/ready").status_code == 200
            taken.close()
            assert door.event() == {"event": "grpc", "port": port, "error": None}  # it was tried again
            door.allow(EVERYTHING)
            stub = Stub(port)
            assert stub("ServerReady").ready
            stub.close()


def test_several_gateways_share_the_port(tmp_path: Path) -> None:
    port = free_port()
    sharing = ("--share-port", "--grpc-port", str(port))
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with Door(folders[0], *sharing) as first, Door(folders[1], *sharing, "--join") as second:
        for door in (first, second):
            door.listening()
            assert grpc_event(door) == {"event": "grpc", "port": port, "error": None}
        first.process.terminate()
        assert first.process.wait(20) == 0
        second.allow(EVERYTHING)
        stub = Stub(port)
        assert stub("ServerLive").live  # the other one answers on
        stub.close()
        with Door(tmp_path, "--grpc-port", str(port)) as stranger:
            stranger.listening()
            assert grpc_event(stranger)["error"]["code"] == "grpc_port_in_use"


def grpc_event(door: Door) -> dict[str, Any]:
    """What a gateway says of its gRPC door; its other events are passed over."""
    while (event := door.event())["event"] != "grpc":
        pass
    return event


def test_without_a_port_there_is_no_grpc(tmp_path: Path) -> None:
    with Door(tmp_path) as door:
        door.listening()
        door.route({})
        maps = Path(f"/proc/{door.process.pid}/maps").read_text()
    assert "cygrpc" not in maps


def test_its_requests_are_counted(served: Served, stub: Stub) -> None:
    def counts() -> dict[str, int]:
        lines = served.http.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith("modelhub_gateway_requests") and 'door="grpc"' in line]
        return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in found}

    served.door.answer = lambda message: ""
    before = counts()
    stub("ModelInfer", **echo("a"))
    refusal(lambda: stub("ModelInfer", **echo("a", model_name="nothing")))
    stream = Stream(stub)
    stream.send(**echo("b"))
    stream.receive()
    stream.send(**echo("boom"))
    stream.receive()
    stream.half_close()
    now = counts()
    total = 'modelhub_gateway_requests_total{{door="grpc",status="{}xx"}}'
    assert {status: now[total.format(status)] - before.get(total.format(status), 0) for status in (2, 4, 5)} == {
        2: 2,
        4: 1,
        5: 1,
    }
    assert now['modelhub_gateway_requests_in_flight{door="grpc"}'] == 0


def test_it_answers_what_it_has_and_then_ends(fresh: Served, gate: Path) -> None:
    stub = Stub(fresh.grpc_port)
    idle, busy = Stream(stub), Stream(stub)
    for stream in (idle, busy):
        stream.send(**echo("open", id="1"))
        stream.receive()
    busy.send(**echo(f"gate:{gate}", id="2"))
    model = fresh.models["echo-v1"]
    model.wait_for(in_flight=1)
    asked = stub.method("ModelInfer").future(request_of(echo("queued")), metadata=METADATA, timeout=20)
    model.wait_for(in_flight=2)
    fresh.door.process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as ended:
        idle.receive()
    assert ended.value.code() == StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert "shutting down" in ended.value.details()  # type: ignore[attr-defined]
    gate.write_bytes(b"")
    assert echoed(busy.receive().infer_response) == [f"gate:{gate}"]
    assert echoed(asked.result()) == ["queued"]
    assert fresh.door.process.wait(20) == 0
    for stream in (idle, busy):
        stream.half_close()
    stub.close()
