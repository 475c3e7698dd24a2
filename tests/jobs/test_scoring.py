"""A file is predicted row for row: in order, once, whatever fails, and wherever it was interrupted."""

from __future__ import annotations

import csv
import errno
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaderd.errors import (
    LoaderUnreachable,
    ModelNotLoaded,
    ModelProcessDied,
    ModelRestarting,
    PredictionFailed,
    UnknownFramework,
)
from modelhub.jobs import asking, scoring
from modelhub.jobs.asking import Asker, MustWait, Stopped
from modelhub.jobs.checkpoint import Checkpoint
from modelhub.jobs.formats.rows import FileRefused
from modelhub.jobs.options import Options
from modelhub.jobs.pacing import Pace
from modelhub.jobs.results import PartFile
from modelhub.jobs.scoring import Plan, RowRefused, Scoring
from tests.jobs.conftest import REFUSED, ROWS_SIGNATURE, SIGNATURE, Model, answer_to

COUNT = 500
TEXTS = [f"text {number} {'x' * (number % 7)}" for number in range(COUNT)]


class Run:
    """Files in a folder, and what was kept of how far they came."""

    def __init__(self, folder: Path, kind: str = "csv", target_kind: str = "csv") -> None:
        self.folder, self.kind, self.target_kind = folder, kind, target_kind
        self.source = folder / "in"
        self.target = PartFile(folder / "out")
        self.kept: Checkpoint | None = None
        self.saves: list[Checkpoint] = []
        self.stop = threading.Event()
        self.on_save: Callable[[Checkpoint], None] = lambda checkpoint: None
        self.signature = SIGNATURE

    def save(self, checkpoint: Checkpoint) -> None:
        self.on_save(checkpoint)
        self.kept = checkpoint
        self.saves.append(checkpoint)

    def go(self, concurrency: int = 1, patience_seconds: float = 0.0, **options: Any) -> Checkpoint:
        """Goes on from what was kept, as another process would."""
        how = Options(**{"batch_rows": 16, **options})
        asker = Asker("m-v1", "ada", 5.0, Pace(how.batch_rows), patience_seconds, self.stop)
        kept = self.kept and Checkpoint.from_json(json.loads(json.dumps(self.kept.to_json())))
        with self.source.open("rb") as source:
            plan = Plan(source, self.kind, self.signature, how)
            target = PartFile(self.target.path)
            return Scoring(plan, asker, target, self.target_kind, self.save, concurrency).run(kept)

    def write(self, rows: list[dict[str, Any]]) -> None:
        if self.kind == "csv":
            with self.source.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif self.kind == "jsonl":
            self.source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), self.source, row_group_size=77)

    def result(self) -> list[dict[str, Any]]:
        if self.target_kind == "csv":
            return list(csv.DictReader(io.StringIO(self.target.path.read_text(), newline="")))
        if self.target_kind == "jsonl":
            return [json.loads(line) for line in self.target.path.read_text().splitlines()]
        rows: list[dict[str, Any]] = pq.read_table(self.target.path).to_pylist()
        return rows


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    made.write([{"id": number, "text": text} for number, text in enumerate(TEXTS)])
    return made


@pytest.fixture(autouse=True)
def _each_batch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(asking, "RETRY_SECONDS", (0.0,))


def is_whole(rows: list[dict[str, Any]]) -> bool:
    """Each row once, in order, with the model's own answer."""
    assert [int(row["id"]) for row in rows] == list(range(COUNT))
    for row, text in zip(rows, TEXTS, strict=True):
        answer = answer_to(text)
        assert row["text"] == text
        assert row["label"] == answer["label"]
        assert abs(float(row["score"]) - answer["score"]) < 1e-9
        scores = row["scores"]
        assert (json.loads(scores) if isinstance(scores, str) else scores) == pytest.approx(answer["scores"])
        assert not row.get("error")
    return True


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("target_kind", ["csv", "jsonl", "parquet"])
def test_every_format_becomes_every_other(tmp_path: Path, model: Model, kind: str, target_kind: str) -> None:
    run = Run(tmp_path, kind, target_kind)
    run.write([{"id": number, "text": text} for number, text in enumerate(TEXTS)])
    done = run.go()
    assert is_whole(run.result())
    assert (done.rows, done.failed, done.is_complete) == (COUNT, 0, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert all(model.headers), "each request says that nobody waits for it"
    assert max(model.asked) <= 16


@pytest.mark.parametrize("concurrency", [2, 5])
def test_requests_at_the_same_time_change_nothing(run: Run, model: Model, concurrency: int) -> None:
    run.go(concurrency)
    assert is_whole(run.result())


@pytest.mark.parametrize("target_kind", ["csv", "jsonl", "parquet"])
def test_interrupted_again_and_again_it_goes_on_behind_the_last_row_that_was_kept(
    tmp_path: Path, model: Model, target_kind: str
) -> None:
    whole, run = Run(tmp_path, target_kind=target_kind), Run(tmp_path, target_kind=target_kind)
    whole.write([{"id": number, "text": text} for number, text in enumerate(TEXTS)])
    whole.go()
    expected = whole.result()
    whole.target.path.unlink()
    turns = 0
    while turns < 100:
        turns += 1
        left = 1 + turns % 4

        def break_off(checkpoint: Checkpoint) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped

        run.on_save = break_off
        try:
            done = run.go(concurrency=1 + turns % 3)
        except Stopped:
            # What a killed process had written and not kept lies behind what counts.
            with run.target.part.open("ab") as part:
                part.write(b'999,"half a row')
            continue
        break
    assert turns > 5
    assert done.rows == COUNT
    assert run.result() == expected
    assert is_whole(run.result())


def test_it_stops_after_the_batch_that_is_under_way(run: Run, model: Model) -> None:
    model.on_asked = lambda: run.stop.set() if len(model.asked) == 4 else None
    with pytest.raises(Stopped):
        run.go()
    assert run.kept is not None
    assert 0 < run.kept.rows < COUNT
    assert not run.target.path.exists()
    run.stop.clear()
    run.go()
    assert is_whole(run.result())


def test_a_crash_before_the_result_is_in_its_place_costs_nothing(run: Run, model: Model) -> None:
    run.go()
    assert run.kept is not None
    assert run.kept.is_complete
    asked = len(model.asked)
    run.go()  # the result is there and the part is gone
    run.target.path.rename(run.target.part)
    run.go()  # the part is whole, and was not moved yet
    assert is_whole(run.result())
    assert len(model.asked) == asked


class TestBadRows:
    def test_they_get_an_error_and_shift_nobody(self, run: Run, model: Model) -> None:
        lines = run.source.read_text().splitlines(keepends=True)
        lines[3] = "2\n"  # ragged
        lines[100] = f"99,{REFUSED}\n"  # the model refuses it
        lines[COUNT] = f'{COUNT - 1},"x"y\n'  # wrongly quoted
        run.source.write_text("".join(lines))
        done = run.go()
        rows = run.result()
        assert (done.rows, done.failed) == (COUNT, 3)
        assert {index: row["error"] for index, row in enumerate(rows) if row["error"]} == {
            2: "Line 4 has 1 fields and the header names 2.",
            99: "Line 101: Item 0 is refused.",
            COUNT - 1: f"Line {COUNT + 1} is no CSV: ',' expected after '\"'.",
        }
        assert [row["id"] for row in rows[:-1]] == [str(number) for number in range(COUNT - 1)]
        assert rows[2]["label"] == ""
        assert rows[98]["label"] == answer_to(TEXTS[98])["label"]

    def test_strict_ends_at_the_first_and_keeps_what_came_before(self, run: Run, model: Model) -> None:
        lines = run.source.read_text().splitlines(keepends=True)
        lines[101] = f"100,{REFUSED}\n"
        run.source.write_text("".join(lines))
        with pytest.raises(RowRefused, match="Line 102: Item 0 is refused"):
            run.go(strict=True, concurrency=3)
        assert run.kept is not None
        assert run.kept.rows == 100
        assert not run.target.path.exists()

    def test_the_rows_before_an_unreadable_place_are_kept(self, run: Run, model: Model) -> None:
        with run.source.open("a") as file:
            file.write('500,"never closed\n')
        with pytest.raises(FileRefused, match="line 502 a quote is never closed"):
            run.go()
        assert run.kept is not None
        assert run.kept.rows == COUNT

    def test_a_row_that_kills_the_model_is_found_and_passed_over(
        self, run: Run, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = model.predict

        def predict(model_id: str, inputs: list[Any], **how: Any) -> dict[str, Any]:
            if TEXTS[70] in inputs:
                raise ModelProcessDied("m-v1's process died.")
            return answered(model_id, inputs, **how)

        monkeypatch.setattr(asking.client, "predict", predict)
        done = run.go()
        assert done.failed == 1
        assert run.result()[70]["error"] == "Line 72: m-v1's process died."


class TestColumns:
    def test_columns_of_the_same_names_get_a_prefix_beside_them(self, tmp_path: Path, model: Model) -> None:
        run = Run(tmp_path)
        run.write([{"text": "a", "label": "mine"}])
        run.go()
        (row,) = run.result()
        assert list(row) == [
            "text", "label", "predicted_label", "predicted_score", "predicted_scores", "predicted_error",
        ]  # fmt: skip
        assert row["label"] == "mine"

    def test_a_prefix_that_helps_nothing_is_refused(self, tmp_path: Path, model: Model) -> None:
        run = Run(tmp_path)
        run.write([{"text": "a", "label": "x", "predicted_label": "y"}])
        with pytest.raises(FileRefused, match='The input has "predicted_label"'):
            run.go()
        run.go(prefix="new_")
        assert "new_label" in run.result()[0]

    @pytest.mark.parametrize(
        ("scores", "wanted"),
        [("json", ["scores"]), ("columns", ["score_negative", "score_positive"]), ("none", [])],
    )
    def test_scores_in_one_column_in_many_or_in_none(
        self, run: Run, model: Model, scores: str, wanted: list[str]
    ) -> None:
        run.go(scores=scores)
        row = run.result()[0]
        assert list(row) == ["id", "text", "label", "score", *wanted, "error"]
        if scores == "columns":
            assert float(row["score_positive"]) == pytest.approx(answer_to(TEXTS[0])["scores"]["positive"])

    def test_objects_with_keys_of_their_own_have_no_place_in_csv(self, tmp_path: Path, model: Model) -> None:
        run = Run(tmp_path, "jsonl", "csv")
        run.source.write_text('{"text": "a"}\n{"text": "b", "more": 1}\n{"text": "c"}\n')
        assert run.go().failed == 1
        assert [row["error"] for row in run.result()] == [
            "",
            'Line 2: it has "more", which the first row has not, so the result has no column for it',
            "",
        ]

    def test_plain_values_and_objects_in_json_lines(self, tmp_path: Path, model: Model) -> None:
        run = Run(tmp_path, "jsonl", "jsonl")
        run.source.write_text('"a"\n{"input": "b", "n": 1}\nnull\n{]\n')
        assert run.go().failed == 2
        rows = run.result()
        assert rows[0] == {"input": "a", **answer_to("a")}
        assert rows[1] == {"input": "b", "n": 1, **answer_to("b")}
        assert rows[2] == {"input": None, "error": 'Line 3: "input" must be a text, not null.'}
        assert list(rows[3]) == ["error"]

    @pytest.mark.parametrize("target_kind", ["csv", "jsonl", "parquet"])
    def test_numbers_in_numbers_out(self, tmp_path: Path, model: Model, target_kind: str) -> None:
        run = Run(tmp_path, "parquet", target_kind)
        run.signature = ROWS_SIGNATURE
        run.write([{"a": 1.0, "b": 2, "c": 0.5}, {"a": 1.0, "b": None, "c": 0.5}])
        assert run.go().failed == 1
        first, second = run.result()
        assert float(first["output"]) == 3.5
        assert second["error"] == 'Line 2: "b" has no value.'


class TestWaiting:
    def test_what_passes_is_waited_for(self, run: Run, model: Model) -> None:
        model.errors = [LoaderUnreachable("away."), ModelRestarting("soon."), LoaderUnreachable("away.")]
        run.go(patience_seconds=30.0)
        assert is_whole(run.result())

    def test_what_lasts_is_told_and_nothing_is_lost(self, run: Run, model: Model) -> None:
        model.on_asked = lambda: model.errors.append(ModelNotLoaded("load it.")) if len(model.asked) == 5 else None
        with pytest.raises(MustWait, match="load it"):
            run.go()
        assert run.kept is not None
        kept = run.kept.rows
        assert 0 < kept < COUNT
        model.on_asked = lambda: None
        run.go()
        assert is_whole(run.result())

    def test_a_batch_that_fails_is_tried_row_by_row(self, run: Run, model: Model) -> None:
        model.errors = [PredictionFailed("shapes.")]
        assert run.go().failed == 0
        assert is_whole(run.result())

    def test_an_error_of_another_kind_ends_it(self, run: Run, model: Model) -> None:
        model.errors = [UnknownFramework("none such.")]
        with pytest.raises(UnknownFramework):
            run.go()


def test_requests_grow_until_an_answer_tells_of_others_and_are_small_from_then_on(run: Run, model: Model) -> None:
    def asked() -> None:
        model.others_seconds = 0.010 if sum(model.asked) > 200 else None

    model.on_asked = asked
    assert run.go(batch_rows=None).rows == COUNT
    told = next(index for index, _ in enumerate(model.asked) if sum(model.asked[: index + 1]) > 200)
    # One may be on its way, and one be read, when the answer comes.
    assert max(model.asked[: told + 1]) > 2 * max(model.asked[told + 3 :])


def test_a_full_disk_loses_nothing_that_was_kept(run: Run, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], PartFile.write

    def full(self: PartFile, data: bytes) -> None:
        written.append(data)
        if len(written) == 5:
            write(self, data[: len(data) // 2])  # some of it still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(PartFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run.go()
    assert run.kept is not None
    assert run.kept.rows < COUNT
    monkeypatch.setattr(PartFile, "write", write)
    run.go()
    assert is_whole(run.result())
