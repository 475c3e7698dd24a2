"""What a model achieves in ordinary programs, without any server: the limit that a server is measured against."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import places

CORES = os.cpu_count() or 1
BATCHES = {
    "text": (1, 8, 32, 64, 128),
    "digits": (1, 8, 32, 64, 128),
    "minilm": (1, 4, 8, 16, 32),
    "keras": (1, 8, 32, 64, 128),
}


class LimitFailed(Exception):
    """The program that predicts without a server ended; its errors are on the terminal."""


@dataclass(frozen=True, slots=True)
class Rate:
    """items_per_second: of all programs together; call_ms: the median of one call (the slowest program's)."""

    items_per_second: float
    call_ms: float


class Programs:
    """So many ordinary programs with the model loaded, each with so many threads, that predict at the same time."""

    def __init__(self, model: str, count: int, threads: int) -> None:
        environment = {
            **os.environ,
            "BENCH_MODELS": str(places.models_dir()),
            "PYTHONPATH": str(places.SERVERS_DIR),
            "OMP_NUM_THREADS": str(threads),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "USE_TF": "0",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._programs = [
            subprocess.Popen(
                [sys.executable, str(places.SERVERS_DIR / "in_process.py"), model], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(count)
        ]  # fmt: skip
        self._answers()

    def rate(self, batch: int, seconds: float) -> Rate:
        for program in self._programs:
            assert program.stdin is not None
            program.stdin.write(f"{batch} {seconds}\n")
            program.stdin.flush()
        answers = [json.loads(line) for line in self._answers()]
        return Rate(sum(a["items_per_second"] for a in answers), max(a["call_ms"] for a in answers))

    def end(self) -> None:
        for program in self._programs:
            program.kill()
            program.communicate()

    def _answers(self) -> list[str]:
        lines = []
        for program in self._programs:
            assert program.stdout is not None
            lines.append(program.stdout.readline())
            if not lines[-1]:
                raise LimitFailed("A program that predicts without a server ended.")
        return lines


@contextlib.contextmanager
def programs(model: str, count: int = 1, threads: int = 1) -> Iterator[Programs]:
    running = Programs(model, count, threads)
    try:
        yield running
    finally:
        running.end()


@dataclass(frozen=True, slots=True)
class Limit:
    """one_item_ms: a call with one item, one program, one thread. best_batch, items_per_second: where all cores
    together achieve most; how: by which arrangement of programs and threads."""

    model: str
    one_item_ms: float
    best_batch: int
    items_per_second: float
    how: str


def measure(model: str, seconds: float) -> Limit:
    """seconds: of each of the calls' series."""
    best, one_item_ms = (0.0, 0, ""), 0.0
    for count, threads in dict.fromkeys(((1, 1), (CORES, 1), (1, CORES))):
        with programs(model, count, threads) as running:
            for batch in BATCHES[model]:
                rate = running.rate(batch, seconds)
                best = max(best, (rate.items_per_second, batch, f"{count} × {threads} threads"))
                if (count, threads, batch) == (1, 1, 1):
                    one_item_ms = rate.call_ms
    return Limit(model, one_item_ms, best[1], best[0], best[2])
