"""What a real load takes is never more than what was estimated from its files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd import estimate
from loaderd.protocol import ArtifactFile, ModelSpec
from tests.contract import transformers_artifacts
from tests.contract.cases import CASES, Case

PROJECT = Path(__file__).resolve().parent.parent.parent
MIB = 2**20


def large_vocabulary() -> Any:
    """20,000 words: small on disk, and much larger as Python objects."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    texts = [" ".join(f"w{number}" for number in range(start, 20_000, 2)) for start in (0, 1)]
    return make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, ["even", "odd"])


def large_arrays() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    return KNeighborsClassifier().fit(rng.normal(size=(20_000, 100)), rng.integers(0, 3, 20_000))


def pickled(make: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda directory: (directory / "model.pkl").write_bytes(pickle.dumps(make())) and None


def compressed(make: Callable[[], Any]) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        import joblib

        joblib.dump(make(), directory / "model.joblib", compress=3)

    return write


def skops_deflated(make: Callable[[], Any]) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        import skops.io

        skops.io.dump(make(), directory / "model.skops", compression=zipfile.ZIP_DEFLATED)

    return write


def dense_keras(directory: Path) -> None:
    """24 MB of weights, mostly zeros, packed to almost nothing."""
    import keras

    layers = [keras.Input((2000,)), keras.layers.Dense(3000, kernel_initializer="zeros"), keras.layers.Dense(3)]
    keras.Sequential(layers).save(directory / "stored.keras")
    stored = directory / "stored.keras"
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(directory / "model.keras", "w", zipfile.ZIP_DEFLATED) as to:
        for name in source.namelist():
            to.writestr(name, source.read(name))
    stored.unlink()


def deep_keras(directory: Path) -> None:
    """Sixty layers with hardly a weight."""
    import keras

    layers = [keras.layers.Dense(16, activation="relu") for _ in range(60)]
    keras.Sequential([keras.Input((16,)), *layers]).save(directory / "model.keras")


def half_precision(directory: Path) -> None:
    """20 MB of float16."""
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=16_000, hidden_size=256, num_hidden_layers=8, num_attention_heads=4, max_position_embeddings=64
    )
    transformers_artifacts.save(transformers.BertModel(config).to(torch.float16), directory)


def large_saved_model(directory: Path) -> None:
    import keras

    layers = [keras.Input((1000,)), keras.layers.Dense(4000), keras.layers.Dense(3)]
    keras.Sequential(layers).export(directory / "export", verbose=False)


LARGE = [
    Case("large-vocabulary-pickle", "sklearn", "pickle", pickled(large_vocabulary), [], {}),
    Case("large-vocabulary-joblib", "sklearn", "joblib", compressed(large_vocabulary), [], {}),
    Case("large-vocabulary-skops", "sklearn", "skops", skops_deflated(large_vocabulary), [], {}),
    Case("large-arrays-pickle", "sklearn", "pickle", pickled(large_arrays), [], {}),
    Case("large-arrays-skops", "sklearn", "skops", skops_deflated(large_arrays), [], {}),
    Case("half-precision", "transformers", "safetensors", half_precision, [], {}),
    Case("dense-keras", "tensorflow", "keras", dense_keras, [], {}),
    Case("deep-keras", "tensorflow", "keras", deep_keras, [], {}),
    Case("large-saved-model", "tensorflow", "saved-model", large_saved_model, [], {}),
]


def spec_of(case: Case, directory: Path) -> ModelSpec:
    """As the registry would send it, approved."""
    files = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        stat, sha256 = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
        name = path.relative_to(directory).as_posix()
        files.append(ArtifactFile(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, sha256))
    config = directory / "config.json"
    return ModelSpec(
        model_id=case.name,
        lineage=case.name,
        version="1",
        framework=case.framework,
        format=case.format,
        directory=str(directory),
        digest="d" * 64,
        files=tuple(files),
        approved=True,
        config=json.loads(config.read_text()) if config.exists() else {},
        metadata=case.metadata,
    )


@pytest.mark.parametrize(
    "framework",
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("sklearn", "transformers", "tensorflow")],
)
def test_no_load_takes_more_than_its_estimate(
    framework: str, directory_of: Callable[[Case], Path], tmp_path: Path
) -> None:
    specs = [spec_of(case, directory_of(case)) for case in (*CASES, *LARGE) if case.framework == framework]
    listing = tmp_path / "specs.json"
    listing.write_text(json.dumps([spec.to_message() for spec in specs]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.contract.measured_loads", framework, str(listing)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert not {name: facts for name, facts in measured.items() if "failed" in facts}
    estimated = {spec.model_id: estimate.peak_bytes(spec) for spec in specs}
    compared = {name: (facts["peak_bytes"] // MIB, estimated[name] // MIB) for name, facts in measured.items()}
    assert not {name: pair for name, pair in compared.items() if pair[0] > pair[1]}, "more than estimated, in MiB"
    # Not so high either that a small model is refused where ten of them would fit.
    assert all(estimated[name] <= 100 * MIB for name in small_cases(framework))


def small_cases(framework: str) -> set[str]:
    return {case.name for case in CASES if case.framework == framework and case.name != "safetensors-minilm"}


@pytest.mark.xdist_group("transformers")
def test_a_torch_file_of_narrow_numbers_counts_twice(tmp_path: Path) -> None:
    import torch

    sizes = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        torch.save({"weights": torch.zeros(500_000, dtype=dtype)}, tmp_path / "pytorch_model.bin")
        size = (tmp_path / "pytorch_model.bin").stat().st_size
        file = ArtifactFile("pytorch_model.bin", size, 1, 1, "")
        spec = ModelSpec("m", "m", "1", "transformers", "torch-weights", str(tmp_path), "", (file,))
        sizes[dtype] = estimate.peak_bytes(spec) - estimate.peak_bytes(replace(spec, files=()))
    expected = pytest.approx(estimate.WEIGHTS_FACTOR * 2_000_000, rel=0.05)
    assert sizes[torch.float32] == expected
    assert sizes[torch.float16] == sizes[torch.bfloat16] == expected
