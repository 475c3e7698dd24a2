"""The supervisor: takes commands, holds the models, reports what is true, and cleans up when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import platform
import secrets
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from loaderd.errors import Cancelled, LoaderdError, ShuttingDown, UnknownModel
from loaderd.lifeline import become_subreaper
from loaderd.protocol import ModelSpec
from loaderd.reporter import Heartbeat, OperationEnded, Report, Reporter
from loaderd.resources import Gpus, ProcessMemory, host_facts, memory_of
from loaderd.states import ModelState
from loaderd.supervisor import model_process
from loaderd.supervisor.children import reap_strangers
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.control import serve_control
from loaderd.supervisor.gateway_link import GatewayLink
from loaderd.supervisor.model import ManagedModel
from loaderd.supervisor.model_process import ModelProcess, OnPhase
from loaderd.supervisor.zygotes import Zygotes

log = logging.getLogger(__name__)

REMEMBERED_OPERATIONS = 10_000
GPU_BYTES_SECONDS = 0.5  # one look at NVML serves all models that are measured within it
OWN_COMMAND = "own-"  # in place of an operation's id: the daemon's own wish, of which no row tells


class AlreadyRunning(Exception):
    """Another loaderd holds this run folder."""


class Daemon:
    """One per installation. `run()` returns after SIGTERM or SIGINT, with nothing left behind."""

    def __init__(self, config: DaemonConfig, reporter: Reporter) -> None:
        self.config = config
        self.load_slots = asyncio.Semaphore(config.max_concurrent_loads)
        self.drain_seconds = config.drain_seconds
        self._reporter = reporter
        self._zygotes = Zygotes()
        self._gateway = GatewayLink(config, self._routes, self._answer_gateway)
        self._gpus = Gpus()
        self._gpu_bytes: dict[int, int | None] = {}
        self._gpu_bytes_at = float("-inf")
        self._models: dict[str, ManagedModel] = {}
        self._commands: OrderedDict[str, asyncio.Task[None] | None] = OrderedDict()  # by operation id, oldest first
        self._unloads: set[str] = set()  # operation ids of the unloads that run
        self._ending: dict[str, LoaderdError] = {}  # why a command's task was cancelled
        self._stop = asyncio.Event()
        self._boot_id = secrets.token_hex(8)
        self._started_at = time.time()

    async def run(self) -> None:
        """Serves until told to stop. Raises AlreadyRunning; whatever the reporter's start raises."""
        config = self.config
        for folder in (config.run_dir, config.sockets_dir, config.model_logs_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _exclusive(config):
            become_subreaper()
            for stale in config.sockets_dir.glob("*.sock"):
                stale.unlink(missing_ok=True)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            wanted = await self._start_reporter()
            if wanted is None:
                return
            self._reporter.on_access_changed(lambda: loop.call_soon_threadsafe(self._refresh_access))
            control = await serve_control(config.control_socket, self._handle)
            tasks = [
                asyncio.create_task(self._gateway.run()),
                asyncio.create_task(self._zygotes.prewarm(config.prewarm if config.use_zygotes else ())),
                asyncio.create_task(self._every(config.heartbeat_seconds, self._heartbeat)),
                asyncio.create_task(self._every(config.usage_interval_seconds, self._count_usage)),
                asyncio.create_task(self._every(config.memory_interval_seconds, self._observe)),
            ]
            self._refresh_access()
            for spec in wanted:
                self._accept(None, self._model(spec.model_id).load(spec, None, "wanted when loaderd started"))
            try:
                await self._stop.wait()
            finally:
                await self._shut_down(control, tasks)

    async def _start_reporter(self) -> Sequence[ModelSpec] | None:
        """What should be loaded; None when the daemon was told to stop before the registry answered."""
        start = asyncio.wrap_future(self._reporter.start(self._facts()))
        stopped = asyncio.ensure_future(self._stop.wait())
        either: set[asyncio.Future[Any]] = {start, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            stopped.cancel()
            return start.result()
        await asyncio.to_thread(self._reporter.close, 0.0)
        return None

    # What models need of the house (supervisor.model.House)

    def report(self, report: Report) -> None:
        self._reporter.report(report)

    async def start_process(self, spec: ModelSpec, on_phase: OnPhase) -> ModelProcess:
        return await model_process.start(spec, self.config, self._zygotes, on_phase)

    async def publish_routes(self) -> None:
        await self._gateway.publish_routes()

    def push_routes(self) -> None:
        self._gateway.push_routes()

    async def memory_of(self, pid: int) -> ProcessMemory | None:
        return await asyncio.to_thread(memory_of, pid)

    async def gpu_bytes_of(self, pid: int) -> int | None:
        if not self._gpus:
            return None
        if time.monotonic() - self._gpu_bytes_at > GPU_BYTES_SECONDS:
            found = await asyncio.to_thread(self._gpus.bytes_by_pid)
            self._gpu_bytes = {} if found is None else found
            self._gpu_bytes_at = time.monotonic()
        return self._gpu_bytes.get(pid, 0)

    # Commands

    async def _handle(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._stop.is_set():
            raise ShuttingDown("loaderd is stopping; repeat the command when it runs again.")
        match message.get("command"):
            case "ping":
                return {
                    "pid": os.getpid(),
                    "boot_id": self._boot_id,
                    "started_at": self._started_at,
                    "inference": self._gateway.listening,
                }
            case "status":
                return {
                    "facts": self._facts(),
                    "models": {name: model.snapshot() for name, model in self._models.items()},
                }
            case "load":
                spec = ModelSpec.from_message(message["spec"])
                model = self._model(spec.model_id)
                operation_id = message["operation_id"]
                reason = f"load asked for by {message['user']}"
                return self._accept(operation_id, model.load(spec, operation_id, reason))
            case "unload":
                operation_id = message["operation_id"]
                model = self._model(message["model_id"])
                if operation_id not in self._commands:
                    self._unloads.add(operation_id)
                return self._accept(operation_id, model.unload(operation_id, f"unload asked for by {message['user']}"))
            case "cancel":
                return {"cancelled": self._cancel(message["operation_id"])}
            case other:
                raise LoaderdError(f"loaderd has no command {other!r}.")

    def _accept(self, operation_id: str | None, command: Coroutine[Any, Any, None]) -> dict[str, Any]:
        """Runs a command in the background, once: a redelivered operation is not run again."""
        name = operation_id or OWN_COMMAND + secrets.token_hex(4)
        if name in self._commands:
            command.close()
            return {"accepted": True, "known": True}
        task = asyncio.get_running_loop().create_task(self._run_command(name, command))
        self._commands[name] = task
        while len(self._commands) > REMEMBERED_OPERATIONS and next(iter(self._commands.values())) is None:
            self._commands.popitem(last=False)
        return {"accepted": True, "known": False}

    async def _run_command(self, name: str, command: Coroutine[Any, Any, None]) -> None:
        error: LoaderdError | None = None
        try:
            await command
        except asyncio.CancelledError:
            error = self._ending.pop(name, None) or Cancelled("The operation was cancelled.")
        except Exception as unexpected:
            log.exception("the operation %s failed", name)
            error = LoaderdError(f"loaderd could not run the operation: {unexpected}; its log says more.")
        finally:
            self._commands[name] = None
            self._unloads.discard(name)
        if error is not None and not name.startswith(OWN_COMMAND):
            self.report(OperationEnded(name, time.time(), error=error.to_message()))

    def _cancel(self, operation_id: str, why: LoaderdError | None = None) -> bool:
        task = self._commands.get(operation_id)
        if task is None or task.done():
            return False
        if task.cancelling():
            return True  # once: a second cancel would hit the clean-up of the first
        if why is not None:
            self._ending[operation_id] = why
        task.cancel()
        return True

    def _model(self, model_id: str) -> ManagedModel:
        return self._models.setdefault(model_id, ManagedModel(model_id, self))

    # The gateway's side

    def _routes(self) -> dict[str, Any]:
        return {name: model.route() for name, model in self._models.items() if model.spec is not None}

    async def _answer_gateway(self, message: dict[str, Any]) -> Any:
        match message["command"]:
            case "load" | "unload" as kind:
                return await asyncio.wrap_future(self._reporter.submit(kind, message["model_id"], message["user"]))
            case "index":
                return await asyncio.wrap_future(self._reporter.index())
            case other:
                raise UnknownModel(f"The gateway asked for {other!r}, which loaderd does not know.")

    def _refresh_access(self) -> None:
        def taken(future: asyncio.Future[Any]) -> None:
            if not future.cancelled() and future.exception() is None:
                self._gateway.set_access(future.result())

        asyncio.wrap_future(self._reporter.access()).add_done_callback(taken)

    # What is observed, again and again

    async def _every(self, seconds: float, observe: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await observe()
            except Exception:
                log.exception("%s failed; it is tried again", observe.__name__)
            await asyncio.sleep(seconds)

    async def _heartbeat(self) -> None:
        runtimes = {name: m.runtime for name, m in self._models.items() if m.state is ModelState.LOADED}
        self.report(Heartbeat(time.time(), self._facts(), runtimes))
        if self._zygotes.births == 0:
            reap_strangers()

    async def _count_usage(self) -> None:
        await asyncio.gather(*(model.count_usage() for model in self._models.values()))

    async def _observe(self) -> None:
        for model in list(self._models.values()):
            await model.observe()

    def _facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "boot_id": self._boot_id,
            "started_at": self._started_at,
            "python": platform.python_version(),
            "host": host_facts(),
            "gpus": self._gpus.facts(),
            "no_gpu_reason": self._gpus.reason_for_none,
            "zygotes": self._zygotes.facts(),
            "inference": self._gateway.listening,
        }

    # The end

    async def _shut_down(self, control: asyncio.Server, tasks: list[asyncio.Task[None]]) -> None:
        """Drains and unloads everything within a bound; what people wanted loaded stays wanted."""
        log.info("loaderd stops: %d models are drained", sum(m.process is not None for m in self._models.values()))
        control.close()
        for name, command in list(self._commands.items()):
            if command is not None and name not in self._unloads:  # those are bounded, and half an unload is a lie
                self._cancel(name, ShuttingDown("loaderd was stopped before the operation was done; repeat it."))
        # All at once, so that the whole stop stays within one drain: a model's own lock puts them in order.
        running = [command for command in self._commands.values() if command is not None]
        unloads = [model.unload(None, "loaderd was stopped") for model in self._models.values()]
        await asyncio.gather(*running, *unloads, return_exceptions=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._zygotes.stop()
        self._gpus.close()
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
