"""Puts a finished model into the store in one step, so that discovery never sees half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MAKING = ".making-"  # hidden names are passed over by discovery


class AlreadyThere(Exception):
    """The store got a model of that id meanwhile; it was left alone."""


@contextlib.contextmanager
def published(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write into; it becomes `target` at the end of the block and vanishes when the block fails.

    target: <store>/<type>/<model_id>. Raises AlreadyThere when it exists and `replace` is not set.
    """
    store = target.parent.parent
    making = store / f"{MAKING}{target.name}-{os.getpid()}"
    making.mkdir(parents=True)
    try:
        yield making
        _make_readable(making)
        target.parent.mkdir(exist_ok=True)
        _move(making, target, replace)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def remove_abandoned(store: Path) -> None:
    """Removes what makers left that were killed."""
    for folder in store.glob(f"{MAKING}*"):
        pid = folder.name.rpartition("-")[2]
        if not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _move(making: Path, target: Path, replace: bool) -> None:
    old = making.with_name(f"{MAKING}old-{target.name}-{os.getpid()}")
    if replace:
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
    try:
        making.rename(target)
    except OSError as error:
        if old.exists():
            old.rename(target)
        if target.exists():
            raise AlreadyThere(f"{target} exists already.") from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def _make_readable(folder: Path) -> None:
    """Some libraries write files that only their owner may read; a model process may run as somebody else."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
