"""What `up` goes on with when something beside its parts fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelhub import postgres
from modelhub.conf import Config
from modelhub.launch import first_start, up
from modelhub.launch.manager import Manager


def test_it_tries_to_restart_postgres_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager, tries = Manager(), []

    def look(config: Config) -> int | None:
        raise postgres.PostgresError("its folder may not be entered")

    def start(config: Config) -> bool:
        tries.append(1)
        if len(tries) == 3:
            manager.stopping.set()
        raise OSError("no binaries")

    monkeypatch.setattr(postgres, "postmaster_pid", look)
    monkeypatch.setattr(postgres, "start", start)
    monkeypatch.setattr(up, "delay_after_death", lambda lived, previous: 0.01)
    up._keep_postgres(manager, Config(MODELHUB_STATE_DIR=tmp_path))
    assert len(tries) == 3
    said = [manager.events.get().data for _ in range(manager.events.qsize())]
    assert said[:2] == ["its folder may not be entered; it starts again in 0.01 s\n", "no binaries\n"]


def test_a_folder_of_the_store_that_cannot_be_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(config: Config) -> bool:
        raise PermissionError(13, "Permission denied", "/store/topic")

    monkeypatch.setattr(first_start, "wants_sample_models", refuse)
    monkeypatch.setattr(first_start, "make_first_admin", lambda config: None)
    monkeypatch.setattr(up, "call_command", lambda *args, **options: None)
    monkeypatch.setattr(up.static_files, "collect", lambda: False)
    monkeypatch.setattr(up.connections, "close_all", lambda: None)
    up._prepare(Config())
    line = "Sample models: /store/topic cannot be read (Permission denied); change its rights"
    assert capsys.readouterr().out.splitlines() == [line]
