"""What every server serves: four models of three libraries, small enough that the server's own work shows."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import places

Item = str | list[float]


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One model. name: everywhere in the benchmarks, and its lineage in Modelhub; files: below the models' folder.

    datatype, shape: of its input in the Open Inference Protocol, for one item, without the batch.
    """

    name: str
    title: str
    files: str
    datatype: str
    shape: tuple[int, ...] = ()

    @property
    def is_text(self) -> bool:
        return self.datatype == "BYTES"

    @property
    def model_id(self) -> str:
        return f"{self.name}-v1.0"

    @property
    def path(self) -> Path:
        return places.models_dir() / self.files


MODELS = {
    model.name: model
    for model in (
        BenchModel("text", "TF-IDF (20,000 word pairs) and logistic regression, one e-mail", "text.joblib", "BYTES"),
        BenchModel("digits", "random forest of 100 trees, one image of 64 numbers", "digits.joblib", "FP64", (64,)),
        BenchModel("minilm", "MiniLM (6 layers, 22 M weights) with a classifier, one e-mail", "minilm", "BYTES"),
        BenchModel("keras", "CNN (1 M weights), one image of 8 × 8", "keras.keras", "FP32", (8, 8, 1)),
    )
}


@functools.lru_cache
def _items() -> dict[str, Any]:
    return dict(json.loads((places.models_dir() / "items.json").read_text()))


def items_of(name: str) -> list[Item]:
    """64 different items to ask for."""
    return list(_items()["items"][name])


def expected_of(name: str) -> list[str]:
    """What the model answers to them in an ordinary program."""
    return list(_items()["expected"][name])
