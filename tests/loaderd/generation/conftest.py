from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loaderd import catalogue
from loaderd.frameworks.base import Artifact, LoadedModel
from tests.loaderd.generation import writer
from tests.loaderd.generation.runs import Run

Load = Callable[..., LoadedModel]


@pytest.fixture(scope="session")
def load_writer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Load:
    """Loads the model of `writer` anew; chat: with a template for conversations."""
    framework = catalogue.framework("transformers")
    framework.ensure_imported()

    def load(*, chat: bool = True) -> LoadedModel:
        directory: Path = tmp_path_factory.mktemp("writer")
        assert request.config.cache is not None
        writer.write(directory, request.config.cache, chat=chat)
        files = tuple(sorted(path.name for path in directory.iterdir()))
        config, metadata = (json.loads((directory / f"{name}.json").read_text()) for name in ("config", "metadata"))
        artifact = Artifact("writer-v1", directory, "safetensors", files, False, config=config, metadata=metadata)
        return framework.load(artifact, lambda share: None)

    return load


@pytest.fixture(scope="session")
def model(load_writer: Load) -> LoadedModel:
    return load_writer()


@pytest.fixture
def run(model: LoadedModel) -> Iterator[Run]:
    """With nothing left over: every test finishes what it starts."""
    assert model.generation is not None
    model.generation.bound(8, 64)
    assert not model.generation.has_work
    yield Run(model.generation)
    assert not model.generation.has_work
