"""manage.py predict --file: what it writes, how it goes on, what it refuses."""

# ruff: noqa: F811 (fixtures are imported by name)

from __future__ import annotations

import csv
import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from loaderd.errors import ModelNotLoaded
from modelhub.jobs import asking, scoring
from modelhub.management import predicting
from modelhub.registry.models import ModelVersion
from tests.api.conftest import MakeVersion
from tests.jobs.conftest import REFUSED, SIGNATURE, Model, answer_to, model  # noqa: F401

pytestmark = pytest.mark.django_db

TEXTS = [f"row {number}" for number in range(200)]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(asking, "RETRY_SECONDS", (0.0,))


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    make_version("m-v2", lineage="m", version="2.0.0", signature=SIGNATURE)
    return make_version("m-v1", lineage="m", version="1.0.0", signature=SIGNATURE, status="loaded")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    return path


def predict(source: Path | str, target: Path | str, *more: str) -> None:
    call_command("predict", "m", "--file", str(source), "--out", str(target), "--batch-size", "10", *more)


def is_whole(path: Path) -> bool:
    rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == [answer_to(text)["label"] for text in TEXTS]
    return True


def test_a_file_is_predicted_and_nothing_else_is_left(
    version: ModelVersion,
    model: Model,
    source: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = source.with_name("out.csv")
    predict(source, target)
    assert is_whole(target)
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.csv", "out.csv"]
    assert "m-v1: 200 rows." in capsys.readouterr().err


def test_what_a_spreadsheet_would_run_is_guarded_unless_told_not_to(
    version: ModelVersion, model: Model, source: Path
) -> None:
    source.write_text("text,low\n=1+1,-0.5\n")
    for option, wanted in (((), "'=1+1,-0.5,"), (("--no-formula-guard",), "=1+1,-0.5,")):
        target = source.with_name("out.csv")
        predict(source, target, "--overwrite", *option)
        assert target.read_text().splitlines()[1].startswith(wanted)


def test_a_version_is_named(
    version: ModelVersion,
    model: Model,
    source: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict(source, source.with_name("out.jsonl"), "--version", "2.0.0", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["model_id"], told["rows"], told["rows_failed"]) == ("m-v2", 200, 0)


def test_a_pipe_goes_in_and_out(version: ModelVersion, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"a"\n"b"\n')))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, write_through=True))
    predict("-", "-", "--input-format", "jsonl", "--scores", "none")
    rows = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(row["input"], row["label"]) for row in rows] == [(text, answer_to(text)["label"]) for text in "ab"]


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(
    version: ModelVersion,
    model: Model,
    source: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = source.with_name("out.csv")
    model.on_asked = lambda: signal.raise_signal(signal.SIGINT) if len(model.asked) == 8 else None
    with pytest.raises(SystemExit) as ended:
        predict(source, target)
    assert ended.value.code == 130
    assert "kept in out.csv.part; --resume goes on" in " ".join(capsys.readouterr().err.split())
    assert not target.exists()
    model.on_asked = lambda: None
    asked = sum(model.asked)
    with pytest.raises(CommandError, match="--resume goes on with it, --overwrite begins anew"):
        predict(source, target)
    predict(source, target, "--resume")
    assert is_whole(target)
    assert sum(model.asked) <= asked + 200 - 40
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.csv", "out.csv"]


class TestResume:
    @pytest.fixture
    def left(self, version: ModelVersion, model: Model, source: Path) -> Path:
        """What a run left whose model went away."""
        target = source.with_name("out.csv")
        model.on_asked = lambda: (
            model.errors.append(ModelNotLoaded("m-v1 is not loaded.")) if len(model.asked) > 5 else None
        )
        with pytest.raises(CommandError, match="m-v1 is not loaded. What is done is kept in out.csv.part; --resume"):
            predict(source, target, "--wait", "0")
        model.on_asked = lambda: None
        model.errors.clear()
        return target

    def test_another_input_is_not_gone_on_with(self, left: Path, source: Path) -> None:
        source.write_text("text\nother\n")
        with pytest.raises(CommandError, match="is not what .* was written for"):
            predict(source, left, "--resume")

    def test_other_options_are_not_gone_on_with(self, left: Path, source: Path) -> None:
        with pytest.raises(CommandError, match="is not what .* was written for"):
            predict(source, left, "--resume", "--scores", "none")

    def test_it_goes_on_with_the_version_that_it_began_with(
        self, left: Path, source: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ModelVersion.objects.filter(model_id="m-v2").update(status="loaded")
        predict(source, left, "--resume")
        assert "m-v1: 200 rows" in capsys.readouterr().err
        assert is_whole(left)

    def test_overwriting_begins_anew(self, left: Path, source: Path, model: Model) -> None:
        model.asked.clear()
        predict(source, left, "--overwrite")
        assert sum(model.asked) == 200
        assert is_whole(left)

    def test_damaged_notes_are_said(self, left: Path, source: Path) -> None:
        left.with_name("out.csv.part.json").write_text("{")
        with pytest.raises(CommandError, match=r"out.csv.part.json cannot be read"):
            predict(source, left, "--resume")


def test_a_result_that_is_there_is_not_replaced_unasked(
    version: ModelVersion,
    model: Model,
    source: Path,
) -> None:
    target = source.with_name("out.csv")
    target.write_text("mine")
    with pytest.raises(CommandError, match="exists; --overwrite replaces it"):
        predict(source, target)
    assert target.read_text() == "mine"
    predict(source, target, "--overwrite")
    assert is_whole(target)


def test_strict_ends_at_the_first_bad_row(version: ModelVersion, model: Model, source: Path) -> None:
    source.write_text(f"text\nok\n{REFUSED}\nok\n")
    with pytest.raises(CommandError, match="Line 3: Item 0 is refused"):
        predict(source, source.with_name("out.csv"), "--strict")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--file", "in.csv"], "--file and --out go together"),
        (["--file", "-", "--out", "x.csv"], "The format of - is not told by its name"),
        (["--file", "in.txt", "--out", "x.csv"], "The format of in.txt is not told"),
        (["--file", "-", "--input-format", "parquet", "--out", "x.csv"], "Parquet is read from and written to files"),
        (["--file", "in.csv", "--out", "-", "--out-format", "parquet"], "Parquet is read from and written to files"),
        (["--file", "in.csv", "--out", "in.csv"], "--out must be another file"),
        (["--file", "none.csv", "--out", "x.csv"], "none.csv: No such file"),
        (["--file", "in.csv", "--out", "-", "--resume"], "--resume needs a file as --out"),
        (["--file", "-", "--input-format", "csv", "--out", "x.csv", "--resume"], "--resume needs a file as --file"),
        (["text", "--file", "in.csv", "--out", "x.csv"], "not two of them"),
        (["--file", "in.csv", "--out", "x.csv", "--delimiter", "ab"], "--delimiter must be one character"),
        (["--file", "in.csv", "--out", "x.csv", "--batch-size", "0"], "0 is not from 1 to"),
    ],
)
def test_wrong_usage_ends_with_2(
    version: ModelVersion, source: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(source.parent)
    with pytest.raises(CommandError) as refused:
        call_command("predict", "m", *arguments)
    assert told in str(refused.value)
    if "--batch-size" not in arguments:
        assert refused.value.returncode == 2


def test_what_the_file_lacks_is_said(version: ModelVersion, source: Path) -> None:
    with pytest.raises(CommandError, match='The file has no column "body"'):
        predict(source, source.with_name("out.csv"), "--column", "body")
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.csv"]


def test_the_bar_shows_rows_and_what_is_waited_for(version: ModelVersion) -> None:
    shown: Any = predicting._Shown(quiet=False)
    with shown:
        shown.begin("in.csv", 1000, None)
        shown.moved(predicting.Checkpoint("m-v1", offset=500, rows=1234, failed=2))
        task = shown._bar.tasks[0]
        assert (task.percentage, task.fields["rows"], task.fields["note"]) == (50.0, 1234, "2 with an error")
        assert task.fields["rate"].endswith("/s")
        shown.waits(ModelNotLoaded("load it."))
        assert shown._bar.tasks[0].fields["note"] == "waits: load it."
