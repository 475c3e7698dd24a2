"""`python -m tests.samples.answering STORE FRAMEWORK`: held-out answers of the samples, loaded as loaderd loads them.

Prints {model_id: {"accuracy": …, "labels": [...], "sample": [label]}}. A process per framework, as in production.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from loaderd.catalogue import detect, framework
from loaderd.frameworks.base import Artifact, LoadedModel
from samples.catalogue import SAMPLES, Sample
from samples.emails import examples


def loaded(wanted: Sample, store: Path) -> LoadedModel:
    directory = wanted.directory(store)
    files = tuple(str(path.relative_to(directory)) for path in sorted(directory.rglob("*")) if path.is_file())
    config = json.loads((directory / "config.json").read_text())
    metadata = json.loads((directory / "metadata.json").read_text())
    found = detect(files, config)
    assert found is not None
    entry, weights = found
    assert entry.name == wanted.framework == metadata["framework"]
    assert not weights.executes_code
    artifact = Artifact(
        wanted.model_id, directory, weights.name, files, approved=False, config=config, metadata=metadata
    )
    return framework(entry.name).load(artifact, lambda share: None)


def answers(wanted: Sample, store: Path) -> dict[str, Any]:
    model = loaded(wanted, store)
    told: dict[str, Any] = {
        "labels": model.signature.labels,
        "sample": model.predict(model.sample_input())["label"].tolist(),
    }
    if model.signature.takes_text:
        held_out = examples(wanted.type, "test")
        given = {model.signature.inputs[0].name: np.array(held_out.texts, dtype=object)}
        expected = np.array(held_out.names, dtype=object)[held_out.classes]
        told["accuracy"] = float((model.predict(given)["label"] == expected).mean())
    return told


if __name__ == "__main__":
    store, name = Path(sys.argv[1]), sys.argv[2]
    framework(name).import_library()
    print(json.dumps({found.model_id: answers(found, store) for found in SAMPLES if found.framework == name}))
