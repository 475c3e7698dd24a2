"""What the inference door promises beside the peers, as ratios within one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.summary import Comparison

TIMES_THE_BEST_PEER: dict[tuple[str, int], float] = {
    ("text", 1): 1.3,
    ("text", 8): 2.0,
    ("text", 32): 3.0,
    ("text", 64): 2.0,
    ("digits", 32): 2.0,
    ("digits", 64): 1.3,
    ("minilm", 1): 1.0,
    ("minilm", 8): 1.0,
    ("minilm", 32): 1.0,
}
"""(model, concurrency) -> how often as many requests per second as the best peer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    promise: str
    seen: str
    is_met: bool


def verdicts(comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Of every promise that was measured."""
    found = []
    for comparison in comparisons:
        where = f"{comparison.model}, c = {comparison.connections}"
        wanted = TIMES_THE_BEST_PEER.get((comparison.model, comparison.connections))
        if wanted is not None:
            seen = f"{comparison.ratio:.2f} × {comparison.peer} ({comparison.lowest:.2f} to {comparison.highest:.2f})"
            found.append(Verdict(f"{where}: ≥ {wanted:g} × the best peer", seen, comparison.ratio >= wanted))
        p99 = f"{comparison.p99_ms:.3g} ms; lowest of the peers {comparison.peer_p99_ms:.3g} ms"
        found.append(
            Verdict(f"{where}: p99 no higher than any peer's", p99, comparison.p99_ms <= comparison.peer_p99_ms)
        )
    return found
