"""Verify, load, warm up, ask the canary: what happens once on the compute thread before a model answers."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loaderd import heap
from loaderd.errors import InvalidInput, LoaderdError, LoadFailed, PredictionFailed
from loaderd.frameworks.base import Artifact, Framework, LoadedModel, Signature
from loaderd.protocol import ModelSpec
from loaderd.states import LoadPhase
from loaderd.worker import simple
from loaderd.worker.canary import Canary
from loaderd.worker.faults import is_out_of_memory
from loaderd.worker.verify import verify

_DONE = {LoadPhase.WARMING_UP: "warmed up", LoadPhase.CHECKING: "checked"}

ReportPhase = Callable[[LoadPhase, float], None]


@dataclass(slots=True)
class Load:
    """One load.

    phase: the one it is in. phase_seconds: how long each took, once it is over. signature: of the loaded
    model, as the channel carries it; checked: what its canary came to, likewise. canary: for the checks that follow.
    """

    spec: ModelSpec
    framework: Framework
    report: ReportPhase
    phase: LoadPhase = LoadPhase.STARTING
    phase_seconds: dict[str, float] = field(default_factory=dict)
    signature: dict[str, Any] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)
    canary: Canary | None = None

    def run(self) -> LoadedModel:
        """The model, warm and answering its canary.

        Raises LoaderdError or whatever the library raises; `phase` tells how far it came.
        """
        with self._timed(LoadPhase.VERIFYING):
            verify(self.spec, lambda progress: self.report(LoadPhase.VERIFYING, progress))
        with self._timed(LoadPhase.LOADING):
            model = self.framework.load(self._artifact(), lambda progress: self.report(LoadPhase.LOADING, progress))
        with self._timed(LoadPhase.WARMING_UP):
            model.warm_up()
            sample_input = simple.sample(model.sample_input(), model.signature)
        with self._timed(LoadPhase.CHECKING):
            self.canary = Canary(self.spec, model)
            self.checked = self.canary.at_load()
        self.signature = describe(model.signature) | {"sample_input": sample_input}
        # What the load left behind goes; what stays is never looked at again by the collector, so that no
        # full collection of a large model falls into a prediction.
        gc.collect()
        gc.freeze()
        heap.settle()
        return model

    def failure(self, error: BaseException) -> LoaderdError:
        """The error as one that names the model, the phase and the library's own words."""
        if isinstance(error, LoaderdError) and not isinstance(error, PredictionFailed | InvalidInput):
            return error  # those two are words for a prediction: here the model fails at its own sample
        doing = _DONE.get(self.phase, "loaded")
        # A thread's stack counts against the process' own limit, and Python names the thread only.
        no_stack = self.spec.memory_limit_bytes is not None and "can't start new thread" in str(error)
        wants_memory = no_stack or is_out_of_memory(error)
        advice = self._memory_advice() if wants_memory else "see the end of its log for the traceback"
        text = str(error)[:2000].removesuffix(".")
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return LoadFailed(
            f"{self.spec.model_id} could not be {doing}: {reason}; {advice}.",
            model_id=self.spec.model_id,
            phase=str(self.phase),
            exception=type(error).__name__,
        )

    def _memory_advice(self) -> str:
        limit = self.spec.memory_limit_bytes
        if limit is None:
            return "its process ran out of memory; unload another model or give it more"
        return f"it needs more memory than its limit; raise its memory_limit_mb ({limit / 2**20:g})"

    def _artifact(self) -> Artifact:
        spec = self.spec
        return Artifact(
            model_id=spec.model_id,
            directory=Path(spec.directory),
            format=spec.format,
            files=tuple(file.path for file in spec.files),
            approved=spec.approved,
            threads=spec.threads,
            precision=spec.precision,
            config=spec.config,
            metadata=spec.metadata,
        )

    @contextmanager
    def _timed(self, phase: LoadPhase) -> Iterator[None]:
        self.phase = phase
        self.report(phase, 0.0)
        began_at = time.perf_counter()
        yield
        self.phase_seconds[str(phase)] = round(time.perf_counter() - began_at, 4)


def describe(signature: Signature) -> dict[str, Any]:
    """The signature as JSON values."""
    tensors = {
        key: [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs]
        for key, specs in (("inputs", signature.inputs), ("outputs", signature.outputs))
    }
    return {**tensors, "labels": None if signature.labels is None else list(signature.labels)}
