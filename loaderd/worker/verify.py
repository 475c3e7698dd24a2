"""Are the files on disk those that were registered? Runs before anything of the artifact is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from loaderd.errors import ArtifactChanged
from loaderd.protocol import ArtifactFile, ModelSpec

_BLOCK_BYTES = 1024 * 1024


def verify(spec: ModelSpec, report: Callable[[float], None]) -> None:
    """Raises ArtifactChanged when a registered file is missing or has other bytes.

    A file whose size and times are as registered is taken as unchanged; any other is hashed again.
    report: called with the share of the files that is done.
    """
    for index, file in enumerate(spec.files):
        report(index / len(spec.files))
        _verify_file(spec, file)


def _verify_file(spec: ModelSpec, file: ArtifactFile) -> None:
    try:
        descriptor = os.open(Path(spec.directory) / file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactChanged(
            f"{spec.model_id} was registered with the file {file.path}, which cannot be read now "
            f"({error.strerror}); restore it, or run discovery to register what is there.",
            model_id=spec.model_id,
            file=file.path,
        ) from None
    with open(descriptor, "rb") as opened:
        seen = os.fstat(descriptor)
        as_registered = (file.size_bytes, file.mtime_ns, file.ctime_ns)
        if (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns) == as_registered:
            return
        if seen.st_size == file.size_bytes:
            digest = hashlib.sha256()
            while block := opened.read(_BLOCK_BYTES):
                digest.update(block)
            if digest.hexdigest() == file.sha256:
                return
    raise ArtifactChanged(
        f"{spec.model_id}: the file {file.path} is not the one that was registered; "
        "restore it, or run discovery to register the new bytes.",
        model_id=spec.model_id,
        file=file.path,
    )
