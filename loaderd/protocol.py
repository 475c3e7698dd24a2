"""Words that loaderd's processes and its clients share: framing, commands, specs. Standard library only.

A message is a JSON object behind its length (4 bytes, big-endian). The same framing serves the control
socket (client -> supervisor), the zygote's socket, and the channel between supervisor and model process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

_LENGTH = struct.Struct("!I")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a manifest of 200,000 files fits

EXIT_LOAD_FAILED = 3
EXIT_DEVICE_LOST = 4
"""Exit statuses of a model process: its load failed, why went over its channel; its GPU is lost to it."""


class ProtocolError(Exception):
    """The peer sent something that is not a message."""


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of a registered artifact. path is relative to the model's directory, with forward slashes."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    sha256: str


def measured_as(instances: int, precision: str) -> str:
    """What a model's memory depends on beside its bytes and the device, in words: "2 processes, bf16"."""
    return f"{instances} process{'' if instances == 1 else 'es'}" + (f", {precision}" if precision else "")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything that loaderd needs to load one model version.

    directory: absolute, already resolved under the store's root. approved: a person approved exactly
    these bytes, so formats that can run code may be loaded. timeout_seconds: limit of the whole load.
    instances: processes that answer for it. max_batch_size, max_queue: of each of them. precision: what it computes in,
    "bf16" or "int8"; "": as stored.
    config, metadata: the parsed config.json and metadata.json ({} when absent).

    canary: {"inputs", "outputs", "tolerance", ...} that these bytes must answer (see worker/canary.py), None when
    none is recorded yet. memory_limit_bytes: what the process may allocate for itself; None: no limit.
    peak_bytes, resident_bytes, gpu_bytes: measured when these bytes were last loaded on this device, in as many
    processes and in the same precision: the highest of the first process during the load, the highest of all while
    serving, and on the GPU; None: never measured, so they are estimated.
    """

    model_id: str
    lineage: str
    version: str
    framework: str
    format: str
    directory: str
    digest: str
    files: tuple[ArtifactFile, ...] = ()
    approved: bool = False
    timeout_seconds: float = 30.0
    threads: int = 1
    max_batch_size: int = 64
    max_queue: int = 1024
    instances: int = 1
    precision: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    canary: dict[str, Any] | None = None
    memory_limit_bytes: int | None = None
    peak_bytes: int | None = None
    resident_bytes: int | None = None
    gpu_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def measured_as(self) -> str:
        """What its memory depends on beside its bytes and the device."""
        return measured_as(self.instances, self.precision)

    def to_message(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> ModelSpec:
        known = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in message.items() if key in known}
        values["files"] = tuple(ArtifactFile(**entry) for entry in values.get("files", ()))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Lost:
    """Predictions since the gateway's last report that ended in an error of the connection to their model's process:
    increments. It counted none of them. at: unix time of the report; error: of the newest, in words.

    latency_seconds, histogram (loaderd.histogram): from their arrival at the gateway to the error.
    """

    model_id: str
    at: float
    requests: int
    latency_seconds: float
    histogram: list[int]
    error: str


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """What the gateway's cache did for a model since its last report: increments. entries, bytes: what is kept now.

    hits: requests that got a kept answer. shared: that got the answer of another one's computation. misses: that were
    computed and could have been kept. at: unix time of the report.
    """

    model_id: str
    at: float
    hits: int
    shared: int
    misses: int
    entries: int
    bytes: int


def encode(message: dict[str, Any]) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes passes the limit of {MAX_MESSAGE_BYTES}")
    return _LENGTH.pack(len(body)) + body


def _decode(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ProtocolError(f"the peer sent no JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"the peer sent a {type(message).__name__} where a JSON object belongs")
    return message


def _checked_length(prefix: bytes) -> int:
    (length,) = _LENGTH.unpack(prefix)
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"the peer announced {length} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return int(length)


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    sock.sendall(encode(message))


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """The next message of a blocking socket, or None when the peer closed. Raises ProtocolError."""
    prefix = _receive_exactly(sock, _LENGTH.size)
    if prefix is None:
        return None
    body = _receive_exactly(sock, _checked_length(prefix))
    if body is None:
        raise ProtocolError("the peer closed in the middle of a message")
    return _decode(body)


def _receive_exactly(sock: socket.socket, count: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < count:
        chunk = sock.recv(min(count - len(chunks), 1 << 20))
        if not chunk:
            if chunks:
                raise ProtocolError("the peer closed in the middle of a message")
            return None
        chunks += chunk
    return bytes(chunks)


async def receive_async(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message of a stream, or None when the peer closed. Raises ProtocolError."""
    try:
        prefix = await reader.readexactly(_LENGTH.size)
        body = await reader.readexactly(_checked_length(prefix))
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise ProtocolError("the peer closed in the middle of a message") from end
        return None
    except ConnectionError:
        return None
    return _decode(body)
