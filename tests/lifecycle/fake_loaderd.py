"""A loaderd that loads nothing: its control socket, its idempotence, and reports when the test says so."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loaderd import protocol
from loaderd.errors import LoaderdError
from loaderd.reporter import AliasMoved, ModelRuntime, OperationEnded, Report, StateReport
from loaderd.states import ModelState

Execute = Callable[[dict[str, Any]], None]


class FakeLoaderd:
    """Answers each command on its own thread.

    received: every command, redelivered ones too. executed: ids of operations, each once. execute: called
    with the command that is run, for the first delivery of each operation. hold: while clear, answers wait.
    plan: what a dry run is answered. status: what it says of itself and its models.
    """

    def __init__(self, socket_path: Path, execute: Execute | None = None) -> None:
        self.received: list[dict[str, Any]] = []
        self.peer_pids: list[int] = []
        self.executed: list[str] = []
        self.refuse_with: LoaderdError | None = None
        self.plan: dict[str, Any] = {}
        self.status: dict[str, Any] = {"facts": {}, "models": {}}
        self.forgotten = 0  # kept answers, by each command to forget them
        self.hold = threading.Event()
        self.hold.set()
        self._execute = execute
        self._changed = threading.Condition()
        socket_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        socket_path.unlink(missing_ok=True)
        self._path = socket_path
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(socket_path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for_commands(self, count: int, timeout_seconds: float = 20.0) -> list[dict[str, Any]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, timeout_seconds), self.received
            return list(self.received)

    def close(self) -> None:
        self.hold.set()
        self._path.unlink(missing_ok=True)
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=[connected], daemon=True).start()

    def _converse(self, connected: socket.socket) -> None:
        with connected:
            message = protocol.receive(connected)
            if message is None:
                return
            credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            with self._changed:
                self.received.append(message)
                self.peer_pids.append(struct.unpack("3i", credentials)[0])
                operation_id = message.get("operation_id", "")
                forgotten = {"forgotten": self.forgotten}
                told = {"plan": self.plan, "status": self.status, "forget_answers": forgotten}.get(message["command"])
                is_new = self.refuse_with is None and told is None and operation_id not in self.executed
                if is_new:
                    self.executed.append(operation_id)
                self._changed.notify_all()
            if self.refuse_with is not None:
                protocol.send(connected, {"error": self.refuse_with.to_message()})
                return
            if told is not None:
                protocol.send(connected, {"result": told})
                return
            self.hold.wait(30)
            with contextlib.suppress(OSError):  # the worker was killed meanwhile
                protocol.send(connected, {"result": {"accepted": True, "known": not is_new, "cancelled": True}})
            if is_new and self._execute is not None:
                self._execute(message)


def succeed(report: Callable[[Report], None]) -> Execute:
    """Reports that each command was done at once, in the order in which loaderd reports.

    An activation takes the place of what was activated or loaded first in the lineage, and unloads it.
    """
    live: dict[str, str] = {}

    def move(model_id: str, operation_id: str, *states: tuple[ModelState, str], ends_wish: bool = False) -> None:
        for state, reason in states:
            is_loaded = state == ModelState.LOADED
            report(
                StateReport(
                    model_id,
                    state,
                    reason,
                    time.time(),
                    operation_id=operation_id,
                    digest="a" * 64,
                    runtime=ModelRuntime(pid=4711, private_bytes=1000) if is_loaded else ModelRuntime(),
                    load_seconds=0.01 if is_loaded else None,
                    ends_wish=ends_wish,
                )
            )

    def load(message: dict[str, Any]) -> dict[str, Any]:
        spec = message["spec"]
        live.setdefault(spec["lineage"], spec["model_id"])
        states = (ModelState.LOADING, "load asked for"), (ModelState.LOADED, "answers its warm-up")
        move(spec["model_id"], message["operation_id"], *states)
        return {"model_id": spec["model_id"], "status": "loaded", "load_seconds": 0.01, "private_bytes": 1000}

    def unload(message: dict[str, Any]) -> dict[str, Any]:
        states = (ModelState.UNLOADING, "unload asked for"), (ModelState.UNLOADED, "unload asked for")
        move(message["model_id"], message["operation_id"], *states)
        return {"model_id": message["model_id"], "status": "unloaded", "freed_bytes": 1000}

    def activate(message: dict[str, Any]) -> dict[str, Any]:
        spec, operation_id = message["spec"], message["operation_id"]
        model_id, previous = spec["model_id"], live.get(spec["lineage"])
        states = (ModelState.LOADING, "activation asked for"), (ModelState.LOADED, "answers its warm-up")
        move(model_id, operation_id, *states)
        live[spec["lineage"]] = model_id
        left = previous if message["kind"] == "rollback" else None
        who = (message["kind"], message["reason"], message["user"], time.time(), operation_id, left)
        report(AliasMoved(spec["lineage"], "live", model_id, previous, *who))
        if previous is not None:
            states = (ModelState.UNLOADING, f"{model_id} is live"), (ModelState.UNLOADED, f"{model_id} is live")
            move(previous, operation_id, *states, ends_wish=True)
        told = {"model_id": model_id, "status": "live", "previous": previous, "load_seconds": 0.01}
        return {**told, "freed_bytes": 1000, "gap_seconds": None}

    def optimize(message: dict[str, Any]) -> dict[str, Any]:
        unloaded = {"model_id": "topic-v1", "promised_bytes": 1000, "freed_bytes": 1000, "reason": "idle"}
        sums = {"promised_bytes": 1000, "freed_bytes": 1000, "seconds": 0.01}
        return {"status": "completed", "unloaded": [unloaded], **sums}

    def execute(message: dict[str, Any]) -> None:
        carry_out = {"load": load, "unload": unload, "activate": activate, "optimize": optimize}
        result = carry_out[message["command"]](message)
        report(OperationEnded(message["operation_id"], time.time(), result=result))

    return execute
