"""What a client takes is what it gets, and it reads it back."""

from __future__ import annotations

import asyncio
import gzip
import threading
import zlib

import numpy as np
import orjson
import pytest

from loaderd.gateway import compressing
from loaderd.gateway.compressing import INLINE_BYTES, compress, compressed, encoding_for


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None),
        (b"", None),
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"GZIP", "gzip"),
        (b"x-gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "gzip"),
        (b"deflate, gzip", "gzip"),
        (b"gzip;q=0.5, deflate", "deflate"),
        (b"gzip; q=0.5 , deflate ; q=0.8", "deflate"),
        (b"gzip;q=0", None),
        (b"gzip;q=0, deflate;q=0.001", "deflate"),
        (b"*", "gzip"),
        (b"gzip;q=0, *", "deflate"),
        (b"*;q=0", None),
        (b"*;q=0, deflate", "deflate"),
        (b"br", None),
        (b"identity", None),
        (b"identity, gzip", "gzip"),
        (b"identity;q=1, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip;q=0.5", "gzip"),
        (b"identity;q=0, gzip;q=0", None),
        (b"gzip;q=nonsense", None),
        (b"gzip;q=", None),
        (b";;,,=", None),
    ],
)
def test_the_client_chooses(accepted: bytes | None, encoding: str | None) -> None:
    assert encoding_for(accepted) == encoding


def test_both_encodings_are_read_back() -> None:
    body = b'{"outputs": [0.125, 0.25]}' * 1000
    assert gzip.decompress(compress(body, "gzip")) == body
    assert zlib.decompress(compress(bytearray(body), "deflate")) == body
    assert len(compress(memoryview(body), "gzip")) < len(body) / 20


def test_large_bodies_leave_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noted(body: bytes, encoding: str) -> bytes:
        threads.append(threading.current_thread())
        return compress(body, encoding)

    monkeypatch.setattr(compressing, "compress", noted)
    small, large = b"s" * INLINE_BYTES, b"l" * (INLINE_BYTES + 1)
    for body in (small, large):
        smaller = asyncio.run(compressed(body, "gzip"))
        assert smaller is not None
        assert gzip.decompress(smaller) == body
    here = [thread is threading.main_thread() for thread in threads]
    assert here == [True, True, True, False]  # a sample of each comes first


def test_what_hardly_shrinks_goes_as_it_is() -> None:
    numbers = np.random.default_rng(0).normal(size=100_000).astype("f4").tobytes()
    assert asyncio.run(compressed(numbers, "gzip")) is None
    text = orjson.dumps(np.frombuffer(numbers, dtype="f4"), option=orjson.OPT_SERIALIZE_NUMPY)
    smaller = asyncio.run(compressed(text, "deflate"))
    assert smaller is not None
    assert len(smaller) < len(text) * 0.6
