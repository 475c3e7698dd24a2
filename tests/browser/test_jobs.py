"""A job in the browser: it is cancelled, retried behind what is written, and its result downloaded."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.following import OPERATION_MS, close
from tests.browser.pages import LISTS
from tests.browser.store import OLD
from tests.deadline import wait_until
from tests.stack import Stack

JOBS = next(place for place in LISTS if place.name == "jobs").path
ROWS = 20_000
END_MS = 120_000


@pytest.fixture
def job_id(stack: Stack) -> Iterator[str]:
    """Of a job that is under way."""
    data = "text\n" + "".join(f"mail {number}\n" for number in range(ROWS))
    with stack.api() as api:
        assert api.post(f"/api/models/{OLD}/load").status_code == 200
        fields = {"model": OLD, "batch_size": "8"}
        answer = api.post("/api/jobs/", files={"file": ("mails.csv", data.encode())}, data=fields)
        assert answer.status_code == 202, answer.text
        job_id = str(answer.json()["id"])
        wait_until(lambda: told(api, job_id)["rows_done"] > 100, 60, "the job is under way")
        yield job_id
        api.delete(f"/api/jobs/{job_id}")
        api.post(f"/api/models/{OLD}/unload")


def told(api: httpx.Client, job_id: str) -> dict[str, int]:
    found: dict[str, int] = api.get(f"/api/jobs/{job_id}").json()
    return found


def press(page: Page, link: str) -> Callable[[str], None]:
    """Presses what opens the dialog; returns what says yes in it and closes it."""
    page.get_by_role("main").get_by_role("link", name=link, exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()

    def confirm(verb: str) -> None:
        dialog.get_by_role("button", name=verb, exact=True).click()
        expect(dialog.get_by_role("status")).to_be_visible(timeout=OPERATION_MS)
        close(dialog)

    return confirm


def test_cancelled_retried_and_downloaded(page: Page, stack: Stack, job_id: str) -> None:
    page.goto(JOBS)
    page.get_by_role("link", name="mails.csv").first.click()
    main = page.get_by_role("main")
    expect(main.get_by_role("progressbar")).to_be_visible()
    confirm = press(page, "Cancel")
    expect(page.get_by_role("dialog").get_by_text("Retry goes on behind them")).to_be_visible()
    confirm("Cancel the job")
    expect(main.get_by_text("cancelled", exact=True)).to_be_visible()
    with stack.api() as api:
        done = told(api, job_id)["rows_done"]
    expect(main.get_by_text(f"Retry goes on behind row {done:,}.")).to_be_visible()

    confirm = press(page, "Retry")
    expect(
        page.get_by_role("dialog").get_by_text(f"It goes on behind row {done:,}; what is written stays.")
    ).to_be_visible()
    confirm("Retry")
    expect(main.get_by_text("succeeded", exact=True)).to_be_visible(timeout=END_MS)
    with page.expect_download() as download:
        main.get_by_role("link", name="Download the result").click()
    with download.value.path().open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [f"mail {number}" for number in range(ROWS)]
    assert all(row["label"] and not row["error"] for row in rows)
