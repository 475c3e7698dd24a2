"""What the trainers of all frameworks share: arguments, progress, metadata.json, one JSON line per event.

A trainer prints {"model_id", "progress"} while it works, and for each model at last {"model_id", "metrics"}
or {"model_id", "error"}. The exit status is 1 when one failed; the others are made all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from samples.catalogue import Sample, sample
from samples.emails import corpus_digest
from samples.measuring import metrics
from samples.publishing import AlreadyThere, published

SEED = 20_261

Progress = Callable[[float], None]
"""Called with the share of the work that is done, 0.0 to 1.0."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a model is, and what it answered on the held-out side after it was read back from its file.

    expected, predicted, trained_on: class numbers. sample_input: texts or rows. config: content of config.json;
    None when the library has written one. dataset: name of the data when it is not the corpus.
    """

    labels: Sequence[str]
    expected: Sequence[int]
    predicted: Sequence[int]
    trained_on: Sequence[int]
    sample_input: list[Any]
    config: Mapping[str, Any] | None = None
    dataset: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


Train = Callable[[Path, Progress], Trained]
"""Writes the artifact into the folder."""


def main(trains: Mapping[str, Train], libraries: Sequence[str]) -> int:
    """Makes the models named on the command line; trains: by model_id. Returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", choices=sorted(trains), metavar="ID")
    parser.add_argument("--store", type=Path, required=True, help="Folder to write <type>/<model_id>/ into.")
    parser.add_argument("--force", action="store_true", help="Replace models that exist.")
    arguments = parser.parse_args()
    failed = False
    for model_id in arguments.models:
        try:
            _make(sample(model_id), trains[model_id], libraries, arguments.store, arguments.force)
        except AlreadyThere:
            _tell(model_id, kept=True)
        except Exception as error:
            failed = True
            _tell(model_id, error=f"{type(error).__name__}: {error}")
    return int(failed)


def _make(wanted: Sample, train: Train, libraries: Sequence[str], store: Path, replace: bool) -> None:
    started = time.monotonic()
    _tell(wanted.model_id, progress=0.0)
    with published(wanted.directory(store), replace=replace) as folder:
        trained = train(folder, lambda share: _tell(wanted.model_id, progress=round(share, 3)))
        seconds = time.monotonic() - started
        measured = write_metadata(wanted, trained, folder, libraries, seconds)
    _tell(wanted.model_id, metrics=measured, seconds=round(seconds, 2))


def write_metadata(
    wanted: Sample, trained: Trained, folder: Path, libraries: Sequence[str], seconds: float
) -> dict[str, float]:
    """Writes metadata.json and, where there is none yet, config.json; returns the metrics in it."""
    measured = metrics(trained.expected, trained.predicted, trained.trained_on)
    data = {"dataset": trained.dataset} if trained.dataset else {"corpus_sha256": corpus_digest()}
    metadata = {
        "name": wanted.name,
        "version": wanted.version,
        "lineage": wanted.lineage,
        "description": wanted.description,
        "framework": wanted.framework,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "labels": list(trained.labels),
        "sample_input": trained.sample_input,
        "performance_metrics": measured,
        "training": {
            **data,
            "train_examples": len(trained.trained_on),
            "seconds": round(seconds, 2),
            "seed": SEED,
            "parameters": dict(trained.parameters),
            "libraries": {name: version(name) for name in libraries},
        },
    }
    write_json(folder / "metadata.json", metadata)
    if trained.config is not None:
        write_json(folder / "config.json", {"labels": list(trained.labels), **trained.config})
    return measured


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tell(model_id: str, **event: Any) -> None:
    # A pipe that nobody reads any more raises here: the one who asked is gone, and so the work ends.
    sys.stdout.write(json.dumps({"model_id": model_id, **event}) + "\n")
    sys.stdout.flush()
