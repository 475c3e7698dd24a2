"""`make bench-peers`: installs the peers, makes the models, drives everybody in turn, writes docs/performance.md.

Each call adds what is still missing to <MODELHUB_STATE_DIR>/bench/peers.jsonl, so a long measurement can be made in
pieces: repeat the same command, `--minutes 7` each, until it says that nothing is missing (exit status 0; 75: call
again). Rows of other machines and of other code stay in the file and out of the document. `--peers
modelhub,fastapi,triton-batch --models text --rounds 2` measures a part; `--report` only writes the document again.
`--ratio-to-in-process minilm,keras` measures ours beside the same network without a server instead.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import document, environments, kept, making, places, plot, processes, results, rounds, setting
from benchmarks.driving import DrivingFailed, require_wrk
from benchmarks.layouts import LayoutFailed
from benchmarks.models import MODELS
from benchmarks.peers import USUAL, UnknownPeer, named
from benchmarks.peers.base import Peer
from benchmarks.report import legend, peers_block
from benchmarks.rounds import Plan

TRIES = 3  # of a run that something else disturbs
CONNECTIONS = "1,8,32,64"
UNFINISHED = 75  # EX_TEMPFAIL: call again

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    options = arguments().parse_args()
    processes.end_on_sigterm()
    try:
        require_wrk()
        names = (options.ratio_to_in_process or options.models).split(",")
        unknown = set(names) - set(MODELS)
        if unknown:
            raise UnknownPeer(f"There is no model {sorted(unknown)}; there are: {', '.join(MODELS)}.")
        peers = [named(name) for name in options.peers.split(",")]
    except (DrivingFailed, UnknownPeer) as error:
        console.print(str(error), markup=False)
        return 2
    if options.ratio_to_in_process:
        making.make()
        kept.measure(names, options.rounds, options.seconds, options.precisions.split(","), options.document)
        return 0
    plan = Plan(
        models=names,
        levels=[int(level) for level in options.connections.split(",")],
        rounds=options.rounds,
        seconds=options.seconds,
        tries=options.tries,
        file=places.bench_dir() / "peers.jsonl",
        version=options.version or setting.version(),
        until=time.monotonic() + 60 * options.minutes if options.minutes else None,
    )
    if options.fresh and plan.file.exists():
        plan.file.rename(plan.file.with_suffix(time.strftime(".%Y%m%d-%H%M%S.jsonl")))
    is_whole = True
    if not options.report:
        making.make()
        is_whole = rounds.measure(plan, [peer for peer in peers if _is_prepared(peer, plan)])
    if results.read(plan.file):
        write_document(options.document, plan.file)
    if not is_whole:
        console.print("Not all is measured yet: call it again in the same way to go on.")
    return 0 if is_whole else UNFINISHED


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(USUAL), help="Comma-separated; `null` is an empty HTTP answer.")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--connections", default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, default=3, help="Wanted in the end, those of earlier calls included.")
    parser.add_argument("--seconds", type=int, default=8, help="Of one run.")
    parser.add_argument("--tries", type=int, default=TRIES, help="Of a run that other programs disturb.")
    parser.add_argument(
        "--minutes", type=float, help="Begins nothing that would end later; exit status 75 when something is missing."
    )
    parser.add_argument("--fresh", action="store_true", help="Puts what was measured before aside, and begins anew.")
    parser.add_argument(
        "--version", help="Under which rows belong together, in place of the release and the digest of the code."
    )
    parser.add_argument("--report", action="store_true", help="Measures nothing; writes the document again.")
    parser.add_argument(
        "--ratio-to-in-process", metavar="MODELS",
        help="Measures how much of the in-process throughput ours keeps, --rounds of --seconds, and nothing else.",
    )  # fmt: skip
    parser.add_argument(
        "--precisions", default="fp32,bf16,int8", help="Of the models that have several, for --ratio-to-in-process."
    )
    document.add_argument(parser)
    return parser


def _is_prepared(peer: Peer, plan: Plan) -> bool:
    why_not = peer.why_not()
    if why_not is None:
        console.print(f"installing {peer.name}")
        try:
            peer.prepare()
        except (environments.InstallFailed, LayoutFailed) as error:
            why_not = str(error)
    if why_not is not None:
        console.print(f"  left out: {why_not}", markup=False)
        rounds.leave_out(peer, why_not, plan)
    return why_not is None


def write_document(target: Path, file: Path) -> None:
    rows = results.of_newest_setting(results.read(file))
    environments.install(plot.ENVIRONMENT)
    pictures = plot.peers(target, rows)
    kinds = {row.peer.partition("-")[0] for row in rows}
    block = peers_block(rows, {kind: _versions(kind) for kind in sorted(kinds)}, pictures)
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
