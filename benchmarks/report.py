"""The tables of docs/performance.md, made of what was measured."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import places, setting
from benchmarks.document import table
from benchmarks.models import MODELS
from benchmarks.peers import KINDS, named
from benchmarks.results import LoadRow
from benchmarks.summary import FOREIGN_LIMIT, OURS, Figure, compared, figures
from benchmarks.targets import verdicts


def peers_block(rows: Sequence[LoadRow], versions: Mapping[str, str], pictures: Sequence[Path]) -> str:
    """Everything that `make bench-peers` writes. versions: by kind of peer, a phrase each."""
    found = figures(rows)
    peers = [name for name in KINDS if name in {row.peer.partition("-")[0] for row in rows}]
    parts = [measured_on(rows)]
    parts += [f"![{picture.stem}]({picture.parent.name}/{picture.name})" for picture in pictures]
    for model in MODELS.values():
        if any(figure.model == model.name for figure in found):
            parts += [f"### {model.name}: {model.title}", load_table([f for f in found if f.model == model.name])]
    comparisons = compared(rows)
    if comparisons:
        judged = [(verdict.promise, verdict.seen, "met" if verdict.is_met else "**not met**")
                  for verdict in verdicts(comparisons)]  # fmt: skip
        parts += ["### Targets", table(["target", "seen", ""], judged)]
    if failed := [(row.peer, row.model, _one_line(row.failed)) for row in rows if row.failed]:
        parts += ["### Not measured", table(["peer", "model", "why"], failed)]
    parts += ["### Versions and settings", f"In every environment: {libraries()}.", settings_table(peers, versions)]
    return "\n\n".join(parts)


def measured_on(rows: Sequence[LoadRow]) -> str:
    rounds = len({row.round for row in rows if row.run})
    seconds = statistics.median(
        [row.run.requests / row.run.requests_per_second for row in rows if row.run and row.run.requests_per_second]
        or [0.0]
    )
    newest = rows[-1]
    return (
        f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())}: {newest.machine or setting.machine()}, no GPU, Linux "
        f"{platform.release()}, Python {platform.python_version()}, Modelhub {newest.version or 'before'}. "
        f"Up to {rounds} rounds of {seconds:.0f} s each; in a round, at each concurrency, the peers take turns, one "
        "straight after the other. Client and server share the cores."
    )


def load_table(found: Sequence[Figure]) -> str:
    """One line for each peer, fastest at the highest concurrency first. A cell: see `legend`."""
    levels = sorted({figure.connections for figure in found})
    by_peer: dict[str, dict[int, Figure]] = {}
    for figure in found:
        by_peer.setdefault(figure.peer, {})[figure.connections] = figure
    order = sorted(by_peer, key=lambda peer: -max(f.requests_per_second for f in by_peer[peer].values()))
    lines = []
    for peer in order:
        cells = [_cell(by_peer[peer].get(level)) for level in levels]
        errors = sum(figure.errors for figure in by_peer[peer].values())
        memory = max(figure.uss_mb for figure in by_peer[peer].values())
        title = f"**{peer}**" if peer == OURS else peer
        lines.append([title, *cells, errors, memory])
    return table(["peer", *(f"c = {level}" for level in levels), "errors", "USS MB"], lines)


def settings_table(kinds: Sequence[str], versions: Mapping[str, str]) -> str:
    lines = []
    for kind in kinds:
        peer = named(kind)
        said = "; ".join(f"{variant}: {text}" if variant else text for variant, text in peer.settings.items())
        lines.append([peer.title, versions.get(kind, ""), said])
    return table(["peer", "versions", "settings"], lines).replace("|--:", "|---")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    mark = " ~" if figure.is_disturbed else ""
    spread = f" ±{figure.spread / 2:.0%}" if figure.runs > 1 else ""
    cost = f"{figure.server_us:,.0f} µs, {figure.foreign_share:.0%}"
    latency = f"{_short(figure.p50_ms)} / {_short(figure.p99_ms)}"
    return f"{figure.requests_per_second:,.0f}{spread} ({latency}; {cost}){mark}"


def _short(milliseconds: float) -> str:
    """Three digits, but all of a thousand and more."""
    return f"{milliseconds:,.0f}" if milliseconds >= 1000 else f"{milliseconds:.3g}"


def libraries() -> str:
    lines = (places.REQUIREMENTS_DIR / "models.txt").read_text().splitlines()
    return ", ".join(line.replace("==", " ") for line in lines if line and not line.startswith("#"))


def legend() -> str:
    return (
        "Each cell: requests per second, ± half the distance between the slowest and the fastest run, (p50 / p99 in "
        "ms; processor time for each request of all processes of the server, share of the machine that other programs "
        "used meanwhile, the idle peers among them); medians. `~`: in every run other programs used over "
        f"{FOREIGN_LIMIT:.0%} of the machine; the least disturbed run stands. USS: memory of its own of the whole "
        "process tree, under load."
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
