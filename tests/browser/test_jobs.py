"""Jobs in the browser: asked for, cancelled, retried behind what is written, their results downloaded, removed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import people
from tests.browser.following import OPERATION_MS, close, open_model
from tests.browser.pages import LISTS
from tests.browser.store import LINEAGE, OLD
from tests.browser.visit import HOST, Visit
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


@pytest.fixture
def loaded(stack: Stack) -> Iterator[None]:
    with stack.api() as api:
        assert api.post(f"/api/models/{OLD}/load").status_code == 200
        yield
        api.post(f"/api/models/{OLD}/unload")


@pytest.mark.usefixtures("loaded")
def test_a_file_is_sent_predicted_downloaded_and_removed(page: Page, visit: Visit) -> None:
    visit.expect_problem("422 .*/admin/jobs/predict/")
    open_model(page, OLD)
    main = page.get_by_role("main")
    main.get_by_role("link", name="Predict a file").click()
    model = page.get_by_role("combobox", name="Model")
    expect(model).to_have_value(OLD)
    field = page.get_by_label("Drop a file here,")
    send = page.get_by_role("button", name="Predict", exact=True)
    send.click()
    expect(page.locator("#error-file")).to_have_text("Choose a file.")

    field.set_input_files({"name": "mails.csv", "mimeType": "text/csv", "buffer": b"id,body\n1,Hello\n2,Goodbye\n"})
    expect(page.locator("#error-file")).to_be_empty()
    model.fill("sentiment-sk")
    expect(page.locator(f"#mh-models option[value='{LINEAGE}']")).to_be_attached()
    send.click()
    expect(page.locator("#error-model")).to_contain_text("No model and no lineage is named 'sentiment-sk'")
    expect(model).to_be_focused()

    model.fill(LINEAGE)
    page.get_by_role("combobox", name="Version or alias").fill("1.0")
    page.get_by_text("More", exact=True).click()
    columns = page.get_by_role("textbox", name="Columns with the input")
    columns.fill("mail")
    send.click()
    expect(page.locator("#error-column")).to_have_text('The file has no column "mail"; it has "id", "body".')
    expect(columns).to_be_focused()
    columns.fill("body")
    page.get_by_role("combobox", name="Result", exact=True).select_option("jsonl")
    send.click()  # the file is still chosen

    expect(main.get_by_text("succeeded", exact=True)).to_be_visible(timeout=END_MS)
    with page.expect_download() as download:
        main.get_by_role("link", name="Download the result").click()
    rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [(row["id"], row["body"]) for row in rows] == [("1", "Hello"), ("2", "Goodbye")]
    assert all(row["label"] and not row.get("error") for row in rows)

    address = page.url
    main.get_by_role("link", name="Remove", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("and its result")).to_be_visible()
    dialog.get_by_role("button", name="Remove the job").click()
    page.wait_for_url(f"**{JOBS}")
    expect(page.get_by_text(f"Removed: mails.csv by {OLD}, with its files.")).to_be_visible()
    page.goto(address)
    page.wait_for_url(f"**{JOBS}")
    expect(page.get_by_text("any more: it was removed")).to_be_visible()


def test_a_job_that_somebody_else_removes_is_told_on_its_page(page: Page, stack: Stack, job_id: str) -> None:
    page.goto(f"{JOBS}{job_id}/change/")
    expect(page.get_by_role("main").get_by_role("progressbar")).to_be_visible()
    with stack.api() as api:
        assert api.delete(f"/api/jobs/{job_id}").status_code == 204
    page.wait_for_url(f"**{JOBS}")
    expect(page.get_by_text(f"There is no job {job_id} any more")).to_be_visible()


@pytest.mark.usefixtures("loaded")
def test_without_a_script_what_was_typed_is_there_again(
    browser: Browser, stack: Stack, sessions: dict[str, str]
) -> None:
    context = browser.new_context(base_url=stack.web, java_script_enabled=False)
    context.add_cookies([{"name": "sessionid", "value": sessions[people.ADMIN], "domain": HOST, "path": "/"}])
    page = context.new_page()
    page.goto("/admin/jobs/predict/")
    mails = {"name": "mails.csv", "mimeType": "text/csv", "buffer": b"text\nHello\n"}
    page.get_by_label("Drop a file here,").set_input_files(mails)
    page.locator("#id_model").fill("none-such")
    page.locator("#id_output_format").select_option("parquet")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.locator("#error-model")).to_contain_text("No model and no lineage is named 'none-such'")
    expect(page.locator("#error-file")).to_have_text("The file was not kept: choose it again.")
    expect(page.locator("#id_output_format")).to_have_value("parquet")
    page.get_by_label("Drop a file here,").set_input_files(mails)
    page.locator("#id_model").fill(OLD)
    page.get_by_role("button", name="Predict", exact=True).click()
    page.wait_for_url(f"**{JOBS}*/change/")
    page.get_by_role("link", name="Remove", exact=True).click()
    page.get_by_role("button", name="Remove the job").click()
    page.wait_for_url(f"**{JOBS}")
    context.close()


def test_sending_is_stopped_and_leaves_the_form_as_it_was(page: Page) -> None:
    held: list[Route] = []
    page.route("**/admin/jobs/predict/", lambda route: held.append(route) if _is_sent(route) else route.continue_())
    page.goto(f"/admin/jobs/predict/?model={LINEAGE}")
    field = page.get_by_label("Drop a file here,")
    field.set_input_files({"name": "mails.csv", "mimeType": "text/csv", "buffer": b"text\nHello\n"})
    page.get_by_role("button", name="Predict", exact=True).click()
    stop = page.get_by_role("button", name="Stop sending")
    expect(stop).to_be_focused()
    stop.press("Enter")
    expect(page.get_by_text("Stopped; there is no job.")).to_be_visible()
    expect(stop).to_be_hidden()
    expect(page.get_by_role("button", name="Predict", exact=True)).to_be_enabled()
    assert field.evaluate("(field) => field.files[0].name") == "mails.csv"
    assert len(held) == 1


def test_a_session_that_ended_is_told_before_anything_is_sent(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.goto(f"/admin/jobs/predict/?model={LINEAGE}")
    page.get_by_label("Drop a file here,").set_input_files(
        {"name": "a.csv", "mimeType": "text/csv", "buffer": b"text\n"}
    )
    page.context.clear_cookies()
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.get_by_text("Your session ended; there is no job.")).to_be_visible()
    assert not sent


def _is_sent(route: Route) -> bool:
    return route.request.method == "POST"
