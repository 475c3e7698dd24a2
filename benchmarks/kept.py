"""How much of what a model achieves in-process is left through the server: `--ratio-to-in-process minilm,keras`.

In-process: one program for each core with one thread, as the server has one process for each core with one thread
(`instances` = cores); the faster of an ordinary program and of our own loaded model without a server (alone.py), at
its best batch, with the items already in memory. Through the server: wrk on the same cores, one item a request at the
best concurrency, and requests that carry the best batch or some of them, as JSON and as the protocol's binary tensors,
at their best size and concurrency. The four are measured in turn, round by round; a ratio is formed within a round,
and the median of the rounds stands. Before that each request is sent once, and its answer looked at.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

from rich.console import Console

from benchmarks import document, limits, places, processes, setting, ways
from benchmarks.alone import FULL
from benchmarks.document import table
from benchmarks.driving import DrivingFailed, drive
from benchmarks.limits import CORES, LimitFailed, Programs
from benchmarks.peers.modelhub import Modelhub
from benchmarks.ways import Way

WITH_PRECISIONS = ("minilm",)
CONNECTIONS = (8, 16, 32, 64, 128)
BATCHES_A_REQUEST = (1, 4)
BATCH_CONNECTIONS = (2 * CORES, 4 * CORES)
SCOUT_SECONDS = 2
WAYS = 3  # in which the server is asked
TARGET = 0.95

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Round:
    """Items per second; binary: batches as binary tensors. foreign_share: the largest one of the four runs."""

    in_process: float
    single: float
    batched: float
    binary: float
    foreign_share: float


@dataclass(frozen=True, slots=True)
class Kept:
    """One model in one precision. how, batch: of the in-process limit; settings: (items a request, connections) of
    single items, of batches, and of batches as binary tensors.

    failed: a sentence when it could not be measured, as when the canary refuses the precision.
    """

    model: str
    precision: str
    how: str = ""
    batch: int = 0
    settings: tuple[tuple[int, int], ...] = ()
    rounds: tuple[Round, ...] = ()
    failed: str = ""
    version: str = ""

    @property
    def single_ratio(self) -> float:
        return statistics.median(each.single / each.in_process for each in self.rounds)

    @property
    def batched_ratio(self) -> float:
        return statistics.median(each.batched / each.in_process for each in self.rounds)

    @property
    def binary_ratio(self) -> float:
        return statistics.median(each.binary / each.in_process for each in self.rounds)


def measure(models: Sequence[str], rounds: int, seconds: int, precisions: Sequence[str], target: Path) -> None:
    """Adds to <state>/bench/kept.json, one entry for each model and precision, and writes the document's table."""
    file = places.bench_dir() / "kept.json"
    found = read(file)
    for model in models:
        for precision in precisions if model in WITH_PRECISIONS else (FULL,):
            console.print(f"[bold]{model}, {precision}")
            try:
                kept = of_model(model, precision, rounds, seconds)
            except (AssertionError, DrivingFailed, LimitFailed, OSError, HTTPException) as error:
                kept = Kept(model, precision, failed=" ".join(str(error).split()), version=setting.version())
                console.print(f"  failed: {kept.failed}", markup=False)
            found[model, precision] = kept
            file.write_text(json.dumps([asdict(each) for each in found.values()], indent=1))
    document.write_block(target, "kept", part(list(found.values())))
    console.print(f"written to {target}", markup=False)


def of_model(model: str, precision: str, rounds: int, seconds: int) -> Kept:
    """Raises AssertionError when the model is not loaded, or a request fails or is answered wrongly; DrivingFailed,
    LimitFailed, OSError, HTTPException."""
    server = Modelhub()
    server.policies[model] = {"instances": CORES} | ({} if precision == FULL else {"precision": precision})
    with contextlib.ExitStack() as stack:
        stack.callback(server.end)
        server.start([model])
        programs = {"our model": stack.enter_context(limits.own_programs(model, precision, CORES))}
        if precision == FULL:
            programs["ordinary program"] = stack.enter_context(limits.programs(model, CORES))
        best = max(
            (running.rate(batch, SCOUT_SECONDS).items_per_second, how, batch)
            for how, running in programs.items()
            for batch in limits.BATCHES[model]
        )
        _, how, batch = best
        asked = asked_of(server, model, precision, batch)
        through(server, asked[0][0], CONNECTIONS[0], SCOUT_SECONDS)  # warm
        chosen = tuple(
            max(
                ((way, count) for way in some for count in tried),
                key=lambda each: through(server, each[0], each[1], SCOUT_SECONDS)[0],
            )
            for some, tried in zip(asked, (CONNECTIONS, BATCH_CONNECTIONS, BATCH_CONNECTIONS), strict=True)
        )
        made = tuple(one_round(server, programs[how], chosen, batch, seconds, number) for number in range(rounds))
    settings = tuple((way.items, count) for way, count in chosen)
    return Kept(model, precision, how, batch, settings, made, version=setting.version())


def asked_of(server: Modelhub, model: str, precision: str, batch: int) -> tuple[list[Way], list[Way], list[Way]]:
    """Single items, batches, and batches as binary tensors, all answered rightly. Raises AssertionError, OSError,
    HTTPException.

    The labels are compared in full precision only: others may tell a close one otherwise.
    """
    single = ways.as_json(server, model, 1)
    batched = [ways.as_json(server, model, count * batch) for count in BATCHES_A_REQUEST]
    binary = [way.by_binary_tensors() for way in batched]
    of_single, of_batched, of_binary = (
        [ways.answers(server.address, server.headers(), way) for way in some] for some in ([single], batched, binary)
    )
    if precision == FULL:
        for way, found in zip([single, *batched], [*of_single, *of_batched], strict=True):
            ways.check_labels(way, found)
    for one, other in zip(of_batched, of_binary, strict=True):
        ways.check_same(one, other)
    return [single], batched, binary


def one_round(
    server: Modelhub,
    alone: Programs,
    asked: Sequence[tuple[Way, int]],
    batch: int,
    seconds: int,
    number: int,
) -> Round:
    """The in-process limit before or after the server, by turns."""
    without = partial(in_process, alone, batch, seconds)
    before = without() if number % 2 == 0 else None
    seen = [through(server, way, count, seconds) for way, count in asked]
    (limit, foreign), (single, batched, binary) = before or without(), (rate for rate, _ in seen)
    found = Round(limit, single, batched, binary, max(foreign, *(share for _, share in seen)))
    console.print(
        f"  in-process {limit:,.0f}, one item a request {single:,.0f}, in batches {batched:,.0f}, as binary tensors "
        f"{binary:,.0f} items/s; others {found.foreign_share:.0%}", markup=False,
    )  # fmt: skip
    return found


def in_process(alone: Programs, batch: int, seconds: int) -> tuple[float, float]:
    """Items per second, and the share of the machine that others used."""
    own, busy, began = processes.cpu_seconds(alone.pids), processes.machine_busy_seconds(), time.perf_counter()
    rate = alone.rate(batch, seconds)
    own, busy = processes.cpu_seconds(alone.pids) - own, processes.machine_busy_seconds() - busy
    return rate.items_per_second, max(0.0, busy - own) / (time.perf_counter() - began) / CORES


def through(server: Modelhub, way: Way, connections: int, seconds: int) -> tuple[float, float]:
    """Items per second, and the share of the machine that others used. Raises AssertionError when a request fails."""
    run = drive(server.address, way.calls, connections, seconds, headers=server.headers(), server=server.pids())
    assert not run.errors, f"{run.errors} of {run.requests} requests failed"
    return run.requests_per_second * way.items, run.foreign_share


def read(file: Path) -> dict[tuple[str, str], Kept]:
    """What was measured of the code as it is now, in all ways; nothing when there is no file."""
    found: dict[tuple[str, str], Kept] = {}
    for entry in json.loads(file.read_text()) if file.exists() else []:
        if entry["version"] != setting.version() or len(entry.get("settings", ())) not in (0, WAYS):
            continue
        made = tuple(Round(**each) for each in entry["rounds"])
        settings = tuple((items, count) for items, count in entry["settings"])
        kept = Kept(**{**entry, "settings": settings, "rounds": made})
        found[kept.model, kept.precision] = kept
    return found


def part(found: Sequence[Kept]) -> str:
    """The table of docs/performance.md."""
    lines = []
    for each in found:
        if each.failed:
            lines.append([each.model, each.precision, f"not measured: {each.failed}", *[""] * 9])
            continue
        middle = [
            statistics.median(getattr(r, name) for r in each.rounds)
            for name in ("in_process", "single", "batched", "binary")
        ]
        ratios = [r.single / r.in_process for r in each.rounds]
        lines.append([
            each.model, each.precision, f"{middle[0]:,.0f} ({each.how}, batch {each.batch})",
            f"{middle[1]:,.0f} (c = {each.settings[0][1]})", f"{each.single_ratio:.0%}",
            f"{min(ratios):.0%} to {max(ratios):.0%}",
            "met" if each.single_ratio >= TARGET else "**not met**",
            f"{middle[2]:,.0f} ({each.settings[1][0]} items, c = {each.settings[1][1]})", f"{each.batched_ratio:.0%}",
            f"{middle[3]:,.0f} ({each.settings[2][0]} items, c = {each.settings[2][1]})", f"{each.binary_ratio:.0%}",
            f"{statistics.median(r.foreign_share for r in each.rounds):.0%}",
        ])  # fmt: skip
    head = ["model", "precision", "in-process, items/s", "one item a request, items/s", "ratio", "of the rounds",
            f"≥ {TARGET:.0%}", "batches, items/s", "ratio", "batches, binary tensors, items/s", "ratio",
            "others' CPU"]  # fmt: skip
    return (
        f"{CORES} processes of one thread each on both sides, {CORES} cores; wrk and the gateway run on them too. "
        "`batches`: requests that carry the in-process limit's best batch, or four of them if that is faster, as JSON "
        "or as the protocol's binary tensors."
        f"\n\n{table(head, lines)}"
    )
