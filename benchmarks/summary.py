"""What the runs say together: medians, how far they lie apart, which were disturbed, and whether a target was met."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.driving import Run
from benchmarks.results import LoadRow

OURS = "modelhub"
CEILING = "null"
FOREIGN_LIMIT = 0.05
"""A run during which others used more of the machine's processor time than this is disturbed, and is made again."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One peer with one model at one concurrency: medians over its undisturbed runs.

    spread: (highest - lowest) / median of the requests per second. disturbed: runs that were left out; where every run
    was disturbed the figure is that of the least disturbed one and `is_disturbed` says so.
    """

    peer: str
    model: str
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_cores: float
    server_us: float
    foreign_share: float
    spread: float
    runs: int
    disturbed: int
    is_disturbed: bool
    errors: int
    uss_mb: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours beside the best peer, by the rounds in which all were measured.

    A round that misses a peer which another round has is left out: without its best peer it would flatter us.

    ratio: median over the rounds of our requests per second by those of the round's best peer; lowest, highest: of the
    rounds. p99_ms, peer_p99_ms: ours, and the lowest of all peers, medians. peer: the best one of most rounds.
    """

    model: str
    connections: int
    peer: str
    ratio: float
    lowest: float
    highest: float
    p99_ms: float
    peer_p99_ms: float
    rounds: int


def is_disturbed(run: Run) -> bool:
    return run.foreign_share > FOREIGN_LIMIT


def chosen(rows: Sequence[LoadRow]) -> list[Run]:
    """The undisturbed runs; when there is none, the least disturbed one alone."""
    runs = [row.run for row in rows if row.run is not None]
    clean = [run for run in runs if not is_disturbed(run)]
    return clean or sorted(runs, key=lambda run: run.foreign_share)[:1]


def figures(rows: Iterable[LoadRow]) -> list[Figure]:
    """In the order in which peers, models and concurrencies first appear; combinations without a run are left out."""
    grouped: defaultdict[tuple[str, str, int], list[LoadRow]] = defaultdict(list)
    for row in rows:
        grouped[row.peer, row.model, row.connections].append(row)
    found = []
    for (peer, model, connections), group in grouped.items():
        runs = chosen(group)
        if not runs:
            continue
        rates = [run.requests_per_second for run in runs]
        rate = statistics.median(rates)
        everyone = [row.run for row in group if row.run is not None]
        found.append(
            Figure(
                peer=peer,
                model=model,
                connections=connections,
                requests_per_second=rate,
                p50_ms=statistics.median(run.p50_ms for run in runs),
                p99_ms=statistics.median(run.p99_ms for run in runs),
                server_cores=statistics.median(run.server_cores for run in runs),
                server_us=statistics.median(run.server_us for run in runs),
                foreign_share=statistics.median(run.foreign_share for run in runs),
                spread=(max(rates) - min(rates)) / rate if rate else 0.0,
                runs=len(runs),
                disturbed=sum(is_disturbed(run) for run in everyone),
                is_disturbed=is_disturbed(runs[0]),
                errors=sum(run.errors for run in everyone),
                uss_mb=max(row.uss_mb for row in group),
            )
        )
    return found


def compared(rows: Sequence[LoadRow]) -> list[Comparison]:
    """One for each model and concurrency that ours and at least one peer were measured at, in the rows' order."""
    by_cell: defaultdict[tuple[str, int], list[LoadRow]] = defaultdict(list)
    for row in rows:
        if row.run is not None and row.peer != CEILING:
            by_cell[row.model, row.connections].append(row)
    found = []
    for (model, connections), group in by_cell.items():
        ratios, best = [], []
        for number in whole_rounds(group):
            ours = chosen([row for row in group if row.round == number and row.peer == OURS])
            peers = {
                name: statistics.median(run.requests_per_second for run in runs)
                for name in {row.peer for row in group} - {OURS}
                if (runs := chosen([row for row in group if row.round == number and row.peer == name]))
            }
            if ours and peers:
                name = max(peers, key=lambda peer: peers[peer])
                best.append(name)
                ratios.append(statistics.median(run.requests_per_second for run in ours) / peers[name])
        if not ratios:
            continue
        p99s = {figure.peer: figure.p99_ms for figure in figures(group)}
        ours_p99 = p99s.pop(OURS)
        found.append(
            Comparison(
                model=model,
                connections=connections,
                peer=statistics.mode(best),
                ratio=statistics.median(ratios),
                lowest=min(ratios),
                highest=max(ratios),
                p99_ms=ours_p99,
                peer_p99_ms=min(p99s.values()),
                rounds=len(ratios),
            )
        )
    return found


def whole_rounds(group: Sequence[LoadRow]) -> list[int]:
    """Of one model and concurrency: the rounds that ours took part in, with as many peers as any of those."""
    peers_of: defaultdict[int, set[str]] = defaultdict(set)
    for row in group:
        peers_of[row.round].add(row.peer)
    with_ours = {number: len(peers) for number, peers in peers_of.items() if OURS in peers}
    return sorted(number for number, count in with_ours.items() if count == max(with_ours.values()))
