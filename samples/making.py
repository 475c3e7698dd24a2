"""Makes sample models: one process per framework, as many at once as there are cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from samples.catalogue import TRAINERS, Sample
from samples.publishing import remove_abandoned

PROJECT_DIR = Path(__file__).resolve().parent.parent

# One thread and no GPU: the same numbers on every machine, and two trainers do not fight for two cores.
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "ignore",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "USE_TF": "0",
}

TellProgress = Callable[[str, float], None]
"""Called from several threads with a model_id and the share of its work that is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one sample. kept: it was there and was left alone; error says why one failed."""

    model_id: str
    status: Literal["made", "kept", "failed"]
    seconds: float | None = None
    performance_metrics: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


def make_samples(
    store: Path, samples: Sequence[Sample], *, force: bool = False, tell: TellProgress = lambda model_id, share: None
) -> list[Outcome]:
    """Makes what `store` lacks, or all with `force`; one that fails does not stop the others. In the given order."""
    remove_abandoned(store)
    wanted = [found for found in samples if force or not found.directory(store).exists()]
    outcomes = {found.model_id: kept(store, found) for found in samples if found not in wanted}
    trainings = [
        _Training(module, [found.model_id for found in wanted if found.framework == framework], store, force, tell)
        for framework, module in TRAINERS.items()
        if any(found.framework == framework for found in wanted)
    ]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        try:
            for made in pool.map(_Training.run, trainings):
                outcomes |= made
        except BaseException:
            for training in trainings:
                training.stop()
            raise
    by_id = {found.model_id: found for found in samples}
    return [
        kept(store, found) if outcomes[model_id].status == "kept" else outcomes[model_id]
        for model_id, found in by_id.items()
    ]


def kept(store: Path, found: Sample) -> Outcome:
    """The outcome of a sample that is in the store, with the metrics that it states."""
    try:
        metadata = json.loads((found.directory(store) / "metadata.json").read_text(encoding="utf-8"))
        return Outcome(found.model_id, "kept", performance_metrics=metadata["performance_metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        return Outcome(found.model_id, "kept")


class _Training:
    """One run of a trainer."""

    def __init__(self, module: str, model_ids: list[str], store: Path, force: bool, tell: TellProgress) -> None:
        self._module = module
        self._model_ids = model_ids
        self._command = [sys.executable, "-m", module, "--store", str(store), *(["--force"] if force else [])]
        self._tell = tell
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_stopped = False

    def run(self) -> dict[str, Outcome]:
        """The outcome of every model, whatever happens to the process."""
        outcomes: dict[str, Outcome] = {}
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = self._start(errors)
            if process is None:
                return {}
            assert process.stdout is not None
            with process:
                for event in _events(process.stdout):
                    self._take(event, outcomes)
            errors.seek(0)
            last_words = [line.strip() for line in errors if line.strip()]
        for model_id in self._model_ids:
            if model_id not in outcomes:
                ending = _ending(process.returncode)
                reason = f"{self._module} {ending}: {last_words[-1] if last_words else 'no message'}"
                outcomes[model_id] = Outcome(model_id, "failed", error=reason)
        return outcomes

    def stop(self) -> None:
        """Ends the process; from another thread."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None:
                self._process.terminate()

    def _start(self, errors: Any) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._is_stopped:
                return None
            self._process = subprocess.Popen(
                [*self._command, *self._model_ids],
                cwd=PROJECT_DIR,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
            return self._process

    def _take(self, event: Mapping[str, Any], outcomes: dict[str, Outcome]) -> None:
        model_id = event["model_id"]
        if "progress" in event:
            self._tell(model_id, event["progress"])
            return
        if "metrics" in event:
            outcomes[model_id] = Outcome(model_id, "made", event["seconds"], event["metrics"])
        elif "error" in event:
            outcomes[model_id] = Outcome(model_id, "failed", error=event["error"])
        else:
            outcomes[model_id] = Outcome(model_id, "kept")
        self._tell(model_id, 1.0)


def _events(lines: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    """The trainer's events; a library may print to the same stream."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "model_id" in event:
            yield event


def _ending(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
