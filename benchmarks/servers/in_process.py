"""Predicts without any server, on command: `in_process.py NAME`, BENCH_MODELS set, on stdin lines "BATCH SECONDS".

Answers each with one line of JSON: {"items_per_second", "call_ms" (median)}; first, when loaded, with "ready".
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import runtime


def timed(predict, batches, seconds):
    calls, began, number, items = [], time.perf_counter(), 0, 0
    while time.perf_counter() - began < seconds or not calls:
        batch = batches[number % len(batches)]
        start = time.perf_counter()
        predict(batch)
        calls.append(time.perf_counter() - start)
        number, items = number + 1, items + len(batch)
    elapsed = time.perf_counter() - began
    return {"items_per_second": items / elapsed, "call_ms": statistics.median(calls) * 1e3}


def main(name):
    items = json.loads((Path(os.environ["BENCH_MODELS"]) / "items.json").read_text())["items"][name]
    if name == "digits":
        import numpy as np

        items = np.array(items)
    predict = runtime.load(name)
    predict(items[:1])
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        size, seconds = int(line.split()[0]), float(line.split()[1])
        whole = items if size <= len(items) else [item for _ in range(-(-size // len(items))) for item in items]
        batches = [whole[start : start + size] for start in range(0, len(whole) - size + 1, size)]
        predict(batches[0])
        print(json.dumps(timed(predict, batches, seconds)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
