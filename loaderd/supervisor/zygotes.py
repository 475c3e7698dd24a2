"""The zygotes: one for each framework, started on demand or ahead of it, and started again when it died."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from loaderd.supervisor.children import Child, Exit, spawn
from loaderd.zygote import MAX_PACKET_BYTES

log = logging.getLogger(__name__)

QUICK_DEATH_SECONDS = 10.0
MAX_PAUSE_SECONDS = 60.0
FORK_SECONDS = 10.0
READY_SECONDS = 60.0  # an import that takes longer hangs; the loads that wait for it are spawned cold
RESTART_LOOK_SECONDS = 0.2


class ForkRefused(Exception):
    """The zygote cannot make this process; a cold spawn can."""


class Zygote:
    """The link to one zygote process."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.started_at = time.monotonic()
        self.ended_at: float | None = None
        self.import_seconds: float | None = None
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        with theirs:
            self.child = spawn(
                [
                    *(sys.executable, "-m", "loaderd.zygote", "--framework", framework),
                    *("--link-fd", str(theirs.fileno()), "--supervisor-pid", str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
            )
        self._loop.add_reader(self._link, self._read)
        self.child.exited.add_done_callback(self._on_exit)
        self.hung = False  # it was ended because it did not become ready in time
        self._deadline = self._loop.call_later(READY_SECONDS, self._give_up, READY_SECONDS)

    async def fork(self, channel: socket.socket, log_fd: int, data_socket_path: str) -> Child:
        """A new model process, watched. Raises ForkRefused."""
        number = next(self._ids)
        answer = self._answers[number] = self._loop.create_future()
        try:
            packet = json.dumps({"id": number, "data_socket": data_socket_path}).encode()
            socket.send_fds(self._link, [packet], [channel.fileno(), log_fd])
            message = await asyncio.wait_for(answer, FORK_SECONDS)
        except (OSError, TimeoutError) as error:
            await self.child.kill()  # or it would fork later, onto a channel that a cold spawn uses by then
            raise ForkRefused(f"the {self.framework} zygote does not answer: {error}") from error
        finally:
            self._answers.pop(number, None)
        if "refused" in message:
            raise ForkRefused(message["refused"])
        return Child(message["pid"])

    async def stop(self) -> None:
        await self.child.kill()

    def _read(self) -> None:
        try:
            packet = self._link.recv(MAX_PACKET_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            packet = b""
        if not packet:
            self._loop.remove_reader(self._link)
            return
        message = json.loads(packet)
        if message.get("event") == "ready":
            self.import_seconds = message["import_seconds"]
            if message["threads"] != 1:
                log.warning(
                    "the %s zygote has %d threads after its import; its models are spawned cold",
                    self.framework,
                    message["threads"],
                )
            if not self.ready.done():
                self.ready.set_result(None)
        elif (answer := self._answers.get(message.get("id", 0))) is not None and not answer.done():
            answer.set_result(message)

    def _give_up(self, after_seconds: float) -> None:
        """Ends a zygote that is not ready in time, and refuses those who wait for it."""
        if self.ready.done():
            return
        self.hung = True
        why = f"the {self.framework} zygote was not ready within {after_seconds:g} s"
        log.warning("%s; it is ended", why)
        self.child.signal(signal.SIGKILL)
        self.ready.set_exception(ForkRefused(why))
        self.ready.exception()  # read here: nobody may be waiting

    def _on_exit(self, exited: asyncio.Future[Exit]) -> None:
        self.ended_at = time.monotonic()
        self._deadline.cancel()
        self._loop.remove_reader(self._link)
        self._link.close()
        gone = ForkRefused(f"the {self.framework} zygote {exited.result().prose}")
        waiters: list[asyncio.Future[Any]] = [self.ready, *self._answers.values()]
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # read here: nobody may be waiting


class Zygotes:
    """All zygotes by framework. A dead one is started again, later each time if it dies at once."""

    def __init__(self) -> None:
        self._zygotes: dict[str, Zygote] = {}
        self._quick_deaths: dict[str, int] = {}
        self._died = asyncio.Event()
        self.births = 0  # forks under way: their processes are ours before we know their pids

    async def fork(self, framework: str, channel: socket.socket, log_fd: int, data_socket_path: str) -> Child:
        """A model process from the framework's zygote, waiting for its import if it is starting. Raises ForkRefused."""
        zygote = self.ensure(framework)
        self.births += 1
        try:
            await asyncio.shield(zygote.ready)
            return await zygote.fork(channel, log_fd, data_socket_path)
        finally:
            self.births -= 1

    def is_ready(self, framework: str) -> bool:
        """Whether a fork would not have to wait for the framework's import."""
        zygote = self._zygotes.get(framework)
        return zygote is not None and zygote.child.is_alive and zygote.import_seconds is not None

    async def ready(self, framework: str) -> None:
        """Returns when the framework's zygote has imported it, starting it if need be. Raises ForkRefused: after
        READY_SECONDS at the latest, and while it keeps dying."""
        await asyncio.shield(self.ensure(framework).ready)

    def ensure(self, framework: str) -> Zygote:
        """The living zygote of a framework, started if need be. Raises ForkRefused while it keeps dying."""
        zygote = self._zygotes.get(framework)
        if zygote is not None and zygote.child.is_alive:
            return zygote
        if zygote is not None:
            ended_at = time.monotonic() if zygote.ended_at is None else zygote.ended_at  # None: its end is just news
            died_at_once = ended_at - zygote.started_at < QUICK_DEATH_SECONDS
            deaths = self._quick_deaths.get(framework, 0) + 1 if died_at_once else 0
            pause = min(2.0 ** (deaths - 1), MAX_PAUSE_SECONDS) if deaths > 1 else 0.0  # once is no pattern
            if zygote.hung:  # loads would wait for its whole deadline again
                pause = MAX_PAUSE_SECONDS
            wait = ended_at + pause - time.monotonic()
            if wait > 0:
                raise ForkRefused(f"the {framework} zygote keeps dying; it is tried again in {wait:.0f} s")
            self._quick_deaths[framework] = deaths
        try:
            zygote = self._zygotes[framework] = Zygote(framework)
        except OSError as error:
            raise ForkRefused(f"the {framework} zygote cannot be started: {error}") from error
        zygote.child.exited.add_done_callback(lambda _: self._died.set())
        log.info("zygote of %s started, pid %d", framework, zygote.child.pid)
        return zygote

    async def keep(self, frameworks: tuple[str, ...]) -> None:
        """Starts zygotes one after the other (they compete with loads for the cores), and any that dies again, so that
        the next load finds it there. Runs until cancelled."""
        for framework in frameworks:
            with contextlib.suppress(ForkRefused):
                await asyncio.shield(self.ensure(framework).ready)
        while True:
            await self._died.wait()
            self._died.clear()
            for framework in list(self._zygotes):
                try:
                    self.ensure(framework)
                except ForkRefused:  # it keeps dying: its pause is not over
                    self._died.set()
            await asyncio.sleep(RESTART_LOOK_SECONDS)

    def facts(self) -> dict[str, dict[str, Any]]:
        """{framework: {"pid", "ready", "import_seconds"}} of the living ones."""
        return {
            name: {
                "pid": zygote.child.pid,
                "ready": zygote.import_seconds is not None,
                "import_seconds": zygote.import_seconds,
            }
            for name, zygote in self._zygotes.items()
            if zygote.child.is_alive
        }

    async def stop(self) -> None:
        await asyncio.gather(*(zygote.stop() for zygote in self._zygotes.values()))
