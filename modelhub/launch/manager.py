"""Runs all parts until somebody asks it to stop, and then leaves none."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from honcho import manager as honcho_manager
from honcho.printer import Message, Printer

from modelhub.launch.part import Part

STOP_TIMEOUT_SECONDS = 25.0  # loaderd lets predictions in flight end and writes what it counted
# make and timeout pass a signal on that the whole process group got already: one request, two signals.
SAME_REQUEST_SECONDS = 1.0


class Manager(honcho_manager.Manager):
    """Honcho's, with parts that come back: only SIGTERM, SIGINT, SIGHUP or `terminate` ends it."""

    def __init__(self, printer: Printer | None = None) -> None:
        super().__init__(printer)
        self.events: queue.SimpleQueue[Message] = queue.SimpleQueue()  # signal handlers write to it
        self._process_ctor = Part
        self._stopping = threading.Event()
        self._asked_at = 0.0

    def add_part(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: str) -> Part:
        part: Part = self.add_process(name, command, env=dict(env), cwd=cwd)
        return part

    @property
    def parts(self) -> list[Part]:
        return [entry["obj"] for entry in self._processes.values()]

    @property
    def stopping(self) -> threading.Event:
        """Set once a stop was asked for; for those who watch beside the parts."""
        return self._stopping

    def announce(self, text: str) -> None:
        """Prints a line without a prefix, from any thread."""
        self.events.put(Message(type="announcement", data=text, time=self._clock.now(), name=None, colour=None))

    def say(self, text: str) -> None:
        """Prints a line as the system's, from any thread."""
        self.events.put(Message(type="line", data=f"{text}\n", time=self._clock.now(), name="system", colour=None))

    def loop(self, beside: Sequence[Callable[[], None]] = ()) -> None:
        """Blocks until every part has ended after a request to stop. `beside` run on threads of their own."""
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._on_signal)
        threads = [threading.Thread(target=part.run, args=(self.events,), name=part.name) for part in self.parts]
        threads += [threading.Thread(target=watch, daemon=True) for watch in beside]
        for thread in threads:
            thread.start()
        try:
            self._relay_until_stopped(threads)
        finally:
            # Also when printing failed because nobody reads any more.
            self.terminate()
            self._wait(threads)

    def terminate(self) -> None:
        self._stopping.set()
        for part in self.parts:
            part.stop()

    def kill(self) -> None:
        self._stopping.set()
        for part in self.parts:
            part.stop(signal.SIGKILL)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._stopping.is_set():
            self._asked_at = now
            self.say(f"{signal.Signals(signum).name}: stopping")
            self.terminate()
        elif now - self._asked_at > SAME_REQUEST_SECONDS:
            self.say("asked again: what still runs is killed")
            self.kill()

    def _relay_until_stopped(self, threads: Sequence[threading.Thread]) -> None:
        deadline: float | None = None
        while any(thread.is_alive() for thread in threads) or not self.events.empty():
            if deadline is None and self._stopping.is_set():
                deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                names = ", ".join(part.name for part in self.parts if part.pid is not None)
                self.say(f"still running after {STOP_TIMEOUT_SECONDS:g} s and killed: {names or 'a watcher'}")
                self.kill()
                deadline = float("inf")
            try:
                self._show(self.events.get(timeout=0.1))
            except queue.Empty:
                continue

    def _show(self, message: Any) -> None:
        match message.type:
            case "line":
                self._printer.write(message)
            case "announcement":
                print(message.data, file=self._printer.output, flush=True)
            case "start":
                self._system_print(f"{message.name} started (pid {message.data['pid']})\n")
            case "stop":
                self._system_print(f"{message.name} stopped\n")

    def _wait(self, threads: Sequence[threading.Thread]) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            self.kill()
            for thread in threads:
                thread.join(5.0)
