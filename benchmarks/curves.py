"""Our own cost as work grows: `python -m benchmarks.curves [--only models,connections,items]`.

models: 1 to 50 loaded models share one load, fixed in total. connections: 1 to 512. items: 1 to 10,000 in one request,
beside an ordinary program that predicts them at once. Writes tables and pictures into docs/performance.md; results:
<MODELHUB_STATE_DIR>/bench/curves.json.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import document, environments, limits, making, places, plot, processes
from benchmarks.document import table
from benchmarks.driving import Call, DrivingFailed, drive, require_wrk
from benchmarks.models import MODELS, items_of
from benchmarks.pacing import Load, Stream, median_ms, quantile
from benchmarks.peers.modelhub import Modelhub, load

MODEL_COUNTS = (1, 2, 5, 10, 20, 50)
CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ITEM_COUNTS = (1, 10, 100, 1000, 10_000)
PER_SECOND = 400.0
SECONDS = 8
ITEM_MODELS = ("text", "digits", "keras")
LEAST_CALLS = 8  # of a request that takes longer than a point's seconds

Row = dict[str, Any]
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="models,connections,items")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="Of each point.")
    document.add_argument(parser)
    options = parser.parse_args()
    processes.end_on_sigterm()
    try:
        require_wrk()
    except DrivingFailed as error:
        console.print(str(error), markup=False)
        return 2
    making.make()
    curves: dict[str, Callable[[int], list[Row]]] = {"models": models, "connections": connections, "items": items}
    file = places.bench_dir() / "curves.json"
    found: dict[str, list[Row]] = json.loads(file.read_text()) if file.exists() else {}
    for name in options.only.split(","):
        console.print(f"[bold]{name}")
        found[name] = curves[name](options.seconds)
        file.write_text(json.dumps(found, indent=1))
    write_document(options.document, found)
    return 0


def models(seconds: int) -> list[Row]:
    """Copies of the text model, each with a lineage and a process of its own."""
    rows: list[Row] = []
    server = Modelhub()
    try:
        server.start(["text"])
        names = [f"copy-{number:02d}" for number in range(max(MODEL_COUNTS))]
        add_copies(server, names)
        loaded: list[str] = []
        bodies = [server.body(MODELS["text"], [item]) for item in items_of("text")]
        with server.stack.api() as api:
            assert api.post("/api/models/text-v1.0/unload").status_code == 200
        for count in MODEL_COUNTS:
            began = time.perf_counter()
            with ThreadPoolExecutor(8) as pool, server.stack.api() as api:
                list(pool.map(lambda name: load(api, f"{name}-v1.0"), names[len(loaded) : count]))
            loading = time.perf_counter() - began
            new, loaded = count - len(loaded), names[:count]
            calls = [Call.of(server.path(loaded[n % count]), bodies[n % len(bodies)]) for n in range(50 * len(bodies))]
            pids = server.pids()
            stream = Stream("all", calls[: 64 * count], PER_SECOND, connections=32)
            used, busy, at = processes.cpu_seconds(pids), processes.machine_busy_seconds(), time.perf_counter()
            with Load(server.address, server.headers(), [stream]) as paced:
                wait(seconds)
            wall = time.perf_counter() - at
            seen = paced.seen["all"]
            used, busy = processes.cpu_seconds(pids) - used, processes.machine_busy_seconds() - busy
            closed = drive(server.address, calls[: 64 * count], 32, seconds, headers=server.headers(), server=pids)
            memory = processes.memory(pids)
            rows.append(
                {
                    "models": count,
                    "p50_ms": median_ms(seen),
                    "p99_ms": quantile(seen.seconds, 0.99) * 1e3,
                    "failed": seen.failed + closed.errors,
                    "cores": used / wall,
                    "others": max(0.0, (busy - used) / wall / limits.CORES),
                    "closed_per_second": closed.requests_per_second,
                    "closed_p99_ms": closed.p99_ms,
                    "pss_mb": memory.pss_mb,
                    "load_ms": loading / new * 1e3 if new else 0.0,
                }
            )
            told(rows[-1])
    finally:
        server.end()
    return rows


def add_copies(server: Modelhub, names: Sequence[str]) -> None:
    """Registers copies of the text model under other names."""
    source = places.store_dir() / "other" / "text-v1.0"
    for name in names:
        target = server.stack.models_dir / "other" / f"{name}-v1.0"
        shutil.copytree(source, target)
        metadata = json.loads((target / "metadata.json").read_text())
        (target / "metadata.json").write_text(json.dumps({**metadata, "name": name, "lineage": name}))
    server.stack.manage("discover")


def connections(seconds: int) -> list[Row]:
    rows: list[Row] = []
    server = Modelhub()
    try:
        server.start(["text"])
        calls = [Call.of(server.path("text"), server.body(MODELS["text"], [item])) for item in items_of("text")]
        pids, headers = server.pids(), server.headers()
        drive(server.address, calls, 8, 3, headers=headers, server=pids)
        for count in CONNECTIONS:
            run = drive(server.address, calls, count, seconds, headers=headers, server=pids)
            rows.append(
                {
                    "connections": count,
                    "per_second": run.requests_per_second,
                    "p50_ms": run.p50_ms,
                    "p99_ms": run.p99_ms,
                    "errors": run.errors,
                    "cores": run.server_cores,
                    "client_cores": run.client_cores,
                    "others": run.foreign_share,
                    "pss_mb": processes.memory(pids).pss_mb,
                }
            )
            told(rows[-1])
    finally:
        server.end()
    return rows


def items(seconds: int) -> list[Row]:
    """One connection; the ordinary program gets the same items in one call, with all threads that it likes."""
    rows: list[Row] = []
    server = Modelhub()
    try:
        server.start(list(ITEM_MODELS))
        headers = server.headers()
        for name in ITEM_MODELS:
            pool = items_of(name)
            with limits.programs(name) as alone:
                for count in ITEM_COUNTS:
                    many = [pool[number % len(pool)] for number in range(count)]
                    call = Call.of(server.path(name), server.body(MODELS[name], many))
                    pids = server.pids()
                    rate = alone.rate(count, min(seconds, 3))
                    enough = max(seconds, math.ceil(LEAST_CALLS * rate.call_ms / 1e3))
                    drive(server.address, [call], 1, math.ceil(enough / LEAST_CALLS), headers=headers, server=pids)
                    run = drive(server.address, [call], 1, enough, headers=headers, server=pids)
                    rows.append(
                        {
                            "model": name,
                            "items": count,
                            "body_kb": len(call.body) / 1024,
                            "p50_ms": run.p50_ms,
                            "p99_ms": run.p99_ms,
                            "items_per_second": run.requests_per_second * count,
                            "alone_ms": rate.call_ms,
                            "alone_per_second": rate.items_per_second,
                            "errors": run.errors,
                            "others": run.foreign_share,
                        }
                    )
                    told(rows[-1])
    finally:
        server.end()
    return rows


def wait(seconds: float) -> None:
    """The load is sent from another thread."""
    time.sleep(seconds)


def told(row: Row) -> None:
    console.print("  " + "  ".join(f"{name} {_short(value)}" for name, value in row.items()), markup=False)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_document(target: Path, found: dict[str, list[Row]]) -> None:
    environments.install(plot.ENVIRONMENT)
    parts = []
    for name, write in (("models", models_part), ("connections", connections_part), ("items", items_part)):
        if found.get(name):
            parts.append(write(target, found[name]))
    document.write_block(target, "curves", "\n\n".join(parts))
    console.print(f"written to {target}", markup=False)


def models_part(target: Path, rows: Sequence[Row]) -> str:
    picture = plot.draw(
        target,
        "loaded-models",
        [
            plot.panel(f"{PER_SECOND:g} requests/s in all", "loaded models", "ms",
                       {"p50": points(rows, "models", "p50_ms"), "p99": points(rows, "models", "p99_ms")}, log_y=False),
            plot.panel("memory of the installation", "loaded models", "PSS MB",
                       {"memory": points(rows, "models", "pss_mb")}, log_y=False),
        ],
    )  # fmt: skip
    lines = [
        (row["models"], f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['cores']:.2f}",
         f"{row['closed_per_second']:,.0f}", f"{row['closed_p99_ms']:.1f}", f"{row['pss_mb']:,}",
         f"{row['load_ms']:.0f}", row["failed"], f"{row['others']:.0%}")
        for row in rows
    ]  # fmt: skip
    head = ["loaded models", "p50 ms", "p99 ms", "cores", "requests/s, c = 32", "p99 ms, c = 32", "PSS MB",
            "ms a load", "errors", "others' CPU"]  # fmt: skip
    return (
        "### Loaded models\n\n"
        "Copies of the text model, each in a process of its own. The first columns: "
        f"{PER_SECOND:g} requests a second in all, spread evenly; then as many as 32 connections can ask.\n\n"
        f"{table(head, lines)}\n\n![loaded models]({picture.parent.name}/{picture.name})"
    )


def connections_part(target: Path, rows: Sequence[Row]) -> str:
    picture = plot.draw(
        target,
        "connections",
        [
            plot.panel("throughput", "connections", "requests/s", {"text": points(rows, "connections", "per_second")},
                       log_y=False),
            plot.panel("latency", "connections", "ms",
                       {"p50": points(rows, "connections", "p50_ms"), "p99": points(rows, "connections", "p99_ms")}),
        ],
    )  # fmt: skip
    lines = [
        (row["connections"], f"{row['per_second']:,.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}",
         f"{row['cores']:.2f}", f"{row['client_cores']:.2f}", f"{row['pss_mb']:,}", row["errors"],
         f"{row['others']:.0%}")
        for row in rows
    ]  # fmt: skip
    head = ["connections", "requests/s", "p50 ms", "p99 ms", "our cores", "wrk's cores", "PSS MB", "errors",
            "others' CPU"]  # fmt: skip
    return (
        "### Connections\n\nThe text model, one item a request, each connection waiting for its answer.\n\n"
        f"{table(head, lines)}\n\n![connections]({picture.parent.name}/{picture.name})"
    )


def items_part(target: Path, rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row["model"] for row in rows))
    panels = []
    for name in names:
        of_model = [row for row in rows if row["model"] == name]
        lines = {"modelhub": points(of_model, "items", "p50_ms"),
                 "ordinary program": points(of_model, "items", "alone_ms")}  # fmt: skip
        panels.append(plot.panel(name, "items in a request", "ms", lines))
    picture = plot.draw(target, "items", panels)
    cells = [
        (row["model"], f"{row['items']:,}", f"{row['body_kb']:,.1f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}",
         f"{row['items_per_second']:,.0f}", f"{row['alone_ms']:.2f}",
         f"{row['items_per_second'] / row['alone_per_second']:.2f}", row["errors"], f"{row['others']:.0%}")
        for row in rows
    ]  # fmt: skip
    head = ["model", "items", "body KB", "p50 ms", "p99 ms", "items/s", "ordinary program, ms", "items/s, ours / its",
            "errors", "others' CPU"]  # fmt: skip
    return (
        "### Items in a request\n\nOne connection, JSON. Beside it: one call of an ordinary program (one thread) that "
        "has the same items in memory, so without JSON, HTTP and checks.\n\n"
        f"{table(head, cells)}\n\n![items]({picture.parent.name}/{picture.name})"
    )


def points(rows: Sequence[Row], x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in rows]


if __name__ == "__main__":
    sys.exit(main())
