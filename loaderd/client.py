"""How Django talks to loaderd: one short connection to its private control socket a call. Standard library only."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from loaderd import protocol
from loaderd.errors import LoaderUnreachable, from_message
from loaderd.protocol import ModelSpec, ProtocolError


class LoaderClient:
    """Every call returns loaderd's answer, or raises LoaderUnreachable or the error that loaderd answered.

    Commands are accepted, not awaited: how they end is written to the operation by loaderd's reporter.
    """

    def __init__(self, socket_path: Path, timeout_seconds: float = 5.0) -> None:
        self.socket_path = socket_path
        self.timeout_seconds = timeout_seconds

    def ping(self) -> dict[str, Any]:
        """{"pid", "boot_id", "started_at", "inference": {"host", "port"} or null while that door opens}."""
        return self._call({"command": "ping"})

    def status(self) -> dict[str, Any]:
        """Daemon facts and every model that it knows: {"facts": {…}, "models": {model_id: {state, pid, …}}}."""
        return self._call({"command": "status"})

    def load(self, spec: ModelSpec, operation_id: str, user: str) -> dict[str, Any]:
        """Accepts a load; idempotent by operation_id."""
        return self._call({"command": "load", "spec": spec.to_message(), "operation_id": operation_id, "user": user})

    def unload(self, model_id: str, operation_id: str, user: str) -> dict[str, Any]:
        """Accepts an unload; idempotent by operation_id."""
        return self._call({"command": "unload", "model_id": model_id, "operation_id": operation_id, "user": user})

    def activate(
        self, spec: ModelSpec, operation_id: str, user: str, kind: str, reason: str, allow_gap: bool
    ) -> dict[str, Any]:
        """Accepts a move of the lineage's `live` to this version; idempotent by operation_id.

        kind: "activate" or "rollback". allow_gap: the old version may be unloaded first where both do not fit.
        """
        return self._call(
            {
                "command": "activate",
                "spec": spec.to_message(),
                "operation_id": operation_id,
                "user": user,
                "kind": kind,
                "reason": reason,
                "allow_gap": allow_gap,
            }
        )

    def forget_answers(self, model_id: str | None = None) -> int:
        """Has the gateway drop the kept answers of this model, or of all; returns how many they were."""
        return int(self._call({"command": "forget_answers", "model_id": model_id})["forgotten"])

    def optimize(self, operation_id: str, user: str) -> dict[str, Any]:
        """Accepts the unloading of everything superfluous; idempotent by operation_id."""
        return self._call({"command": "optimize", "operation_id": operation_id, "user": user})

    def plan(
        self,
        action: str,
        spec: ModelSpec | None = None,
        model_id: str | None = None,
        *,
        allow_gap: bool = False,
    ) -> dict[str, Any]:
        """What a command would do, measured now; nothing is touched.

        action: "load" or "activate" with a spec (`scheduler.Plan.to_message()`, and for "activate" "replaces" and
        "needs_gap"), "unload" with a model_id ({"decision": "frees", "frees_bytes", "in_flight", "sentence", …}), or
        "optimize" ({"decision": "frees", "victims", "frees_bytes", "sentence"}). allow_gap: as of `activate`.
        """
        return self._call(
            {
                "command": "plan",
                "action": action,
                "spec": None if spec is None else spec.to_message(),
                "model_id": model_id,
                "allow_gap": allow_gap,
            }
        )

    def cancel(self, operation_id: str) -> dict[str, Any]:
        """Cancels a load that has not ended; {"cancelled": false} when it is not known or already over."""
        return self._call({"command": "cancel", "operation_id": operation_id})

    def _call(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(self.timeout_seconds)
                sock.connect(str(self.socket_path))
                protocol.send(sock, message)
                answer = protocol.receive(sock)
        except (OSError, ProtocolError) as error:
            raise LoaderUnreachable(
                f"loaderd does not answer on its control socket ({error}); start it with `make up` or "
                "`manage.py loaderd`, then repeat the command."
            ) from error
        if answer is None:
            raise LoaderUnreachable("loaderd closed the connection without an answer; see its log, then repeat.")
        if answer.get("error"):
            raise from_message(answer["error"])
        result: dict[str, Any] = answer.get("result") or {}
        return result
