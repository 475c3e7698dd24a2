"""A real store on disk for each test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhub.conf import config


class Store:
    """A folder of models that a test fills by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, path: str, files: dict[str, bytes] | None = None, metadata: Any = None, config: Any = None) -> Path:
        """A model directory; without files a small skops one."""
        directory = self.root / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in (files or {"model.skops": path.encode()}).items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for name, value in (("metadata.json", metadata), ("config.json", config)):
            if value is not None:
                (directory / name).write_text(value if isinstance(value, str) else json.dumps(value))
        return directory


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    root = tmp_path / "store"
    root.mkdir()
    monkeypatch.setattr(config(), "MODELS_DIR", root.resolve())
    return Store(root.resolve())


@pytest.fixture
def discovered(store: Store, db: None) -> Callable[..., Any]:
    """Runs discovery over the store."""
    from modelhub.registry.discovery import discover

    return lambda **options: discover(actor="test", **options)
