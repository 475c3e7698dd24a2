"""The life of a model process: load on the compute thread, then serve from the event loop on the main thread.

The zygote imports this module before it forks, so that a load does not pay for the imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import uvloop

from loaderd.frameworks.base import Framework, LoadedModel
from loaderd.protocol import EXIT_DEVICE_LOST, EXIT_LOAD_FAILED, ModelSpec
from loaderd.states import LoadPhase
from loaderd.worker.batching import Job
from loaderd.worker.channel import Channel
from loaderd.worker.compute import ComputeThread
from loaderd.worker.door import Door
from loaderd.worker.faults import is_device_lost
from loaderd.worker.load import Load
from loaderd.worker.memory_limit import limit_memory

if TYPE_CHECKING:
    from loaderd.generation.contract import Event

log = logging.getLogger(__name__)

# The compute thread may hold the interpreter for this long before the event loop gets its turn.
_SWITCH_SECONDS = 0.001
# What a model gives back when it is unloaded may take this long; then the process is reported as drained anyway.
_UNLOAD_SECONDS = 2.0
_FLUSH_SECONDS = 1.0
_EXIT_BROKEN = 1


def run(channel: socket.socket, spec: ModelSpec, data_socket_path: str, framework: Framework) -> NoReturn:
    """Loads the model and serves it until the supervisor is gone or ends the process. Never returns.

    Exits with status 3 after a failed load, whose reason went over the channel, and with status 4 after an error of
    the GPU from which only a new process recovers, with status 1 when the thread that uses the model failed.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor decides
    sys.setswitchinterval(_SWITCH_SECONDS)
    if spec.memory_limit_bytes is not None:
        limit_memory(spec.memory_limit_bytes)
    channel.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_live(channel, spec, data_socket_path, framework))
        _exit(status)


def _exit(status: int) -> NoReturn:
    """Ends the process without waiting for the compute thread or running any library's exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def _live(sock: socket.socket, spec: ModelSpec, data_socket_path: str, framework: Framework) -> int:
    loop = asyncio.get_running_loop()
    channel = await Channel.over(sock)

    def report(phase: LoadPhase, progress: float) -> None:
        loop.call_soon_threadsafe(channel.report_phase, phase, progress)

    load = Load(spec, framework, report)
    loaded: asyncio.Future[LoadedModel] = loop.create_future()
    door: Door | None = None

    def on_loaded(model: LoadedModel | None, error: BaseException | None) -> None:
        settle: Callable[[Any], None] = loaded.set_result if error is None else loaded.set_exception
        loop.call_soon_threadsafe(settle, model if error is None else _Raised(error))

    def on_done(jobs: list[Job], batches: int, compute_seconds: float, batch_items: int) -> None:
        assert door is not None
        loop.call_soon_threadsafe(door.finish, jobs, batches, compute_seconds, batch_items)

    def on_events(events: list[Event], steps: int, step_seconds: float) -> None:
        assert door is not None
        loop.call_soon_threadsafe(door.take_events, events, steps, step_seconds)

    leaving: list[asyncio.Task[None]] = []  # held: the event loop would forget the task

    def on_lost(error: BaseException) -> None:
        loop.call_soon_threadsafe(lambda: leaving.append(loop.create_task(_leave(spec, door, error))))

    def check(number: object) -> BaseException | None:
        assert load.canary is not None
        result = load.canary.check()
        message = {"event": "canary", "id": number, **result.to_message()}
        loop.call_soon_threadsafe(channel.send, message)
        return result.fault

    compute = ComputeThread(spec, load.run, on_loaded, on_done, on_lost, on_events)
    draining: asyncio.Task[None] | None = None
    next_command = asyncio.ensure_future(channel.receive())  # ends the process when the supervisor goes
    try:
        framework.ensure_imported()
        compute.start()
        model = await loaded
        door = Door(spec, model, compute)
        await door.open(data_socket_path)
    except (Exception, SystemExit) as error:
        cause = error.error if isinstance(error, _Raised) else error
        log.error("%s could not be loaded", spec.model_id, exc_info=cause)
        await channel.send_and_flush({"event": "failed", "error": load.failure(cause).to_message()})
        return EXIT_LOAD_FAILED
    await channel.send_and_flush(_ready(load))
    log.info("%s answers; phases in seconds: %s", spec.model_id, load.phase_seconds)
    while True:
        command = await next_command
        next_command = asyncio.ensure_future(channel.receive())
        if command.get("command") == "stats":
            channel.send({"event": "stats", "id": command.get("id"), "counters": door.counters()})
        elif command.get("command") == "canary" and draining is None:
            compute.ask(functools.partial(check, command.get("id")))
        elif command.get("command") == "drain" and draining is None:
            draining = asyncio.create_task(_drain(door, compute, channel))


class _Raised(Exception):
    """Carries what the load raised to the event loop: a future refuses StopIteration, and SystemExit would end it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


async def _leave(spec: ModelSpec, door: Door | None, error: BaseException) -> None:
    """Ends the process once the answers given so far are sent: no further call could succeed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH_SECONDS):
            if door is not None:
                await door.flush()
    if is_device_lost(error):
        log.error(
            "the GPU of %s is lost to its process, which ends so that a new one can begin: %s", spec.model_id, error
        )
        _exit(EXIT_DEVICE_LOST)
    log.error(
        "the process of %s cannot compute any more and ends so that a new one can begin: %s", spec.model_id, error
    )
    _exit(_EXIT_BROKEN)


async def _drain(door: Door, compute: ComputeThread, channel: Channel) -> None:
    await door.drain()
    loop, unloaded = asyncio.get_running_loop(), asyncio.Event()
    compute.end(lambda: loop.call_soon_threadsafe(unloaded.set))
    try:
        async with asyncio.timeout(_UNLOAD_SECONDS):
            await unloaded.wait()
    except TimeoutError:
        log.error("the model did not unload itself within %g s; its process ends without it", _UNLOAD_SECONDS)
    channel.send({"event": "drained", "counters": door.counters()})


def _ready(load: Load) -> dict[str, Any]:
    return {
        "event": "ready",
        "signature": load.signature,
        "phase_seconds": load.phase_seconds,
        "canary": load.checked,
    }
