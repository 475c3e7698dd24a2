"""Messages arrive whole and apart, however the bytes are cut; large ones leave room for small ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaderd import wire


class Recorder(asyncio.Transport):
    """A transport that keeps what is written and pauses its writer when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def writelines(self, buffers: object) -> None:
        for buffer in buffers:  # type: ignore[attr-defined]
            self.written += buffer

    def write(self, data: object) -> None:
        self.written += data  # type: ignore[operator]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def sent_by(scenario: Callable[[wire.Connection], None]) -> bytes:
    """The bytes that a connection writes."""

    async def run() -> bytes:
        sender, transport, _ = connected()
        scenario(sender)
        await asyncio.sleep(0)
        return bytes(transport.written)

    return asyncio.run(run())


def connected() -> tuple[wire.Connection, Recorder, list[wire.Message]]:
    messages: list[wire.Message] = []
    connection = wire.Connection(lambda _, message: messages.append(message), lambda _: None)
    transport = Recorder()
    connection.connection_made(transport)
    return connection, transport, messages


bodies = st.lists(st.lists(st.binary(max_size=200), max_size=3), min_size=1, max_size=6)


@settings(deadline=None)  # other processes share the machine
@given(bodies, st.lists(st.integers(1, 100), min_size=1, max_size=20))
def test_messages_arrive_as_they_were_sent(sent: list[list[bytes]], cuts: list[int]) -> None:
    def scenario(sender: wire.Connection) -> None:
        for number, chunks in enumerate(sent):
            sender.send(number, wire.Kind.INFER, b"head %d" % number, *chunks)

    with mock.patch.object(wire, "FRAGMENT_BYTES", 64):
        stream = sent_by(scenario)
    receiver, _, messages = connected()
    at, turn = 0, 0
    while at < len(stream):
        receiver.data_received(stream[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    received = {message.request_id: (message.head, bytes(message.body)) for message in messages}
    assert received == {number: (b"head %d" % number, b"".join(chunks)) for number, chunks in enumerate(sent)}


def test_a_small_message_passes_a_large_one() -> None:
    def scenario(sender: wire.Connection) -> None:
        sender.pause_writing()
        sender.send(1, wire.Kind.INFER, b"", bytes(5 * wire.FRAGMENT_BYTES))
        sender.send(2, wire.Kind.INFER, b"", b"small")
        sender.send(3, wire.Kind.INFER, b"", bytes(2 * wire.FRAGMENT_BYTES))
        sender.resume_writing()

    receiver, _, messages = connected()
    receiver.data_received(sent_by(scenario))
    assert [message.request_id for message in messages] == [2, 3, 1]


def test_a_cancelled_message_is_sent_no_further_and_forgotten_by_the_receiver() -> None:
    def scenario(sender: wire.Connection) -> None:
        sender.send(1, wire.Kind.INFER, b"", *[bytes(wire.FRAGMENT_BYTES)] * 2)
        sender.pause_writing()
        sender.send(2, wire.Kind.INFER, b"", bytes(5 * wire.FRAGMENT_BYTES))
        sender.send(3, wire.Kind.INFER, b"", bytes(5 * wire.FRAGMENT_BYTES))
        sender.cancel(2, b"gone")
        sender.resume_writing()

    receiver, _, messages = connected()
    receiver.data_received(sent_by(scenario))
    assert sorted((m.request_id, m.kind, len(m.body)) for m in messages) == [
        (1, wire.Kind.INFER, 2 * wire.FRAGMENT_BYTES),
        (2, wire.Kind.CANCEL, 0),
        (3, wire.Kind.INFER, 5 * wire.FRAGMENT_BYTES),
    ]


def test_the_receiver_forgets_the_beginning_of_a_cancelled_message() -> None:
    begun = sent_by(lambda sender: sender.send(1, wire.Kind.INFER, b"", bytes(2 * wire.FRAGMENT_BYTES)))
    cancelled = sent_by(lambda sender: sender.cancel(1, b"gone"))
    again = sent_by(lambda sender: sender.send(1, wire.Kind.INFER, b"", b"another"))
    receiver, _, messages = connected()
    receiver.data_received(begun[: len(begun) // 2] + cancelled + again)
    assert [(m.kind, m.head, bytes(m.body)) for m in messages] == [
        (wire.Kind.CANCEL, b"gone", b""),
        (wire.Kind.INFER, b"", b"another"),
    ]


def test_a_peer_that_sends_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BODY_BYTES", 2 * wire.FRAGMENT_BYTES)
    receiver, transport, messages = connected()
    receiver.data_received(sent_by(lambda sender: sender.send(1, wire.Kind.INFER, b"", bytes(3 * wire.FRAGMENT_BYTES))))
    assert transport.closed
    assert not messages


def test_flush_returns_when_a_slow_reader_has_taken_everything(tmp_path: Path) -> None:
    body = bytes(8 * 1024 * 1024)

    async def scenario() -> int:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(
            lambda: wire.Connection(lambda *_: None, lambda _: None), sock=ours
        )
        connection.send(1, wire.Kind.ANSWER, b"", body)
        flushing = asyncio.create_task(connection.flush())
        await asyncio.sleep(0)
        assert not flushing.done()
        theirs.setblocking(False)
        read = 0
        while not flushing.done():
            read += len(await loop.sock_recv(theirs, 1 << 20))
        connection.close()
        while data := await loop.sock_recv(theirs, 1 << 20):  # what the kernel holds
            read += len(data)
        theirs.close()
        return read

    import uvloop

    for runner in (asyncio.Runner(), asyncio.Runner(loop_factory=uvloop.new_event_loop)):
        with runner:
            frames = len(body) // wire.FRAGMENT_BYTES
            assert runner.run(scenario()) == len(body) + 12 * frames


def test_a_private_listener_replaces_a_dead_socket_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    for _ in range(2):
        with wire.private_listener(str(path)):
            assert path.stat().st_mode & 0o777 == 0o600


def test_the_peer_may_begin_before_a_turn_of_many_messages_ends() -> None:
    async def run() -> None:
        sender, transport, _ = connected()
        for number in range(wire.FLUSH_MESSAGES + 1):
            sender.send(number, wire.Kind.INFER, b"", b"body")
        receiver, _, messages = connected()
        receiver.data_received(bytes(transport.written))
        assert [message.request_id for message in messages] == list(range(wire.FLUSH_MESSAGES))
        await asyncio.sleep(0)
        receiver.data_received(
            bytes(transport.written)[len(transport.written) // (wire.FLUSH_MESSAGES + 1) * wire.FLUSH_MESSAGES :]
        )
        assert messages[-1].request_id == wire.FLUSH_MESSAGES

    asyncio.run(run())


def test_what_is_held_is_written_on_release_and_what_follows_at_the_turns_end() -> None:
    async def run() -> None:
        sender, transport, _ = connected()
        sender.hold()
        sender.send(1, wire.Kind.ANSWER, b"", b"held")
        assert not transport.written
        sender.release()
        assert transport.written.endswith(b"held")
        sender.send(2, wire.Kind.ANSWER, b"", b"later")
        assert transport.written.endswith(b"held")
        await asyncio.sleep(0)
        assert transport.written.endswith(b"later")

    asyncio.run(run())
