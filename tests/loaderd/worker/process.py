"""A real model process for tests: `run()` in a subprocess, its channel's other end here."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from loaderd import protocol, wire
from loaderd.errors import from_message
from loaderd.protocol import ModelSpec
from tests.deadline import wait_until

ANSWER_SECONDS = 20


def spec(kind: str = "echo", **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "model_id": f"{kind}-v1",
        "lineage": kind,
        "version": "1",
        "framework": "in-test",
        "format": "none",
        "directory": "/",
        "digest": "",
        "config": {"kind": kind},
    }
    return ModelSpec(**{**values, **changes})


class ModelProcess:
    """Starts at once; `ready()` waits for the load. Use as a context manager."""

    def __init__(self, model: ModelSpec, data_socket: Path) -> None:
        self.spec = model
        self.data_socket = data_socket
        self.signature: dict[str, Any] = {}
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(ANSWER_SECONDS)
        self._ids = itertools.count(1)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.loaderd.worker.process", str(theirs.fileno()), str(data_socket)],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,
                cwd=Path(__file__).parents[3],
            )
        protocol.send(self.channel, model.to_message())

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        assert self.process.stderr is not None
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def receive(self) -> dict[str, Any]:
        message = protocol.receive(self.channel)
        assert message is not None, "the model process closed its channel"
        return message

    def ended_load(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the phase events, the event that ended the load)."""
        phases = []
        while (message := self.receive())["event"] == "phase":
            phases.append(message)
        return phases, message

    def ready(self) -> dict[str, Any]:
        _, message = self.ended_load()
        assert message["event"] == "ready", message
        self.signature = message["signature"]
        return message

    def stats(self) -> dict[str, Any]:
        number = next(self._ids)
        protocol.send(self.channel, {"command": "stats", "id": number})
        message = self.receive()
        assert (message["event"], message["id"]) == ("stats", number)
        return message["counters"]

    def ask_canary(self) -> dict[str, Any]:
        number = next(self._ids)
        protocol.send(self.channel, {"command": "canary", "id": number})
        message = self.receive()
        assert (message.pop("event"), message.pop("id")) == ("canary", number)
        return message

    def log(self) -> str:
        """What it wrote until its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def wait_for(self, **counters: int) -> None:
        """Returns when the process counts these values."""
        wait_until(lambda: counters.items() <= self.stats().items(), what=f"counters {counters}")


class Client:
    """Asks a model process as the gateway does; several requests at once, answers as futures."""

    def __init__(self, data_socket: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._waiting: dict[int, Future[wire.Message]] = {}
        self._ids = itertools.count(1)
        self.lost = threading.Event()
        connecting = self._loop.create_unix_connection(
            lambda: wire.Connection(self._on_message, lambda _: self._on_lost()), str(data_socket)
        )
        self.connection = asyncio.run_coroutine_threadsafe(connecting, self._loop).result(ANSWER_SECONDS)[1]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.connection.close)
        assert self.lost.wait(ANSWER_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on_message(self, _connection: wire.Connection, message: wire.Message) -> None:
        self._waiting.pop(message.request_id).set_result(message)

    def _on_lost(self) -> None:
        for waiting in self._waiting.values():
            waiting.set_exception(ConnectionError("the model process went away"))
        self.lost.set()

    def send(self, kind: wire.Kind, head: bytes, *chunks: bytes) -> tuple[int, Future[wire.Message]]:
        request_id, future = next(self._ids), Future[wire.Message]()
        self._waiting[request_id] = future
        self._loop.call_soon_threadsafe(lambda: self.connection.send(request_id, kind, head, *chunks))
        return request_id, future

    def cancel(self, request_id: int, reason: bytes) -> None:
        self._waiting.pop(request_id)
        self._loop.call_soon_threadsafe(self.connection.cancel, request_id, reason)

    def submit(self, *inputs: Any) -> Future[wire.Message]:
        """A plain prediction, not waited for."""
        return self.send(wire.Kind.PREDICT, b"", json.dumps({"inputs": inputs}).encode())[1]

    def predict(self, *inputs: Any) -> dict[str, Any]:
        return answer_of(self.submit(*inputs))

    def infer(self, request: Mapping[str, Any], name: str = "m", binary: bytes = b"") -> wire.Message:
        """The protocol's request; binary: tensors that follow its JSON."""
        text = json.dumps(request).encode()
        head = json.dumps({"name": name, "header_bytes": len(text) if binary else None}).encode()
        message = self.send(wire.Kind.INFER, head, text, binary)[1].result(ANSWER_SECONDS)
        if message.kind == wire.Kind.ERROR:
            raise from_message(json.loads(message.body))
        return message


def answer_of(future: Future[wire.Message]) -> dict[str, Any]:
    """The JSON of an answer; raises the error that came instead."""
    message = future.result(ANSWER_SECONDS)
    value: dict[str, Any] = json.loads(message.body)
    if message.kind == wire.Kind.ERROR:
        raise from_message(value)
    return value


if __name__ == "__main__":
    from loaderd import catalogue
    from loaderd.worker import main
    from tests.loaderd.worker.framework import InTestFramework

    end = socket.socket(fileno=int(sys.argv[1]))
    first = protocol.receive(end)
    assert first is not None
    wanted = ModelSpec.from_message(first)
    in_test = wanted.framework == "in-test"
    main.run(end, wanted, sys.argv[2], InTestFramework() if in_test else catalogue.framework(wanted.framework))
