"""Files of a form are written to a staging folder as they come; nothing is held in memory, nothing goes elsewhere."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from django.core.files.uploadhandler import FileUploadHandler, SkipFile

from modelhub.conf import config
from modelhub.registry.artifacts import Refused
from modelhub.registry.uploads.staging import Room, Staging, check_space

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """One file as it came. name: its last part as the browser said it; not yet to be trusted."""

    name: str
    path: Path
    size_bytes: int


class NoFiles(FileUploadHandler):
    """What every other page does with files that somebody sends: they are read past and nothing is written."""

    def new_file(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None


class StagingHandler(FileUploadHandler):
    """Writes to `staging.incoming`. `received` has the files that are complete.

    is_broken_off: the body ended within a file. failure: why nothing could be written; the rest is read past.
    """

    chunk_size = _MIB

    def __init__(self, staging: Staging) -> None:
        super().__init__()
        self.received: list[Received] = []
        self.is_broken_off = False
        self.failure = ""
        self._staging = staging
        self._room = Room(staging.folder)
        self.file: IO[bytes] | None = None  # Django closes it by this name when the body cannot be read

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self.failure:
            raise SkipFile
        self.file = (self._staging.incoming / str(len(self.received))).open("xb")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        assert self.file is not None
        try:
            self._room.take(len(raw_data))
            self.file.write(raw_data)
        except Refused as refusal:
            self._give_up(str(refusal))
            raise SkipFile from refusal
        except OSError as error:
            self._give_up(_told(error))
            raise SkipFile from error

    def file_complete(self, file_size: int) -> None:
        assert self.file is not None
        try:
            self.file.close()
        except OSError as error:
            self._give_up(_told(error))
        self.received.append(Received(str(self.file_name), Path(self.file.name), file_size))

    def upload_interrupted(self) -> None:
        self.is_broken_off = True
        self.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _give_up(self, failure: str) -> None:
        """What came lies there no longer, though the rest of the body may take long to be read past."""
        self.failure = failure
        for path in self._staging.incoming.iterdir():
            path.unlink()


def _told(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full; make room there, then send it again."
    return f"It could not be written: {error.strerror}; look at the disk of the state folder."


def check_length(meta: Mapping[str, Any], folder: Path) -> None:
    """Before anything is read: raises Refused for a body that is announced longer than UPLOAD_MAX_MB, or than `folder`
    has room for. WSGI servers hand on no more than the announced length."""
    try:
        length = int(meta.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    limit = config().UPLOAD_MAX_MB
    if length > limit * _MIB + _MIB:  # the form's own fields, and what separates the files
        raise Refused(
            f"The upload has {length / _MIB:.0f} MiB and {limit} are accepted; raise UPLOAD_MAX_MB, or copy the model "
            "to the store by hand and run discovery."
        )
    check_space(folder, length)
