"""What lies in the store now: directories, their files, digests and descriptions. Reads disk, writes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loaderd.protocol import ArtifactFile
from modelhub.registry.artifacts import (
    FoundFile,
    Refused,
    check_path,
    digest_of,
    find_files,
    hash_file,
    open_folder,
)
from modelhub.registry.choices import ModelType
from modelhub.registry.metadata import CONFIG_FILE, METADATA_FILE, Description, describe, read_json

# Words of the API's paths: /api/models/health and the like would hide a model of that name.
RESERVED_MODEL_IDS = frozenset({"health", "metrics", "optimize-memory", "unused", "discover"})
MAX_MODEL_ID_CHARACTERS = 200
HASH_THREADS = min(8, os.cpu_count() or 1)

Progress = Callable[[int, int], None]
"""progress(bytes_hashed, bytes_to_hash), from the caller's thread, a few times a second."""


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier discovery knew of a directory's files, to skip hashing and parsing what is the same."""

    files: Mapping[str, ArtifactFile]
    metadata: dict[str, Any]
    config: dict[str, Any]


@dataclass(slots=True)
class Directory:
    """One directory that is a model."""

    path: str
    type: str
    model_id: str
    files: tuple[ArtifactFile, ...] = ()
    digest: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    description: Description | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def said(self) -> Description:
        """The description; a directory without one is not in `Scan.directories`."""
        assert self.description is not None
        return self.description


@dataclass(slots=True)
class Scan:
    """directories: those that may be registered. refused: path -> reason. unlisted_types: folders of the
    store that could not be read, so that nothing is known of what lies in them."""

    directories: list[Directory] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unlisted_types: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def scan_store(root: Path, known: Mapping[str, Known], progress: Progress | None = None) -> Scan:
    """Everything below root/<type>/<model_id>/; raises OSError when root itself cannot be listed.

    known: by path. A directory that is refused does not stop the others.
    """
    scan = Scan()
    candidates = list_directories(root, scan)
    found: dict[str, list[FoundFile]] = {}
    for directory in candidates:
        try:
            found[directory.path] = _files_of_a_model(root, directory)
        except Refused as refusal:
            scan.refused[directory.path] = str(refusal)
    hashed = _hash_all(root, found, known, scan.refused, progress)
    for directory in candidates:
        if directory.path in scan.refused:
            continue
        directory.files = hashed[directory.path]
        directory.digest = digest_of(directory.files)
        try:
            _describe(root, directory, known.get(directory.path))
        except Refused as refusal:
            scan.refused[directory.path] = str(refusal)
        else:
            scan.directories.append(directory)
    return scan


def list_directories(root: Path, scan: Scan) -> list[Directory]:
    """The model directories of the store, sorted by path; what is no candidate goes into `scan`.

    Hidden names and stray files are passed over in silence.
    """
    candidates = []
    for type_name, is_link in _folders(root, ""):
        if is_link:
            scan.unlisted_types[type_name] = "It is a symbolic link; put a real folder or a bind mount there."
            continue
        try:
            check_path(type_name)
            inner = _folders(root, type_name)
        except Refused as refusal:
            scan.refused[ascii(type_name)[1:-1]] = str(refusal)
            continue
        except OSError as error:
            scan.unlisted_types[type_name] = f"Cannot list the folder: {error.strerror}; check its owner and mode."
            continue
        known_type = type_name in ModelType.values
        if not known_type and os.path.lexists(root / type_name / METADATA_FILE):
            scan.refused[type_name] = f"It lies directly in the store; move it to <type>/{type_name}/."
            continue
        if not known_type and inner:
            scan.notes.append(
                f"The folder {type_name} names no known type ({', '.join(ModelType.values)}); "
                "its models get the type other."
            )
        for model_id, is_link in inner:
            path = f"{type_name}/{model_id}"
            try:
                _check_model_id(model_id)
                if is_link:
                    raise Refused("It is a symbolic link; a model's directory must lie in the store itself.")
            except Refused as refusal:
                scan.refused[path if path.isprintable() else ascii(path)[1:-1]] = str(refusal)
                continue
            candidates.append(Directory(path, type_name if known_type else str(ModelType.OTHER), model_id))
    return candidates


def _folders(root: Path, path: str) -> list[tuple[str, bool]]:
    """(name, is a link) of each folder or link to a folder, sorted; hidden ones left out."""
    with open_folder(root, path) as descriptor, os.scandir(descriptor) as entries:
        return sorted(
            (entry.name, entry.is_symlink()) for entry in entries if entry.name[0] != "." and _leads_to_a_folder(entry)
        )


def _leads_to_a_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _check_model_id(model_id: str) -> None:
    check_path(model_id)
    if len(model_id) > MAX_MODEL_ID_CHARACTERS:
        raise Refused(f"The name has {len(model_id)} characters; the limit is {MAX_MODEL_ID_CHARACTERS}.")
    if model_id in RESERVED_MODEL_IDS:
        raise Refused(f"The name {model_id} is a word of the API (/api/models/{model_id}); rename the directory.")


def _files_of_a_model(root: Path, directory: Directory) -> list[FoundFile]:
    files = find_files(root, directory.path)
    if not files:
        raise Refused("The directory is empty.")
    return files


def _hash_all(
    root: Path,
    found: Mapping[str, Sequence[FoundFile]],
    known: Mapping[str, Known],
    refused: dict[str, str],
    progress: Progress | None,
) -> dict[str, tuple[ArtifactFile, ...]]:
    """The files of each directory with their SHA-256, in threads: hashing and reading release the GIL."""
    hashed: dict[str, dict[str, ArtifactFile]] = {}
    wanted: list[tuple[str, FoundFile]] = []
    for path, files in found.items():
        before = known[path].files if path in known else {}
        hashed[path] = {}
        for file in files:
            same = before.get(file.path)
            if same is not None and file.is_unchanged_since(same):
                hashed[path][file.path] = same
            else:
                wanted.append((path, file))
    if wanted:
        for path, result in _hash_in_threads(root, wanted, progress):
            if isinstance(result, Refused):
                refused.setdefault(path, str(result))
            else:
                hashed[path][result.path] = result
    return {path: tuple(files[name] for name in sorted(files)) for path, files in hashed.items()}


def _hash_in_threads(
    root: Path, wanted: Sequence[tuple[str, FoundFile]], progress: Progress | None
) -> list[tuple[str, ArtifactFile | Refused]]:
    total_bytes = sum(file.size_bytes for _, file in wanted)
    done_bytes, lock, stop = 0, threading.Lock(), threading.Event()

    def count(chunk_bytes: int) -> None:
        nonlocal done_bytes
        with lock:
            done_bytes += chunk_bytes

    def work(path: str, file: FoundFile) -> ArtifactFile | Refused:
        try:
            return hash_file(root, path, file, count, stop)
        except Refused as refusal:
            return refusal

    with ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash") as pool:
        try:
            futures: dict[Future[ArtifactFile | Refused], str] = {
                pool.submit(work, path, file): path for path, file in wanted
            }
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                if progress is not None:
                    progress(done_bytes, total_bytes)
            return [(path, future.result()) for future, path in futures.items()]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _describe(root: Path, directory: Directory, known: Known | None) -> None:
    files = {file.path: file for file in directory.files}
    for name in (METADATA_FILE, CONFIG_FILE):
        key = name.removesuffix(".json")
        if known is not None and name in files and known.files.get(name) == files[name]:
            setattr(directory, key, getattr(known, key))
        elif name in files:
            setattr(directory, key, read_json(root, directory.path, name, files[name].sha256))
    directory.description = describe(directory.model_id, list(files), directory.metadata, directory.config)
