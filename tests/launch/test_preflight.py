"""Before anything is started: each thing that is wrong is one line that says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhub.conf import Config
from modelhub.launch import preflight
from modelhub.launch.instance_lock import InstanceLock
from modelhub.launch.preflight import NotReady
from tests.ports import free_port


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(autouse=True)
def _sockets_lie_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else pytest's long paths would leave folders in /tmp."""
    monkeypatch.setattr(Config, "run_dir", property(lambda config: config.MODELHUB_STATE_DIR / "run"))


def settings(folder: Path, **values: object) -> Config:
    web, inference = free_port(), free_port()
    defaults = {
        "MODELS_DIR": folder / "models",
        "MODELHUB_STATE_DIR": folder / "state",
        "DATABASE_URL": "",
        "WEB_PORT": web,
        "INFERENCE_PORT": inference,
    }
    return Config(**(defaults | values))  # type: ignore[arg-type]


def problems(config: Config) -> list[str]:
    with pytest.raises(NotReady) as refused:
        preflight.check(config)
    return str(refused.value).splitlines()


def test_all_well_says_nothing_and_makes_the_folders(tmp_path: Path) -> None:
    config = settings(tmp_path)
    preflight.check_state_dir(config)
    preflight.check(config)
    assert config.MODELS_DIR.is_dir()
    assert config.MODELHUB_STATE_DIR.is_dir()


def test_a_port_in_use_names_the_setting(tmp_path: Path, taken_port: int) -> None:
    (line,) = problems(settings(tmp_path, INFERENCE_PORT=taken_port))
    assert line.startswith(f"INFERENCE_PORT: 127.0.0.1:{taken_port} cannot be used (Address already in use)")


def test_two_doors_on_one_port_are_refused(tmp_path: Path) -> None:
    (line,) = problems(settings(tmp_path, WEB_PORT=9000, INFERENCE_PORT=9000))
    assert "both 9000" in line


def test_grpc_on_the_port_of_another_door_is_refused(tmp_path: Path) -> None:
    (line,) = problems(settings(tmp_path, WEB_PORT=9000, GRPC_PORT=9000))
    assert line == "WEB_PORT and GRPC_PORT are both 9000; set one of them to another port, or GRPC_PORT to 0."
    (line,) = problems(settings(tmp_path, INFERENCE_PORT=9001, GRPC_PORT=9001))
    assert "both 9001" in line


def test_grpc_gives_way_to_a_door_that_was_put_on_its_usual_port(tmp_path: Path) -> None:
    assert settings(tmp_path, WEB_PORT=8002).grpc_port is None
    assert settings(tmp_path, INFERENCE_PORT=8002).grpc_port is None
    assert settings(tmp_path).grpc_port == 8002
    assert settings(tmp_path, GRPC_PORT=0).grpc_port is None


def test_grpc_without_its_port_does_not_stop_the_start(tmp_path: Path, taken_port: int) -> None:
    for port in (taken_port, 0):
        preflight.check(settings(tmp_path, GRPC_PORT=port))


def test_a_store_whose_parent_is_missing_is_not_made_up(tmp_path: Path) -> None:
    (line,) = problems(settings(tmp_path, MODELS_DIR=tmp_path / "not-mounted" / "models"))
    assert line.startswith("MODELS_DIR: ")
    assert "No such file or directory" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_state_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    config = settings(tmp_path)
    config.MODELHUB_STATE_DIR.mkdir(mode=0o500)
    with pytest.raises(NotReady, match="MODELHUB_STATE_DIR"):
        preflight.check_state_dir(config)


def test_a_database_that_does_not_answer_is_one_line_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    (line,) = problems(settings(tmp_path, DATABASE_URL=f"postgres://me:hunter2@127.0.0.1:{port}/hub"))
    assert line.startswith("DATABASE_URL: the database 127.0.0.1/hub does not answer (")
    assert "refused" in line
    assert "hunter2" not in line


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path, taken_port: int) -> None:
    found = problems(settings(tmp_path, MODELS_DIR=tmp_path / "a" / "b", WEB_PORT=taken_port))
    assert [line.split(":")[0] for line in found] == ["MODELS_DIR", "WEB_PORT"]


def test_a_second_start_in_one_state_folder_is_refused_until_the_first_ended(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path)
    with pytest.raises(NotReady, match=rf"runs already in .* \(pid {os.getpid()}\)"):
        InstanceLock(tmp_path)
    first.close()
    InstanceLock(tmp_path).close()


def test_sockets_in_a_folder_that_others_may_enter_are_refused(tmp_path: Path) -> None:
    config = settings(tmp_path)
    config.run_dir.mkdir(parents=True)
    config.run_dir.chmod(0o755)
    (line,) = problems(config)
    assert line.startswith(f"Others may enter {config.run_dir}")
