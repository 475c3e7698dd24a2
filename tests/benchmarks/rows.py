"""Runs as a benchmark would have measured them."""

from __future__ import annotations

from benchmarks.driving import Run
from benchmarks.results import LoadRow


def run(
    per_second: float,
    *,
    foreign: float = 0.0,
    p50: float = 1.0,
    p99: float = 2.0,
    errors: int = 0,
    server_us: float = 0.0,
) -> Run:
    return Run(
        requests_per_second=per_second,
        requests=int(per_second * 8),
        mean_ms=p50,
        p50_ms=p50,
        p95_ms=p99,
        p99_ms=p99,
        max_ms=p99,
        errors=errors,
        server_cores=1.0,
        client_cores=0.1,
        foreign_share=foreign,
        server_us=server_us,
    )


def row(
    peer: str,
    made: Run | None,
    *,
    model: str = "text",
    connections: int = 8,
    number: int = 1,
    failed: str = "",
    machine: str = "",
    version: str = "",
) -> LoadRow:
    return LoadRow(peer, model, connections, number, made, uss_mb=100, failed=failed, machine=machine, version=version)
