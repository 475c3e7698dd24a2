from __future__ import annotations

from pathlib import Path

import pytest

from samples.publishing import MAKING, AlreadyThere, published, remove_abandoned


def test_a_model_appears_whole_and_readable(tmp_path: Path) -> None:
    target = tmp_path / "topic" / "topic-v1"
    with published(target) as folder:
        (folder / "inner").mkdir()
        secret = folder / "inner" / "model.skops"
        secret.write_text("weights")
        secret.chmod(0o600)
        assert not target.exists()
        assert folder.name.startswith(".")
    assert (target / "inner" / "model.skops").stat().st_mode & 0o777 == 0o644
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["topic"]


def test_a_model_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), published(tmp_path / "topic" / "topic-v1") as folder:
        (folder / "missing").rename(folder / "model.skops")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_exists_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "topic" / "topic-v1"
    target.mkdir(parents=True)
    (target / "old").touch()
    with pytest.raises(AlreadyThere), published(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_model_is_replaced_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "topic" / "topic-v1"
    target.mkdir(parents=True)
    (target / "old").touch()
    with published(target, replace=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["topic"]


def test_what_a_killed_maker_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    (tmp_path / f"{MAKING}topic-v1-{2**22 + 1}").mkdir()  # above the kernel's highest pid
    with published(tmp_path / "topic" / "topic-v1") as folder:
        remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [folder]
