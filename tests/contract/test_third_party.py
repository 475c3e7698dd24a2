"""A framework from someone else's package: the one of docs/adding-a-framework.md, word for word."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loaderd import catalogue
from loaderd.errors import InvalidInput, UnknownFramework
from loaderd.frameworks.base import Artifact

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "adding-a-framework.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def install(folder: Path, source: str) -> None:
    """Lays the package out as pip would."""
    (folder / "modelhub_lexicon.py").write_text(source)
    information = folder / "modelhub_lexicon-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: modelhub-lexicon\nVersion: 1.0\n")
    group, target = re.findall(r'"(.+?)"', block("toml"))
    (information / "entry_points.txt").write_text(f"[{group}]\nlexicon = {target}\n")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    catalogue.entries.cache_clear()
    yield folder
    sys.modules.pop("modelhub_lexicon", None)
    catalogue.entries.cache_clear()


def test_the_guide_keeps_its_word_on_length() -> None:
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 30


def test_an_installed_package_adds_a_framework(packages: Path, tmp_path: Path) -> None:
    install(packages, block("python"))
    directory = tmp_path / "my-lexicon-v1"
    directory.mkdir()
    (directory / "lexicon.json").write_text('{"good": 1.5, "bad": -2.0}')
    found = catalogue.detect(["lexicon.json", "metadata.json"], {})
    assert found is not None
    entry, found_format = found
    assert (entry.name, found_format.name) == ("lexicon", "lexicon")
    assert not catalogue.format_executes_code("lexicon", "lexicon")

    framework = catalogue.framework("lexicon")
    framework.import_library()
    artifact = Artifact("my-lexicon-v1", directory, "lexicon", ("lexicon.json",), approved=False)
    model = framework.load(artifact, lambda share: None)
    model.warm_up()
    outputs = model.predict({"text": np.array(["Good good", b"bad"], dtype=object)})
    np.testing.assert_array_equal(outputs["score"], np.float32([3.0, -2.0]))
    with pytest.raises(InvalidInput, match="must be text"):
        model.predict({"text": np.array([7], dtype=object)})


def test_an_entry_point_to_something_else_is_named(packages: Path) -> None:
    install(packages, "ENTRY = 'nothing'")
    with pytest.raises(UnknownFramework, match=r"modelhub_lexicon:ENTRY.*docs/adding-a-framework.md"):
        catalogue.entries()


def test_built_in_names_cannot_be_taken(packages: Path) -> None:
    install(packages, block("python").replace('FrameworkEntry("lexicon"', 'FrameworkEntry("sklearn"'))
    assert catalogue.entry("sklearn").target.startswith("loaderd.")
