"""`make bench`: the product's promises of speed and memory, as ratios within one run, through the real parts.

Prints a table and writes it as JSON to <MODELHUB_STATE_DIR>/bench.json. Exit status 1 when a target is missed.
`ARGS="--only loads"` or `--only inference` measures a part; the second needs wrk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import document
from benchmarks.driving import DrivingFailed, require_wrk
from benchmarks.models import MODELS
from loaderd.protocol import ArtifactFile, ModelSpec
from loaderd.resources import memory_of
from tests.performance import inference
from tests.performance.cold import cold_spawn_seconds, in_process_seconds
from tests.stack import Stack

ROUNDS = 9
TFIDF, FOREST, MINILM = "bench-tfidf-v1.0", "bench-forest-v1.0", "bench-minilm-v1.0"
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured promise. target: the largest value that keeps it, or None when it is only reported."""

    name: str
    value: float
    unit: str
    target: float | None
    detail: str = ""

    @property
    def is_kept(self) -> bool:
        return self.target is None or self.value <= self.target


class Bench:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.api = stack.api()
        self.figures: list[Figure] = []

    def run(self) -> None:
        loaderd = self.stack.loaderd()
        self.stack.wait_for_zygotes()
        specs = {model_id: self._spec(model_id) for model_id in (TFIDF, FOREST, MINILM)}
        shares: list[float] = []
        for model_id, name in ((TFIDF, "TF-IDF"), (MINILM, "MiniLM"), (FOREST, "200 MB forest")):
            requests, own, unloads = self._cycles(model_id)
            shares += [request - load for request, load in zip(requests, own, strict=True)]
            request_ms, own_ms = statistics.median(requests) * 1e3, statistics.median(own) * 1e3
            if model_id == FOREST:
                bare_ms = in_process_seconds(Path(specs[model_id].directory) / "model.joblib", 5) * 1e3
                self._add(
                    f"load of the {name}: loaderd's own time / joblib in a warm program",
                    own_ms / bare_ms, "ratio", 1.5, f"{own_ms:.0f} ms / {bare_ms:.0f} ms",
                )  # fmt: skip
            else:
                cold_ms = cold_spawn_seconds(specs[model_id], 3) * 1e3
                self._add(
                    f"load of {name} through the API / its cold spawn",
                    request_ms / cold_ms, "ratio", 0.2, f"{request_ms:.0f} ms / {cold_ms:.0f} ms",
                )  # fmt: skip
            self._add(f"unload of {name} through the API, p50", statistics.median(unloads) * 1e3, "ms", 100)
        self._add("control plane's share of a load (request to 200 minus loaderd's load time), p50",
                  statistics.median(shares) * 1e3, "ms", 60)  # fmt: skip
        self._memory_back(loaderd)
        self._crowd(loaderd)
        self._predictions()

    def _add(self, name: str, value: float, unit: str, target: float | None, detail: str = "") -> None:
        self.figures.append(Figure(name, value, unit, target, detail))
        print(f"  {name}: {value:.3g} {unit} {detail}", flush=True)

    def _spec(self, model_id: str) -> ModelSpec:
        """The spec as the registry would send it, for the comparisons outside the product."""
        detail = self.api.get(f"/api/models/{model_id}").json()
        directory = Path(detail["path"])
        files = []
        for path in sorted(p for p in directory.rglob("*") if p.is_file()):
            stat = path.stat()
            name = path.relative_to(directory).as_posix()
            files.append(ArtifactFile(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, ""))
        return ModelSpec(
            model_id=model_id,
            lineage=detail["lineage"],
            version=detail["version"],
            framework=detail["framework"],
            format=detail["format"],
            directory=str(directory),
            digest=detail["digest"],
            files=tuple(files),
            approved=True,
            config=_json(directory / "config.json"),
            metadata=_json(directory / "metadata.json"),
        )

    def _cycles(self, model_id: str) -> tuple[list[float], list[float], list[float]]:
        """Seconds of load requests, of loaderd's own share of them, and of unload requests."""
        requests, own, unloads = [], [], []
        for number in range(ROUNDS + 1):
            began = time.perf_counter()
            loaded = self.api.post(f"/api/models/{model_id}/load")
            requested = time.perf_counter() - began
            assert loaded.status_code == 200, loaded.text
            began = time.perf_counter()
            unloaded = self.api.post(f"/api/models/{model_id}/unload")
            unloading = time.perf_counter() - began
            assert unloaded.json()["status"] == "unloaded", unloaded.text
            if number:  # the first warms the page cache
                requests.append(requested)
                own.append(loaded.json()["load_time"])
                unloads.append(unloading)
        return requests, own, unloads

    def _memory_back(self, loaderd: psutil.Process) -> None:
        """How much of the forest's own memory the process tree, and the machine, still hold after its unload."""
        before, used = tree_pss_bytes(loaderd), used_bytes()
        self.api.post(f"/api/models/{FOREST}/load")
        own = self.api.get(f"/api/models/{FOREST}").json()["runtime"]["private_bytes"]
        held = tree_pss_bytes(loaderd) - before
        self.api.post(f"/api/models/{FOREST}/unload")
        left, taken = tree_pss_bytes(loaderd) - before, used_bytes() - used
        self._add(
            "memory still held after the forest's unload / its own",
            abs(left) / own, "ratio", 0.05,
            f"own {own / MIB:.0f} MiB, tree +{held / MIB:.0f} MiB loaded, {left / MIB:+.1f} MiB unloaded",
        )  # fmt: skip

        self._add("memory that the whole machine holds more after it / its own", max(taken, 0) / own, "ratio", 0.05,
                  f"{taken / MIB:+.1f} MiB")  # fmt: skip

    def _crowd(self, loaderd: psutil.Process) -> None:
        """20 small models at once."""
        names = [f"bench-crowd-{number:02d}" for number in range(20)]
        empty = tree_pss_bytes(loaderd)

        def post(path: str) -> int:
            with self.stack.api() as api:
                return api.post(path, json={"inputs": ["hello"]} if path.endswith("predict") else None).status_code

        with ThreadPoolExecutor(20) as pool:
            began = time.perf_counter()
            assert set(pool.map(post, [f"/api/models/{name}/load" for name in names])) == {200}
            seconds = time.perf_counter() - began
            assert set(pool.map(post, [f"/api/models/{name}/predict" for name in names])) == {200}
            crowd = tree_pss_bytes(loaderd)
            pids = [self.api.get(f"/api/models/{name}").json()["runtime"]["pid"] for name in names]
            assert set(pool.map(post, [f"/api/models/{name}/unload" for name in names])) == {200}
        left = sum(psutil.pid_exists(pid) for pid in pids)
        self._add("20 small models loaded at once", seconds * 1e3, "ms", None)
        self._add("PSS of loaderd's process tree with them", crowd / MIB, "MiB", None, f"empty {empty / MIB:.0f} MiB")
        self._add("their processes left after the unload", left, "", 0)

    def _predictions(self) -> None:
        """One client, one item at a time, at the inference door."""
        self.api.post(f"/api/models/{TFIDF}/load")
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["where is my parcel"]}]}
        with httpx.Client(headers=dict(self.stack.headers)) as client:
            url = f"http://{self.stack.inference}/v2/models/{TFIDF}/infer"
            seconds = []
            for _ in range(500):
                began = time.perf_counter()
                assert client.post(url, json=body).status_code == 200
                seconds.append(time.perf_counter() - began)
        self.api.post(f"/api/models/{TFIDF}/unload")
        self._add("prediction of one text, sequential, p50", statistics.median(seconds) * 1e3, "ms", None,
                  f"p99 {sorted(seconds)[494] * 1e3:.1f} ms, httpx as the client")  # fmt: skip


def tree_pss_bytes(root: psutil.Process) -> int:
    found = (memory_of(process.pid) for process in [root, *root.children(recursive=True)])
    return sum(memory.pss_bytes for memory in found if memory)


def used_bytes() -> int:
    """Memory that programs of the whole machine hold (AnonPages): the median of a second, in which some come and go.

    Not MemAvailable: kernels since 6.7 keep pages that were freed in lists of each core for a while.
    """
    pause = threading.Event()
    readings = []
    for _ in range(21):
        lines = Path("/proc/meminfo").read_text().splitlines()
        readings.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("AnonPages")))
        pause.wait(0.05)
    return int(statistics.median(readings))


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def make_store(folder: Path) -> None:
    """The models to measure with: `samples.bench_models`, and 20 copies of its small one."""
    import shutil
    import subprocess

    subprocess.run([sys.executable, "-m", "samples.bench_models", str(folder)], check=True)
    small = next(folder.glob(f"*/{TFIDF}"))
    for number in range(20):
        copy = small.parent / f"bench-crowd-{number:02d}"
        shutil.copytree(small, copy)
        (copy / "metadata.json").unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="loads,inference", help="Parts, comma-separated.")
    parser.add_argument(
        "--document", type=Path, help="Also writes the inference part's table there: docs/performance.md."
    )
    parser.add_argument("--models", default=",".join(MODELS), help="Of the inference part.")
    options = parser.parse_args()
    parts = options.only.split(",")
    console = Console()
    if "inference" in parts:
        try:
            require_wrk()
        except DrivingFailed as error:
            console.print(str(error))
            return 2
    figures = loads(console) if "loads" in parts else []
    if "inference" in parts:
        costs: list[Figure] = []
        inference.measure(adder(costs), options.models.split(","))
        if options.document:
            document.write_block(options.document, "bench", document.table(HEAD, [row(figure) for figure in costs]))
        figures += costs
    return report(figures, console)


HEAD = ("figure", "value", "target", "kept", "detail")


def row(figure: Figure) -> tuple[str, str, str, str, str]:
    target = "" if figure.target is None else f"≤ {figure.target:.4g}"
    kept = "" if figure.target is None else ("yes" if figure.is_kept else "NO")
    value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"
    return figure.name, f"{value} {figure.unit}", target, kept, figure.detail


def adder(figures: list[Figure]) -> inference.Add:
    """Keeps each figure and tells it."""

    def add(name: str, value: float, unit: str, target: float | None, detail: str) -> None:
        figures.append(Figure(name, value, unit, target, detail))
        print(f"  {name}: {value:.4g} {unit} {detail}", flush=True)

    return add


def loads(console: Console) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="mh") as folder:
        store = Path(folder) / "store"
        store.mkdir()
        Path(folder).chmod(0o755)
        console.print("making the models to measure with")
        make_store(store)
        stack = Stack(Path(folder) / "var", store)
        try:
            stack.start()
            for model_id in (FOREST, "bench-tfidf-joblib-v1.0"):
                stack.manage("approve", model_id, "--user", "ada")
            bench = Bench(stack)
            bench.run()
        finally:
            if stack.process is not None:
                stack.stop()
    return bench.figures


def report(figures: list[Figure], console: Console) -> int:
    """The exit status: 1 when a target is missed."""
    table = Table(*HEAD, title="bench, ratios within one run")
    for figure in figures:
        table.add_row(*row(figure))
    console.print(table)
    from modelhub.conf import config

    file = config().MODELHUB_STATE_DIR / "bench.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))
    console.print(f"written to {file}")
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
