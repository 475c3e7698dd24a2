"""What a model achieves in ordinary programs, without any server: the limit that a server is measured against."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import alone, places
from benchmarks.models import MODELS, items_of
from loaderd.supervisor.environment import clean_environment

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
    """So many ordinary programs with the model loaded that predict at the same time."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], count: int) -> None:
        self._programs = [
            subprocess.Popen(
                list(command), env=dict(environment), cwd=places.PROJECT_DIR,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(count)
        ]  # fmt: skip
        try:
            self._answers()
        except LimitFailed:
            self.end()
            raise

    @property
    def pids(self) -> list[int]:
        return [program.pid for program in self._programs]

    def rate(self, batch: int, seconds: float) -> Rate:
        answers = self.ask(f"{batch} {seconds}")
        return Rate(sum(a["items_per_second"] for a in answers), max(a["call_ms"] for a in answers))

    def ask(self, line: str) -> list[dict[str, float]]:
        """What each of them answers. Raises LimitFailed."""
        for program in self._programs:
            assert program.stdin is not None
            program.stdin.write(f"{line}\n")
            program.stdin.flush()
        return [json.loads(answer) for answer in self._answers()]

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
    """As somebody writes them with the library's documentation at hand, each with so many threads."""
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
    running = Programs([sys.executable, str(places.SERVERS_DIR / "in_process.py"), model], environment, count)
    try:
        yield running
    finally:
        running.end()


@contextlib.contextmanager
def own_programs(model: str, precision: str = alone.FULL, count: int = 1) -> Iterator[Programs]:
    """With the model as our model process loads it, one thread each (see alone.py)."""
    directory = places.store_dir() / "other" / MODELS[model].model_id
    framework = json.loads((directory / "metadata.json").read_text())["framework"]
    with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".json") as items:
        items.write(json.dumps(items_of(model)))
        items.flush()
        command = [sys.executable, "-m", "benchmarks.alone", str(directory), framework, precision, items.name]
        running = Programs(command, {**clean_environment(), "TF_CPP_MIN_LOG_LEVEL": "3"}, count)
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
