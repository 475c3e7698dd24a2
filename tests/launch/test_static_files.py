"""Static files are collected when they changed, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import LazySettings

from modelhub.launch import static_files


@pytest.fixture
def one_source(tmp_path: Path, settings: LazySettings) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "page.css").write_text("a {}")
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "static"
    return source


def test_the_second_time_nothing_is_done(one_source: Path, settings: LazySettings) -> None:
    assert static_files.collect() is True
    assert (settings.STATIC_ROOT / "page.css").exists()
    assert static_files.collect() is False


def test_a_changed_file_is_collected_and_a_removed_one_goes(one_source: Path, settings: LazySettings) -> None:
    static_files.collect()
    (one_source / "other.css").write_text("b {}")
    assert static_files.collect() is True
    (one_source / "page.css").unlink()
    assert static_files.collect() is True
    assert not (settings.STATIC_ROOT / "page.css").exists()
