from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.driving import WRK_MISSING, Call, DrivingFailed, ask, drive, parse, require_wrk

OUTPUT = """Running 2s test @ http://127.0.0.1:1/
  1 threads and 8 connections
Requests/sec:   1234.50
RESULT {"requests_per_second":1234.50,"requests":2469,"mean_ms":0.8000,"p50_ms":0.700,"p95_ms":1.100,"p99_ms":2.500,\
"max_ms":9.000,"errors":{"connect":0,"read":1,"write":0,"status":2,"timeout":0}}
"""


def test_it_reads_the_figures_that_wrk_prints_and_adds_up_all_kinds_of_errors() -> None:
    run = parse(OUTPUT, "", server_cores=1.2345, client_cores=0.1, foreign_share=0.02)
    assert (run.requests_per_second, run.requests, run.p50_ms, run.p99_ms) == (1234.5, 2469, 0.7, 2.5)
    assert run.errors == 3
    assert run.server_cores == pytest.approx(1.2345, abs=0.001)
    assert run.server_us == 1000.0


def test_without_figures_it_says_what_wrk_said_instead() -> None:
    with pytest.raises(DrivingFailed, match="unable to connect"):
        parse("", "unable to connect to 127.0.0.1:1 Connection refused", 0, 0, 0)


def test_without_wrk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DrivingFailed, match="apt-get install wrk") as failed:
        require_wrk()
    assert str(failed.value) == WRK_MISSING


class _Recording(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str | None, str | None, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Authorization"], self.headers["Content-Type"], body))
        status = 500 if body == b'{"broken":true}' else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.send_header("Seen", self.path)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Recording)
    _Recording.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


ANY_BYTES = bytes(range(256)) + b"\r\n\r\nPOST / HTTP/1.1\n7\n\x00"


@pytest.mark.skipif(shutil.which("wrk") is None, reason=WRK_MISSING)
def test_the_real_wrk_sends_every_call_in_turn_with_its_headers_and_counts_refusals(address: str) -> None:
    calls = [
        Call.of("/a", {"input": "x: y\t\u00e4"}),
        Call.of("/b", {"broken": True}),
        Call("/c", ANY_BYTES, (("Content-Type", "application/octet-stream"),)),
        Call("/d", b""),
    ]
    run = drive(address, calls, 1, 1, headers={"Authorization": "Token t"}, server=[])
    assert run.requests > 4
    first, second, third, fourth = sorted(_Recording.seen[:4])
    assert first[:3] == ("/a", "Token t", "application/json")
    assert json.loads(first[3]) == {"input": "x: y\t\u00e4"}
    assert second == ("/b", "Token t", "application/json", b'{"broken":true}')
    assert third == ("/c", "Token t", "application/octet-stream", ANY_BYTES)
    assert fourth == ("/d", "Token t", "application/json", b"")
    assert abs(run.errors - run.requests / 4) <= 1
    assert run.p50_ms > 0


def test_one_call_is_answered_with_status_headers_and_body(address: str) -> None:
    answer = ask(address, Call("/c", ANY_BYTES, (("Content-Type", "a/b"),)), {"Authorization": "Token t"})
    assert (answer.status, answer.headers["seen"], answer.body) == (200, "/c", b"{}")
    assert _Recording.seen == [("/c", "Token t", "a/b", ANY_BYTES)]
    assert ask(address, Call.of("/b", {"broken": True}), {}).status == 500
