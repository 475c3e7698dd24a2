"""Reads an estimator from its file, each format by its own rule of trust."""

from __future__ import annotations

import contextlib
import logging
import mmap
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skops.io
from joblib import numpy_pickle
from skops.io.exceptions import UntrustedTypesFoundException

from loaderd.errors import ArtifactRefused
from loaderd.frameworks.base import Artifact
from loaderd.frameworks.files import require_approval, root_file

log = logging.getLogger(__name__)

SUFFIXES = {"skops": ".skops", "joblib": ".joblib", "pickle": ".pkl"}


def read(artifact: Artifact) -> Any:
    """The unpickled object. Raises ArtifactRefused; warnings (another scikit-learn version) go to the log."""
    path = root_file(artifact, SUFFIXES[artifact.format])
    if artifact.format != "skops":
        require_approval(artifact, f"is a Python pickle ({path.name}), which can run code when it is loaded")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = _read_skops(path, artifact) if artifact.format == "skops" else _read_pickle(path)
    for sentence in dict.fromkeys(str(warning.message) for warning in caught):
        log.warning("%s: %s", artifact.model_id, sentence)
    return estimator


def _read_skops(path: Path, artifact: Artifact) -> Any:
    """Approval covers exactly these bytes, so it trusts exactly the types that they name."""
    try:
        return skops.io.load(path)
    except UntrustedTypesFoundException as error:
        unknown = skops.io.get_untrusted_types(file=path)
        if not artifact.approved:
            raise ArtifactRefused(
                f"{artifact.model_id} uses types that skops does not know to be safe: {', '.join(unknown)}; "
                f"if you trust where it comes from, run: manage.py approve {artifact.model_id}",
                model_id=artifact.model_id,
                types=unknown,
            ) from error
    return skops.io.load(path, trusted=unknown)


def _read_pickle(path: Path) -> Any:
    """Arrays of an uncompressed joblib file stay on disk, mapped read-only: a third of the time, and shared.

    A plain pickle goes to the C unpickler, which is many times faster than joblib's.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        uncompressed = content[:1] == pickle.PROTO
        if uncompressed and content.find(b"NumpyArrayWrapper") == -1:
            return pickle.load(file)
    if not uncompressed:
        return joblib.load(path)
    with _mapped_once(path):
        return joblib.load(path, mmap_mode="r")


@contextlib.contextmanager
def _mapped_once(path: Path) -> Iterator[None]:
    """Lets joblib take its arrays from one mapping: it opens and maps the file anew for each otherwise,
    which is a third of the load of a forest of 400 trees."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # lives as long as an array looks into it

    def take(_name: Any, *, dtype: Any, shape: Any, order: Any, mode: str, offset: int) -> np.ndarray:
        return np.ndarray(shape, dtype, buffer=content, offset=offset, order=order)

    original, numpy_pickle.make_memmap = numpy_pickle.make_memmap, take
    try:
        yield
    finally:
        numpy_pickle.make_memmap = original
        # An estimator copies most arrays; the few that still look into the file get their pages again when used.
        content.madvise(mmap.MADV_DONTNEED)
