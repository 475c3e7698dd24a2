"""Load at a fixed rate, whatever the server does: requests are due at even times, and late ones are counted as late.

A closed loop (wrk) asks less of a server that stumbles; here a stumble of one second is seen by every request that was
due in it.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from benchmarks.driving import Call

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests of one kind: `calls` in turn, `per_second` of them, over at most `connections` connections."""

    name: str
    calls: Sequence[Call]
    per_second: float
    connections: int = 16


@dataclass(slots=True)
class Seen:
    """due_at: seconds since the start, by request in the order of the answers; seconds: from due to answered.

    statuses: 0 stands for no answer. errors: what was said instead, the first few.
    """

    due_at: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def by_window(seen: Seen, window_seconds: float, share: float) -> list[tuple[float, float]]:
    """(middle of the window, quantile in ms) over the run."""
    windows: dict[int, list[float]] = {}
    for due_at, seconds in zip(seen.due_at, seen.seconds, strict=True):
        windows.setdefault(int(due_at / window_seconds), []).append(seconds * 1e3)
    return [((number + 0.5) * window_seconds, quantile(found, share)) for number, found in sorted(windows.items())]


def median_ms(seen: Seen) -> float:
    return statistics.median(seen.seconds) * 1e3 if seen.seconds else 0.0


class Load:
    """Sends the streams from a thread of its own until it is left; then `seen` has what became of each."""

    def __init__(self, address: str, headers: Mapping[str, str], streams: Sequence[Stream]) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._headers = headers
        self._streams = streams
        self.seen = {stream.name: Seen() for stream in streams}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._began = 0.0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_SECONDS + 5)

    async def _run(self) -> None:
        self._began = time.perf_counter()
        await asyncio.gather(*(self._send(stream) for stream in self._streams))

    async def _send(self, stream: Stream) -> None:
        due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue()
        workers = [asyncio.create_task(self._work(stream.name, due)) for _ in range(stream.connections)]
        requests = [call.request(self._host, self._headers) for call in stream.calls]
        number = 0
        while not self._stop.is_set():
            at = self._began + number / stream.per_second
            pause = at - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(min(pause, 0.1))
                continue
            due.put_nowait((at, requests[number % len(requests)]))
            number += 1
        for _ in workers:
            due.put_nowait(None)
        await asyncio.gather(*workers)

    async def _work(self, name: str, due: asyncio.Queue[tuple[float, bytes] | None]) -> None:
        """One connection, opened again after it broke."""
        seen = self.seen[name]
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while (item := await due.get()) is not None:
            due_at, request = item
            status, said = 0, ""
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    if streams is None:
                        streams = await asyncio.open_connection(self._host, self._port)
                    streams[1].write(request)
                    status, body = await answer(streams[0])
                    said = "" if status == 200 else body.decode(errors="replace")
            except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
                said = f"{type(error).__name__}: {error}"
                if streams is not None:
                    streams[1].close()
                    streams = None
            seen.statuses[status] += 1
            seen.due_at.append(due_at - self._began)
            seen.seconds.append(time.perf_counter() - due_at)
            if said and len(seen.errors) < 5:
                seen.errors.append(f"{status} {said[:200]}")
        if streams is not None:
            streams[1].close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one response. Raises ValueError when it does not tell its length, IncompleteReadError."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(lines[0].split()[1]), await reader.readexactly(int(value))
    raise ValueError("the response does not tell its length")
