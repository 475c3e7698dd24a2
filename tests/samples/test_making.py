"""What becomes of samples whose trainers work, fail or die."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from samples import making
from samples.catalogue import SAMPLES, TRAINERS, UnknownSample, sample
from samples.making import make_samples


@pytest.fixture
def _failing_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "TRAINERS", {"sklearn": "tests.samples.failing_trainer"})


@pytest.mark.usefixtures("_failing_trainer")
def test_a_trainer_that_fails_or_dies_does_not_stop_the_others(tmp_path: Path) -> None:
    ids = ["topic-sklearn-v1.0", "intent-sklearn-v1.0", "digits-sklearn-v1.0"]
    told: list[tuple[str, float]] = []
    outcomes = make_samples(
        tmp_path, [sample(model_id) for model_id in ids], tell=lambda *progress: told.append(progress)
    )

    failed, made, killed = outcomes
    assert [outcome.model_id for outcome in outcomes] == ids
    assert (failed.status, failed.error) == ("failed", "ValueError: the data is not there")
    assert made.status == "made"
    assert made.performance_metrics["accuracy"] == 1.0
    assert killed.status == "failed"
    assert killed.error == "tests.samples.failing_trainer was killed by signal 9: no memory left"
    assert ("intent-sklearn-v1.0", 0.5) in told
    assert [path.name for path in tmp_path.glob("[!.]*/*")] == ["intent-sklearn-v1.0"]


@pytest.mark.usefixtures("_failing_trainer")
def test_what_is_there_is_kept_and_its_metrics_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "topic" / "topic-sklearn-v1.0"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"performance_metrics": {"accuracy": 0.5}}))
    (outcome,) = make_samples(tmp_path, [sample("topic-sklearn-v1.0")])
    assert outcome.status == "kept"
    assert outcome.performance_metrics == {"accuracy": 0.5}


@pytest.mark.usefixtures("_failing_trainer")
def test_forced_it_is_made_again_and_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "topic" / "topic-sklearn-v1.0").mkdir(parents=True)
    (tmp_path / "intent" / "intent-sklearn-v1.0").mkdir(parents=True)
    wanted = [sample("topic-sklearn-v1.0"), sample("intent-sklearn-v1.0")]
    outcomes = make_samples(tmp_path, wanted, force=True)
    assert [outcome.status for outcome in outcomes] == ["failed", "made"]
    assert (tmp_path / "topic" / "topic-sklearn-v1.0").is_dir()
    assert (tmp_path / "intent" / "intent-sklearn-v1.0" / "metadata.json").is_file()


def test_every_sample_has_a_trainer_and_a_version() -> None:
    assert {found.framework for found in SAMPLES} == set(TRAINERS)
    assert len({(found.lineage, found.version) for found in SAMPLES}) == len(SAMPLES)
    assert [found.version for found in SAMPLES if found.lineage == "sentiment-sklearn"] == ["1.0", "2.0"]


def test_an_unknown_sample_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UnknownSample, match="topic-keras-v1.0"):
        sample("topic-v9")
