"""Which files of an artifact may be read, and what needs a person's approval first."""

from __future__ import annotations

import os
from pathlib import Path

from loaderd.errors import ArtifactChanged, ArtifactRefused, LoadFailed
from loaderd.frameworks.base import Artifact


def root_file(artifact: Artifact, suffix: str) -> Path:
    """The listed file in the directory's root that ends in `suffix`: the only one, or the one named model<suffix>.

    Raises LoadFailed when there is none or the choice is open.
    """
    found = sorted(path for path in artifact.files if "/" not in path and path.endswith(suffix))
    if f"model{suffix}" in found:
        found = [f"model{suffix}"]
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files ({', '.join(found)})"
        raise LoadFailed(
            f"{artifact.model_id} has {what} ending in {suffix}; name the one to load model{suffix}.",
            model_id=artifact.model_id,
        )
    return artifact.directory / found[0]


def require_approval(artifact: Artifact, why: str) -> None:
    """Raises ArtifactRefused unless a person approved these bytes. why: "is a …, which …", put into the sentence."""
    if not artifact.approved:
        raise ArtifactRefused(
            f"{artifact.model_id} {why}, and nobody has approved these bytes; "
            f"check where they come from, then run: manage.py approve {artifact.model_id}",
            model_id=artifact.model_id,
        )


def refuse_unlisted(artifact: Artifact) -> None:
    """Raises ArtifactChanged when the directory holds files or linked folders that the manifest does not list.

    For libraries that are given a directory and choose by themselves what to read in it. Hidden files
    are passed over: no library here reads them.
    """
    listed = set(artifact.files)
    for folder, folders, names in os.walk(artifact.directory):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(folder) / name).is_symlink()]  # not walked, and yet readable
        for name in (*links, *names):
            path = (Path(folder) / name).relative_to(artifact.directory).as_posix()
            if not name.startswith(".") and path not in listed:
                raise ArtifactChanged(
                    f"{artifact.model_id} holds {path}, which is not among its registered files; "
                    "remove it or run: manage.py discover",
                    model_id=artifact.model_id,
                    path=path,
                )
