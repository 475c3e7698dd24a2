"""What a directory holds beside its registered files."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderd.errors import ArtifactChanged
from loaderd.frameworks.base import Artifact
from loaderd.frameworks.files import refuse_unlisted


def test_a_linked_folder_is_no_registered_file(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    (directory / "variables").mkdir(parents=True)
    (directory / "variables/index").touch()
    elsewhere.mkdir()
    artifact = Artifact("m-v1", directory, "saved-model", ("variables/index",), approved=True)
    refuse_unlisted(artifact)
    (directory / "variables/assets").symlink_to(elsewhere)
    with pytest.raises(ArtifactChanged, match="m-v1 holds variables/assets, which is not among"):
        refuse_unlisted(artifact)
