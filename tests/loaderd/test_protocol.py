import socket
import threading
from collections.abc import Iterator

import pytest

from loaderd import protocol
from loaderd.protocol import ArtifactFile, ModelSpec, ProtocolError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_message_arrives_whole_whatever_its_size(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    message = {"text": "é" * 3_000_000, "number": 1}
    writer = threading.Thread(target=protocol.send, args=(ours, message))
    writer.start()
    assert protocol.receive(theirs) == message
    writer.join()
    ours.close()
    assert protocol.receive(theirs) is None


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\x00\x00\x00\x02{}"[:5], "closed in the middle"),
        (b"\xff\xff\xff\xff", "announced"),
        (b"\x00\x00\x00\x03abc", "no JSON"),
        (b"\x00\x00\x00\x02[]", "a list"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(
    pair: tuple[socket.socket, socket.socket], raw: bytes, says: str
) -> None:
    ours, theirs = pair
    ours.sendall(raw)
    ours.close()
    with pytest.raises(ProtocolError, match=says):
        protocol.receive(theirs)


def test_a_spec_survives_the_journey_and_ignores_what_a_newer_peer_adds() -> None:
    spec = ModelSpec("m", "l", "1", "toy", "toy", "/x", "d", (ArtifactFile("a", 1, 2, 3, "s"),), config={"k": [1]})
    assert ModelSpec.from_message({**spec.to_message(), "from_the_future": 1}) == spec
