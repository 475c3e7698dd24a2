"""metadata.json and config.json: read, checked, and made into what the registry says of a model.

All keys of metadata.json are optional and unknown ones are kept:

    name, description, framework     strings
    lineage                          name shared by all versions; else the directory's name without `-v1.0`
    version                          such as "1.2.0"; else the suffix of the directory's name; else 1.0.0
    created_at                       ISO 8601 (UTC unless it says more) or unix seconds
    labels                           list of class names, or an object of index to class name
    performance_metrics              object; accuracy, when given, is a number from 0 to 1
    sample_input                     anything that the framework takes for an example
    canary                           {"inputs": [...], "predictions": [...], "tolerance": number}: what the model must
                                     answer, as the API's predict takes and gives it; tolerance is optional
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from loaderd import catalogue
from modelhub.registry.artifacts import Refused, is_printable, open_beneath

METADATA_FILE = "metadata.json"
CONFIG_FILE = "config.json"
MAX_JSON_BYTES = 4 << 20
MAX_JSON_DEPTH = 64
MAX_CANARY_ITEMS = 64  # it is predicted at each load and health check
_VERSION_SUFFIX = re.compile(r"(?P<lineage>.+?)[-_][vV](?P<version>\d+(\.\d+)*)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Description:
    """What a directory says of itself. created_at None: it says nothing."""

    name: str
    lineage: str
    version: str
    description: str
    framework: str
    artifact_format: str
    created_at: datetime | None
    performance_metrics: dict[str, Any]


def read_json(root: Path, model_path: str, name: str, sha256: str) -> dict[str, Any]:
    """The JSON object in a file of a model's directory, if its bytes are those of `sha256`; raises Refused."""
    try:
        with (
            open_beneath(root, f"{model_path}/{name}") as descriptor,
            open(descriptor, "rb", closefd=False) as file,
        ):
            content = file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise Refused(f"Cannot read {name}: {error.strerror}; it must be a readable file, not a link.") from error
    if len(content) > MAX_JSON_BYTES:
        raise Refused(f"{name} has more than {MAX_JSON_BYTES} bytes.")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Refused(f"{name} changed while it was read; run discovery again when the copy is complete.")
    return parse_json(name, content)


def parse_json(name: str, content: bytes) -> dict[str, Any]:
    """The JSON object; raises Refused for anything that Postgres could not keep or a reader would misread."""

    def refuse_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON number")

    try:
        value = json.loads(content.decode("utf-8-sig"), parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise Refused(f"{name} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except ValueError as error:
        raise Refused(f"{name} is not JSON: {error}.") from error
    except RecursionError:
        raise Refused(f"{name} is nested deeper than {MAX_JSON_DEPTH} levels.") from None
    if not isinstance(value, dict):
        raise Refused(f"{name} must hold a JSON object, not {_say(value)}.")
    _check_storable(name, value, 1)
    return value


def _check_storable(name: str, value: Any, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise Refused(f"{name} is nested deeper than {MAX_JSON_DEPTH} levels.")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise Refused(f"{name} has a NUL character or half a surrogate pair in {value[:40]!a}.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{name} has a number too large for a float.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_storable(name, key, depth)
            _check_storable(name, inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_storable(name, inner, depth + 1)


def describe(model_id: str, paths: list[str], metadata: Mapping[str, Any], config: Mapping[str, Any]) -> Description:
    """What the registry says of the model; raises Refused naming file, key and what is expected."""
    suffix = _VERSION_SUFFIX.fullmatch(model_id)
    lineage = _text(metadata, "lineage", 200) or (suffix["lineage"] if suffix else model_id)
    if "/" in lineage or lineage in (".", ".."):
        _refuse("lineage", 'a name without "/"', lineage)
    version = _text(metadata, "version", 64) or (suffix["version"] if suffix else "1.0.0")
    if not _VERSION.fullmatch(version):
        _refuse("version", 'made of letters, digits and ". _ + -", such as "1.2.0"', version)
    labels = metadata.get("labels")
    names = list(labels.values()) if isinstance(labels, dict) else labels
    if names is not None and not (isinstance(names, list) and all(isinstance(label, str) for label in names)):
        _refuse("labels", "a list of class names, or an object of index to class name", labels)
    metrics = metadata.get("performance_metrics", {})
    if not isinstance(metrics, dict):
        _refuse("performance_metrics", 'an object such as {"accuracy": 0.92}', metrics)
    accuracy = metrics.get("accuracy")
    if accuracy is not None and not (_is_number(accuracy) and 0 <= accuracy <= 1):
        _refuse("performance_metrics.accuracy", "a number from 0 to 1", accuracy)
    _check_canary(metadata.get("canary"))
    framework, artifact_format = _detect(_text(metadata, "framework", 64), paths, config)
    return Description(
        name=_text(metadata, "name", 200) or model_id,
        lineage=lineage,
        version=version,
        description=_text(metadata, "description", 10_000, multiline=True),
        framework=framework,
        artifact_format=artifact_format,
        created_at=_time(metadata.get("created_at")),
        performance_metrics=metrics,
    )


def _check_canary(canary: Any) -> None:
    """Raises Refused for a canary that no answer could be compared with."""
    if canary is None:
        return
    if not isinstance(canary, dict):
        _refuse("canary", 'an object such as {"inputs": ["good"], "predictions": ["positive"]}', canary)
    unknown = sorted(canary.keys() - {"inputs", "predictions", "tolerance"})
    if unknown:
        raise Refused(
            f'{METADATA_FILE}: "canary" has "inputs", "predictions" and "tolerance", and not {_say(unknown[0])}.'
        )
    for key in ("inputs", "predictions"):
        values = canary.get(key)
        if not (isinstance(values, list) and 1 <= len(values) <= MAX_CANARY_ITEMS):
            _refuse(f"canary.{key}", f"a list of 1 to {MAX_CANARY_ITEMS} items", values)
    inputs, predictions = canary["inputs"], canary["predictions"]
    if len(inputs) != len(predictions):
        raise Refused(
            f'{METADATA_FILE}: "canary" must have a prediction for each of its {len(inputs)} inputs, and has '
            f"{len(predictions)}."
        )
    tolerance = canary.get("tolerance", 0)
    if not (_is_number(tolerance) and tolerance >= 0):
        _refuse("canary.tolerance", "a number, 0 or more", tolerance)


def _detect(stated: str, paths: list[str], config: Mapping[str, Any]) -> tuple[str, str]:
    known = catalogue.entries()
    if stated:
        if stated not in known:
            _refuse("framework", f"one of {', '.join(sorted(known))}", stated)
        found_format = known[stated].detect(paths, config)
        if found_format is None:
            raise Refused(f'{METADATA_FILE} states framework "{stated}", but the files are none of its formats.')
        return stated, found_format.name
    found = catalogue.detect(paths, config)
    if found is None:
        raise Refused(
            f"No framework knows its files; known are {', '.join(sorted(known))} (model.pkl, model.skops, "
            "model.safetensors with config.json, model.keras, saved_model.pb and the like)."
        )
    return found[0].name, found[1].name


def _text(metadata: Mapping[str, Any], key: str, limit: int, *, multiline: bool = False) -> str:
    value = metadata.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit:
        _refuse(key, f"a string of at most {limit} characters", value)
    # Prose may have what a name may not: line ends, joined emoji. Terminal escapes are in neither.
    clean = not _CONTROL.search(value) if multiline else is_printable(value)
    if not clean:
        _refuse(key, "without control or invisible characters", value)
    return value.strip()


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        if _is_number(value):
            return datetime.fromtimestamp(value, UTC)
        stated = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        _refuse("created_at", "ISO 8601, such as 2026-01-31T12:00:00Z, or unix seconds", value)
    return stated if stated.tzinfo else stated.replace(tzinfo=UTC)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _say(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def _refuse(key: str, expected: str, value: Any) -> NoReturn:
    raise Refused(f'{METADATA_FILE}: "{key}" must be {expected}, not {_say(value)}.')
