"""One model process as the supervisor sees it: its channel, its counters, its log and its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loaderd import protocol
from loaderd.errors import LoaderdError, LoadFailed, ModelProcessDied, from_message
from loaderd.protocol import ModelSpec
from loaderd.states import LoadPhase
from loaderd.supervisor.children import Child, Exit, spawn
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.zygotes import ForkRefused, Zygotes

LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8 * 1024
MAX_LOG_BYTES = 8 * 1024 * 1024

OnPhase = Callable[[LoadPhase, float], None]


class ModelProcess:
    """A process that loads and then serves one model version."""

    def __init__(
        self,
        spec: ModelSpec,
        child: Child,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        data_socket: Path,
        log_path: Path,
        forked: bool,
        on_phase: OnPhase,
    ) -> None:
        self.spec = spec
        self.child = child
        self.data_socket = data_socket
        self.log_path = log_path
        self.forked = forked
        self.counters: dict[str, Any] = {}
        self.serves_since = 0.0  # monotonic, of the moment when clients were sent to it
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._reader, self._writer = streams
        self._on_phase = on_phase
        self.hung = ""  # why it was judged to hang, when that ended it
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._drained: asyncio.Future[None] = loop.create_future()
        self._ids = itertools.count(1)
        self._reading = loop.create_task(self._read())
        self._explaining: asyncio.Task[None] | None = None
        child.exited.add_done_callback(self._on_exit)

    async def sample(self) -> dict[str, Any]:
        """The process' cumulative counters now. Raises ModelProcessDied."""
        return dict((await self._ask("stats"))["counters"])

    async def canary(self) -> dict[str, Any]:
        """Has the model answer its canary in its turn: {"ok", "seconds", "reason"}. Raises ModelProcessDied."""
        answer = await self._ask("canary")
        return {key: answer.get(key) for key in ("ok", "seconds", "reason")}

    async def _ask(self, command: str) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"command": command, "id": number})
            return await answer
        finally:
            self._asked.pop(number, None)

    async def drain(self) -> None:
        """Returns when nothing is in flight any more and the last counters are in. Raises ModelProcessDied."""
        self._send({"command": "drain"})
        await asyncio.shield(self._drained)

    async def end(self) -> Exit:
        """Kills and reaps the process; its memory is back when this returns."""
        ended = await self.child.kill()
        self._reading.cancel()
        with contextlib.suppress(OSError):
            self._writer.close()
        self.data_socket.unlink(missing_ok=True)
        return ended

    def log_tail(self) -> str:
        """The last lines that the process wrote."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def end_hung(self, why: str) -> None:
        """Kills a process that does not answer any more; `death` then says why."""
        self.hung = why
        self.child.signal(signal.SIGKILL)

    def death(
        self, ended: Exit, then: str = "read the end of its log in the details, then load it again."
    ) -> ModelProcessDied:
        """The error that a dead process' model gets. then: what happens or is to be done next."""
        end = f"hung ({self.hung}), so it was ended" if self.hung else self._prose(ended)
        return ModelProcessDied(
            f"The process of {self.spec.model_id} (pid {self.child.pid}) {end}; {then}",
            model_id=self.spec.model_id,
            pid=self.child.pid,
            exit_status=ended.status,
            exit_signal=ended.signal,
            out_of_memory=ended.out_of_memory,
            hung=bool(self.hung),
            log_tail=self.log_tail(),
        )

    def _prose(self, ended: Exit) -> str:
        limit_bytes = self.spec.memory_limit_bytes
        if ended.signal != signal.SIGABRT or limit_bytes is None:
            return ended.prose
        return (
            f"{ended.prose}, most likely because it needs more than its own memory limit of {limit_bytes / 2**20:.0f} "
            "MiB (memory_limit_mb)"
        )

    def _send(self, message: dict[str, Any]) -> None:
        if not self.child.is_alive:
            raise self.death(self.child.exited.result())
        self._writer.write(protocol.encode(message))

    async def _read(self) -> None:
        with contextlib.suppress(protocol.ProtocolError):
            while (message := await protocol.receive_async(self._reader)) is not None:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        match message.get("event"):
            case "phase":
                self._on_phase(LoadPhase(message["phase"]), float(message.get("progress", 0.0)))
            case "ready" if not self.ready.done():
                self.ready.set_result(message)
            case "failed" if not self.ready.done():
                error = from_message(message["error"])
                error.facts.setdefault("model_id", self.spec.model_id)
                error.facts["log_tail"] = self.log_tail()
                self._fail(self.ready, error)
            case "stats" | "canary" as kind:
                if kind == "stats":
                    self.counters = message["counters"]
                waiting = self._asked.get(message["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case "drained":
                self.counters = message["counters"]
                if not self._drained.done():
                    self._drained.set_result(None)

    def _on_exit(self, exited: asyncio.Future[Exit]) -> None:
        # What it said before it died comes first: a "failed" explains more than an exit status.
        self._explaining = asyncio.ensure_future(self._explain(exited.result()))

    async def _explain(self, ended: Exit) -> None:
        await asyncio.wait([self._reading], timeout=1.0)
        error: LoaderdError = self.death(ended)
        if not self.ready.done():
            error = LoadFailed(
                f"{self.spec.model_id} could not be loaded: its process (pid {self.child.pid}) {self._prose(ended)}; "
                "read the end of its log in the details.",
                **error.facts,
            )
        waiters: list[asyncio.Future[Any]] = [self.ready, self._drained, *self._asked.values()]
        for waiting in waiters:
            self._fail(waiting, error)

    @staticmethod
    def _fail(waiting: asyncio.Future[Any], error: LoaderdError) -> None:
        if not waiting.done():
            waiting.set_exception(error)
            waiting.exception()  # read here: nobody may be waiting


async def start(spec: ModelSpec, config: DaemonConfig, zygotes: Zygotes | None, on_phase: OnPhase) -> ModelProcess:
    """Forks the process from its framework's zygote; without zygotes it is spawned cold.

    Raises ForkRefused: the caller may start it cold, which takes more memory.
    """
    data_socket = config.sockets_dir / f"{secrets.token_hex(6)}.sock"
    log_path = config.model_logs_dir / f"{spec.model_id}.log"
    _rotate(log_path)
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    streams = await asyncio.open_unix_connection(sock=ours)
    try:
        streams[1].write(protocol.encode(spec.to_message()))
        if zygotes is not None:
            try:
                child = await zygotes.fork(spec.framework, theirs, log_fd, str(data_socket))
            except ForkRefused as refusal:
                os.write(log_fd, f"spawned cold: {refusal}\n".encode())
                raise
        else:
            child = spawn(
                [
                    *(sys.executable, "-m", "loaderd.process", "--framework", spec.framework),
                    *("--channel-fd", str(theirs.fileno()), "--data-socket", str(data_socket)),
                    *("--supervisor-pid", str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
                log_fd=log_fd,
            )
    except BaseException:
        streams[1].close()
        raise
    finally:
        theirs.close()
        os.close(log_fd)
    return ModelProcess(spec, child, streams, data_socket, log_path, zygotes is not None, on_phase)


def _rotate(log_path: Path) -> None:
    """Keeps a model's log and one older one."""
    with contextlib.suppress(FileNotFoundError):
        if log_path.stat().st_size > MAX_LOG_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))
