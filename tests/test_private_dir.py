"""A folder of sockets is this user's alone, or nothing starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from modelhub.conf import config
from modelhub.private_dir import NotPrivate, ensure_private_dir


def test_it_is_made_for_this_user_alone_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "run"
    for _ in range(2):
        ensure_private_dir(folder)
        assert folder.stat().st_mode & 0o777 == 0o700


def test_one_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o701)
    with pytest.raises(NotPrivate, match=f"Others may enter {tmp_path}.*chmod 700"):
        ensure_private_dir(tmp_path)


def test_a_link_is_refused_even_to_a_private_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(NotPrivate, match="is a link"):
        ensure_private_dir(link)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(NotPrivate, match="move away what is there"):
            ensure_private_dir(path)


@pytest.mark.skipif(os.getuid() != 0, reason="gives a folder away")
def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(NotPrivate, match="belongs to uid 12345"):
        ensure_private_dir(folder)


@pytest.mark.parametrize("command", ["queue", "loaderd"])
def test_nothing_is_started_in_an_open_folder(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    run_dir.chmod(0o777)
    monkeypatch.setattr(type(config()), "run_dir", run_dir)
    with pytest.raises(CommandError, match="Others may enter"):
        call_command(command)
