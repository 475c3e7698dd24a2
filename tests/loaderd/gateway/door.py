"""A real gateway process for tests, with a supervisor played by the test at the channel's other end."""

from __future__ import annotations

import hashlib
import itertools
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from loaderd import protocol
from loaderd.errors import LoaderdError
from tests.loaderd.worker.process import ModelProcess

TOKEN = "everything"
SECONDS = 20
# httpx's pool closes connections that it finds idle, now and then one that another thread has just taken.
KEEP_ALL = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None)


def digest(token: str) -> str:
    return hashlib.sha512(token.encode()).hexdigest()


def grant(user: str, *permissions: str, expires_at: float | None = None) -> dict[str, Any]:
    return {"user": user, "permissions": list(permissions), "expires_at": expires_at}


def row(model: ModelProcess, signature: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The routing table's line for a loaded model."""
    spec = model.spec
    return {
        "lineage": spec.lineage,
        "version": spec.version,
        "framework": spec.framework,
        "state": "loaded",
        "reason": "",
        "sockets": [str(model.data_socket)],
        "signature": signature,
        **changes,
    }


LATER = object()  # as an answer: the test replies itself, with `Door.reply`


class Door:
    """Starts at once. answer(message): what the supervisor replies to a command; it may raise LoaderdError."""

    def __init__(self, folder: Path, *arguments: str, predict_timeout_seconds: float = SECONDS) -> None:
        self.unix_path = folder / "gateway.sock"
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(SECONDS)
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: queue.Queue[dict[str, Any]] = queue.Queue()  # what it told of comparisons, traces and lost requests
        self.kept: queue.Queue[dict[str, Any]] = queue.Queue()  # what it told of its cache of answers
        self.silent: queue.Queue[dict[str, Any]] = queue.Queue()  # of processes that took no connection or lost one
        self.answer: Callable[[dict[str, Any]], Any] = lambda message: []
        self._serials = itertools.count(1)
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        command = [
            *(sys.executable, "-m", "loaderd.gateway", "--channel-fd", str(theirs.fileno())),
            *("--host", "127.0.0.1", "--port", "0", "--unix-socket", str(self.unix_path)),
            *("--predict-timeout", str(predict_timeout_seconds), "--report-interval", "0.05", *arguments),
        ]
        with theirs:
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, cwd=Path(__file__).parents[3]
            )
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        self._http: list[httpx.Client] = []

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._http:
            client.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._thread.join()
        self.channel.close()

    def _listen(self) -> None:
        self.channel.settimeout(None)
        try:
            while (message := protocol.receive(self.channel)) is not None:
                if "request" in message:
                    self.commands.put(message)
                    self._reply(message)
                elif message["event"] == "seen":
                    self.seen.put(message)
                elif message["event"] == "kept":
                    self.kept.put(message)
                elif message["event"] == "silent":
                    self.silent.put(message)
                else:
                    self._events.put(message)
        except OSError:
            pass  # a test closed the channel

    def _reply(self, message: dict[str, Any]) -> None:
        try:
            result = self.answer(message)
        except LoaderdError as error:
            protocol.send(self.channel, {"reply": message["request"], "error": error.to_message()})
        else:
            if message["command"] == "metrics" and not isinstance(result, dict):
                result = {"text": result or "", "doors": []}
            if result is not LATER:
                self.reply(message, result)

    def reply(self, message: dict[str, Any], result: Any) -> None:
        protocol.send(self.channel, {"reply": message["request"], "result": result})

    def event(self) -> dict[str, Any]:
        return self._events.get(timeout=SECONDS)

    def listening(self) -> int:
        """The port, once it listens."""
        message = self.event()
        assert message["event"] == "listening", message
        self.port: int = message["port"]
        return self.port

    def route(
        self,
        models: dict[str, dict[str, Any]],
        lineages: dict[str, dict[str, Any]] | None = None,
        **settings: float,
    ) -> None:
        """Pushes a table and returns when the gateway works by it."""
        serial = next(self._serials)
        table = {"models": models, "lineages": lineages or {}, "settings": settings}
        protocol.send(self.channel, {"event": "routes", "serial": serial, **table})
        assert self.event() == {"event": "routed", "serial": serial}

    def allow(self, tokens: dict[str, dict[str, Any]]) -> None:
        """Pushes a token table, by plain token."""
        table = {digest(token): granted for token, granted in tokens.items()}
        protocol.send(self.channel, {"event": "access", "tokens": table})

    def in_flight(self) -> int:
        """Predictions at the public door that are not answered yet."""
        text = self.http().get("/metrics").raise_for_status().text
        (line,) = [
            line for line in text.splitlines() if line.startswith('modelhub_gateway_requests_in_flight{door="pu')
        ]
        return int(line.split()[-1]) - 1  # the question itself

    def http(self, token: str | None = TOKEN) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Token {token}"}
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=SECONDS, limits=KEEP_ALL
        )
        self._http.append(client)
        return client

    def private(self, user: str = "ada") -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.unix_path))
        client = httpx.Client(
            transport=transport, base_url="http://door", headers={"X-Modelhub-User": user}, timeout=SECONDS
        )
        self._http.append(client)
        return client
