"""What an upload would be in the registry: looked at as discovery looks, before anything of it lies in the store."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loaderd import catalogue
from modelhub.conf import config
from modelhub.registry.artifacts import Refused, check_path, open_beneath
from modelhub.registry.choices import ModelType
from modelhub.registry.metadata import MAX_JSON_BYTES, METADATA_FILE, parse_json
from modelhub.registry.models import ModelVersion
from modelhub.registry.plan import Claim, conflicts
from modelhub.registry.scan import MAX_MODEL_ID_CHARACTERS, RESERVED_MODEL_IDS, Directory, scan_store
from modelhub.registry.uploads.staging import Staging

SHOWN_FILES = 200


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was recognised. refusal: why it cannot be registered as it is, "" when it can.

    files: the first [path, bytes]. versions: how many its lineage has already. returns: it is a registered model,
    whose directory was gone, with the same bytes.
    """

    type: str
    model_id: str
    refusal: str = ""
    name: str = ""
    lineage: str = ""
    version: str = ""
    description: str = ""
    framework: str = ""
    framework_label: str = ""
    artifact_format: str = ""
    format_prose: str = ""
    executes_code: bool = False
    digest: str = ""
    size_bytes: int = 0
    file_count: int = 0
    files: list[list[Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    versions: int = 0
    returns: bool = False

    @property
    def path(self) -> str:
        return f"{self.type}/{self.model_id}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_model_id(model_id: str) -> None:
    """Raises Refused for a name that no model can have."""
    if not model_id or model_id in (".", "..") or "/" in model_id or "\\" in model_id or model_id[0] == ".":
        raise Refused("A model's id is the name of its folder: without slashes, and with no dot at its beginning.")
    if model_id != model_id.strip():
        raise Refused("A model's id has no space at its ends.")
    check_path(model_id)
    if len(model_id) > MAX_MODEL_ID_CHARACTERS or len(os.fsencode(model_id)) > 255:
        raise Refused(f"A model's id has at most {MAX_MODEL_ID_CHARACTERS} characters, and 255 bytes.")
    if model_id in RESERVED_MODEL_IDS:
        raise Refused(f"{model_id} is a word of the API (/api/models/{model_id}); choose another id.")


def check_free(type_name: str, model_id: str) -> ModelVersion | None:
    """The registered model of that id whose directory is gone, if there is one; raises Refused when the id is taken.

    Letter by letter and, for disks that know no capitals, without them.
    """
    if type_name not in ModelType.values:
        raise Refused(f"The type is one of {', '.join(ModelType.values)}.")
    check_model_id(model_id)
    root = config().MODELS_DIR
    if os.path.lexists(root / type_name / model_id):
        raise Refused(f"{type_name}/{model_id} lies in the store already; choose another id, or another version.")
    if (root / type_name).is_symlink():
        raise Refused(f"The store's folder {type_name} is a symbolic link; put a real folder there.")
    row = ModelVersion.objects.select_related("lineage").filter(model_id__iexact=model_id).first()
    if row is None:
        return None
    if row.model_id != model_id:
        raise Refused(f"{model_id} differs from the registered {row.model_id} in capitals only; choose another id.")
    if row.missing_since is None:
        raise Refused(f"{model_id} is registered already, in {row.path}; choose another id, or another version.")
    return row


def inspect(staging: Staging) -> Inspection:
    """The one model in the staging store. Raises Refused when there is none any more."""
    scan = scan_store(staging.store, {})
    found = next(iter(scan.directories), None)
    if found is None:
        path, reason = next(iter(scan.refused.items()), ("", ""))
        if not path:
            raise Refused("Nothing of the upload is left; send it again.")
        return _refused(path, reason)
    recognised = _recognised(found)
    try:
        gone = check_free(found.type, found.model_id)
        if gone is not None and gone.digest != found.digest:
            raise Refused(
                f"{found.model_id} is registered with other bytes, and its directory is gone; choose another id, or "
                "delete that model first."
            )
        check_lineage(Claim(found.path, found.model_id, found.type, found.said.lineage, found.said.version))
    except Refused as refusal:
        return _copy(recognised, refusal=str(refusal))
    return _copy(recognised, returns=gone is not None)


def check_lineage(claim: Claim) -> None:
    """Raises Refused where discovery would, beside the others of the same lineage: another type, a version that is
    taken."""
    rows = ModelVersion.objects.select_related("lineage").filter(lineage__name=claim.lineage)
    own = ModelVersion.objects.select_related("lineage").filter(model_id=claim.model_id)
    columns = ("model_id", "path", "version", "missing_since", "refusal", "lineage__name", "lineage__type")
    registered = {row.model_id: row for row in (*rows.only(*columns), *own.only(*columns))}
    present = [
        _claim_of(row)
        for row in registered.values()
        if row.missing_since is None and not row.refusal and row.model_id != claim.model_id
    ]
    refused = conflicts({name: _claim_of(row) for name, row in registered.items()}, [*present, claim])
    if claim.path in refused:
        raise Refused(refused[claim.path])


def read_metadata(staging: Staging, path: str) -> dict[str, Any]:
    """The upload's metadata.json, {} where there is none. Raises Refused for one that is too long, or no JSON object
    in a readable file."""
    try:
        with open_beneath(staging.store, f"{path}/{METADATA_FILE}") as descriptor:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refused(f"{METADATA_FILE} is no file; send the model again with a file, or without it.")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Refused(f"{METADATA_FILE} cannot be read: {error.strerror}; send the model again.") from error
    if len(content) > MAX_JSON_BYTES:
        raise Refused(f"{METADATA_FILE} has more than {MAX_JSON_BYTES} bytes; send the model again with less in it.")
    return parse_json(METADATA_FILE, content)


def apply_fields(staging: Staging, path: str, fields: Mapping[str, Any]) -> None:
    """Sets keys of the upload's metadata.json; None takes one away. Raises Refused where it cannot be read."""
    if not fields:
        return
    metadata = read_metadata(staging, path)
    for key, value in fields.items():
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
    fresh = staging.folder / METADATA_FILE
    fresh.write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(staging.store / path / METADATA_FILE)


def move(staging: Staging, path: str, type_name: str, model_id: str) -> None:
    """The upload gets another type or id. Raises Refused for an id that cannot be."""
    check_model_id(model_id)
    if type_name not in ModelType.values:
        raise Refused(f"The type is one of {', '.join(ModelType.values)}.")
    target = staging.store / type_name / model_id
    if target != staging.store / path:
        target.parent.mkdir(exist_ok=True)
        (staging.store / path).rename(target)


def _recognised(found: Directory) -> Inspection:
    said = found.said
    entry = catalogue.entries()[said.framework]
    known = next(one for one in entry.formats if one.name == said.artifact_format)
    return Inspection(
        type=found.type,
        model_id=found.model_id,
        name=said.name,
        lineage=said.lineage,
        version=said.version,
        description=said.description,
        framework=said.framework,
        framework_label=entry.label,
        artifact_format=known.name,
        format_prose=known.prose,
        executes_code=known.executes_code,
        digest=found.digest,
        size_bytes=found.size_bytes,
        file_count=len(found.files),
        files=[[file.path, file.size_bytes] for file in found.files[:SHOWN_FILES]],
        metadata=found.metadata,
        versions=ModelVersion.objects.filter(lineage__name=said.lineage).exclude(model_id=found.model_id).count(),
    )


def _refused(path: str, reason: str) -> Inspection:
    type_name, _, model_id = path.partition("/")
    return Inspection(type=type_name, model_id=model_id, refusal=reason)


def _copy(inspection: Inspection, **changes: Any) -> Inspection:
    return Inspection(**{**inspection.to_dict(), **changes})


def _claim_of(row: ModelVersion) -> Claim:
    return Claim(row.path, row.model_id, row.lineage.type, row.lineage.name, row.version)
