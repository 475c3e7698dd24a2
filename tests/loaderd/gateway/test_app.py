"""What becomes of a request at a door when something goes wrong beside the prediction itself."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from loaderd import wire
from loaderd.errors import ModelNotLoaded
from loaderd.gateway.access import Access
from loaderd.gateway.app import Front, Gateway
from loaderd.gateway.http.exchange import Exchange
from loaderd.gateway.http.listener import Listener, tcp_listener
from loaderd.gateway.links import Links
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.oip import OpenInference
from loaderd.gateway.routes import Routes
from loaderd.gateway.supervisor import Supervisor

SECONDS = 20.0
ANSWER = b'{"outputs":[]}'


@dataclass
class House:
    """The public door in front of a model whose process the test plays: `asked` holds what came to it."""

    folder: Path
    timeout_seconds: float = SECONDS
    told: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[wire.Connection, wire.Message]] = field(default_factory=list)
    kinds: list[wire.Kind] = field(default_factory=list)
    lost: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def open(self) -> None:
        links, self.access = Links(), Access()
        supervisor = Supervisor(self.access, links)
        supervisor.send = self.told.append  # type: ignore[method-assign]
        self.gateway = Gateway(self.access, links, supervisor, self.timeout_seconds)
        path = str(self.folder / "model.sock")
        self.model = await asyncio.get_running_loop().create_unix_server(
            lambda: wire.Connection(self._came, self._gone), sock=wire.private_listener(path)
        )
        self.allow()
        row = {"lineage": "m", "version": "1", "state": "loaded", "sockets": [path], "load": ""}
        supervisor._follow({"models": {"m": row}, "settings": {"slow_request_seconds": 1e-6}})
        self.front = Front(self.gateway, {"v2": OpenInference(self.gateway.predictor)}, private=False)
        sock = tcp_listener("127.0.0.1", 0)
        self.listener = Listener(self._begin, sock)
        await self.listener.start()
        self.port: int = sock.getsockname()[1]

    async def close(self) -> None:
        for writer in self.writers:
            writer.close()
        await self.listener.stop()
        self.gateway.links.follow(Routes())
        self.model.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    def allow(self, expires_at: float | None = None) -> None:
        row = {"user": "ada", "permissions": ["predict"], "expires_at": expires_at}
        self.access.replace({hashlib.sha512(b"t").hexdigest(): row})

    def _begin(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.front.begin(exchange)

    def _came(self, connection: wire.Connection, message: wire.Message) -> None:
        self.kinds.append(wire.Kind(message.kind))
        if message.kind == wire.Kind.INFER:
            self.asked.append((connection, message))

    def _gone(self, connection: wire.Connection) -> None:
        self.lost += 1

    def answer(self, kind: wire.Kind = wire.Kind.ANSWER, body: bytes = ANSWER) -> None:
        """Answers what came first."""
        connection, message = self.asked.pop(0)
        connection.send(message.request_id, kind, b"", body)

    @property
    def in_flight(self) -> int:
        return self.gateway.doors["public"].in_flight

    async def send(self, *headers: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect()
        lines = (b"POST /v2/models/m/infer HTTP/1.1", b"authorization: Token t", b"content-length: 2", *headers)
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n{}")
        return reader, writer

    async def warm(self) -> None:
        """Makes the connection to the model, so that the next request takes the short way."""
        reader, _ = await self.send()
        await until(lambda: self.asked)
        self.answer()
        assert await status(reader) == 200


async def status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split()[1])


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


Test = Callable[[House], Coroutine[Any, Any, None]]


def in_house(folder: Path, test: Test, **settings: Any) -> None:
    async def run() -> None:
        house = House(folder, **settings)
        async with asyncio.timeout(SECONDS):
            await house.open()
            try:
                await test(house)
            finally:
                await house.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_a_client_that_sends_nonsense_behind_its_request_harms_no_other(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        await house.warm()
        reader, writer = await house.send()
        await until(lambda: len(house.asked) == 1)
        other, _ = await house.send()
        await until(lambda: len(house.asked) == 2)
        writer.write(b"\x00\r\n\r\n")
        await until(lambda: [each for each in house.listener._connections if each._is_leaving])
        house.answer()
        house.answer()
        assert (await status(reader), await status(other)) == (200, 200)
        assert await reader.read() == b""
        assert (house.lost, house.in_flight) == (0, 0)

    in_house(tmp_path, test)


class TestATokenThatEndsMeanwhile:
    def test_does_not_keep_the_answer_of_a_slow_prediction_back(self, tmp_path: Path) -> None:
        async def test(house: House) -> None:
            await house.warm()
            reader, _ = await house.send()
            await until(lambda: house.asked)
            house.allow(expires_at=time.time() - 1)
            house.answer()
            assert await status(reader) == 200
            assert (house.lost, house.in_flight) == (0, 0)

        in_house(tmp_path, test)

    def test_does_not_keep_those_that_are_too_late_waiting(self, tmp_path: Path) -> None:
        async def test(house: House) -> None:
            await house.warm()
            readers = [(await house.send())[0] for _ in range(3)]
            await until(lambda: len(house.asked) == 3)
            house.allow(expires_at=time.time() - 1)
            assert [await status(reader) for reader in readers] == [504] * 3
            assert house.in_flight == 0

        in_house(tmp_path, test, timeout_seconds=0.3)

    def test_does_not_keep_a_client_that_left_counted(self, tmp_path: Path) -> None:
        async def test(house: House) -> None:
            await house.warm()
            _, writer = await house.send()
            await until(lambda: house.asked)
            house.allow(expires_at=time.time() - 1)
            writer.close()
            await until(lambda: house.in_flight == 0)

        in_house(tmp_path, test)


def test_an_answer_that_cannot_be_passed_on_is_500_and_the_others_get_theirs(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        await house.warm()
        readers = [(await house.send())[0] for _ in range(2)]
        await until(lambda: len(house.asked) == 2)
        house.answer(wire.Kind.ERROR, b"no JSON")
        assert await status(readers[0]) == 500
        house.answer()
        assert await status(readers[1]) == 200
        assert (house.lost, house.in_flight) == (0, 0)

    in_house(tmp_path, test)


@pytest.mark.parametrize(("headers", "expected"), [(b"", 401), (b"authorization: Token t\r\n", 404)])
def test_a_target_that_is_no_url_is_answered(headers: bytes, expected: int, tmp_path: Path) -> None:
    async def test(house: House) -> None:
        reader, writer = await house.connect()
        writer.write(b"GET http://[/ HTTP/1.1\r\n" + headers + b"\r\n")
        assert await status(reader) == expected
        assert house.in_flight == 0

    in_house(tmp_path, test)


def test_what_fails_before_a_request_is_served_is_500(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(house: House) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("no course")

        monkeypatch.setattr(house.gateway.predictor.observer, "begin", fail)
        reader, _ = await house.send(b"x-modelhub-priority: bulk")
        assert await status(reader) == 500
        assert house.in_flight == 0

    in_house(tmp_path, test)


class TestAClientThatLeaves:
    def test_is_counted_once_when_its_request_was_about_to_go_round(self, tmp_path: Path) -> None:
        async def test(house: House) -> None:
            await house.warm()
            await house.send()
            await until(lambda: house.asked)
            exchange = house.exchanges[-1]
            take_long_way = house.front._quick._take_long_way

            def leave_meanwhile(refused: Exchange) -> None:
                take_long_way(refused)
                exchange._connection.connection_lost(None)  # before the long way's first step

            house.front._quick._take_long_way = leave_meanwhile
            house.answer(wire.Kind.ERROR, orjson.dumps(ModelNotLoaded("draining").to_message()))
            await until(lambda: exchange.is_answered)
            assert house.in_flight == 0
            assert house.asked == []

        in_house(tmp_path, test)

    def test_is_computed_for_no_more_when_it_left_while_its_model_was_looked_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def test(house: House) -> None:
            went, find = asyncio.Event(), Lookup.find

            async def find_later(self: Lookup, *arguments: Any) -> Any:
                await went.wait()
                return await find(self, *arguments)

            monkeypatch.setattr(Lookup, "find", find_later)
            _, writer = await house.send(b"x-modelhub-priority: bulk")
            await until(lambda: house.exchanges)
            writer.close()
            await until(lambda: house.exchanges[0].is_gone)
            went.set()
            await until(lambda: house.in_flight == 0)
            assert house.kinds == []

        in_house(tmp_path, test)
