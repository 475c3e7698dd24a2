"""What the product is compared with: a cold spawn of the same process, and a load inside an ordinary program."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loaderd.protocol import ModelSpec
from loaderd.supervisor import model_process
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.environment import clean_environment

_IN_PROCESS = """
import json, sys, time
import joblib, sklearn.ensemble
import numpy as np
path, rounds = sys.argv[1], int(sys.argv[2])
seconds, kept = [], []
for _ in range(rounds):
    began = time.perf_counter()
    model = joblib.load(path, mmap_mode="r")
    model.predict_proba(np.zeros((1, model.n_features_in_)))
    seconds.append(time.perf_counter() - began)
    kept.append(model)
print(json.dumps(seconds))
"""


def cold_spawn_seconds(spec: ModelSpec, rounds: int) -> float:
    """Median seconds from the spawn of a fresh process to its warm-up answered."""

    async def once(config: DaemonConfig) -> float:
        began = time.perf_counter()
        process = await model_process.start(spec, config, None, lambda phase, progress: None)
        await process.ready
        seconds = time.perf_counter() - began
        await process.end()
        return seconds

    async def all_rounds() -> float:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder)
            config = DaemonConfig(run, run, run / "c.sock", run / "g.sock")
            config.sockets_dir.mkdir()
            config.model_logs_dir.mkdir()
            return statistics.median([await once(config) for _ in range(rounds)])

    return asyncio.run(all_rounds())


def in_process_seconds(path: Path, rounds: int) -> float:
    """Median seconds of a joblib load and first prediction in a program that has scikit-learn imported.

    What was loaded before is kept, so that each load takes memory of its own, as a first load does.
    """
    done = subprocess.run(
        [sys.executable, "-c", _IN_PROCESS, str(path), str(rounds + 1)],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(),
    )
    return statistics.median(json.loads(done.stdout.splitlines()[-1])[1:])  # the first also warms the library
