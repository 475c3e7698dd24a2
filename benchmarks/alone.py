"""A model as the model process loads it, in a program without sockets, queue and batching: what serving adds to it.

`python -m benchmarks.alone DIRECTORY FRAMEWORK PRECISION ITEMS` (ITEMS: a JSON list; PRECISION: fp32 is as stored).
When it is loaded it says "ready". Then, for each line on stdin, one line of JSON:

  BATCH SECONDS  predicts batches that lie in memory: {"items_per_second", "call_ms" (median)}
  door SECONDS   does, on one thread, what the model process does with a request of one item: parses its body, prepares
                 and computes, renders the answer: {"p50_us"}
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loaderd import catalogue
from loaderd.frameworks.base import Artifact, LoadedModel
from loaderd.oip import request, response
from loaderd.worker.batching import Arrays
from loaderd.worker.call import call

MODEL_ID = "alone"
FULL = "fp32"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("framework")
    parser.add_argument("precision")
    parser.add_argument("items", type=Path)
    options = parser.parse_args()
    items = json.loads(options.items.read_text())
    model = load(options.directory, options.framework, "" if options.precision == FULL else options.precision)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        kind, seconds = line.split()
        if kind == "door":
            answer = door(model, items, float(seconds))
        else:
            answer = predictions(model, items, int(kind), float(seconds))
        print(json.dumps(answer), flush=True)  # noqa: T201
    return 0


def load(directory: Path, framework: str, precision: str) -> LoadedModel:
    """Warm. Raises what the framework raises."""
    files = tuple(sorted(file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file()))
    config = json.loads((directory / "config.json").read_text()) if "config.json" in files else {}
    detected = catalogue.detect(files, config)
    assert detected is not None, f"nothing to load in {directory}"
    library = catalogue.framework(framework)
    library.ensure_imported()
    artifact = Artifact(
        MODEL_ID, directory, detected[1].name, files, approved=True, threads=1, precision=precision, config=config
    )
    model = library.load(artifact, lambda progress: None)
    model.warm_up()
    gc.collect()
    gc.freeze()
    return model


def door(model: LoadedModel, items: Sequence[Any], seconds: float) -> dict[str, float]:
    bodies = itertools.cycle([body(model, [item]) for item in items])

    def answer() -> bytes:
        asked = request.parse(next(bodies), None, model.signature)
        outputs = _predicted(model, asked.inputs)
        return b"".join(response.build(asked, outputs, model.signature, MODEL_ID, "1.0")[1])

    return {"p50_us": statistics.median(_timed(answer, seconds)) * 1e6}


def predictions(model: LoadedModel, items: Sequence[Any], size: int, seconds: float) -> dict[str, float]:
    many = list(itertools.islice(itertools.cycle(items), max(size, len(items))))
    batches = itertools.cycle(
        [
            request.parse(body(model, many[start : start + size]), None, model.signature).inputs
            for start in range(0, len(many) - size + 1, size)
        ]
    )
    _predicted(model, next(batches))
    began = time.perf_counter()
    calls = _timed(lambda: _predicted(model, next(batches)), seconds)
    elapsed = time.perf_counter() - began
    return {"items_per_second": len(calls) * size / elapsed, "call_ms": statistics.median(calls) * 1e3}


def body(model: LoadedModel, items: Sequence[Any]) -> bytes:
    """As a client of the Open Inference Protocol writes it, in JSON."""
    (spec,) = model.signature.inputs
    shape = [len(items), *spec.shape[1:]]
    data = items if spec.datatype == "BYTES" else [number for item in items for number in item]
    return json.dumps(
        {"inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}]},
        separators=(",", ":"),
    ).encode()


def _predicted(model: LoadedModel, inputs: Arrays) -> Arrays:
    if model.prepares:
        inputs = dict(model.prepare(inputs) or inputs)
    return call(MODEL_ID, model, inputs)


def _timed(do: Callable[[], object], seconds: float) -> list[float]:
    """How long each call took, one after the other, for so many seconds; at least one."""
    found: list[float] = []
    until = time.perf_counter() + seconds
    while not found or time.perf_counter() < until:
        began = time.perf_counter()
        do()
        found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    sys.exit(main())
