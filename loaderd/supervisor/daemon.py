"""The supervisor: takes commands, holds the models, reports what is true, and cleans up when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
from collections.abc import Sequence
from typing import Any

from loaderd.lifeline import become_subreaper
from loaderd.protocol import ModelSpec
from loaderd.reporter import Reporter
from loaderd.supervisor.commands import Commands
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.control import serve_control
from loaderd.supervisor.demands import Demands
from loaderd.supervisor.duties import Duties
from loaderd.supervisor.gateway_side import GatewaySide
from loaderd.supervisor.house import House
from loaderd.supervisor.operations import Operations
from loaderd.supervisor.wishes import Wishes

log = logging.getLogger(__name__)

PREWARM_AFTER_SECONDS = 60.0


class AlreadyRunning(Exception):
    """Another loaderd holds this run folder."""


class Daemon:
    """One per installation. `run()` returns after SIGTERM or SIGINT, with nothing left behind."""

    def __init__(self, config: DaemonConfig, reporter: Reporter) -> None:
        self.config = config
        self._reporter = reporter
        self._house = House(config, reporter)
        self._demands = Demands(self._house, reporter)
        self._house.gateway = GatewaySide(self._house, self._demands, reporter).gateways()
        self._operations = Operations(self._house.report)
        self._wishes = Wishes(self._house, self._operations, reporter)
        self._commands = Commands(self._house, self._operations)
        self._duties = Duties(self._house, self._wishes)

    async def run(self) -> None:
        """Serves until told to stop. Raises AlreadyRunning; whatever the reporter's start raises."""
        config, house = self.config, self._house
        for folder in (config.run_dir, config.sockets_dir, config.model_logs_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _exclusive(config):
            become_subreaper()
            for stale in config.sockets_dir.glob("*.sock"):
                stale.unlink(missing_ok=True)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, house.stopping.set)
            await house.look_at_gpus()
            wanted = await self._start_reporter()
            if wanted is None:
                return
            control = await serve_control(config.control_socket, self._commands.handle)
            tasks = [
                asyncio.create_task(house.gateway.run()),
                asyncio.create_task(house.admission.run()),
                *self._duties.start(),
            ]
            try:
                await house.registry.follow()
                self._wishes.load_all(wanted)
                tasks.append(asyncio.create_task(self._keep_zygotes()))
                await house.stopping.wait()
            finally:
                await self._shut_down(control, tasks)

    async def _start_reporter(self) -> Sequence[ModelSpec] | None:
        """What should be loaded; None when the daemon was told to stop before the registry answered."""
        start = asyncio.wrap_future(self._reporter.start(self._house.facts()))
        stopped = asyncio.ensure_future(self._house.stopping.wait())
        either: set[asyncio.Future[Any]] = {start, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            stopped.cancel()
            return start.result()
        await asyncio.to_thread(self._reporter.close, 0.0)
        return None

    async def _keep_zygotes(self) -> None:
        """Zygotes that nobody waits for are started when what should be loaded is."""
        if not self.config.use_zygotes:
            return
        loads = self._operations.running
        if loads:
            await asyncio.wait(loads, timeout=PREWARM_AFTER_SECONDS)
        await self._house.forking.zygotes.keep(self.config.prewarm)

    async def _shut_down(self, control: asyncio.Server, tasks: list[asyncio.Task[None]]) -> None:
        """Drains and unloads everything within a bound; what people wanted loaded stays wanted."""
        house = self._house
        log.info("loaderd stops: %d models are drained", sum(m.crew is not None for m in house.models()))
        house.stopping.set()
        control.close()
        house.registry.close()
        questions = [*self._demands.cancel(), *house.questions.cancel()]
        self._operations.cancel_all()
        # All at once, so that the whole stop stays within one drain: a model's own lock puts them in order.
        unloads = [model.unload(None, "loaderd was stopped") for model in house.models()]
        await asyncio.gather(*self._operations.running, *unloads, *questions, return_exceptions=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await house.budget.close()
        await asyncio.gather(*(model.close() for model in house.models()))
        await house.forking.zygotes.stop()
        house.gpus.close()
        self.config.control_socket.unlink(missing_ok=True)
        if not await asyncio.to_thread(self._reporter.close, self.config.close_seconds):
            log.error("not everything could be written to the registry before loaderd stopped")


@contextlib.contextmanager
def _exclusive(config: DaemonConfig) -> Any:
    """Holds the run folder's lock; the kernel lets it go with the process, however that ends."""
    with (config.run_dir / "loaderd.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"Another loaderd runs with {config.run_dir}; stop it, or set another MODELHUB_STATE_DIR."
            ) from None
        yield
