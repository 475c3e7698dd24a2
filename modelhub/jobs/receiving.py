"""The file of a job is written to the folder of the job as it comes; nothing is held in memory."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from typing import IO, Any

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import HttpRequest

from loaderd.errors import LoaderdError
from modelhub.conf import config
from modelhub.jobs.folders import JobFolder, jobs_dir
from modelhub.private_dir import NotPrivate, ensure_private_dir
from modelhub.registry.artifacts import Refused
from modelhub.registry.uploads.staging import Room, check_space

FIELD = "file"
_MIB = 1 << 20


class FileTooLarge(LoaderdError):
    """The file, or the body around it, has more than JOB_MAX_MB."""

    code = "file_too_large"
    http_status = 413


class NoSpace(LoaderdError):
    """The disk cannot take the file."""

    code = "no_space"
    http_status = 507


class BrokenOff(LoaderdError):
    """The body ended before its end."""

    code = "malformed_request"
    http_status = 400


class Received(UploadedFile):
    """A file that lies where it belongs already."""

    def close(self) -> None:
        """It is closed."""


class JobReceiver(FileUploadHandler):
    """Writes the file of the field `file` to the folder of a job to be. failure: why it could not; the rest of the body
    is read past."""

    chunk_size = _MIB
    file: IO[bytes]  # once it is open: Django closes what has this name when the body cannot be read

    def __init__(self) -> None:
        super().__init__()
        self.folder = JobFolder(uuid.uuid4())
        self.failure: LoaderdError | None = None
        self.is_broken_off = False
        self._room: Room | None = None
        self._has_made = False

    def receive(self, request: HttpRequest) -> None:
        """The request's body comes here, whoever reads it first: a check of its CSRF token does, too.

        Raises FileTooLarge or NoSpace before anything is read, and is the failure from then on: who reads the body all
        the same has its other fields, and of its file nothing is kept.
        """
        request.upload_handlers = [self]
        length = request.META.get("CONTENT_LENGTH") or "0"
        try:
            check_length(int(length) if length.isdecimal() else 0)
        except LoaderdError as error:
            self.failure = error
            raise

    def check(self) -> None:
        """Once the body is read. Raises why the file was not received as a whole."""
        if self.failure is not None:
            raise self.failure
        if self.is_broken_off:
            raise BrokenOff("The upload broke off; send it again.")

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self.field_name != FIELD or self._has_made or self.failure is not None:
            raise SkipFile
        try:
            self._has_made = True
            self.folder.make()
            self._room = Room(self.folder.path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.file = os.fdopen(os.open(self.folder.input, flags, 0o600), "wb")
        except (OSError, NotPrivate) as error:
            self._give_up(_told(error))
            raise SkipFile from error

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        assert self._room is not None
        try:
            if start + len(raw_data) > config().JOB_MAX_MB * _MIB:
                raise _too_large(start + len(raw_data))
            self._room.take(len(raw_data))
            self.file.write(raw_data)
        except (LoaderdError, OSError, Refused) as error:
            self._give_up(_told(error))
            raise SkipFile from error

    def file_complete(self, file_size: int) -> Received | None:
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
        except OSError as error:
            self._give_up(_told(error))
            return None
        return Received(self.file, self.file_name, self.content_type, file_size)

    def upload_interrupted(self) -> None:
        self.is_broken_off = True

    def discard(self) -> None:
        """What came is not wanted."""
        if hasattr(self, "file"):
            with contextlib.suppress(OSError):  # a full disk does not take the rest of what it buffers
                self.file.close()
        if self._has_made:
            self.folder.remove()

    def _give_up(self, failure: LoaderdError) -> None:
        self.failure = failure
        self.discard()


def check_length(length: int) -> None:
    """Before anything is read. Raises FileTooLarge or NoSpace."""
    if length > config().JOB_MAX_MB * _MIB + _MIB:  # the form's own fields, and what separates them
        raise _too_large(length)
    try:
        ensure_private_dir(jobs_dir())
        check_space(jobs_dir(), length)
    except (Refused, NotPrivate, OSError) as error:
        raise _told(error) from error


def _too_large(size_bytes: int) -> FileTooLarge:
    limit = config().JOB_MAX_MB
    return FileTooLarge(
        f"The file has more than {size_bytes // _MIB} MiB and {limit} are accepted; raise JOB_MAX_MB, or predict it "
        "with `manage.py predict --file`."
    )


def _told(error: BaseException) -> LoaderdError:
    if isinstance(error, LoaderdError):
        return error
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoSpace("The disk of the state folder is full; make room there, then send it again.")
        return NoSpace(f"It could not be written: {error.strerror}; look at the disk of the state folder.")
    return NoSpace(str(error))
