"""Ten minutes of everything at once: `python -m benchmarks.mixed [--minutes 10]`.

Four models are asked at fixed rates while another one is loaded and unloaded all the time and the text model's lineage
switches between two versions. Errors must be 0 and memory flat. Writes into docs/performance.md; results:
<MODELHUB_STATE_DIR>/bench/mixed.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks import document, environments, making, places, plot, processes
from benchmarks.curves import add_copies
from benchmarks.document import table
from benchmarks.driving import Call
from benchmarks.models import MODELS, items_of
from benchmarks.pacing import Load, Seen, Stream, by_window, median_ms, quantile
from benchmarks.peers.modelhub import Modelhub, load
from tests.endurance.processes import long_lived, state_of

RATES = {"text": 100.0, "digits": 60.0, "keras": 60.0, "minilm": 5.0}
VERSIONS = ("text-v1.0", "text-v2.0")
COMES_AND_GOES = "copy-00"
SAMPLE_SECONDS = 5.0
SWITCH_SECONDS = 5.0
WINDOW_SECONDS = 20.0
FLAT_SHARE = 0.03
"""Memory is flat when the last quarter's median is no further above the second quarter's: the first fills caches."""

console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Course:
    """What happened meanwhile. at: seconds since the start; pss_mb: of the whole installation; private_mb: by process.

    The two lists of seconds: of each load with its unload, and of each switch, as their callers waited.
    """

    at: list[float] = field(default_factory=list)
    pss_mb: list[float] = field(default_factory=list)
    private_mb: dict[str, list[float]] = field(default_factory=dict)
    cycle_seconds: list[float] = field(default_factory=list)
    switch_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one model: how many were asked, how many failed, and how long from when a request was due."""

    asked: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    p99_by_time: list[tuple[float, float]]
    errors: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    document.add_argument(parser)
    options = parser.parse_args()
    processes.end_on_sigterm()
    making.make()
    seen, course = run(options.minutes * 60)
    traffic = {name: summed(each) for name, each in seen.items()}
    file = places.bench_dir() / "mixed.json"
    file.write_text(json.dumps({"traffic": {n: asdict(t) for n, t in traffic.items()}, "course": asdict(course)}))
    environments.install(plot.ENVIRONMENT)
    document.write_block(options.document, "mixed", part(options.document, options.minutes, traffic, course))
    for name, each in traffic.items():
        console.print(
            f"{name}: {each.asked} asked, {each.failed} failed {each.errors}, p99 {each.p99_ms:.1f} ms", markup=False
        )
    console.print(
        f"memory {growth(course.pss_mb):+.1%}; {course.failures[:3]}; written to {options.document}", markup=False
    )
    return int(any(each.failed for each in traffic.values()) or bool(course.failures) or not is_flat(course.pss_mb))


def run(seconds: float) -> tuple[dict[str, Seen], Course]:
    server, course, stop = Modelhub(), Course(), threading.Event()
    try:
        server.start(list(MODELS))
        add_version(server)
        add_copies(server, [COMES_AND_GOES])
        streams = [
            Stream(
                name, [Call.of(server.path(name), server.body(MODELS[name], [item])) for item in items_of(name)], rate
            )
            for name, rate in RATES.items()
        ]
        threads = [
            threading.Thread(target=work, args=(server, course, stop), daemon=True)
            for work in (_cycle, _switch, _watch)
        ]
        with Load(server.address, server.headers(), streams) as paced:
            for thread in threads:
                thread.start()
            stop.wait(seconds)
            stop.set()
            for thread in threads:
                thread.join(60)
        return paced.seen, course
    finally:
        server.end()


def add_version(server: Modelhub) -> None:
    """A second version of the text model, with the same weights: answers stay right whichever is live."""
    source, target = (server.stack.models_dir / "other" / model_id for model_id in VERSIONS)
    shutil.copytree(source, target)
    metadata = json.loads((target / "metadata.json").read_text())
    (target / "metadata.json").write_text(json.dumps({**metadata, "version": "2.0"}))
    server.stack.manage("discover")
    with server.stack.api() as api:
        approved = api.post(f"/api/models/{VERSIONS[1]}/approve")
        assert approved.status_code in (200, 201), approved.text


def _cycle(server: Modelhub, course: Course, stop: threading.Event) -> None:
    """Loads and unloads, one after the other, for ever."""
    model_id = f"{COMES_AND_GOES}-v1.0"
    with server.stack.api() as api:
        while not stop.wait(0.5):
            began = time.perf_counter()
            try:
                load(api, model_id)
                unloaded = api.post(f"/api/models/{model_id}/unload")
                assert unloaded.status_code == 200, unloaded.text
            except (AssertionError, httpx.HTTPError) as error:
                course.failures.append(f"load and unload: {error}"[:300])
            course.cycle_seconds.append(time.perf_counter() - began)


def _switch(server: Modelhub, course: Course, stop: threading.Event) -> None:
    with server.stack.api() as api:
        number = 1
        while not stop.wait(SWITCH_SECONDS):
            began = time.perf_counter()
            try:
                moved = api.post(f"/api/models/{VERSIONS[number % 2]}/activate", json={"reason": "benchmark"})
                if moved.status_code != 200:
                    course.failures.append(f"activate: {moved.status_code} {moved.text}"[:300])
            except httpx.HTTPError as error:
                course.failures.append(f"activate: {error!r}"[:300])
            course.switch_seconds.append(time.perf_counter() - began)
            number += 1


def _watch(server: Modelhub, course: Course, stop: threading.Event) -> None:
    began, known = time.perf_counter(), long_lived(server.stack)
    while not stop.wait(SAMPLE_SECONDS):
        course.at.append(time.perf_counter() - began)
        course.pss_mb.append(float(processes.memory(server.pids()).pss_mb))
        for name, pid in known.items():
            state = state_of(pid)
            course.private_mb.setdefault(name, []).append(state.anonymous_bytes / 2**20 if state else 0.0)


def summed(seen: Seen) -> Traffic:
    return Traffic(
        asked=len(seen.seconds),
        failed=seen.failed,
        p50_ms=median_ms(seen),
        p99_ms=quantile(seen.seconds, 0.99) * 1e3,
        max_ms=max(seen.seconds, default=0.0) * 1e3,
        p99_by_time=by_window(seen, WINDOW_SECONDS, 0.99),
        errors=seen.errors,
    )


def growth(values: Sequence[float]) -> float:
    """The last quarter's median beside the second quarter's, as a share of it; 0 of fewer than eight readings."""
    quarter = len(values) // 4
    if quarter < 2:
        return 0.0
    before = statistics.median(values[quarter : 2 * quarter])
    return statistics.median(values[-quarter:]) / before - 1 if before else 0.0


def is_flat(values: Sequence[float]) -> bool:
    return growth(values) <= FLAT_SHARE


def part(target: Path, minutes: float, traffic: Mapping[str, Traffic], course: Course) -> str:
    picture = plot.draw(
        target,
        "mixed",
        [
            plot.panel(f"p99 of each {WINDOW_SECONDS:g} s", "seconds", "ms",
                       {name: each.p99_by_time for name, each in traffic.items()}, log_x=False),
            plot.panel("memory of the installation", "seconds", "PSS MB",
                       {"memory": list(zip(course.at, course.pss_mb, strict=True))}, log_x=False, log_y=False),
        ],
    )  # fmt: skip
    asked = [
        (name, f"{RATES[name]:g}", f"{each.asked:,}", each.failed, f"{each.p50_ms:.2f}", f"{each.p99_ms:.1f}",
         f"{each.max_ms:.0f}")
        for name, each in traffic.items()
    ]  # fmt: skip
    memory = [("the installation (PSS)", f"{course.pss_mb[-1]:,.0f}", f"{growth(course.pss_mb):+.1%}")]
    memory += [(name, f"{values[-1]:,.0f}", f"{growth(values):+.1%}") for name, values in course.private_mb.items()]
    failures = f"{len(course.failures)} of these commands failed." if course.failures else "None of these failed."
    cycling_ms, switching_ms = (
        statistics.median(seconds or [0]) * 1e3 for seconds in (course.cycle_seconds, course.switch_seconds)
    )
    return (
        f"{minutes:g} minutes. Meanwhile a fifth model was loaded and unloaded {len(course.cycle_seconds)} times "
        f"(p50 of both together {cycling_ms:.0f} ms), and `text` switched versions {len(course.switch_seconds)} times "
        f"(p50 {switching_ms:.0f} ms). {failures} Latencies count from the moment a request was due.\n\n"
        + table(["model", "requests/s", "asked", "errors", "p50 ms", "p99 ms", "slowest ms"], asked)
        + "\n\nMemory at the end, and the last quarter of the time beside the second one:\n\n"
        + table(["", "MB", "growth"], memory)
        + f"\n\n![mixed]({picture.parent.name}/{picture.name})"
    )


if __name__ == "__main__":
    sys.exit(main())
