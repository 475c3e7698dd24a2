"""The door gives every request an answer, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import orjson

from loaderd import wire
from loaderd.errors import LoaderdError, PredictionFailed
from loaderd.generation.contract import Decoder, Event, Generation, Vocabulary, Writing
from loaderd.generation.engine import Engine
from loaderd.worker.batching import Job
from loaderd.worker.compute import ComputeThread
from loaderd.worker.door import Door
from tests.deadline import wait_until
from tests.loaderd.worker.framework import Double
from tests.loaderd.worker.process import ANSWER_SECONDS, spec


class Recording:
    """A connection that keeps what is sent; `refused`: requests whose answers cannot be sent."""

    def __init__(self, refused: frozenset[int] = frozenset()) -> None:
        self.sent: list[tuple[int, wire.Kind, Any]] = []
        self.heads: dict[int, bytes] = {}
        self._refused = refused

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def send(self, request_id: int, kind: wire.Kind, head: bytes, *chunks: bytes) -> None:
        self.heads[request_id] = head
        if request_id in self._refused and kind == wire.Kind.ANSWER:
            raise ValueError("it cannot be framed")
        self.sent.append((request_id, kind, orjson.loads(b"".join(bytes(chunk) for chunk in chunks))))


class Writer:
    """Starts texts, which the test writes."""

    begun = waiting = 0
    has_work = False

    def __init__(self) -> None:
        self.started: list[Writing] = []

    def bound(self, max_active: int, max_waiting: int) -> None:
        del max_active, max_waiting

    def start(self, request: dict[str, Any]) -> Writing:
        del request
        self.started.append(Writing(1))
        return self.started[-1]

    def cancel(self, writing: Writing) -> None:
        writing.cancelled = True


def opened(model: Double, connection: Recording) -> Door:
    """A door whose jobs the test computes."""
    compute = ComputeThread(spec(), lambda: model, lambda *_: None, lambda *_: None, lambda _: None)
    door = Door(spec(), model, compute)
    door._jobs[cast("wire.Connection", connection)] = {}
    return door


def ask(
    door: Door, connection: Recording, request_id: int, kind: wire.Kind, body: dict[str, Any], head: bytes = b""
) -> None:
    door._on_message(cast("wire.Connection", connection), wire.Message(request_id, kind, head, orjson.dumps(body)))


def answer(
    door: Door, connection: Recording, request_id: int, head: bytes = b"", error: LoaderdError | None = None
) -> Any:
    """The head of the answer to a plain prediction, as JSON has it."""
    ask(door, connection, request_id, wire.Kind.PREDICT, {"inputs": [[1.0]]}, head)
    job = door._accepted.pop()
    job.error = error
    job.outputs = None if error else {"y": np.ones((1, 1), dtype=np.float32)}
    door.finish([job], 1, 0.1, 1)
    return orjson.loads(connection.heads[request_id] or b"null")


def test_bulk_work_is_told_of_those_who_are_answered_and_wait_for_it() -> None:
    async def scene() -> None:
        writer, connection, model = Writer(), Recording(), Double()
        model.generation = cast("Generation", writer)
        door = opened(model, connection)
        bulk = b'{"bulk":true}'
        assert answer(door, connection, 1, bulk) == {"header_bytes": None}
        assert answer(door, connection, 2, bulk) == {"header_bytes": None}, "bulk work is nobody else's business"
        answer(door, connection, 3, error=PredictionFailed("it took 30 s to fail."))
        assert answer(door, connection, 4, bulk) == {"header_bytes": None}, (
            "that says nothing of how others are answered"
        )
        assert answer(door, connection, 5) is None
        assert 0.0 < answer(door, connection, 6, bulk)["others_seconds"] < 1.0

        door = opened(model, connection)
        ask(door, connection, 7, wire.Kind.GENERATE, {})
        door.take_events([Event(writer.started[0], piece={"text": "one"})], 2, 0.5)
        assert answer(door, connection, 8, bulk)["others_seconds"] == 0.25, "who reads a text waits for each step"

    asyncio.run(scene())


def test_an_answer_that_cannot_be_sent_keeps_none_of_the_others_back() -> None:
    async def scene() -> None:
        connection = Recording(refused=frozenset({2}))
        door = opened(Double(), connection)
        for request_id in (1, 2, 3):
            ask(door, connection, request_id, wire.Kind.PREDICT, {"inputs": [[1.0]]})
        jobs = door._accepted
        for job in jobs:
            job.outputs = {"y": np.ones((1, 1), dtype=np.float32)}
        door.finish(jobs, 1, 0.1, 3)
        assert [(request_id, kind) for request_id, kind, _ in connection.sent] == [
            (1, wire.Kind.ANSWER),
            (2, wire.Kind.ERROR),
            (3, wire.Kind.ANSWER),
        ]
        assert "it cannot be framed" in connection.sent[1][2]["message"]
        assert door.counters()["in_flight"] == 0

    asyncio.run(scene())


def test_a_short_call_is_answered_before_the_next_read() -> None:
    class Short(Double):
        any_thread = True

    async def scene() -> None:
        loop, connection, model, answered = asyncio.get_running_loop(), Recording(), Short(), asyncio.Event()
        loaded = asyncio.Event()

        def finish(jobs: list[Job], calls: int, seconds: float, items: int) -> None:
            door.finish(jobs, calls, seconds, items)
            answered.set()

        compute = ComputeThread(
            spec(),
            lambda: model,
            lambda *_: loop.call_soon_threadsafe(loaded.set),
            lambda *done: loop.call_soon_threadsafe(finish, *done),
            lambda _: None,
        )
        compute.start()
        async with asyncio.timeout(ANSWER_SECONDS):
            await loaded.wait()
            door = Door(spec(), model, compute)
            door._jobs[cast("wire.Connection", connection)] = {}
            ask(door, connection, 1, wire.Kind.PREDICT, {"inputs": [[1.0]]})
            door._queue_accepted()
            assert connection.sent == [], "how long a call takes is not known before the first one"
            await answered.wait()
        wait_until(lambda: compute.is_parked, what="it waits for more")
        for request_id in (2, 3):
            ask(door, connection, request_id, wire.Kind.PREDICT, {"inputs": [[1.0]]})
        door._queue_accepted()
        assert [(request_id, kind) for request_id, kind, _ in connection.sent] == [
            (number, wire.Kind.ANSWER) for number in (1, 2, 3)
        ]
        counted = door.counters()
        assert (counted["requests"], counted["batches"], counted["in_flight"]) == (3, 2, 0)
        compute.end(lambda: None)

    asyncio.run(scene())


def test_a_piece_that_cannot_be_written_ends_its_text_only() -> None:
    async def scene() -> None:
        writer, connection, model = Writer(), Recording(), Double()
        model.generation = cast("Generation", writer)
        door = opened(model, connection)
        for request_id in (1, 2):
            ask(door, connection, request_id, wire.Kind.GENERATE, {})
        bad, good = writer.started
        door.take_events([Event(bad, piece={"text": "half \udcff"}), Event(good, piece={"text": "whole"})], 1, 0.1)
        door.take_events([Event(bad, final={}), Event(good, final={"text": "whole"})], 1, 0.1)
        assert [(request_id, kind) for request_id, kind, _ in connection.sent] == [
            (1, wire.Kind.ERROR),
            (2, wire.Kind.PART),
            (2, wire.Kind.ANSWER),
        ]
        assert bad.cancelled
        assert not good.cancelled
        assert door.counters()["in_flight"] == 0

    asyncio.run(scene())


class Words:
    """A vocabulary of words that remembers what it read."""

    size, ends, max_tokens, max_characters = 100, frozenset({0}), 4, 1000

    def __init__(self) -> None:
        self.read: list[str] = []

    def tokens_of(self, text: str) -> list[int]:
        self.read.append(text)
        return [len(word) for word in text.split()]

    def text_of(self, tokens: list[int]) -> str:
        return "x" * len(tokens)


class NoNetwork:
    """Writes nothing: its rows are let go of."""

    chunk_tokens, max_rows, max_cells = 64, 8, 512

    def keep(self, rows: list[int]) -> None:
        assert rows == []


def test_a_prompt_becomes_tokens_in_a_step_and_one_that_is_refused_there_is_an_answer() -> None:
    async def scene() -> None:
        words, connection, model = Words(), Recording(), Double()
        engine = Engine("toy-v1", cast("Decoder", NoNetwork()), cast("Vocabulary", words))
        model.generation = engine
        door = opened(model, connection)
        ask(door, connection, 1, wire.Kind.GENERATE, {"prompts": ["one two three four"]})
        ask(door, connection, 2, wire.Kind.GENERATE, {"prompts": ["nobody waits"]})
        ask(door, connection, 3, wire.Kind.GENERATE, {"prompts": ["five " * 300]})
        assert words.read == []
        assert [(request_id, kind) for request_id, kind, _ in connection.sent] == [(3, wire.Kind.ERROR)]
        assert "reads at most 1000 characters" in connection.sent[0][2]["message"]
        assert (door.counters()["in_flight"], door.counters()["queued"], engine.waiting) == (2, 2, 2)
        cancel = wire.Message(2, wire.Kind.CANCEL, b"", b"")
        door._on_message(cast("wire.Connection", connection), cancel)
        door.take_events(engine.step(), 1, 0.1)
        assert words.read == ["one two three four"]
        request_id, kind, told = connection.sent[-1]
        assert (request_id, kind, told["code"]) == (1, wire.Kind.ERROR, "invalid_input")
        assert told["facts"]["reason"] == "context_length_exceeded"
        counters = door.counters()
        assert [counters[name] for name in ("in_flight", "queued", "requests", "errors")] == [0, 0, 0, 0]
        assert not engine.has_work

    asyncio.run(scene())
