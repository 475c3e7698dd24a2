"""Files through the real product: predicted by the command and by jobs, killed in the middle, and gone on with."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from tests.deadline import wait_until
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack"), pytest.mark.integration]

MODEL = "sentiment-sklearn-v1.0"
CORPUS = Path(__file__).resolve().parent.parent.parent / "samples" / "corpus" / "emails.jsonl"
ROWS = 1200


@pytest.fixture(scope="module")
def texts() -> list[str]:
    mails = [json.loads(line)["text"] for line in CORPUS.read_text().splitlines()]
    return [f"{mails[number % len(mails)]} ({number})" for number in range(ROWS)]


@pytest.fixture(scope="module")
def data(texts: list[str]) -> bytes:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(texts))
    return written.getvalue().encode()


@pytest.fixture
def loaded(api: httpx.Client) -> Iterator[str]:
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    yield MODEL
    api.post(f"/api/models/{MODEL}/unload")


def runner_of(stack: Stack) -> psutil.Process:
    """The process that runs jobs: a child of the `up` that was started last."""

    def found() -> psutil.Process | None:
        for process in stack.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[-1:] == ["jobrunner"]:
                    return process
        return None

    wait_until(lambda: found() is not None, 60, "jobs are run")
    process = found()
    assert process is not None
    return process


def of_job(api: httpx.Client, job_id: str) -> dict[str, object]:
    answer = api.get(f"/api/jobs/{job_id}/")
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


def single_predictions(api: httpx.Client, texts: list[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for begin in range(0, len(texts), 500):
        answer = api.post(f"/api/models/{MODEL}/predict", json={"inputs": texts[begin : begin + 500]})
        assert answer.status_code == 200, answer.text
        found += answer.json()["predictions"]
    return found


def test_a_job_whose_runner_is_killed_has_every_row_once(
    stack: Stack, api: httpx.Client, loaded: str, texts: list[str], data: bytes
) -> None:
    asked = api.post("/api/jobs/", files={"file": ("mails.csv", data)}, data={"model": MODEL, "batch_size": "2"})
    assert asked.status_code == 202, asked.text
    job_id = asked.json()["id"]
    wait_until(lambda: int(of_job(api, job_id)["rows_done"]) > 100, 60, "the job is under way")  # type: ignore[call-overload]
    first = runner_of(stack)
    first.kill()
    first.wait(30)
    seen = of_job(api, job_id)
    assert seen["state"] == "running", "nobody could say that it is not"
    assert 100 < int(seen["rows_done"]) < ROWS  # type: ignore[call-overload]
    wait_until(lambda: of_job(api, job_id)["state"] == "succeeded", 300, "the next runner ends the job")
    assert runner_of(stack).pid != first.pid
    done = of_job(api, job_id)
    assert (done["rows_done"], done["rows_total"], done["rows_failed"]) == (ROWS, ROWS, 0)
    assert done["model_id"] == MODEL
    result = api.get(f"/api/jobs/{job_id}/result")
    rows = list(csv.DictReader(io.StringIO(result.text, newline="")))
    assert [row["id"] for row in rows] == [str(number) for number in range(ROWS)]
    assert [row["text"] for row in rows] == texts
    single = single_predictions(api, texts)
    assert [row["label"] for row in rows] == [one["label"] for one in single]
    assert [float(row["score"]) for row in rows] == pytest.approx([one["score"] for one in single], abs=1e-5)
    assert not any(row["error"] for row in rows)
    assert api.delete(f"/api/jobs/{job_id}").status_code == 204
    assert not (stack.state_dir / "jobs" / job_id).exists()


def test_a_cancelled_job_is_retried_behind_what_is_written(
    stack: Stack, api: httpx.Client, loaded: str, texts: list[str], data: bytes
) -> None:
    asked = api.post("/api/jobs/", files={"file": ("mails.csv", data)}, data={"model": MODEL, "batch_size": "2"})
    job_id = asked.json()["id"]
    wait_until(lambda: int(of_job(api, job_id)["rows_done"]) > 100, 60, "the job is under way")  # type: ignore[call-overload]
    assert api.post(f"/api/jobs/{job_id}/cancel").status_code == 200
    wait_until(lambda: api.post(f"/api/jobs/{job_id}/retry").status_code == 202, 60, "the runner has left it")
    again = of_job(api, job_id)
    assert again["state"] in ("queued", "running")
    assert int(again["rows_done"]) > 100  # type: ignore[call-overload]
    wait_until(lambda: of_job(api, job_id)["state"] == "succeeded", 300, "the job ends")
    rows = list(csv.DictReader(io.StringIO(api.get(f"/api/jobs/{job_id}/result").text, newline="")))
    assert [row["id"] for row in rows] == [str(number) for number in range(ROWS)]
    assert [row["text"] for row in rows] == texts
    assert all(row["label"] and not row["error"] for row in rows)
    assert api.delete(f"/api/jobs/{job_id}").status_code == 204


def test_a_model_that_is_unloaded_is_waited_for(stack: Stack, api: httpx.Client, loaded: str, data: bytes) -> None:
    assert api.post(f"/api/models/{MODEL}/unload").status_code == 200
    job_id = api.post("/api/jobs/", files={"file": ("m.csv", data)}, data={"model": MODEL}).json()["id"]
    wait_until(lambda: "not loaded" in str(of_job(api, job_id)["problem"]) or
               "unloaded" in str(of_job(api, job_id)["problem"]), 60, "the job says what it waits for")  # fmt: skip
    assert of_job(api, job_id)["state"] == "queued"
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    wait_until(lambda: of_job(api, job_id)["state"] == "succeeded", 120, "the job goes on")
    assert api.delete(f"/api/jobs/{job_id}").status_code == 204


def test_the_command_predicts_csv_into_parquet(
    stack: Stack, loaded: str, texts: list[str], data: bytes, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_bytes(data)
    done = stack.manage("predict", MODEL, "--file", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.parquet"))
    assert f"{MODEL}: {ROWS:,} rows." in done.stderr
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("text").to_pylist() == texts
    assert set(table.column("label").to_pylist()) <= {"negative", "neutral", "positive"}
    assert table.column("error").null_count == ROWS
