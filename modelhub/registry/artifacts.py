"""Artifacts on disk: safe paths, the manifest of files, their digest, and the spec that loaderd loads from.

Every folder and file is opened by descriptor, component by component and without following links, from
MODELS_DIR downwards: a link that is swapped in while discovery looks is refused by the kernel. Links are
refused wherever they lead. A model process checks its files in the same way before it loads them; the
framework then opens them by name.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaderd.errors import ArtifactRefused
from loaderd.protocol import ArtifactFile, ModelSpec, measured_as
from modelhub.conf import Config, config
from modelhub.policy.effective import effective
from modelhub.registry.models import ModelVersion

MAX_FILES = 20_000  # the manifest travels to loaderd in one message
MAX_PATH_CHARACTERS = 512
_CHUNK_BYTES = 1 << 20
# Two writes within one tick of the kernel's clock leave the same times; the longest tick is 10 ms.
_CLOCK_TICK_NS = 20_000_000
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A fifo that was swapped in must not block the open.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Refused(Exception):
    """Why a directory is not taken into the registry: one sentence that names file, key, and what to do."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a model's directory, as the walk saw it."""

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    def is_unchanged_since(self, known: ArtifactFile) -> bool:
        return (self.size_bytes, self.mtime_ns, self.ctime_ns) == (known.size_bytes, known.mtime_ns, known.ctime_ns)


class Stopped(Exception):
    """The hashing was told to stop."""


def is_printable(text: str) -> bool:
    """Whether a name has no control, invisible or undecodable characters."""
    return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def check_path(path: str) -> None:
    if not is_printable(path):
        raise Refused(f"The name {path!a} has control or invisible characters; rename it.")
    if len(path) > MAX_PATH_CHARACTERS:
        raise Refused(f"The path {path[:60]}… has {len(path)} characters; the limit is {MAX_PATH_CHARACTERS}.")


def directory_of(path: str) -> Path:
    """The absolute directory of a model's path below MODELS_DIR; raises Refused where it leads elsewhere."""
    root = config().MODELS_DIR
    parts = path.split("/")
    if len(parts) != 2 or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise Refused(f"The path {path!a} is not of the form <type>/<model_id>.")
    directory = root / path
    if directory.resolve() != directory:
        raise Refused(f"The path {path} goes through a symbolic link; a model lies in {root} itself.")
    return directory


@contextmanager
def open_beneath(root: Path, path: str, flags: int = _FILE_FLAGS) -> Iterator[int]:
    """A descriptor of root/path, opened without following any link below root. Raises OSError."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = path.split("/") if path else []
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            deeper = os.open(part, flags if last else _FOLDER_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_folder(root: Path, path: str) -> Iterator[int]:
    with open_beneath(root, path, _FOLDER_FLAGS) as descriptor:
        yield descriptor


def find_files(root: Path, model_path: str) -> list[FoundFile]:
    """Every file of a model's directory, sorted by path; raises Refused for what must not lie there."""
    found: list[FoundFile] = []
    folders, count = [""], 0
    while folders:
        folder = folders.pop()
        try:
            with open_folder(root, _join(model_path, folder)) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    path = _join(folder, entry.name)
                    check_path(path)
                    count += 1
                    if count > MAX_FILES:
                        raise Refused(f"It holds more than {MAX_FILES} files and folders; pack them.")
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    else:
                        found.append(_found(path, entry.stat(follow_symlinks=False)))
        except OSError as error:
            where = folder or "the directory"
            raise Refused(f"Cannot read {where}: {error.strerror}; check its owner and mode.") from error
    return sorted(found, key=lambda file: file.path)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _found(path: str, status: os.stat_result) -> FoundFile:
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path} is a {_kind(status.st_mode)}; only regular files may lie in a model's directory.")
    return FoundFile(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}
    return kinds.get(stat.S_IFMT(mode), "device")


def hash_file(
    root: Path,
    model_path: str,
    file: FoundFile,
    on_bytes: Callable[[int], None] = lambda count: None,
    stop: threading.Event | None = None,
) -> ArtifactFile:
    """The file with its SHA-256; stat and bytes are of the same open file.

    on_bytes gets the count of each chunk. Raises Refused when the file changes meanwhile or cannot be
    read, Stopped when `stop` is set.
    """
    try:
        with open_beneath(root, f"{model_path}/{file.path}") as descriptor:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Refused(f"{file.path} is a {_kind(before.st_mode)}; only regular files may lie there.")
            _let_the_clock_tick(before)
            digest, size_bytes = hashlib.sha256(), 0
            buffer = memoryview(bytearray(_CHUNK_BYTES))
            # A file that grows as fast as it is read must not hold us for ever.
            while size_bytes <= before.st_size and (count := os.readv(descriptor, [buffer])):
                if stop is not None and stop.is_set():
                    raise Stopped
                digest.update(buffer[:count])
                size_bytes += count
                on_bytes(count)
            after = os.fstat(descriptor)
    except OSError as error:
        raise Refused(f"Cannot read {file.path}: {error.strerror}; check its owner and mode.") from error
    seen = [(status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in (before, after)]
    if seen[0] != seen[1] or size_bytes != before.st_size:
        raise Refused(f"{file.path} changed while it was read; run discovery again when the copy is complete.")
    return ArtifactFile(file.path, *seen[0], digest.hexdigest())


def _let_the_clock_tick(status: os.stat_result) -> None:
    age_ns = time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns)
    if 0 <= age_ns < _CLOCK_TICK_NS:
        time.sleep((_CLOCK_TICK_NS - age_ns) / 1e9)


def digest_of(files: Iterable[ArtifactFile]) -> str:
    """SHA-256, hexadecimal, over one line a file: `<sha256> <size in bytes> <path>` and a newline, in UTF-8,
    sorted by path.

    Content and names alone count, not times or the order of listing. Sorting by code point is what
    `LC_ALL=C sort` does, so a shell can make the same digest (docs/registry.md).
    """
    lines = (f"{file.sha256} {file.size_bytes} {file.path}\n" for file in sorted(files, key=lambda file: file.path))
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def manifest_of(files: Iterable[ArtifactFile]) -> list[dict[str, Any]]:
    """The files as JSON, sorted by path."""
    return [
        {
            "path": file.path,
            "size_bytes": file.size_bytes,
            "mtime_ns": file.mtime_ns,
            "ctime_ns": file.ctime_ns,
            "sha256": file.sha256,
        }
        for file in sorted(files, key=lambda file: file.path)
    ]


def files_of(manifest: Sequence[dict[str, Any]]) -> tuple[ArtifactFile, ...]:
    return tuple(ArtifactFile(**entry) for entry in manifest)


def load_limit_seconds(version: ModelVersion, settings: Config | None = None) -> float:
    """How long a load of this version may take.

    settings: those in force, for callers that ask for many versions; without them they are read where needed.
    """
    return version.load_timeout_seconds or (settings or effective()).MODEL_TIMEOUT_SECONDS


def spec_of(version: ModelVersion, *, settings: Config | None = None, device: str | None = None) -> ModelSpec:
    """What loaderd needs to load this version, with the defaults of the settings filled in.

    settings: as in load_limit_seconds. device: where it will run, as `lifecycle.observed.device_of` names it; what
    was measured elsewhere is left out. None: not known, and what was measured last is taken.
    Reads the lineage (select_related it). Raises ArtifactRefused when the path leads out of MODELS_DIR.
    """
    try:
        directory = directory_of(version.path)
    except Refused as refusal:
        raise ArtifactRefused(f"{version.model_id} may not be loaded. {refusal}", model_id=version.model_id) from None
    is_measured = (
        version.measured_digest == version.digest
        and version.measured_as == measured_as(version.instances, version.precision)
        and device in (None, version.measured_device)
    )
    return ModelSpec(
        model_id=version.model_id,
        lineage=version.lineage.name,
        version=version.version,
        framework=version.framework,
        format=version.artifact_format,
        directory=str(directory),
        digest=version.digest,
        files=files_of(version.manifest),
        approved=version.is_approved,
        timeout_seconds=load_limit_seconds(version, settings),
        threads=version.threads or config().MODEL_THREADS,
        max_batch_size=version.max_batch_size,
        max_queue=version.max_queue,
        instances=version.instances,
        precision=version.precision,
        config=version.config,
        metadata=version.metadata,
        canary=_canary_of(version),
        memory_limit_bytes=None if version.memory_limit_mb is None else version.memory_limit_mb * 2**20,
        peak_bytes=version.measured_peak_bytes if is_measured else None,
        resident_bytes=version.measured_resident_bytes if is_measured else None,
        gpu_bytes=version.measured_gpu_bytes if is_measured else None,
    )


def declared_canary(version: ModelVersion) -> dict[str, Any] | None:
    """The canary that metadata.json states; None when it states none, and then loads record one."""
    stated = version.metadata.get("canary")
    return stated if isinstance(stated, dict) else None


def _canary_of(version: ModelVersion) -> dict[str, Any] | None:
    """What these bytes must answer: as metadata.json states it, else as it was recorded at their first load."""
    declared = declared_canary(version)
    if declared is not None:
        return {"source": "metadata", "tolerance": None, **declared}
    recorded: dict[str, Any] | None = version.canary
    return recorded if version.canary_digest == version.digest else None
