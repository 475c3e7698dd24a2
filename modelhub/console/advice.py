"""What a person does next when something failed: a sentence for each kind of failure, by its code and facts, and the
buttons that do it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from modelhub.lifecycle.permissions import UNLOAD
from modelhub.registry.approval import APPROVE_PERMISSION, needs_approval
from modelhub.registry.models import ModelVersion

DISCOVER, CHANGE = "registry.discover_modelversion", "registry.change_modelversion"
_BY_CODE = {
    "artifact_refused": "Look at its files on the tab Files and approve them if you trust where they come from.",
    "artifact_changed": "The files are not those that were registered: run discovery, look at what changed, load it.",
    "canary_failed": "It answers otherwise than recorded. If a library was upgraded and the new answers are right, "
    "forget the recorded canary and load it again; else put the old files back.",
    "insufficient_memory": "Unload what is not needed, unpin a model, or raise MAX_MEMORY_USAGE_MB in the policy.",
    "model_timeout": "Look where it stood in the log; raise its load_timeout_seconds if it only needs longer.",
    "unknown_framework": "Install the framework's package, or correct `framework` in its metadata.json.",
    "loaderd_unreachable": "Start loaderd (`make up`), then repeat.",
    "state_forbids": "Look at its present state, then repeat.",
    "load_failed": "The log below says what the framework did not like; the tab Files shows what it was given.",
    "activation_failed": "The old version is live as before; mend the cause, then activate again.",
    "overloaded": "Send fewer requests at a time, or raise its max_queue.",
}
_BY_SIGNAL = {
    signal.SIGKILL: "Somebody or the kernel killed it; if memory was short, unload others or give it less.",
    signal.SIGSEGV: "A library crashed: look at the log's end, and whether the file is of this library's version.",
    signal.SIGABRT: "A library gave up: the log's end says why. A memory_limit_mb that is too low does this, too.",
}


def advice_for(error: Mapping[str, Any], model_id: str = "") -> str:
    """The next step for an error as `to_message()` tells it; "" when its message says all."""
    facts = error.get("facts") or {}
    if facts.get("out_of_memory"):
        return "The kernel killed it for want of memory: unload others, or set memory_limit_mb of what grows."
    if facts.get("hung"):
        return "It hung in one call: send smaller inputs, or raise HANG_SECONDS in the policy if such calls are right."
    number = facts.get("exit_signal")
    if isinstance(number, str):
        number = getattr(signal, number, None)
    if number is not None and number in _BY_SIGNAL:
        return _BY_SIGNAL[signal.Signals(number)]
    return _BY_CODE.get(str(error.get("code") or ""), "")


@dataclass(frozen=True, slots=True)
class Way:
    """Where a person can go from here. dialog: the address answers a dialog, too."""

    title: str
    url: str
    dialog: bool = True


def ways_after(error: Mapping[str, Any], version: ModelVersion | None, user: Any) -> list[Way]:
    """What removes the cause of an error, as `to_message()` tells it, of those things that the user may do."""
    code, facts = str(error.get("code") or ""), error.get("facts") or {}
    if code == "insufficient_memory":
        return [Way("Optimise memory", _model_url("optimize"))] if user.has_perm(UNLOAD) else []
    if code == "state_forbids" and facts.get("operation"):
        return [Way("See what is under way", reverse("console:operation-follow", args=[facts["operation"]]))]
    if version is None:
        return []
    if code == "artifact_refused" and needs_approval(version) and not version.refusal:
        approve = Way("Approve these files", _model_url("approve", version))
        return [approve] if user.has_perm(APPROVE_PERMISSION) else []
    if code == "canary_failed":
        return [Way("Forget the canary", _model_url("forget_canary", version))] if user.has_perm(CHANGE) else []
    is_other_on_disk = code == "artifact_changed" or version.refusal or version.missing_since is not None
    if is_other_on_disk and user.has_perm(DISCOVER):
        return [Way("Run discovery", _model_url("discover"))]
    return []


def _model_url(command: str, version: ModelVersion | None = None) -> str:
    return reverse(f"admin:registry_modelversion_{command}", args=[] if version is None else [version.pk])
