"""The main way: log in, load with progress, predict, activate another version, roll back, unload. And a failed load
on its way to a working model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser import people
from tests.browser.conftest import Enter
from tests.browser.following import OPERATION_MS, ask, close, confirm, head, loads_wait, open_model
from tests.browser.store import BROKEN, NEW, OLD, PICKLE, TOPIC
from tests.stack import PASSWORD, Stack

TEXT = "The invoice is wrong again and nobody answers my mails. I am really disappointed."


@pytest.fixture
def nothing_loaded(stack: Stack) -> Iterator[None]:
    def unload_all() -> None:
        with stack.api() as api:
            for model_id in (OLD, NEW, BROKEN, PICKLE):
                api.post(f"/api/models/{model_id}/unload")

    unload_all()
    yield
    unload_all()


@pytest.fixture
def old_is_live(nothing_loaded: None, stack: Stack) -> None:
    with stack.api() as api:
        assert api.post(f"/api/models/{OLD}/activate").status_code == 200
        assert api.post(f"/api/models/{OLD}/unload").status_code == 200


@pytest.mark.usefixtures("old_is_live")
def test_from_the_login_to_the_unload(stack: Stack, enter: Enter) -> None:
    page = enter(None).page
    page.goto("/admin/")
    page.get_by_label("Username").fill(people.OPERATOR)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Models in memory")).to_be_visible()

    open_model(page, OLD)
    dialog = ask(page, "Load", OLD)
    with loads_wait(stack):
        dialog.get_by_role("button", name="Load", exact=True).click()
        expect(dialog.get_by_role("progressbar")).to_be_visible()
        expect(dialog.locator("[aria-current=step]")).to_be_visible()
        expect(dialog.get_by_role("button", name="Cancel the load")).to_be_visible()
    expect(dialog.get_by_text("Loaded in")).to_be_visible(timeout=OPERATION_MS)
    close(dialog)
    expect(head(page).get_by_text("loaded", exact=True)).to_be_visible()
    expect(head(page).get_by_text("healthy", exact=True)).to_be_visible()
    expect(head(page).locator(".mh-banner")).to_have_count(0)  # nothing is wrong with it

    page.get_by_role("tab", name="Playground").click()
    panel = page.get_by_role("tabpanel", name="Playground")
    panel.get_by_role("textbox").first.fill(TEXT)
    panel.get_by_role("button", name="Ask", exact=True).click()
    answer = panel.get_by_role("region", name="Answer").get_by_role("article", name="Input 1")
    expect(answer.get_by_text("negative").first).to_be_visible()

    open_model(page, NEW)
    dialog = ask(page, "Activate", NEW)
    confirm(dialog, "Activate")
    expect(dialog.get_by_text(f"It is live in place of {OLD}.")).to_be_visible()
    dialog.get_by_role("link", name="Undo: roll back").click()
    confirm(dialog, "Roll back")
    close(dialog)

    open_model(page, OLD)
    expect(head(page).get_by_text("live", exact=True)).to_be_visible()
    dialog = ask(page, "Unload", OLD)
    confirm(dialog, "Unload")
    expect(dialog.get_by_text("came back")).to_be_visible()
    close(dialog)
    expect(head(page).get_by_text("unloaded", exact=True)).to_be_visible()
    with stack.api() as api:
        assert api.get(f"/api/models/{OLD}").json()["status"] == "unloaded"


def count_clicks(page: Page) -> Callable[[], int]:
    """How many clicks this page sees from now on; it is not left meanwhile."""
    page.evaluate(
        "() => { window.clicks = 0; document.addEventListener('click', () => { window.clicks += 1; }, true); }"
    )
    return lambda: int(page.evaluate("window.clicks"))


@pytest.fixture
def mended_later(stack: Stack) -> Iterator[Callable[[], None]]:
    """Call it to put a whole file into the place of the broken one; afterwards it is broken again."""
    broken = next(stack.models_dir.glob(f"*/{BROKEN}")) / "model.skops"
    spoilt = broken.read_bytes()
    yield lambda: broken.write_bytes((next(stack.models_dir.glob(f"*/{TOPIC}")) / "model.skops").read_bytes())
    broken.write_bytes(spoilt)
    with stack.api() as api:
        api.post(f"/api/models/{BROKEN}/unload")
        assert api.post("/api/models/discover").status_code == 200


@pytest.mark.usefixtures("nothing_loaded")
def test_a_broken_file_is_mended_in_the_steps_of_docs_console(page: Page, mended_later: Callable[[], None]) -> None:
    open_model(page, BROKEN)
    dialog = ask(page, "Load", BROKEN)
    dialog.get_by_role("button", name="Load", exact=True).click()
    expect(dialog.get_by_text("failed", exact=True)).to_be_visible(timeout=OPERATION_MS)
    expect(dialog.get_by_text("Next:")).to_be_visible()
    close(dialog)
    failure = page.get_by_role("region", name="Its load failed")
    expect(failure.get_by_role("alert")).to_contain_text("BadZipFile")
    expect(failure.get_by_text("Next:")).to_be_visible()

    mended_later()
    clicks = count_clicks(page)
    dialog = ask(page, "Load again", BROKEN)
    dialog.get_by_role("button", name="Load", exact=True).click()
    expect(dialog.get_by_text("is not the one that was registered").first).to_be_visible(timeout=OPERATION_MS)
    dialog.get_by_role("link", name="Run discovery").click()
    dialog.get_by_role("button", name="Run discovery").click()
    expect(dialog.get_by_text("1 changed")).to_be_visible()
    close(dialog)
    confirm(ask(page, "Load again", BROKEN), "Load")
    close(dialog)
    assert clicks() == 8
    expect(head(page).get_by_text("loaded", exact=True)).to_be_visible()
    expect(failure).to_have_count(0)


@pytest.mark.usefixtures("nothing_loaded")
def test_a_pickle_is_approved_and_loaded_in_the_steps_of_docs_console(stack: Stack, page: Page) -> None:
    open_model(page, PICKLE)
    clicks = count_clicks(page)
    dialog = ask(page, "Load", PICKLE)
    expect(dialog.get_by_text("which can run any code")).to_be_visible()
    dialog.get_by_role("link", name="Approve these files").click()
    expect(page.get_by_role("dialog", name="Approve")).to_be_visible()
    dialog.get_by_role("button", name="Approve").click()
    close(dialog)
    confirm(ask(page, "Load", PICKLE), "Load")
    close(dialog)
    assert clicks() == 7
    expect(head(page).get_by_text("loaded", exact=True)).to_be_visible()
    with stack.api() as api:
        assert api.post(f"/api/models/{PICKLE}/predict", json={"inputs": [[5.1, 3.5, 1.4, 0.2]]}).status_code == 200
