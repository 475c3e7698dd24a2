"""Settings: a bad value stops the start with one line; the docs know every one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelhub.conf import PROJECT_DIR, BadSetting, Config, config
from modelhub.policy.models import OVERRIDABLE
from modelhub.secret_key import secret_key
from tests.environment import for_child

DOCS = PROJECT_DIR / "docs" / "configuration.md"


def row(name: str) -> str:
    field = Config.model_fields[name]
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"| `{name}` | {f'`{default}`' if default else 'empty'} | {field.description} |"


@pytest.mark.parametrize("name", Config.model_fields)
def test_the_docs_list_the_setting_with_its_default_and_its_prose(name: str) -> None:
    assert row(name) in DOCS.read_text(), f"docs/configuration.md needs the line:\n{row(name)}"


def test_the_docs_list_no_setting_that_is_gone() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", DOCS.read_text(), re.MULTILINE))
    assert documented == set(Config.model_fields)


def test_the_docs_say_which_settings_change_at_run_time() -> None:
    marked = set(re.findall(r"^\| `([A-Z_]+)` \|.*\| yes \|$", DOCS.read_text(), re.MULTILINE))
    assert marked == set(OVERRIDABLE)


@pytest.fixture
def read_again() -> object:
    """config() is read once per process; here it is read anew."""
    config.cache_clear()
    yield config
    config.cache_clear()


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("WEB_PORT", "eighty", "integer"),
        ("WEB_PORT", "70000", "65535"),
        ("QUEUE_WORKERS", "0", "greater than or equal to 1"),
        ("MODEL_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("MODEL_TIMEOUT_SECONDS", "inf", "finite"),
        ("MAX_MEMORY_USAGE_PERCENT", "0", "greater than 0"),
        ("SAMPLING_RATE", "1.5", "less than or equal to 1"),
        ("PERFORMANCE_LOG_LEVEL", "LOUD", "'WARNING'"),
        ("DATABASE_URL", "mysql://h/x", "postgres://"),
        ("DATABASE_URL", "postgres://h:notaport/x", "DATABASE_URL"),
        ("DATABASE_URL", "postgres://h", "names no database"),
        ("TIME_ZONE", "Atlantis", "Europe/Berlin"),
    ],
)
def test_a_bad_value_names_setting_and_allowed_values(
    read_again, name: str, value: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting) as refused:
        config()
    assert refused.value.code == 2
    (line,) = refused.value.lines
    assert name in line
    assert hint in line
    assert line in capsys.readouterr().err


def test_secrets_are_not_printed(
    read_again, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hunter2@host/name")
    with pytest.raises(BadSetting):
        config()
    assert "hunter2" not in capsys.readouterr().err


def test_manage_py_tells_each_problem_in_a_line_and_exits_with_2() -> None:
    ran = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PROJECT_DIR,
        env=for_child(WEB_PORT="x", QUEUE_WORKERS="-1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert [line.split("=")[0] for line in ran.stderr.splitlines()] == ["WEB_PORT", "QUEUE_WORKERS"]


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PORT", "")
    assert Config().WEB_PORT == 8000


def test_relative_folders_are_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config(MODELS_DIR=Path("somewhere")).MODELS_DIR == PROJECT_DIR / "somewhere"


def test_the_sockets_fit_into_their_107_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / ("x" * 100)):
        assert len(str(Config(MODELHUB_STATE_DIR=folder).gateway_socket)) <= 107


class TestSecretKey:
    def test_it_is_made_once_and_for_this_user_alone(self, tmp_path: Path) -> None:
        made = Config(MODELHUB_STATE_DIR=tmp_path / "state", SECRET_KEY="")
        key = secret_key(made)
        assert len(key) >= 50
        assert secret_key(made) == key
        assert (tmp_path / "state" / "secret_key").stat().st_mode & 0o777 == 0o600
        assert [path.name for path in (tmp_path / "state").iterdir()] == ["secret_key"]

    def test_processes_that_start_together_agree(self, tmp_path: Path) -> None:
        code = (
            "from modelhub.conf import config\nfrom modelhub.secret_key import secret_key\nprint(secret_key(config()))"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=PROJECT_DIR,
                env=for_child(MODELHUB_STATE_DIR=str(tmp_path)),
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        assert len({process.communicate()[0] for process in started}) == 1

    def test_a_key_from_outside_is_not_written_down(self, tmp_path: Path) -> None:
        assert secret_key(Config(MODELHUB_STATE_DIR=tmp_path / "state", SECRET_KEY="given")) == "given"
        assert not (tmp_path / "state").exists()

    def test_a_state_folder_that_cannot_be_made_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(BadSetting) as refused:
            secret_key(Config(MODELHUB_STATE_DIR=tmp_path / "file" / "state", SECRET_KEY=""))
        (line,) = refused.value.lines
        assert "MODELHUB_STATE_DIR" in line
