"""`manage.py demo_models`."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from modelhub.conf import config
from samples import making
from samples.catalogue import SAMPLES

QUICK = "sentiment-sklearn-v1.0"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = tmp_path / "models"
    monkeypatch.setattr(config(), "MODELS_DIR", store)
    return store


def demo_models(*arguments: str) -> str:
    out = StringIO()
    call_command("demo_models", *arguments, stdout=out)
    return out.getvalue()


def test_it_trains_a_model_into_the_store_and_leaves_it_alone_the_next_time(store: Path) -> None:
    (made,) = json.loads(demo_models("--only", QUICK, "--json"))
    assert (made["status"], made["path"]) == ("made", str(store / "sentiment" / QUICK))
    assert made["performance_metrics"]["accuracy"] > made["performance_metrics"]["majority_class_accuracy"] + 0.25
    stamp = (store / "sentiment" / QUICK / "metadata.json").stat().st_mtime_ns

    (kept,) = json.loads(demo_models("--only", QUICK, "--json"))
    assert (kept["status"], kept["performance_metrics"]) == ("kept", made["performance_metrics"])
    assert (store / "sentiment" / QUICK / "metadata.json").stat().st_mtime_ns == stamp

    (again,) = json.loads(demo_models("--only", QUICK, "--json", "--force"))
    assert again["status"] == "made"
    assert (store / "sentiment" / QUICK / "metadata.json").stat().st_mtime_ns > stamp


def test_it_lists_without_making(store: Path) -> None:
    assert {row["model_id"]: row["is_in_store"] for row in json.loads(demo_models("--list", "--json"))} == {
        found.model_id: False for found in SAMPLES
    }
    assert QUICK[:9] in demo_models("--list")
    assert not store.exists()


def test_it_tells_which_model_failed_and_why_and_ends_with_1(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(making, "TRAINERS", {"sklearn": "tests.samples.failing_trainer"})
    with pytest.raises(SystemExit) as ended:
        call_command("demo_models", "--only", "topic-sklearn-v1.0", "intent-sklearn-v1.0")
    assert ended.value.code == 1
    assert "topic-sklearn-v1.0 was not made: ValueError: the data is not there" in capsys.readouterr().err
    assert (store / "intent" / "intent-sklearn-v1.0").is_dir()


def test_an_unknown_id_is_wrong_usage(store: Path) -> None:
    with pytest.raises(CommandError, match="No sample model is named 'nonsense'") as refused:
        demo_models("--only", "nonsense")
    assert refused.value.returncode == 2


def test_a_store_that_cannot_be_written_is_one_line(store: Path) -> None:
    store.parent.mkdir(exist_ok=True)
    store.write_text("a file")
    with pytest.raises(CommandError, match=r"Cannot write the sample models to .*set MODELS_DIR"):
        demo_models("--only", QUICK)
