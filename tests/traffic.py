"""Constant traffic at the inference door, and what became of each request: for tests that break things meanwhile."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. began_at, ended_at: monotonic. status: 0 when no answer came. text: the error's, or what broke."""

    name: str
    began_at: float
    ended_at: float
    status: int
    text: str = ""

    @property
    def is_good(self) -> bool:
        return self.status == 200

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


def text_request(text: str = "Where is my parcel?", name: str = "text") -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]}]}


class Traffic:
    """Asks each target `per_second` times a second over `clients` connections each, until it is left.

    targets: name at the door -> body of the request. A request that is not answered is not sent again; the next one
    opens a new connection.
    """

    def __init__(
        self,
        address: str,
        headers: Mapping[str, str],
        targets: Mapping[str, Mapping[str, Any]],
        *,
        per_second: float = 50.0,
        clients: int = 1,
    ) -> None:
        self._address = address
        self._headers = {**headers, "Content-Type": "application/json"}
        self._pause_seconds = clients / per_second
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers: list[Answer] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(name, json.dumps(body).encode()), daemon=True)
            for name, body in targets.items()
            for _ in range(clients)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)

    def of(self, name: str, since: float = 0.0) -> list[Answer]:
        """The answers of one target to requests that began at `since` or later, in the order of their ends."""
        with self._lock:
            return [answer for answer in self.answers if answer.name == name and answer.began_at >= since]

    def bad(self, name: str, since: float = 0.0) -> list[Answer]:
        return [answer for answer in self.of(name, since) if not answer.is_good]

    def recovered_at(self, name: str, since: float) -> float | None:
        """When the first good answer came to a request that began at `since` or later; None while none did."""
        return min((answer.ended_at for answer in self.of(name, since) if answer.is_good), default=None)

    def counted(self) -> dict[str, Counter[int]]:
        """How often each status was the answer, by target."""
        counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
        with self._lock:
            for answer in self.answers:
                counts[answer.name][answer.status] += 1
        return dict(counts)

    def _ask(self, name: str, body: bytes) -> None:
        connection: http.client.HTTPConnection | None = None
        next_at = time.monotonic()
        while not self._stop.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
            began_at = time.monotonic()
            status, text = 0, ""
            try:
                connection.request("POST", f"/v2/models/{name}/infer", body, self._headers)
                response = connection.getresponse()
                status, content = response.status, response.read()
                text = "" if status == 200 else content.decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                text = f"{type(error).__name__}: {error}"
                connection.close()
                connection = None
            with self._lock:
                self.answers.append(Answer(name, began_at, time.monotonic(), status, text))
            next_at = max(next_at + self._pause_seconds, time.monotonic() - 10 * self._pause_seconds)
            self._stop.wait(max(0.0, next_at - time.monotonic()))
        if connection is not None:
            connection.close()
