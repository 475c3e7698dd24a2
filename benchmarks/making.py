"""Makes the models once, in a process of its own: the benchmarks themselves import no model library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version

from benchmarks import places

LIBRARIES = ("scikit-learn", "torch", "transformers", "tensorflow", "keras")


def make() -> None:
    """Raises CalledProcessError; its output is on the terminal."""
    folder, store, stamp = places.models_dir(), places.store_dir(), places.models_dir() / "made.txt"
    made_by = "\n".join(f"{name} {version(name)}" for name in LIBRARIES)
    if stamp.exists() and stamp.read_text() == made_by:
        return
    for old in (folder, store):
        shutil.rmtree(old, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.make_models", str(folder), str(store)]
    subprocess.run(command, check=True, cwd=places.PROJECT_DIR)
    stamp.write_text(made_by)
