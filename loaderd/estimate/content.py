"""What an artifact's files say about their content, without running or building anything of it.

Every look is bounded: a directory or header larger than any real one is not read, and a stream is counted up to a
limit and then extrapolated. None: the file does not say, or is not what its name promises.
"""

from __future__ import annotations

import bz2
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MIB = 2**20
MAX_DIRECTORY_BYTES = 16 * MIB
MAX_HEADER_BYTES = 16 * MIB
MAX_STRUCTURE_BYTES = 8 * MIB
SCANNED_BYTES = 256 * MIB  # of a pickle on disk: some 0.2 s
INFLATED_BYTES = 32 * MIB  # of a compressed one: 0.1 s for zlib, 1 to 2 s for xz and bzip2
MAX_LZMA_BYTES = 128 * MIB  # its strongest preset asks for 65; a file may ask for 4 GiB
CHUNK_BYTES = MIB
PACKED_CHUNK_BYTES = 4096  # small, because a decompressor does not tell how much of its input it has used
EXTRAPOLATION_MARGIN = 1.5
FLOAT32_BYTES = 4

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile, struct.error)


def zip_sizes(path: Path) -> dict[str, int] | None:
    """Uncompressed size by name, from the archive's central directory; who unpacks it reads no more than that."""
    try:
        if not _has_small_directory(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return {entry.filename: entry.file_size for entry in archive.infolist()}
    except _UNREADABLE:
        return None


def _has_small_directory(path: Path) -> bool:
    """By the end-of-directory record (PKWARE's APPNOTE, 4.3.14 to 4.3.16)."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))  # the record and the longest comment
        end = file.read()
        at = end.rfind(b"PK\5\6")
        if at < 0:
            return False
        directory_bytes: int = struct.unpack_from("<I", end, at + 12)[0]
        locator = at - 20
        if locator >= 0 and end[locator : locator + 4] == b"PK\6\7":  # a large archive: its record lies elsewhere
            file.seek(struct.unpack_from("<Q", end, locator + 8)[0])
            directory_bytes = struct.unpack_from("<Q", file.read(56), 40)[0]
    return directory_bytes <= MAX_DIRECTORY_BYTES


def safetensors_as_float32(path: Path) -> int | None:
    """Bytes of all tensors when each number narrower than a float32 is widened to one, from the file's header."""
    try:
        with path.open("rb") as file:
            length: int = struct.unpack("<Q", file.read(8))[0]
            if length > MAX_HEADER_BYTES:
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        return sum(
            max(prod(entry["shape"]) * FLOAT32_BYTES, entry["data_offsets"][1] - entry["data_offsets"][0])
            for entry in tensors
        )
    except _UNREADABLE:
        return None


def torch_is_narrow(path: Path) -> bool | None:
    """Whether a torch file holds numbers narrower than a float32, by the storage types that its structure names."""
    try:
        sizes = zip_sizes(path)
        structure = next((name for name in sizes or () if name.rsplit("/", 1)[-1] == "data.pkl"), None)
        if sizes is None or structure is None or sizes[structure] > MAX_STRUCTURE_BYTES:
            return None
        with zipfile.ZipFile(path) as archive:
            named = archive.read(structure)
    except (*_UNREADABLE, zlib.error):
        return None
    return any(word in named for word in (b"HalfStorage", b"BFloat16Storage", b"float16", b"float8", b"Float8"))


@dataclass(frozen=True, slots=True)
class Pickled:
    """size_bytes: uncompressed. objects: at most so many Python objects beside the plain numbers."""

    size_bytes: int
    objects: int


def pickled(path: Path) -> Pickled | None:
    """The size and an upper bound of the number of objects of a pickle, also of one that joblib compressed.

    A pickle memoizes each object that it makes, and each memo is one opcode, MEMOIZE (or BINPUT before protocol 4).
    Counting that byte wherever it occurs counts all of them, and some bytes of numbers and texts with them; it
    runs at the speed of the disk. None for protocols 0 and 1 and for a compression that is not known.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(8)
        inflate = _inflater(magic)
        chunks = _plain(path) if magic[:1] == b"\x80" else _inflated(path, inflate) if inflate else None
        return None if chunks is None else _counted(chunks)
    except (*_UNREADABLE, zlib.error, lzma.LZMAError, EOFError):
        return None


Chunks = Iterator[tuple[bytes, float]]
"""(some of the content, the share of the file that is used up when it ends here, at least)"""


def _counted(chunks: Chunks) -> Pickled | None:
    first, seen_bytes, objects, share = b"", 0, 0, 0.0
    for chunk, share_so_far in chunks:
        first = first or chunk[:2]
        if first[:1] != b"\x80" or (len(first) > 1 and first[1] < 2):
            return None
        memos = (b"\x94",) if len(first) > 1 and first[1] >= 4 else (b"q", b"r")
        objects += sum(chunk.count(memo) for memo in memos)
        seen_bytes += len(chunk)
        share = share_so_far
    if not seen_bytes:
        return None
    scale = 1.0 if share >= 1.0 else EXTRAPOLATION_MARGIN / share
    return Pickled(int(seen_bytes * scale), int(objects * scale))


def _plain(path: Path) -> Chunks:
    size, read_bytes = path.stat().st_size, 0
    with path.open("rb") as file:
        while read_bytes < SCANNED_BYTES and (chunk := file.read(CHUNK_BYTES)):
            read_bytes += len(chunk)
            yield chunk, read_bytes / size


class _Zlib:
    """zlib and gzip with the interface of bz2's and lzma's decompressors."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=47)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _inflater(magic: bytes) -> Callable[[], Any] | None:
    """The decompressor of the formats that joblib writes and the standard library reads; lz4 is not among them."""

    def limited_lzma() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=MAX_LZMA_BYTES)

    for start, make in (
        (b"x", _Zlib),
        (b"\x1f\x8b", _Zlib),
        (b"BZ", bz2.BZ2Decompressor),
        (b"\xfd7zXZ", limited_lzma),
        (b"]\x00", limited_lzma),
    ):
        if magic.startswith(start):
            return make
    return None


def _inflated(path: Path, make: Callable[[], Any]) -> Chunks:
    size, stream, read_bytes, made_bytes = path.stat().st_size, make(), 0, 0
    with path.open("rb") as file:
        while made_bytes < INFLATED_BYTES and not stream.eof:
            data = file.read(PACKED_CHUNK_BYTES) if stream.needs_input else b""
            if stream.needs_input and not data:
                return  # cut off: the load will say so
            read_bytes += len(data)
            chunk = stream.decompress(data, CHUNK_BYTES)
            made_bytes += len(chunk)
            if chunk:
                used_bytes = max(read_bytes - PACKED_CHUNK_BYTES, read_bytes // 8)
                yield chunk, 1.0 if stream.eof else used_bytes / size
