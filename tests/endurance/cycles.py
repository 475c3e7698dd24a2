"""Loads and unloads, hundreds of times over three frameworks: nothing that lives long may grow."""

from __future__ import annotations

import itertools
import time

import psutil

from tests.endurance.figures import Finding, mebibytes
from tests.endurance.processes import State, long_lived, sockets_below, state_of
from tests.stack import Stack

MODELS = ("sentiment-sklearn-v1.0", "sentiment-bert-v1.0", "topic-keras-v1.0")
WARM_CYCLES = 60  # caches, pools and malloc's arenas are full after these
NOISE_BYTES = 6 * 2**20
NOISE_DESCRIPTORS = 3


def cycles(stack: Stack, count: int) -> list[Finding]:
    stack.wait_for_zygotes()
    began = time.monotonic()
    with stack.api() as api:

        def cycle(model_id: str) -> None:
            loaded = api.post(f"/api/models/{model_id}/load")
            assert loaded.status_code == 200, loaded.text
            answer = api.post(f"/api/models/{model_id}/predict", json={"inputs": ["Where is my parcel?"]})
            assert answer.status_code == 200, answer.text
            unloaded = api.post(f"/api/models/{model_id}/unload")
            assert unloaded.json()["status"] == "unloaded", unloaded.text

        models = itertools.cycle(MODELS)
        for _ in range(min(WARM_CYCLES, count)):
            cycle(next(models))
        before = _states(stack)
        for _ in range(count):
            cycle(next(models))
        after = _states(stack)
    seconds = time.monotonic() - began
    findings = [Finding("load and unload cycles", f"{count} in {seconds:.0f} s, none failed", "none fails", True)]
    still = dict(after.values())
    for name, (pid, first) in before.items():
        last = still.get(pid)
        if last is None:
            # django-q ends a worker after 500 tasks and starts another one.
            findings.append(Finding(name, "was replaced", "only the queue's workers are", name.startswith("queue")))
            continue
        grown = last.anonymous_bytes - first.anonymous_bytes
        descriptors = last.descriptors - first.descriptors
        threads = last.threads - first.threads
        findings.append(
            Finding(
                f"{name}: memory of its own, descriptors, threads",
                f"{mebibytes(first.anonymous_bytes)} {grown / 2**20:+.1f}, {first.descriptors} {descriptors:+d}, "
                f"{first.threads} {threads:+d}",
                "no growth beyond noise",
                grown < NOISE_BYTES and descriptors <= NOISE_DESCRIPTORS and threads <= 2,
            )
        )
    loaderd = stack.loaderd()
    known = set(long_lived(stack).values())
    left = [process for process in loaderd.children(recursive=True) if process.pid not in known]
    zombies = [process for process in left if process.status() == psutil.STATUS_ZOMBIE]
    findings.append(Finding("processes left below loaderd", f"{len(left)}, zombies {len(zombies)}", "0", not left))
    sockets = sockets_below(stack.config.run_dir / "m")
    findings.append(Finding("sockets of models left", str(sockets), "0", sockets == 0))
    return findings


def _states(stack: Stack) -> dict[str, tuple[int, State]]:
    found = {}
    for name, pid in long_lived(stack).items():
        state = state_of(pid)
        if state is not None:
            found[name] = (pid, state)
    return found
