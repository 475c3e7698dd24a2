"""What was received becomes the model's folder in the staging store: a zip is unpacked, single files are moved."""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelhub.conf import config
from modelhub.registry.artifacts import Refused
from modelhub.registry.metadata import CONFIG_FILE, METADATA_FILE
from modelhub.registry.uploads.names import check_name, check_together, is_added, without_top
from modelhub.registry.uploads.receiving import Received
from modelhub.registry.uploads.staging import Room, check_space

_MIB = 1 << 20
_CHUNK_BYTES = _MIB
_SMALL_BYTES = 16 * _MIB  # what unpacks to less is no bomb, however well it was packed
_ENTRY_BYTES = 1024  # of a zip's list, for one file: its name and what systems note of it
_OTHER_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".gz", ".bz2", ".xz")

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT_BYTES = 1 << 16  # as far from the end as zipfile looks for a list's end: one more than a comment may have


@dataclass(frozen=True, slots=True)
class Placed:
    """What lies in the folder now. top: the one folder that all lay in, "" for none."""

    files: int
    size_bytes: int
    top: str


def place_files(received: Sequence[Received], paths: Sequence[str], target: Path) -> Placed:
    """Puts what was received below `target`, which does not exist yet; `received` is used up.

    paths: where each one lay, as the browser says it. Raises Refused; then nothing of it can be used.
    """
    if not received:
        raise Refused("No file came; choose a zip, or the files of the model's folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if len(received) == 1:
        name = received[0].name.lower()
        if name.endswith(".zip"):
            return _unpack(received[0].path, target)
        if name.endswith(_OTHER_ARCHIVES):
            raise Refused(f"{received[0].name} is an archive of a kind that is not unpacked; pack it as a zip.")
    if len(paths) != len(received):
        raise Refused(f"{len(paths)} files were announced and {len(received)} came; send them again.")
    chosen = [(path, file) for path, file in zip(paths, received, strict=True) if not is_added(path)]
    for path, _ in chosen:
        check_name(path)
    if not chosen:
        raise Refused("There is no file of a model among them; choose the model's folder.")
    left, top = without_top([path for path, _ in chosen])
    check_together(left)
    _check_descriptions(left)
    for path, (_, file) in zip(left, chosen, strict=True):
        where = target / path
        where.parent.mkdir(parents=True, exist_ok=True)
        file.path.rename(where)
        _settle(where)
    _settle_folders(target)
    return Placed(len(left), sum(file.size_bytes for _, file in chosen), top)


def _unpack(archive: Path, target: Path) -> Placed:
    with archive.open("rb") as file, _told():
        _check_list(file, archive.stat().st_size)
        with zipfile.ZipFile(file) as opened:
            entries = [entry for entry in opened.infolist() if not is_added(entry.orig_filename)]
            for entry in entries:
                _check_entry(entry)
            entries = [entry for entry in entries if not entry.is_dir()]
            if not entries:
                raise Refused("The zip holds no file; pack the model's folder.")
            total = _check_sizes(entries, archive.stat().st_size)
            check_space(target.parent, total)
            left, top = without_top([entry.filename for entry in entries])
            check_together(left)
            _check_descriptions(left)
            room = Room(target.parent)
            for path, entry in zip(left, entries, strict=True):
                _extract(opened, entry, target / path, room)
    archive.unlink()
    _settle_folders(target)
    return Placed(len(left), total, top)


def _check_list(file: IO[bytes], size: int) -> None:
    """Raises Refused for a list of files that is too long to be read into memory.

    It looks where zipfile looks: a record elsewhere could say less of the list than zipfile reads of it.
    """
    limit = config().UPLOAD_MAX_FILES
    tail_bytes = min(size, _END64.size + _END64_LOCATOR.size + _END.size + _MAX_COMMENT_BYTES)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise Refused("It is no zip, or its end is missing; pack it again, or send it again if it was cut off.")
    *_, entries, list_bytes, _offset, _comment = _END.unpack_from(tail, at)
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0 and tail[locator_at : locator_at + 4] == b"PK\x06\x07":
        record_at = locator_at - _END64.size
        _, _, stated_at, _ = _END64_LOCATOR.unpack_from(tail, locator_at)
        is_there = record_at >= 0 and tail[record_at : record_at + 4] == b"PK\x06\x06"
        if not is_there or stated_at != size - tail_bytes + record_at:
            raise Refused("The end of the zip's list of files is not where it is said to be; pack it again.")
        entries, list_bytes = _END64.unpack_from(tail, record_at)[7:9]
    if entries > limit or list_bytes > limit * _ENTRY_BYTES:
        raise Refused(
            f"The zip lists {entries} files and {limit} are accepted; leave out what the model does not need."
        )
    file.seek(0)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename  # zipfile cuts `filename` at a NUL, and turns separators round
    check_name(name.removesuffix("/"))
    if entry.flag_bits & 0x1:
        raise Refused(f"{name} is encrypted; pack the zip without a password.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise Refused(f"{name} is a symbolic link; pack the file that it leads to (zip without -y).")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Refused(f"{name} is a device, a pipe or a socket; only files and folders belong to a model.")


def _check_sizes(entries: Sequence[zipfile.ZipInfo], packed_bytes: int) -> int:
    """The bytes of all together; raises Refused for what grows beyond measure when it is unpacked."""
    limits = config()
    if len(entries) > limits.UPLOAD_MAX_FILES:
        raise Refused(f"The zip has {len(entries)} files and {limits.UPLOAD_MAX_FILES} are accepted.")
    total = sum(entry.file_size for entry in entries)
    if total > limits.UPLOAD_MAX_UNPACKED_MB * _MIB:
        raise Refused(
            f"The zip unpacks to {total / _MIB:.0f} MiB and {limits.UPLOAD_MAX_UNPACKED_MB} are accepted; raise "
            "UPLOAD_MAX_UNPACKED_MB, or copy the model to the store by hand and run discovery."
        )
    if total > _SMALL_BYTES and total > packed_bytes * limits.UPLOAD_MAX_RATIO:
        raise Refused(
            f"The zip becomes {total / max(1, packed_bytes):.0f} times larger when it is unpacked; more than "
            f"{limits.UPLOAD_MAX_RATIO} times is taken for a trap. If it is none, raise UPLOAD_MAX_RATIO."
        )
    return total


def _check_descriptions(paths: Sequence[str]) -> None:
    """Raises Refused where a file that describes the model is a folder: discovery would pass over it."""
    for name in (METADATA_FILE, CONFIG_FILE):
        if any(path.startswith(f"{name}/") for path in paths):
            raise Refused(f"{name} is a folder; it must be a file, or be left out.")


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, where: Path, room: Room) -> None:
    """Its content, at most as long as the zip's list says; zipfile compares it with the checksum."""
    where.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with opened.open(entry) as source, where.open("xb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise Refused(f"{entry.filename} is longer than the zip's list says; pack it again.")
            room.take(len(chunk))
            target.write(chunk)
    if left:
        raise Refused(f"{entry.filename} is shorter than the zip's list says; pack it again.")
    _settle(where)


@contextmanager
def _told() -> Iterator[None]:
    """What zipfile and its decompressors raise for damaged archives, as Refused."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, UnicodeDecodeError) as error:
        raise Refused(f"The zip is damaged ({error}); pack it again.") from error
    except (NotImplementedError, RuntimeError) as error:
        raise Refused(f"The zip cannot be unpacked ({error}); pack it with the usual compression (deflate).") from error


def _settle(path: Path) -> None:
    """On the disk, to be read by everybody and run by nobody."""
    path.chmod(0o644)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top):
        os.chmod(folder, 0o755)  # noqa: S103 (a store is to be read)
        sync_folder(Path(folder))


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
