"""Which version a file is predicted with: chosen once, so that every row has the answer of the same one."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from loaderd.errors import InvalidInput, ModelNotLoaded, UnknownModel
from modelhub.inference import client
from modelhub.lifecycle.versions import highest
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion

LIVE = "live"
SIGNATURE_SECONDS = 10.0  # from a load until the registry has its signature


def pinned(name: str, version: str = "") -> ModelVersion:
    """The version that the inference door means now by a name: a lineage's live one, else its highest that is loaded,
    else its highest; or the model of that id. version: a version or an alias of the lineage. Raises UnknownModel."""
    if "\0" in name + version:
        raise UnknownModel("No model and no lineage has a NUL character in its name.")
    lineage = Model.objects.filter(name=name).first()
    if lineage is None:
        found = ModelVersion.objects.filter(model_id=name).first()
        if found is None:
            raise UnknownModel(f"No model and no lineage is named {name!r}; `manage.py models` lists them.")
        if version not in ("", found.version):
            raise UnknownModel(f"{name} is version {found.version}, not {version}; ask for its lineage, or without.")
        return found
    versions = ModelVersion.objects.filter(lineage=lineage)
    if version:
        found = versions.filter(version=version).first() or _named(lineage, version)
        if found is None:
            raise UnknownModel(
                f"{name} has neither a version nor an alias {version!r}; `manage.py versions {name}` lists them."
            )
        return found
    known = list(versions)
    found = _named(lineage, LIVE) or highest(one for one in known if one.status == Status.LOADED) or highest(known)
    if found is None:
        raise UnknownModel(f"{name} has no version.", model_id=name)
    return found


def _named(lineage: Model, alias: str) -> ModelVersion | None:
    found = Alias.objects.select_related("version").filter(lineage=lineage, name=alias).first()
    return None if found is None else found.version


def signature_of(version: ModelVersion, *, user: str) -> dict[str, Any]:
    """Inputs, outputs and labels. Of a model that was never loaded the door is asked first, which loads it where its
    policy says so. Raises LoaderdError."""
    if version.signature is None:
        with contextlib.suppress(InvalidInput):  # it is loaded, and says that nothing was asked
            client.predict(version.model_id, [], user=user, timeout_seconds=client.time_limit_seconds(), is_bulk=True)
        deadline = time.monotonic() + SIGNATURE_SECONDS
        while version.signature is None and time.monotonic() < deadline:
            version.refresh_from_db(fields=["signature"])
            if version.signature is None:
                time.sleep(0.1)
    if version.signature is None:
        raise ModelNotLoaded(
            f"{version.model_id} was never loaded, so nobody knows what it takes; load it.", model_id=version.model_id
        )
    signature: dict[str, Any] = version.signature
    return signature
