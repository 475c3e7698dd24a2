from __future__ import annotations

import asyncio
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.driving import Call
from benchmarks.pacing import Load, Seen, Stream, answer, by_window, median_ms, quantile
from tests.deadline import wait_until

STALL_SECONDS = 0.3


class _Server(socketserver.ThreadingTCPServer):
    """Answers 200, but for /bad, and /drop, whose connection it closes; the first request stalls."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.stalled = threading.Event()


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while line := self.rfile.readline():
            path, length = line.split()[1].decode(), 0
            while (header := self.rfile.readline()) != b"\r\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            self.rfile.read(length)
            self.server.asked.append(path)
            if path == "/drop":
                return
            if path == "/slow" and not self.server.stalled.is_set():
                self.server.stalled.set()
                time.sleep(STALL_SECONDS)
            status = b"500 Broken" if path == "/bad" else b"200 OK"
            self.wfile.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 4\r\n\r\nbody")


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def address(server: _Server) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def test_a_stall_is_seen_by_every_request_that_was_due_in_it(server: _Server) -> None:
    stream = Stream("slow", [Call("/slow", b"{}")], per_second=100, connections=1)
    with Load(address(server), {}, [stream]) as load:
        wait_until(lambda: len(load.seen["slow"].seconds) >= 60)
    seen = load.seen["slow"]
    assert seen.failed == 0
    assert seen.seconds[0] >= STALL_SECONDS
    late = [seconds for seconds in seen.seconds if seconds > STALL_SECONDS / 3]
    assert len(late) >= 10  # a closed loop would have seen one


def test_refusals_and_broken_connections_are_counted_and_the_rest_goes_on(server: _Server) -> None:
    calls = [Call("/good", b"{}"), Call("/bad", b"{}"), Call("/drop", b"{}")]
    with Load(address(server), {"X": "y"}, [Stream("mixed", calls, per_second=200, connections=2)]) as load:
        wait_until(lambda: min(load.seen["mixed"].statuses[status] for status in (0, 200, 500)) >= 3)
    seen = load.seen["mixed"]
    assert seen.failed == seen.statuses[0] + seen.statuses[500]
    assert any(error.startswith("500 body") for error in seen.errors)
    assert any("IncompleteReadError" in error or "Connection" in error for error in seen.errors)


def test_quantiles_and_windows() -> None:
    assert quantile([], 0.99) == 0
    assert quantile(list(range(100)), 0.99) == 99
    seen = Seen(due_at=[0.1, 0.2, 11.0], seconds=[0.001, 0.003, 0.002])
    assert median_ms(seen) == 2.0
    assert by_window(seen, 10, 0.99) == [(5.0, 3.0), (15.0, 2.0)]


def test_an_answer_without_a_length_is_refused() -> None:
    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"HTTP/1.1 200 OK\r\n\r\n")
        await answer(reader)

    with pytest.raises(ValueError, match="length"):
        asyncio.run(read())
