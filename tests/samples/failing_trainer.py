"""A trainer of which one model works, one fails, and one takes the process along."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from samples.trainer import Progress, Trained, main


def works(folder: Path, progress: Progress) -> Trained:
    progress(0.5)
    return Trained(["no", "yes"], [0, 1], [0, 1], [0, 0, 1], ["a text"], config={"input": "text"})


def fails(folder: Path, progress: Progress) -> Trained:
    raise ValueError("the data is not there")


def is_killed(folder: Path, progress: Progress) -> Trained:
    sys.stderr.write("no memory left\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


TRAINS = {"topic-sklearn-v1.0": fails, "intent-sklearn-v1.0": works, "digits-sklearn-v1.0": is_killed}

if __name__ == "__main__":
    raise SystemExit(main(TRAINS, ["numpy"]))
