"""Several gateways behind one port."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import httpx
import psutil
import pytest

from loaderd.gateway.http.listener import PortInUse, tcp_listener
from loaderd.gateway.metrics import DoorCounts, counts_of, exposition, with_others
from loaderd.protocol import ModelSpec

from .conftest import RunningDaemon

pytestmark = pytest.mark.timeout(120)
Start = Callable[..., RunningDaemon]


def gateways(daemon: RunningDaemon) -> list[psutil.Process]:
    return [each for each in daemon.descendants() if "loaderd.gateway" in each.cmdline()]


def listening(process: psutil.Process, port: int) -> bool:
    found = process.net_connections("tcp")
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def test_all_listen_on_one_port_and_one_that_dies_leaves_the_door_open(
    start_serving: Start, toy: Callable[..., ModelSpec]
) -> None:
    daemon = start_serving(gateway_processes=3)
    assert daemon.load(toy())["error"] is None
    port = daemon.client.ping()["inference"]["port"]
    daemon.wait(lambda: len(gateways(daemon)) == 3 and all(listening(each, port) for each in gateways(daemon)))
    first = min(gateways(daemon), key=lambda each: each.create_time())
    for victim in (next(each for each in gateways(daemon) if each.pid != first.pid), first):
        os.kill(victim.pid, signal.SIGKILL)
        psutil.wait_procs([victim], timeout=10)
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200, "the others answer"
        daemon.wait(lambda: len(gateways(daemon)) == 3 and all(listening(each, port) for each in gateways(daemon)))
    daemon.wait(lambda: daemon.client.ping()["inference"])
    assert daemon.predict("toy-v1", "hello").status_code == 200


def test_a_port_of_somebody_else_is_not_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortInUse):
            tcp_listener("127.0.0.1", port, is_shared=True)
        with tcp_listener("127.0.0.1", port, is_shared=True, joins=True) as joined:
            assert joined.getsockname()[1] == port


def test_what_all_of_them_count_is_told_together() -> None:
    doors = {"public": DoorCounts(), "private": DoorCounts()}
    doors["public"].in_flight = 2
    doors["public"].by_class.update({2: 5, 4: 1})
    other = {"public": DoorCounts()}
    other["public"].in_flight = 1
    other["public"].by_class.update({2: 7, 5: 1})
    summed, dropped = with_others(doors, 3, [counts_of(other, 4)])
    assert dropped == 7
    text = exposition(summed, dropped)
    assert 'modelhub_gateway_requests_total{door="public",status="2xx"} 12' in text
    assert 'modelhub_gateway_requests_total{door="public",status="5xx"} 1' in text
    assert 'modelhub_gateway_requests_in_flight{door="public"} 3' in text
