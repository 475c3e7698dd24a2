"""One run of wrk against a server: what it achieved, and who used the processor meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import places, processes

WRK_MISSING = "wrk is not installed: it makes the load (Debian: apt-get install wrk)."
TIMEOUT_SECONDS = 30
CORES = os.cpu_count() or 1
JSON = (("Content-Type", "application/json"),)


class DrivingFailed(Exception):
    """wrk is missing, ended with an error, or printed no figures."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. headers: its own, beside those of all requests of a run."""

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = JSON

    @classmethod
    def of(cls, path: str, body: Any) -> Call:
        """With this body as JSON."""
        return cls(path, json.dumps(body, separators=(",", ":")).encode())

    def request(self, host: str, headers: Mapping[str, str]) -> bytes:
        """As it goes over a connection."""
        fields = (("Host", host), *headers.items(), *self.headers, ("Content-Length", str(len(self.body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """headers: by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """What wrk saw. errors: connections, reads, writes, timeouts and answers that were not 2xx or 3xx, together.

    server_cores, client_cores: processor seconds per second; foreign_share: the part of the machine's processor time
    that neither used, so a run that something else disturbed shows. server_us: processor time of all the server's
    processes for one request, in microseconds; what they use while idle is in it.
    """

    requests_per_second: float
    requests: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    server_cores: float
    client_cores: float
    foreign_share: float
    server_us: float = 0.0


def require_wrk() -> str:
    """Its path. Raises DrivingFailed with what to install."""
    found = shutil.which("wrk")
    if found is None:
        raise DrivingFailed(WRK_MISSING)
    return found


def ask(address: str, call: Call, headers: Mapping[str, str]) -> Answer:
    """What is answered to it on a connection of its own. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", call.path, call.body, {**headers, **dict(call.headers)})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def drive(
    address: str,
    calls: Sequence[Call],
    connections: int,
    seconds: int,
    *,
    headers: Mapping[str, str] | None = None,
    server: Sequence[int],
) -> Run:
    """Asks for `calls` in turn over `connections` keep-alive connections, each waiting for its answer (a closed loop).

    seconds: whole ones, as wrk wants. server: the pids of the server. Raises DrivingFailed.
    """
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".requests") as requests:
        for call in calls:
            request = call.request(address, headers or {})
            requests.write(b"%d\n%b" % (len(request), request))
        requests.flush()
        client = resource.getrusage(resource.RUSAGE_CHILDREN)
        own, busy, began = processes.cpu_seconds(server), processes.machine_busy_seconds(), time.perf_counter()
        done = subprocess.run(
            [require_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT_SECONDS}s",
             "-s", str(places.ROOM / "wrk.lua"), f"http://{address}/"],
            env={**os.environ, "REQUESTS": requests.name}, capture_output=True, text=True,
        )  # fmt: skip
        wall, busy = time.perf_counter() - began, processes.machine_busy_seconds() - busy
        own = max(0.0, processes.cpu_seconds(server) - own)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime
    return parse(done.stdout, done.stderr, own / wall, used / wall, max(0.0, busy - own - used) / wall / CORES)


def parse(output: str, error: str, server_cores: float, client_cores: float, foreign_share: float) -> Run:
    """The figures in the output of wrk with wrk.lua. Raises DrivingFailed when there are none."""
    found = re.search(r"^RESULT (\{.*\})$", output, re.MULTILINE)
    if found is None:
        raise DrivingFailed(f"wrk printed no figures: {(output + error)[-400:]}")
    figures = json.loads(found.group(1))
    figures["errors"] = sum(figures["errors"].values())
    return Run(
        **figures,
        server_us=round(server_cores / figures["requests_per_second"] * 1e6, 1) if figures["requests"] else 0.0,
        server_cores=round(server_cores, 3),
        client_cores=round(client_cores, 3),
        foreign_share=round(foreign_share, 4),
    )
