"""The sample models, trained for real: complete, safe to load, and better than guessing."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from loaderd.catalogue import format_executes_code
from samples.catalogue import SAMPLES, TRAINERS, Sample
from samples.emails import LABELS, corpus_digest
from samples.making import PROJECT_DIR, make_samples

MARGIN = 0.25  # above the commonest class; the measured distances are 0.4 and more
ROUNDING = 5e-5  # of the accuracy in metadata.json

FILES = {
    "sklearn": {"model.skops"},
    "transformers": {"model.safetensors", "tokenizer.json"},
    "tensorflow": {"model.keras"},
}

each_sample = pytest.mark.parametrize("found", SAMPLES, ids=lambda found: found.model_id)


def metadata_of(found: Sample, store: Path) -> dict:
    return json.loads((found.directory(store) / "metadata.json").read_text())


@each_sample
def test_it_is_complete_and_holds_no_pickle(sample_store: Path, found: Sample) -> None:
    directory = found.directory(sample_store)
    files = {path.name for path in directory.iterdir()}
    assert files >= {"metadata.json", "config.json"} | FILES[found.framework]
    assert not any(name.endswith((".pkl", ".joblib", ".bin", ".pt", ".h5")) for name in files)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in directory.iterdir())


@each_sample
def test_its_metadata_says_what_it_is_and_how_it_was_made(sample_store: Path, found: Sample) -> None:
    metadata = metadata_of(found, sample_store)
    assert (metadata["lineage"], metadata["version"]) == (found.lineage, found.version)
    assert f"{metadata['lineage']}-v{metadata['version']}" == found.model_id
    assert datetime.fromisoformat(metadata["created_at"]).tzinfo is not None
    assert metadata["sample_input"]
    training = metadata["training"]
    if found.type in LABELS:
        assert tuple(metadata["labels"]) == LABELS[found.type]
        assert training["corpus_sha256"] == corpus_digest()
    assert training["seconds"] > 0
    assert training["libraries"]


@each_sample
def test_it_is_clearly_better_than_always_guessing_the_commonest_class(sample_store: Path, found: Sample) -> None:
    measured = metadata_of(found, sample_store)["performance_metrics"]
    assert measured["test_examples"] >= 50
    assert measured["accuracy"] > measured["majority_class_accuracy"] + MARGIN
    assert measured["macro_f1"] > measured["majority_class_accuracy"] + MARGIN


def test_the_second_version_of_the_sentiment_model_is_better_than_the_first(sample_store: Path) -> None:
    first, second = (
        metadata_of(found, sample_store)["performance_metrics"]["accuracy"]
        for found in SAMPLES
        if found.lineage == "sentiment-sklearn"
    )
    assert second > first


@pytest.mark.parametrize("framework", TRAINERS)
def test_loaderd_loads_it_without_approval_and_finds_the_stated_accuracy(sample_store: Path, framework: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.samples.answering", str(sample_store), framework],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers.keys() == {found.model_id for found in SAMPLES if found.framework == framework}
    for found in SAMPLES:
        if found.framework == framework:
            metadata, told = metadata_of(found, sample_store), answers[found.model_id]
            assert told["labels"] == metadata["labels"]
            assert set(told["sample"]) <= set(metadata["labels"])
            if found.type in LABELS:
                assert told["accuracy"] == pytest.approx(metadata["performance_metrics"]["accuracy"], abs=ROUNDING)


def test_no_type_in_a_skops_file_needs_to_be_trusted(sample_store: Path) -> None:
    import skops.io

    for path in sample_store.glob("*/*/model.skops"):
        assert skops.io.get_untrusted_types(file=path) == []
    assert not format_executes_code("sklearn", "skops")


def test_the_same_corpus_gives_the_same_model(sample_store: Path, tmp_path: Path) -> None:
    found = next(found for found in SAMPLES if found.model_id == "sentiment-sklearn-v2.0")
    (outcome,) = make_samples(tmp_path, [found])
    assert outcome.performance_metrics == metadata_of(found, sample_store)["performance_metrics"]
