"""Words for what a model is doing: one enum, one table of transitions.

    unloaded -> loading -> loaded -> unloading -> unloaded        and any -> error

`loaded` is published after it is true, `unloading` before it starts, and `unloaded` only after the
process is gone.
"""

from __future__ import annotations

from enum import StrEnum


class ModelState(StrEnum):
    """What loaderd observed of one model version."""

    UNLOADED = "unloaded"  # no process holds it
    LOADING = "loading"  # a process exists or is being made; it does not answer yet
    LOADED = "loaded"  # the process answered its warm-up; predictions are accepted
    UNLOADING = "unloading"  # no new predictions; those in flight are finished, then the process ends
    ERROR = "error"  # no process; the reason names what failed and what to do next


TRANSITIONS: dict[ModelState, frozenset[ModelState]] = {
    ModelState.UNLOADED: frozenset({ModelState.LOADING, ModelState.ERROR}),
    # loading -> unloaded: the daemon that was loading it is gone; nothing holds the model.
    ModelState.LOADING: frozenset({ModelState.LOADED, ModelState.ERROR, ModelState.UNLOADED}),
    # loaded -> unloaded without `unloading`: its daemon died and took the process with it.
    ModelState.LOADED: frozenset({ModelState.UNLOADING, ModelState.ERROR, ModelState.UNLOADED}),
    ModelState.UNLOADING: frozenset({ModelState.UNLOADED, ModelState.ERROR}),
    ModelState.ERROR: frozenset({ModelState.LOADING, ModelState.UNLOADED}),
}


def sources_of(target: ModelState) -> frozenset[ModelState]:
    """The states from which a move to `target` is allowed."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


class LoadPhase(StrEnum):
    """Where a load stands; each phase is reported when it begins."""

    QUEUED = "queued"  # accepted by loaderd, waiting for its turn or for memory
    STARTING = "starting"  # the process is being forked or spawned
    VERIFYING = "verifying"  # the files are compared with the registered manifest
    LOADING = "loading"  # the framework reads the artifact
    WARMING_UP = "warming_up"  # the sample input is predicted once
    CHECKING = "checking"  # the canary's answer is compared with the recorded one
    SWITCHING = "switching"  # of an activation: the alias moves, the old version is drained and unloaded
    SERVING = "serving"  # answers predictions


class OperationState(StrEnum):
    """Where a command of a person or program stands."""

    QUEUED = "queued"  # written with its task; nobody has taken it
    RUNNING = "running"  # handed to loaderd
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPERATION_ENDED = frozenset({OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED})
