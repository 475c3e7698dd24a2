"""metadata.json and config.json of a directory of the store, read and written by people through the console.

What is written is checked as discovery checks it. A reader sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from modelhub.conf import config
from modelhub.registry.artifacts import Refused, directory_of, find_files, open_beneath, open_folder
from modelhub.registry.choices import ModelType
from modelhub.registry.metadata import CONFIG_FILE, MAX_JSON_BYTES, METADATA_FILE, Description, describe, parse_json
from modelhub.registry.plan import Claim
from modelhub.registry.uploads.inspecting import check_lineage

FILES = {"metadata": METADATA_FILE, "config": CONFIG_FILE}


@dataclass(frozen=True, slots=True)
class Texts:
    """Both files as they lie there, "" for one that does not."""

    metadata: str
    config: str

    @property
    def digest(self) -> str:
        """Tells whether somebody changed one of them meanwhile."""
        return hashlib.sha256(f"{len(self.metadata)}\0{self.metadata}{self.config}".encode()).hexdigest()


class ChangedMeanwhile(Exception):
    """The files are not those that were edited."""


def read_texts(path: str) -> Texts:
    """Raises Refused for a path that is no model's directory, or a file that is no text."""
    if not os.path.isdir(directory_of(path)):  # False, and no error, for a name that no disk can have
        raise Refused(f"{path} does not lie in the store; put its directory back and run discovery.")
    return Texts(_read(path, METADATA_FILE), _read(path, CONFIG_FILE))


def check(path: str, texts: Texts) -> Description:
    """What the registry would say of the model then. Raises Refused, as discovery would."""
    type_name, _, model_id = path.partition("/")
    metadata, config_ = (_parse(name, getattr(texts, key)) for key, name in FILES.items())
    present = {file.path for file in find_files(config().MODELS_DIR, path)}
    written = {name for key, name in FILES.items() if getattr(texts, key).strip()}
    said = describe(model_id, sorted(present | written), metadata, config_)
    kind = type_name if type_name in ModelType.values else str(ModelType.OTHER)
    check_lineage(Claim(path, model_id, kind, said.lineage, said.version))
    return said


def write_texts(path: str, texts: Texts, *, seen: str) -> list[str]:
    """Writes what differs; returns the names of the files that were written.

    seen: the digest of what was edited. Raises ChangedMeanwhile, and Refused for what check() refuses or the disk.
    """
    check(path, texts)
    with _alone(path):
        before = read_texts(path)
        if before.digest != seen:
            raise ChangedMeanwhile(path)
        return _write(path, texts, before)


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Whoever writes to the same directory waits, until the end of the transaction that this one is in."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"modelhub.describe:{path}"])
        yield


def _write(path: str, texts: Texts, before: Texts) -> list[str]:
    changed = [name for key, name in FILES.items() if getattr(texts, key) != getattr(before, key)]
    written: list[str] = []
    try:
        for key, name in FILES.items():
            if name in changed:
                _replace(path, name, getattr(texts, key))
                written.append(key)
    except OSError as error:
        with suppress(OSError):  # both or none
            for key in written:
                _replace(path, FILES[key], getattr(before, key))
        raise Refused(f"{path} could not be written: {error.strerror}; check its owner, mode and disk.") from error
    return changed


def with_fields(text: str, fields: Mapping[str, Any]) -> str:
    """metadata.json's text with these keys set, None: taken away. Raises Refused when the text is no JSON object."""
    if not fields:
        return text
    values = _parse(METADATA_FILE, text)
    for key, value in fields.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _parse(name: str, text: str) -> dict[str, Any]:
    return parse_json(name, text.encode()) if text.strip() else {}


def _read(path: str, name: str) -> str:
    try:
        with (
            open_beneath(config().MODELS_DIR, f"{path}/{name}") as descriptor,
            open(descriptor, "rb", closefd=False) as file,
        ):
            content = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Refused(f"Cannot read {name}: {error.strerror}; it must be a readable file, not a link.") from error
    if len(content) > MAX_JSON_BYTES:
        raise Refused(f"{name} has more than {MAX_JSON_BYTES} bytes; it cannot be edited here.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not UTF-8 (byte {error.start}); it cannot be edited here.") from error


def _replace(path: str, name: str, text: str) -> None:
    """Written beside the model's directory under a hidden name, which discovery passes over, then renamed."""
    folder, _, _ = path.partition("/")
    root = config().MODELS_DIR
    with open_folder(root, folder) as outside, open_folder(root, path) as inside:
        hidden = f".{name}-{secrets.token_hex(8)}"
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=outside)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            os.rename(hidden, name, src_dir_fd=outside, dst_dir_fd=inside)
        except BaseException:
            os.unlink(hidden, dir_fd=outside)
            raise
        os.fsync(inside)
