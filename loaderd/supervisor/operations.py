"""The operations that run: each once, in the background, and each with one end that is reported."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from loaderd.errors import Cancelled, LoaderdError, ShuttingDown
from loaderd.reporter import OperationEnded, Report

log = logging.getLogger(__name__)

REMEMBERED_OPERATIONS = 10_000
OWN_COMMAND = "own-"  # in place of an operation's id: the daemon's own wish, of which no row tells

Command = Coroutine[Any, Any, dict[str, Any]]
OnEnd = Callable[[LoaderdError | None], None]


class Operations:
    def __init__(self, report: Callable[[Report], None]) -> None:
        self._report = report
        # By operation id, oldest first; None: it ended.
        self._commands: OrderedDict[str, asyncio.Task[dict[str, Any]] | None] = OrderedDict()
        self._unloads: set[str] = set()  # operation ids of the unloads that run: half an unload is a lie
        self._ending: dict[str, LoaderdError] = {}  # why a command's task was cancelled

    def accept(self, operation_id: str, command: Command, *, is_unload: bool = False) -> dict[str, Any]:
        """Runs a command in the background, once: a redelivered operation is not run again."""
        if operation_id in self._commands:
            command.close()
            return {"accepted": True, "known": True}
        if is_unload:
            self._unloads.add(operation_id)
        self._start(operation_id, command)
        return {"accepted": True, "known": False}

    def run_own(self, command: Command, on_end: OnEnd) -> None:
        """Runs what the daemon does of its own accord. on_end: called with what it failed with."""
        self._start(OWN_COMMAND + secrets.token_hex(4), command, on_end)

    def _start(self, name: str, command: Command, on_end: OnEnd | None = None) -> None:
        task = self._commands[name] = asyncio.get_running_loop().create_task(command)
        # A callback: a task that is cancelled before its first step runs nothing of its own.
        task.add_done_callback(lambda task: self._end(name, task, on_end))
        while len(self._commands) > REMEMBERED_OPERATIONS and next(iter(self._commands.values())) is None:
            self._commands.popitem(last=False)

    def _end(self, name: str, task: asyncio.Task[dict[str, Any]], on_end: OnEnd | None) -> None:
        """Ends a command's operation, the only place that does."""
        self._commands[name] = None
        self._unloads.discard(name)
        result: dict[str, Any] | None = None
        error: LoaderdError | None = None
        try:
            result = task.result()
        except asyncio.CancelledError:
            error = self._ending.pop(name, None) or Cancelled("The operation was cancelled.")
        except LoaderdError as failure:
            error = failure
        except Exception as unexpected:
            log.exception("the operation %s failed", name)
            error = LoaderdError(f"loaderd could not run the operation: {unexpected}; its log says more.")
        if on_end is not None:
            on_end(error)
        if not name.startswith(OWN_COMMAND):
            self._report(OperationEnded(name, time.time(), result, error.to_message() if error else None))

    def cancel(self, operation_id: str, why: LoaderdError | None = None) -> bool:
        """Whether it is being cancelled; an unload is finished."""
        task = self._commands.get(operation_id)
        if task is None or task.done() or operation_id in self._unloads:
            return False
        if task.cancelling():
            return True  # once: a second cancel would hit the clean-up of the first
        if why is not None:
            self._ending[operation_id] = why
        task.cancel()
        return True

    def cancel_all(self) -> None:
        """The daemon stops; unloads are bounded, and go on."""
        for name in list(self._commands):
            self.cancel(name, ShuttingDown("loaderd was stopped before the operation was done; repeat it."))

    @property
    def running(self) -> list[asyncio.Task[dict[str, Any]]]:
        return [command for command in self._commands.values() if command is not None]
