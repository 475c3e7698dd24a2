"""Artifacts and loaded models, each made once per worker; nothing here may reach a network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loaderd.frameworks.base import LoadedModel
from tests.contract.cases import Case, artifact_of, load


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            pytest.fail(f"a framework connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.fixture(scope="session")
def directory_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """The directory of a case's artifact, built on first use."""
    made: dict[str, Path] = {}

    def build(case: Case) -> Path:
        if case.name not in made:
            directory = tmp_path_factory.mktemp(case.name)
            case.build(directory)
            made[case.name] = directory
        return made[case.name]

    return build


@pytest.fixture(scope="session")
def model_of(directory_of: Callable[[Case], Path]) -> Callable[[Case], LoadedModel]:
    loaded: dict[str, LoadedModel] = {}

    def get(case: Case) -> LoadedModel:
        if case.name not in loaded:
            loaded[case.name] = load(artifact_of(case, directory_of(case)), case.framework)
        return loaded[case.name]

    return get


@pytest.fixture
def model(case: Case, model_of: Callable[[Case], LoadedModel]) -> LoadedModel:
    return model_of(case)
