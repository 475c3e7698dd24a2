"""Answers compressed for clients that ask for it with Accept-Encoding: gzip, or deflate (zlib's format, RFC 9110).

Only large ones: most Python clients ask for it on every request, and what the first flight of a TCP connection carries
arrives no sooner when it is smaller. Level 1 leaves 44 % of probabilities as JSON; level 6 leaves 40 %, and takes 12
times as long.
"""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache

SMALL_BYTES = 14 * 1024  # up to here an answer goes as it is: ten segments, RFC 6928's initial window
INLINE_BYTES = 64 * 1024  # up to here compressing takes half a millisecond, less than a thread's turn may
_LEVEL = 1
_SAMPLE_BYTES = 4 * 1024
_WORTH = 0.85  # of its size, at most, to be worth the time of both ends
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


@lru_cache(maxsize=64)
def encoding_for(accept_encoding: bytes | None) -> str | None:
    """Returns "gzip", "deflate", or None for an answer as it is; of what the client takes what it likes best."""
    if not accept_encoding:
        return None
    liked = dict(_qualities(accept_encoding))
    others = liked.get("*", 0.0)
    best = max(_WINDOW_BITS, key=lambda encoding: liked.get(encoding, others))  # of equals the first: gzip
    quality = liked.get(best, others)
    return best if quality > 0.0 and quality >= liked.get("identity", 0.0) else None


def _qualities(accept_encoding: bytes) -> list[tuple[str, float]]:
    """(coding, its weight) of each that is named; what cannot be read counts as not wanted."""
    named = []
    for member in accept_encoding.decode("latin-1").lower().split(","):
        coding, *parameters = (part.strip() for part in member.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        named.append(("gzip" if coding == "x-gzip" else coding, quality))
    return named


def compress(body: bytes | bytearray | memoryview, encoding: str) -> bytes:
    """The body in one of the encodings that `encoding_for` gives."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[encoding])
    return stream.compress(body) + stream.flush()


async def compressed(body: bytes | bytearray | memoryview, encoding: str) -> bytes | None:
    """`compress`, for large bodies on another thread: zlib lets the event loop's go on meanwhile. None: a sample says
    that there is little to gain, as with an embedding's numbers in binary, which take five times as long and keep 93 %.
    """
    middle = len(body) // 2
    sample = memoryview(body)[middle : middle + _SAMPLE_BYTES]
    if len(compress(sample, encoding)) > _WORTH * len(sample):
        return None
    if len(body) <= INLINE_BYTES:
        return compress(body, encoding)
    return await asyncio.get_running_loop().run_in_executor(None, compress, body, encoding)
