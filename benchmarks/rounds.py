"""Which runs are to be made, and in which order, so that a machine whose speed drifts is the same for everybody.

The servers of one model live at the same time, idle but for the one whose turn it is. A turn is one model at one
concurrency: every server is driven once, one straight after the other. What was made before counts; a turn that was
broken off is made again, as a round of its own.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
from rich.console import Console

from benchmarks import processes, results, setting
from benchmarks.driving import Call, DrivingFailed, Run, drive
from benchmarks.models import MODELS, items_of
from benchmarks.peers.base import Peer, PeerFailed
from benchmarks.results import LoadRow
from benchmarks.summary import is_disturbed

WARM_UP_SECONDS = 3
START_SECONDS = 12.0  # of one server, its check and its warm-up
RUN_OVERHEAD_SECONDS = 1.0  # of a run, around the seconds that wrk takes
MOST_FAILURES = 2
"""A server that failed so often with a model is left out of what is still to be made with it."""

Made = TypeVar("Made")

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted in the end, however many calls it takes. tries: of a run that other programs disturb.

    version: what is measured. until: when no further turn is begun (time.monotonic), None: all of it in this call.
    """

    models: Sequence[str]
    levels: Sequence[int]
    rounds: int
    seconds: int
    tries: int
    file: Path
    version: str
    until: float | None = None

    @property
    def is_over(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until

    def has_time_for(self, peers: int) -> bool:
        """Whether a turn of so many ends in time, when nothing disturbs it."""
        return self._has(peers * (self.seconds + RUN_OVERHEAD_SECONDS))

    def has_time_to_start(self, peers: int) -> bool:
        """Whether there is time for a turn after so many were started."""
        return self._has(peers * (START_SECONDS + self.seconds + RUN_OVERHEAD_SECONDS))

    def _has(self, seconds: float) -> bool:
        return self.until is None or time.monotonic() + seconds <= self.until


@dataclass(slots=True)
class Started:
    """A server that answers rightly, and what it is asked."""

    peer: Peer
    calls: list[Call]
    headers: dict[str, str]
    pids: list[int]


def measured(plan: Plan) -> list[LoadRow]:
    """What was measured of this version on this machine."""
    here = (setting.machine(), plan.version)
    return [row for row in results.read(plan.file) if (row.machine, row.version) == here]


def contenders(rows: Sequence[LoadRow], model: str, peers: Sequence[Peer]) -> list[Peer]:
    """Those that serve the model and have not failed with it too often."""
    failures: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.failed and row.model == model:
            failures[row.peer] += 1
    return [peer for peer in peers if model in peer.models and failures[peer.name] < MOST_FAILURES]


def missing(rows: Sequence[LoadRow], model: str, plan: Plan, peers: Sequence[Peer]) -> Iterator[tuple[int, int]]:
    """(round, connections) of the turns that are still to be made with these peers, round by round."""
    wanted = {peer.name for peer in peers}
    if not wanted:
        return
    turns: list[tuple[int, int, int]] = []
    for level in plan.levels:
        made: defaultdict[int, set[str]] = defaultdict(set)
        for row in rows:
            if row.model == model and row.connections == level and row.run is not None:
                made[row.round].add(row.peer)
        whole = sum(wanted <= names for names in made.values())
        following = max(made, default=0) + 1
        turns += [(whole + more, following + more, level) for more in range(plan.rounds - whole)]
    for _, number, level in sorted(turns, key=lambda turn: turn[0]):
        yield number, level


def measure(plan: Plan, peers: Sequence[Peer]) -> bool:
    """Makes what is missing; returns whether nothing is missing any more."""
    for model in plan.models:
        rows = measured(plan)
        ready = contenders(rows, model, peers)
        if not ready or not list(missing(rows, model, plan, ready)):
            continue
        if not plan.has_time_to_start(len(ready)):
            return False
        _measure_model(model, plan, ready)
    rows = measured(plan)
    return not any(list(missing(rows, model, plan, contenders(rows, model, peers))) for model in plan.models)


def _measure_model(model: str, plan: Plan, peers: Sequence[Peer]) -> None:
    alive: dict[str, Started] = {}
    try:
        for peer in peers:
            if plan.is_over:
                return
            started = _attempt(peer, model, plan, partial(_started, peer, model))
            if started is not None:
                alive[peer.name] = started
        for number, connections in list(missing(measured(plan), model, plan, [s.peer for s in alive.values()])):
            if not plan.has_time_for(len(alive)):
                return
            console.print(f"[bold]round {number}, {model}, c = {connections}")
            for name, each in list(alive.items()):
                if not _attempt(each.peer, model, plan, partial(_drive, each, model, connections, number, plan)):
                    alive.pop(name).peer.end()
        for each in alive.values():
            _attempt(each.peer, model, plan, partial(each.peer.check, model))
    finally:
        for peer in peers:
            peer.end()


def _started(peer: Peer, model: str) -> Started:
    began = time.monotonic()
    peer.start([model])
    peer.check(model)
    calls = [Call.of(peer.path(model), peer.body(MODELS[model], [item])) for item in items_of(model)]
    started = Started(peer, calls, peer.headers(), peer.pids())
    drive(peer.address, calls, 8, WARM_UP_SECONDS, headers=started.headers, server=started.pids)
    console.print(f"{peer.name} serves {model} after {time.monotonic() - began:.0f} s", markup=False)
    return started


def _attempt(peer: Peer, model: str, plan: Plan, do: Callable[[], Made]) -> Made | None:
    """What it made, or None when it failed; why is a row then."""
    try:
        return do()
    except (PeerFailed, DrivingFailed, AssertionError, httpx.HTTPError) as error:
        console.print(f"  {peer.name} failed: {error}", markup=False)
        results.append(plan.file, _row(plan, peer, model, 0, 0, None, failed=str(error)[-600:]))
        return None


def _drive(started: Started, model: str, connections: int, number: int, plan: Plan) -> Run:
    """The last run: the first that nothing disturbs, or the last try."""
    peer = started.peer
    for _ in range(plan.tries):
        pids = peer.pids()
        run = drive(peer.address, started.calls, connections, plan.seconds, headers=started.headers, server=pids)
        memory = processes.memory(pids)
        results.append(plan.file, _row(plan, peer, model, connections, number, run, memory=memory))
        console.print("  " + told(peer.name, run), markup=False)
        if not is_disturbed(run) or plan.is_over:
            break
    return run


def _row(
    plan: Plan, peer: Peer, model: str, connections: int, number: int, run: Run | None, *,
    memory: processes.Memory | None = None, failed: str = "",
) -> LoadRow:  # fmt: skip
    held = asdict(memory or processes.Memory(0, 0, 0))
    return LoadRow(
        peer.name, model, connections, number, run, **held, failed=failed, at=time.strftime("%H:%M:%S"),
        machine=setting.machine(), version=plan.version,
    )  # fmt: skip


def leave_out(peer: Peer, why_not: str, plan: Plan) -> None:
    """Notes once that a peer cannot be measured here at all."""
    if not any(row.peer == peer.name and row.failed == why_not for row in measured(plan)):
        results.append(plan.file, _row(plan, peer, "", 0, 0, None, failed=why_not))


def told(name: str, run: Run) -> str:
    return (
        f"{name:<17}{run.requests_per_second:>10,.1f}/s  p50 {run.p50_ms:.3g}  p99 {run.p99_ms:.3g} ms  "
        f"errors {run.errors}  {run.server_us:,.0f} µs of CPU a request  server {run.server_cores:.2f}  "
        f"wrk {run.client_cores:.2f} cores  others {run.foreign_share:.0%}"
    )
