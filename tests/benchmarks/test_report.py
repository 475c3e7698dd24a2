from __future__ import annotations

from pathlib import Path

from benchmarks.report import peers_block
from tests.benchmarks.rows import row, run

ROWS = [
    row("modelhub", run(5000, p50=1.5, p99=4.0)),
    row("modelhub", run(5200, p50=1.5, p99=4.0), number=2),
    row("fastapi-async", run(1000, p50=8.0, p99=30.0)),
    row("triton-batch", run(2000, foreign=0.2, p50=8.0, p99=11.0)),
    row("torchserve", None, model="", failed="TorchServe needs\nJava 17."),
]


def test_the_block_tells_figures_targets_versions_and_what_was_not_measured() -> None:
    block = peers_block(ROWS, {"fastapi": "fastapi 1.2"}, [Path("docs/performance/throughput.svg")])
    assert "| **modelhub** | 5,100 ±2% (1.5 / 4; 0 µs, 0%) | 0 | 100 |" in block
    assert "| triton-batch | 2,000 (8 / 11; 0 µs, 20%) ~ | 0 | 100 |" in block
    assert block.index("**modelhub**") < block.index("| triton-batch |") < block.index("| fastapi-async |")
    assert "2.50 × triton-batch (2.50 to 2.50) | met |" in block
    assert "![throughput](performance/throughput.svg)" in block
    assert "| torchserve |  | TorchServe needs Java 17. |" in block
    assert "| FastAPI by hand | fastapi 1.2 |" in block
    assert "In every environment: scikit-learn " in block
