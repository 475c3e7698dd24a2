from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.driving import WRK_MISSING, Call, DrivingFailed, drive, parse, require_wrk

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
    seen: list[tuple[str, str | None, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Authorization"], body))
        status = 500 if body == b'{"broken":true}' else 200
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("wrk") is None, reason=WRK_MISSING)
def test_the_real_wrk_sends_every_call_in_turn_with_the_headers_and_counts_refusals() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Recording)
    _Recording.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    calls = [Call.of("/a", {"input": "x: y\t\u00e4"}), Call.of("/b", {"broken": True})]
    run = drive(
        f"127.0.0.1:{server.server_port}", calls, 1, 1, headers={"Authorization": "Token t"}, server=[]
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert run.requests > 2
    first, second = sorted(_Recording.seen[:2])
    assert first[:2] == ("/a", "Token t")
    assert json.loads(first[2]) == {"input": "x: y\t\u00e4"}
    assert second == ("/b", "Token t", b'{"broken":true}')
    assert abs(run.errors - run.requests / 2) <= 1
    assert run.p50_ms > 0
