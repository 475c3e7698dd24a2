"""Request bodies: read in pieces, decompressed where needed, bounded one by one and all together."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from loaderd.errors import InvalidInput, LoaderdError, Overloaded
from loaderd.gateway.deadline import Deadline

MAX_BODY_BYTES = 64 * 1024 * 1024
SMALL_BODY_BYTES = 64 * 1024  # up to here a body needs no share of the budget: queues bound their number
BUDGET_BYTES = 4 * MAX_BODY_BYTES
_INFLATE_BYTES = 256 * 1024


class Source(Protocol):
    """Where a body comes from. piece: the next piece, None at the end; raises Disconnected."""

    async def piece(self) -> bytes | None: ...


class BodyTooLarge(LoaderdError):
    code = "body_too_large"
    http_status = 413


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(
        f"The request's body passes {MAX_BODY_BYTES} bytes; send fewer items at once.", limit_bytes=MAX_BODY_BYTES
    )


class BodyTooSlow(LoaderdError):
    code = "body_too_slow"
    http_status = 408


class Budget:
    """Bytes of large bodies that the process holds at once. Who finds it used up waits in order, unread."""

    def __init__(self, total_bytes: int = BUDGET_BYTES) -> None:
        self._free_bytes = total_bytes
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size_bytes: int) -> None:
        if not self._line and size_bytes <= self._free_bytes:
            self._free_bytes -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            had_its_turn = turn.done() and not turn.cancelled()
            self.give_back(size_bytes if had_its_turn else 0)  # 0: lets those behind it move up
            raise

    def give_back(self, size_bytes: int) -> None:
        self._free_bytes += size_bytes
        while self._line and (self._line[0][1].done() or self._line[0][0] <= self._free_bytes):
            size, turn = self._line.popleft()
            if not turn.done():
                self._free_bytes -= size
                turn.set_result(None)


class Body:
    """The body of one request; `close()` when the request is over."""

    def __init__(self, source: Source, budget: Budget, deadline: Deadline) -> None:
        self._source = source
        self._budget = budget
        self._deadline = deadline
        self._reserved_bytes = 0
        self._waits_for_budget = False

    @property
    def reserved_bytes(self) -> int:
        """What it holds of the budget; 0 for a small one."""
        return self._reserved_bytes

    async def read(self, announced_bytes: int | None, encoding: str | None) -> list[bytes]:
        """The whole body in pieces. announced_bytes: Content-Length, None when the client did not say.

        Raises BodyTooLarge, Disconnected, InvalidInput when it cannot be decompressed, and at the deadline
        BodyTooSlow, or Overloaded when there was no memory for it.
        """
        try:
            async with asyncio.timeout_at(self._deadline.at):
                return await self._read(announced_bytes, encoding)
        except TimeoutError:
            raise self._too_late() from None

    async def _read(self, announced_bytes: int | None, encoding: str | None) -> list[bytes]:
        if announced_bytes is not None and announced_bytes > MAX_BODY_BYTES:
            raise _too_large()
        inflate = _inflater(encoding)
        # What does not say how large it will be counts as the largest.
        share_bytes = MAX_BODY_BYTES if announced_bytes is None or inflate is not None else announced_bytes
        pieces: list[bytes] = []
        size = 0
        while (came := await self._source.piece()) is not None:
            for piece in (came,) if inflate is None else inflate(came):
                size += len(piece)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                if size > SMALL_BODY_BYTES and not self._reserved_bytes:
                    await self._reserve(share_bytes)
                if piece:
                    pieces.append(piece)
                if inflate is not None:
                    await asyncio.sleep(0)  # a small body may inflate to much: let the others have their turn
        if inflate is not None:
            inflate.finish()
        return pieces

    async def _reserve(self, size_bytes: int) -> None:
        self._waits_for_budget = True
        await self._budget.take(size_bytes)
        self._waits_for_budget = False
        self._reserved_bytes = size_bytes

    def _too_late(self) -> LoaderdError:
        seconds = self._deadline.seconds
        if self._waits_for_budget:
            return Overloaded(
                f"Other large requests took all of the gateway's memory for {seconds:g} s; try again in a moment.",
                timeout_seconds=seconds,
            )
        return BodyTooSlow(
            f"The request's body was not complete within {seconds:g} s; send fewer items at once "
            "or raise PREDICT_TIMEOUT_SECONDS.",
            timeout_seconds=seconds,
        )

    def close(self) -> None:
        if self._reserved_bytes:
            self._budget.give_back(self._reserved_bytes)
            self._reserved_bytes = 0


class _Inflater:
    """Decompresses gzip and zlib ("deflate"), a bounded piece at a time."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        try:
            while True:
                piece = self._stream.decompress(data, _INFLATE_BYTES)
                yield piece
                data = self._stream.unconsumed_tail
                if not data and len(piece) < _INFLATE_BYTES:
                    return
        except zlib.error as error:
            raise InvalidInput(f"The body is not what its Content-Encoding says: {error}.") from None

    def finish(self) -> None:
        if not self._stream.eof or self._stream.unused_data:
            raise InvalidInput("The compressed body is cut off or has more behind its end.")


def _inflater(encoding: str | None) -> _Inflater | None:
    if encoding in (None, "", "identity"):
        return None
    if encoding in ("gzip", "deflate"):
        return _Inflater()
    raise InvalidInput(f'The Content-Encoding "{encoding}" is not known; use gzip, deflate or none.')
