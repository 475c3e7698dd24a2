"""A machine without a browser is told what to do; the tests then fail, they are not passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium


def program(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_named_program_goes_before_those_in_path(tmp_path: Path) -> None:
    found, own = program(tmp_path, "chromium-browser"), program(tmp_path, "my-chromium")
    assert chromium.find({"PATH": str(tmp_path)}) == found
    assert chromium.find({"PATH": str(tmp_path), "CHROMIUM": own}) == own


def test_a_name_that_is_no_program_is_not_replaced_by_another(tmp_path: Path) -> None:
    program(tmp_path, "chromium")
    assert chromium.find({"PATH": str(tmp_path), "CHROMIUM": "/nowhere/chromium"}) is None


def test_without_one_the_start_fails_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "find", lambda: None)
    nothing: Any = None
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        chromium.launch(nothing)


def test_where_nothing_can_be_installed_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chromium, "find", lambda: None)
    monkeypatch.setattr(chromium, "install", lambda: False)
    assert chromium.main() == 1
    assert chromium.ADVICE in capsys.readouterr().err
