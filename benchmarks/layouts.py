"""The folders that each peer wants around the same models. `write(layout)` makes one anew and returns it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import environments, places
from benchmarks.models import MODELS, BenchModel

_TRITON_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "FP64": "TYPE_FP64"}


class LayoutFailed(Exception):
    """A peer's own tool could not package a model; the message has its output."""


def write(layout: str) -> Path:
    """layout: mlserver, mlserver-batch, triton, triton-batch, torchserve or mlflow. Raises LayoutFailed."""
    folder = places.bench_dir() / "layouts" / layout
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _WRITERS[layout](folder)
    return folder


def _mlserver(batching: dict[str, Any]) -> Callable[[Path], None]:
    def write_all(folder: Path) -> None:
        for model in MODELS.values():
            settings: dict[str, Any]
            if model.files.endswith(".joblib"):
                settings = {
                    "implementation": "mlserver_sklearn.SKLearnModel",
                    "parameters": {"uri": str(model.path)},
                }
            else:
                settings = {"implementation": "mlserver_runtime.Runtime"}
            (folder / model.name).mkdir()
            text = json.dumps({"name": model.name, **settings, **batching})
            (folder / model.name / "model-settings.json").write_text(text)

    return write_all


def _triton(batching: str) -> Callable[[Path], None]:
    def write_all(folder: Path) -> None:
        for model in MODELS.values():
            version = folder / model.name / "1"
            version.mkdir(parents=True)
            shutil.copy(places.SERVERS_DIR / "triton_model.py", version / "model.py")
            (version.parent / "config.pbtxt").write_text(triton_config(model) + batching)

    return write_all


def triton_config(model: BenchModel) -> str:
    size = 1 if model.is_text else 64
    return (
        f'name: "{model.name}"\nbackend: "python"\nmax_batch_size: 32\n'
        f'input [{{ name: "INPUT" data_type: {_TRITON_TYPES[model.datatype]} dims: [ {size} ] }}]\n'
        'output [{ name: "OUTPUT" data_type: TYPE_STRING dims: [ 1 ] }]\n'
        "instance_group [{ count: 2 kind: KIND_CPU }]\n"
    )


def _torchserve(folder: Path) -> None:
    for name in MODELS:
        _run(
            str(environments.program_of("torchserve", "torch-model-archiver")),
            *("--model-name", name, "--version", "1.0", "--handler", str(places.SERVERS_DIR / "ts_handler.py")),
            *("--export-path", str(folder), "--force"),
        )


def _mlflow(folder: Path) -> None:
    script = places.SERVERS_DIR / "mlflow_save.py"
    _run(str(environments.python_of("mlflow")), str(script), str(places.models_dir()), str(folder))


def _run(*command: str) -> None:
    variables = {**os.environ, "USE_TF": "0", "CUDA_VISIBLE_DEVICES": ""}  # transformers looks for an old keras
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise LayoutFailed(f"{' '.join(command[:3])} … failed:\n{done.stdout[-500:]}{done.stderr[-1500:]}")


_WRITERS: dict[str, Callable[[Path], None]] = {
    "mlserver": _mlserver({}),
    "mlserver-batch": _mlserver({"max_batch_size": 32, "max_batch_time": 0.005}),
    "triton": _triton(""),
    "triton-batch": _triton("dynamic_batching { max_queue_delay_microseconds: 5000 }\n"),
    "torchserve": _torchserve,
    "mlflow": _mlflow,
}
