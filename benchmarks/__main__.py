"""`make bench-peers`: installs the peers, makes the models, drives everybody in turn, writes docs/performance.md.

`ARGS="--peers modelhub,fastapi,triton-batch --models text --rounds 2"` measures a part; `--report` only writes the
document again from what was measured. Results: <MODELHUB_STATE_DIR>/bench/peers.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks import document, environments, making, places, plot, processes, results
from benchmarks.driving import Call, DrivingFailed, Run, drive, require_wrk
from benchmarks.layouts import LayoutFailed
from benchmarks.models import MODELS, items_of
from benchmarks.peers import USUAL, UnknownPeer, named
from benchmarks.peers.base import Peer, PeerFailed
from benchmarks.report import legend, peers_block
from benchmarks.results import LoadRow
from benchmarks.summary import is_disturbed

WARM_UP_SECONDS = 3
TRIES = 3  # of a run that something else disturbs
CONNECTIONS = "1,8,32,64"

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(USUAL), help="Comma-separated; `null` is an empty HTTP answer.")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--connections", default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="Of one run.")
    parser.add_argument("--tries", type=int, default=TRIES, help="Of a run that other programs disturb.")
    parser.add_argument("--append", action="store_true", help="Keep what was measured before, and add rounds to it.")
    parser.add_argument("--report", action="store_true", help="Measure nothing; write the document again.")
    document.add_argument(parser)
    options = parser.parse_args()
    processes.end_on_sigterm()
    file = places.bench_dir() / "peers.jsonl"
    if not options.report:
        try:
            require_wrk()
            peers = [named(name) for name in options.peers.split(",")]
            unknown = set(options.models.split(",")) - set(MODELS)
            if unknown:
                raise UnknownPeer(f"There is no model {sorted(unknown)}; there are: {', '.join(MODELS)}.")
        except (DrivingFailed, UnknownPeer) as error:
            console.print(str(error), markup=False)
            return 2
        if not options.append:
            file.unlink(missing_ok=True)
        levels = [int(level) for level in options.connections.split(",")]
        measure(peers, options.models.split(","), levels, options.rounds, options.seconds, options.tries, file)
    write_document(options.document, file, options.seconds)
    return 0


def measure(
    peers: list[Peer], models: list[str], levels: list[int], rounds: int, seconds: int, tries: int, file: Path
) -> None:
    """Every round asks every peer once at every concurrency, so that a drift of the machine hits them all."""
    making.make()
    ready = [peer for peer in peers if _is_prepared(peer, file)]
    first = 1 + max((row.round for row in results.read(file)), default=0) if file.exists() else 1
    for number in range(first, first + rounds):
        for model in models:
            for peer in ready:
                if model in peer.models:
                    console.print(f"[bold]round {number}, {model}, {peer.name}")
                    _measure_one(peer, model, levels, number, seconds, tries, file)


def _is_prepared(peer: Peer, file: Path) -> bool:
    why_not = peer.why_not()
    if why_not is None:
        console.print(f"installing {peer.name}")
        try:
            peer.prepare()
        except (environments.InstallFailed, LayoutFailed) as error:
            why_not = str(error)
    if why_not is not None:
        console.print(f"  left out: {why_not}", markup=False)
        results.append(file, LoadRow(peer.name, "", 0, 0, None, failed=why_not))
    return why_not is None


def _measure_one(peer: Peer, model: str, levels: list[int], number: int, seconds: int, tries: int, file: Path) -> None:
    try:
        peer.start([model])
        peer.check(model)
        calls = [Call.of(peer.path(model), peer.body(MODELS[model], [item])) for item in items_of(model)]
        headers, pids = peer.headers(), peer.pids()
        drive(peer.address, calls, 8, WARM_UP_SECONDS, headers=headers, server=pids)
        for connections in levels:
            for _ in range(tries):
                run = drive(peer.address, calls, connections, seconds, headers=headers, server=pids)
                memory = processes.memory(pids)
                row = LoadRow(
                    peer.name, model, connections, number, run, **asdict(memory), at=time.strftime("%H:%M:%S")
                )
                results.append(file, row)
                console.print("  " + told(connections, run), markup=False)
                if not is_disturbed(run):
                    break
        peer.check(model)
    except (PeerFailed, DrivingFailed, AssertionError, httpx.HTTPError) as error:
        console.print(f"  failed: {error}", markup=False)
        results.append(file, LoadRow(peer.name, model, 0, number, None, failed=str(error)[-600:]))
    finally:
        peer.end()


def told(connections: int, run: Run) -> str:
    return (
        f"c={connections:<3} {run.requests_per_second:>9,.1f}/s  p50 {run.p50_ms:.3g}  p99 {run.p99_ms:.3g} ms  "
        f"errors {run.errors}  server {run.server_cores:.2f}  wrk {run.client_cores:.2f} cores  others "
        f"{run.foreign_share:.0%}"
    )


def write_document(target: Path, file: Path, seconds: int) -> None:
    rows = results.read(file)
    environments.install(plot.ENVIRONMENT)
    pictures = plot.peers(target, rows)
    kinds = {row.peer.partition("-")[0] for row in rows}
    block = peers_block(rows, {kind: _versions(kind) for kind in sorted(kinds)}, seconds, pictures)
    document.write_block(target, "bench-peers", legend() + "\n\n" + block)
    console.print(f"written to {target}", markup=False)


def _versions(kind: str) -> str:
    peer = named(kind)
    if peer.environment is None or not environments.is_installed(peer.environment):
        return "this version"
    found = environments.versions_of(peer.environment, peer.packages)
    return ", ".join(f"{name} {version}" for name, version in found.items())


if __name__ == "__main__":
    sys.exit(main())
