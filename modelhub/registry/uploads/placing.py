"""A confirmed upload is moved into the store, whole or not at all, and registered by discovery."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from modelhub.conf import config
from modelhub.registry.artifacts import Refused
from modelhub.registry.discovery import DiscoveryFailed, discover
from modelhub.registry.models import ModelVersion
from modelhub.registry.uploads.inspecting import Inspection, inspect
from modelhub.registry.uploads.staging import HALF_COPY, Room, Staging, check_space
from modelhub.registry.uploads.unpacking import sync_folder

_CHUNK_BYTES = 1 << 20


class NotRegistered(Exception):
    """The model lies in the store, whole, and discovery could not run; the next one registers it."""


def register(staging: Staging, *, actor: str) -> ModelVersion:
    """The registered model; the staging folder is gone then.

    Raises Refused with nothing left in the store, and NotRegistered. Hold the staging meanwhile.
    """
    found = inspect(staging)  # others may have taken the name or the version since
    if found.refusal:
        raise Refused(found.refusal)
    placed = move_to_store(staging.store / found.path, found.path)
    try:
        report = discover(actor=actor)
    except DiscoveryFailed as error:
        staging.remove()
        raise NotRegistered(
            f"{found.path} lies in the store. {error} Run discovery on the list of models then; it registers the model."
        ) from error
    version = ModelVersion.objects.filter(model_id=found.model_id, path=found.path, refusal="").first()
    if version is None:
        _take_back(placed, staging, found)
        raise Refused(dict(report.refused).get(found.path, "Discovery did not find it; look at its last report."))
    staging.remove()
    return version


def move_to_store(source: Path, path: str) -> Path:
    """Moves the folder to MODELS_DIR/path, in one step for whoever looks. Raises Refused."""
    root = config().MODELS_DIR
    target = root / path
    try:
        target.parent.mkdir(mode=0o755, exist_ok=True)
        if target.parent.is_symlink():
            raise Refused(f"The store's folder {target.parent.name} is a symbolic link; put a real folder there.")
        if os.path.lexists(target):
            raise Refused(f"{path} came into the store meanwhile; choose another id.")
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_over(source, target)
        sync_folder(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise Refused(f"{path} came into the store meanwhile; choose another id.") from error
        raise Refused(
            f"It could not be put into {target.parent}: {error.strerror}; check that folder's owner, mode and disk."
        ) from error
    return target


def _copy_over(source: Path, target: Path) -> None:
    """To another file system: under a hidden name, which discovery passes over, then renamed."""
    check_space(target.parent, sum(file.stat().st_size for file in source.rglob("*") if file.is_file()))
    hidden = target.parent / f"{HALF_COPY}{source.parents[2].name}"
    room = Room(target.parent)

    def copy(one: str, other: str) -> None:
        with open(one, "rb") as read, open(other, "xb") as written:
            while chunk := read.read(_CHUNK_BYTES):
                room.take(len(chunk))
                written.write(chunk)
        shutil.copystat(one, other)

    try:
        shutil.copytree(source, hidden, symlinks=True, copy_function=copy)
        for folder, _, files in os.walk(hidden):
            for name in files:
                _sync_file(Path(folder, name))
            sync_folder(Path(folder))
        os.rename(hidden, target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_back(placed: Path, staging: Staging, found: Inspection) -> None:
    """What discovery refused goes back to where it can be corrected."""
    back = staging.store / found.path
    try:
        back.parent.mkdir(parents=True, exist_ok=True)
        if back.exists():  # it was copied
            shutil.rmtree(placed)
        else:
            os.rename(placed, back)
    except OSError:
        shutil.rmtree(placed, ignore_errors=True)
