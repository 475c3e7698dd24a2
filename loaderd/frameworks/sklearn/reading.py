"""Reads an estimator from its file, each format by its own rule of trust."""

from __future__ import annotations

import logging
import mmap
import pickle
import warnings
from pathlib import Path
from typing import Any

import joblib
import skops.io
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
    return joblib.load(path, mmap_mode="r" if uncompressed else None)
