"""What a prediction costs: throughput beside ordinary programs in the same run, the door's own share, idling.

The limit of a model is what ordinary programs achieve with it on all cores, whichever batch and arrangement of programs
and threads is best. It is measured before and after ours; the mean counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import limits, making, processes
from benchmarks.driving import Call, Run, drive
from benchmarks.limits import Limit
from benchmarks.models import MODELS, items_of
from benchmarks.peers.modelhub import Modelhub

CONNECTIONS = (1, 8, 32, 64)
RUN_SECONDS = 5
LIMIT_SECONDS = 1.5
OVERHEAD_RUNS = 7
ALONE_SECONDS = 1.0
IDLE_SECONDS = 20.0
LIMIT_KEPT = {"minilm": 1 / 0.95, "keras": 1 / 0.95}
"""Model -> the largest ratio of the limit to ours. Of the others one item costs less than its way over HTTP."""
OVERHEAD_TARGET_US = 150.0

Add = Callable[[str, float, str, float | None, str], None]


@dataclass(frozen=True, slots=True)
class Overhead:
    """One client, one item at a time. p50_us: what it waits; alone_us: the median of parsing, computing and rendering
    the same bodies on one thread without a socket, by the same code in a program of its own (benchmarks.alone),
    measured straight afterwards. mean_us, model_us: the means of what the client waits, and of that in the model
    process.
    """

    p50_us: float
    alone_us: float
    mean_us: float
    model_us: float

    @property
    def door_us(self) -> float:
        """The gateway, both sockets, the loops of gateway and model process, and the hand-over between its threads."""
        return self.p50_us - self.alone_us

    @property
    def mean_door_us(self) -> float:
        """Without the hand-over, which the model process counts as its own time."""
        return self.mean_us - self.model_us


def measure(add: Add, models: Sequence[str] = tuple(MODELS)) -> None:
    """Calls `add` with each figure."""
    making.make()
    before = {name: limits.measure(name, LIMIT_SECONDS) for name in models}
    best: dict[str, float] = {}
    server = Modelhub()
    try:
        server.start(list(models))
        idle(server, add)
        for name in models:
            best[name] = load_curve(server, name, add)
        for name in models:
            report_overhead(name, overheads_of(server, name), add)
    finally:
        server.end()
    for name in models:
        compare(name, best[name], before[name], limits.measure(name, LIMIT_SECONDS), add)


def load_curve(server: Modelhub, name: str, add: Add) -> float:
    """The requests per second of the best concurrency. Raises AssertionError when an answer is no 200."""
    server.check(name)
    drive_once(server, name, 8, 2)
    rates = []
    for connections in CONNECTIONS:
        counted = server.counts(MODELS[name])
        run = drive_once(server, name, connections, RUN_SECONDS)
        assert not run.errors, f"{run.errors} of {run.requests} requests failed"
        during = server.counts(MODELS[name]).since(counted)
        assert not during.cached, "the response cache must be off"
        add(
            f"{name}: throughput, c = {connections}", run.requests_per_second, "requests/s", None,
            f"p50 {run.p50_ms:.2f} ms, p99 {run.p99_ms:.2f} ms, {during.items / max(during.batches, 1):.1f} items a "
            f"call, {run.server_cores:.2f} cores, others {run.foreign_share:.0%}",
        )  # fmt: skip
        rates.append(run.requests_per_second)
    server.check(name)
    return max(rates)


def compare(name: str, ours: float, before: Limit, after: Limit, add: Add) -> None:
    limit = statistics.mean((before.items_per_second, after.items_per_second))
    add(
        f"{name}: in-process limit / ours at its best concurrency", limit / ours, "ratio", LIMIT_KEPT.get(name),
        f"{before.items_per_second:,.0f} and {after.items_per_second:,.0f} items/s (batch {before.best_batch}, "
        f"{before.how}; one item {before.one_item_ms:.2f} ms) / {ours:,.0f}",
    )  # fmt: skip


def overheads_of(server: Modelhub, name: str) -> list[Overhead]:
    """Of several pairs of runs, in turn: a run through the door, a run without it."""
    found = []
    with limits.own_programs(name) as alone:
        for _ in range(OVERHEAD_RUNS):
            counted = server.counts(MODELS[name])
            run = drive_once(server, name, 1, 3)
            (without,) = alone.ask(f"door {ALONE_SECONDS}")
            during = server.counts(MODELS[name]).since(counted)
            model_us = during.request_seconds / during.requests * 1e6
            found.append(Overhead(run.p50_ms * 1e3, without["p50_us"], run.mean_ms * 1e3, model_us))
    return found


def report_overhead(name: str, found: Sequence[Overhead], add: Add) -> None:
    """The medians over the pairs. The target holds for the smallest model; a longer body or answer takes longer."""

    def median(get: Callable[[Overhead], float]) -> float:
        return statistics.median(get(overhead) for overhead in found)

    doors = [overhead.door_us for overhead in found]
    add(
        f"{name}: gateway and transport, c = 1, p50", median(lambda o: o.door_us), "µs",
        OVERHEAD_TARGET_US if name == "text" else None,
        f"request p50 {median(lambda o: o.p50_us):.0f} µs - parse, compute, render alone p50 "
        f"{median(lambda o: o.alone_us):.0f} µs; {len(doors)} pairs, {min(doors):.0f} to {max(doors):.0f}",
    )  # fmt: skip
    add(
        f"{name}: gateway and transport, c = 1, mean", median(lambda o: o.mean_door_us), "µs", None,
        f"request mean {median(lambda o: o.mean_us):.0f} µs - mean in the model process "
        f"{median(lambda o: o.model_us):.0f} µs",
    )  # fmt: skip


def idle(server: Modelhub, add: Add) -> None:
    """With all models loaded and nobody asking."""
    pids = server.pids()
    time.sleep(5)  # what the loads left to do
    used, began = processes.cpu_seconds(pids), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    share = (processes.cpu_seconds(pids) - used) / (time.perf_counter() - began)
    memory = processes.memory(pids)
    add(f"idle: processor time of the installation, {len(MODELS)} models loaded", share * 100, "% of a core", None, "")
    add("idle: memory of the installation (PSS)", memory.pss_mb, "MiB", None,
        f"{memory.processes} processes, {memory.uss_mb} MiB of their own")  # fmt: skip


def drive_once(server: Modelhub, name: str, connections: int, seconds: int) -> Run:
    calls = [Call.of(server.path(name), server.body(MODELS[name], [item])) for item in items_of(name)]
    return drive(server.address, calls, connections, seconds, headers=server.headers(), server=server.pids())
