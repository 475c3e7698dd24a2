"""Which frameworks there are and how their artifacts look on disk. Imports no framework.

Django reads this too: it names the frameworks of the registry and detects them in discovery. A third
party adds a `FrameworkEntry` through the entry point group `modelhub.frameworks`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from loaderd.errors import UnknownFramework

if TYPE_CHECKING:
    from loaderd.frameworks.base import Framework

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "modelhub.frameworks"


@dataclass(frozen=True, slots=True)
class Format:
    """How the weights are stored. executes_code: loading it can run code that the file carries."""

    name: str
    executes_code: bool
    prose: str = ""


Detect = Callable[[Sequence[str], Mapping[str, Any]], "Format | None"]
"""(relative file paths, parsed config.json) -> the format, or None when the files are not this framework's."""


@dataclass(frozen=True, slots=True)
class FrameworkEntry:
    """name: as stored in the registry. target: "module:Class" of the Framework, imported only by loaderd.

    formats: every format that `detect` may return.
    """

    name: str
    label: str
    target: str
    detect: Detect
    formats: tuple[Format, ...]


def _root_files(paths: Sequence[str]) -> set[str]:
    return {path for path in paths if "/" not in path}


SKOPS = Format("skops", executes_code=False, prose="skops file; unknown types are refused")
PICKLE = Format("pickle", executes_code=True, prose="Python pickle")
JOBLIB = Format("joblib", executes_code=True, prose="joblib pickle, memory-mapped when uncompressed")
SAFETENSORS = Format("safetensors", executes_code=False, prose="safetensors weights")
TORCH_WEIGHTS = Format("torch-weights", executes_code=False, prose="torch file, read with weights_only")
KERAS = Format("keras", executes_code=False, prose="keras v3 archive in safe mode")
KERAS_H5 = Format("h5", executes_code=True, prose="Keras HDF5 file: recognised and never loaded")
SAVED_MODEL = Format("saved-model", executes_code=True, prose="TensorFlow SavedModel: executable graph code")


def _detect_sklearn(paths: Sequence[str], config: Mapping[str, Any]) -> Format | None:
    roots = _root_files(paths)
    for suffix, found in ((".skops", SKOPS), (".joblib", JOBLIB), (".pkl", PICKLE)):
        if any(path.endswith(suffix) for path in roots):
            return found
    return None


def _detect_transformers(paths: Sequence[str], config: Mapping[str, Any]) -> Format | None:
    roots = _root_files(paths)
    if "model_type" not in config and "architectures" not in config:
        return None
    if any(path.endswith(".safetensors") for path in roots):
        return SAFETENSORS
    if any(path.startswith("pytorch_model") and path.endswith(".bin") for path in roots):
        return TORCH_WEIGHTS
    return None


def _detect_tensorflow(paths: Sequence[str], config: Mapping[str, Any]) -> Format | None:
    roots = _root_files(paths)
    if any(path.endswith(".keras") for path in roots):
        return KERAS
    # A SavedModel lies in the directory itself or in one folder below it.
    if any(path.rsplit("/", 1)[-1] == "saved_model.pb" and path.count("/") <= 1 for path in paths):
        return SAVED_MODEL
    # Recognised so that its refusal can say what to do. tf_model.h5 is transformers' own, not keras'.
    if any(path.endswith((".h5", ".hdf5")) and path != "tf_model.h5" for path in roots):
        return KERAS_H5 if _detect_sklearn(paths, config) is None else None
    return None


BUILT_IN = (
    # The first that knows the files counts. scikit-learn comes last: a pickled label encoder or tokenizer
    # lies beside many a network, and no network lies beside an estimator.
    FrameworkEntry(
        "transformers",
        "Transformers",
        "loaderd.frameworks.transformers:TransformersFramework",
        _detect_transformers,
        (SAFETENSORS, TORCH_WEIGHTS),
    ),
    FrameworkEntry(
        "tensorflow",
        "TensorFlow",
        "loaderd.frameworks.tensorflow:TensorflowFramework",
        _detect_tensorflow,
        (KERAS, SAVED_MODEL, KERAS_H5),
    ),
    FrameworkEntry(
        "sklearn",
        "scikit-learn",
        "loaderd.frameworks.sklearn:SklearnFramework",
        _detect_sklearn,
        (SKOPS, JOBLIB, PICKLE),
    ),
)


@lru_cache(maxsize=1)
def entries() -> dict[str, FrameworkEntry]:
    """Every framework by name: the built-in ones, then those of installed packages that can be imported.

    Raises UnknownFramework for a package's entry that is none.
    """
    found = {entry.name: entry for entry in BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry = point.load()
        except Exception:  # of whatever package; the models of all the others go on
            log.exception(
                "The framework %r cannot be imported from %s and is left out; repair or uninstall its package.",
                point.name,
                point.value,
            )
            continue
        if not isinstance(entry, FrameworkEntry):
            raise UnknownFramework(
                f"The entry point {point.name!r} of {ENTRY_POINT_GROUP} names {point.value}, which is no "
                "FrameworkEntry; see docs/adding-a-framework.md."
            )
        found.setdefault(entry.name, entry)
    return found


def entry(name: str) -> FrameworkEntry:
    """The entry of a framework; raises UnknownFramework with the names that exist."""
    try:
        return entries()[name]
    except KeyError:
        raise UnknownFramework(f"No framework is named {name!r}; known are {', '.join(sorted(entries()))}.") from None


def framework(name: str) -> Framework:
    """The framework itself; imports its module but not its library."""
    module, _, cls = entry(name).target.partition(":")
    made: Framework = getattr(importlib.import_module(module), cls)()
    return made


def detect(paths: Sequence[str], config: Mapping[str, Any]) -> tuple[FrameworkEntry, Format] | None:
    """The framework and format of a directory's files, or None when no framework knows them."""
    for candidate in entries().values():
        found = candidate.detect(paths, config)
        if found is not None:
            return candidate, found
    return None


def format_executes_code(framework_name: str, format_name: str) -> bool:
    """Whether loading this format can run code that the artifact carries; True for an unknown format."""
    known = {found.name: found.executes_code for found in entry(framework_name).formats}
    return known.get(format_name, True)
