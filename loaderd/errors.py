"""What can go wrong in loaderd: one class a situation, each carrying its HTTP status and its facts.

A message is one sentence: what failed, for which model, why, what to do next. Errors cross process
borders as `to_message()` and come back through `from_message()`.
"""

from __future__ import annotations

from typing import Any


class LoaderdError(Exception):
    """Base of all errors of this package.

    code: stable word for programs. http_status: what the doors answer. facts: JSON values behind the
    message (model_id, bytes, seconds, signal, log_tail).
    """

    code = "loaderd_error"
    http_status = 500

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def to_message(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "facts": self.facts}


class LoaderUnreachable(LoaderdError):
    """loaderd does not answer on its control socket."""

    code = "loaderd_unreachable"
    http_status = 503


class ModelNotLoaded(LoaderdError):
    """A prediction or command needs a loaded model and this one is not."""

    code = "model_not_loaded"
    http_status = 409


class UnknownModel(LoaderdError):
    code = "model_not_found"
    http_status = 404


class StateForbids(LoaderdError):
    """The model's present state does not allow the command."""

    code = "state_forbids"
    http_status = 409


class UnknownFramework(LoaderdError):
    code = "unknown_framework"
    http_status = 409


class ArtifactRefused(LoaderdError):
    """The artifact may not be loaded: unsafe format without approval, wrong path, forbidden content."""

    code = "artifact_refused"
    http_status = 409


class ArtifactChanged(LoaderdError):
    """The files on disk are not those that were registered."""

    code = "artifact_changed"
    http_status = 409


class LoadFailed(LoaderdError):
    """The framework could not load the artifact."""

    code = "load_failed"
    http_status = 500


class ModelTimeout(LoaderdError):
    """A load or prediction passed its limit; a load's process was ended."""

    code = "model_timeout"
    http_status = 504


class ModelProcessDied(LoaderdError):
    """The model's process ended without being told to."""

    code = "model_process_died"
    http_status = 503


class InvalidInput(LoaderdError):
    """The request does not fit the model's signature or is malformed."""

    code = "invalid_input"
    http_status = 400


class PredictionFailed(LoaderdError):
    """The model raised while predicting a well-formed input."""

    code = "prediction_failed"
    http_status = 500


class Overloaded(LoaderdError):
    """The model's queue is full."""

    code = "overloaded"
    http_status = 429


class InsufficientMemory(LoaderdError):
    """A load does not fit the budget and cannot be made to fit; nothing was touched. facts: `scheduler.Plan`."""

    code = "insufficient_memory"
    http_status = 507


class ModelRestarting(LoaderdError):
    """The model's process died and a new one is on its way, or it is being loaded for those who wait."""

    code = "model_restarting"
    http_status = 503


class CanaryFailed(LoaderdError):
    """The model answers its canary otherwise than recorded."""

    code = "canary_failed"
    http_status = 500


class ActivationFailed(LoaderdError):
    """The new version could not take over; the old one is live as before."""

    code = "activation_failed"
    http_status = 409


class NotAuthenticated(LoaderdError):
    code = "not_authenticated"
    http_status = 401


class PermissionDenied(LoaderdError):
    code = "permission_denied"
    http_status = 403


class Cancelled(LoaderdError):
    """The operation was cancelled by a person or by shutdown."""

    code = "cancelled"
    http_status = 409


class ShuttingDown(LoaderdError):
    code = "shutting_down"
    http_status = 503


def _all_classes(base: type[LoaderdError]) -> list[type[LoaderdError]]:
    return [base, *(cls for sub in base.__subclasses__() for cls in _all_classes(sub))]


def from_message(message: dict[str, Any]) -> LoaderdError:
    """The error that `to_message()` described; an unknown code becomes a plain LoaderdError."""
    by_code = {cls.code: cls for cls in _all_classes(LoaderdError)}
    cls = by_code.get(message.get("code", ""), LoaderdError)
    return cls(message.get("message", "loaderd gave no reason"), **message.get("facts", {}))
