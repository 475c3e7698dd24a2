"""Steps that several journeys take: to a model's page, through a dialog to an operation's end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from playwright.sync_api import Locator, Page, expect

from tests.browser.pages import MODELS
from tests.stack import Stack

OPERATION_MS = 30_000


def open_model(page: Page, model_id: str, tab: str = "") -> None:
    """By the list's search, as a person does."""
    page.goto(MODELS)
    page.get_by_role("searchbox", name="Search models").fill(model_id)
    page.get_by_role("searchbox", name="Search models").press("Enter")
    page.get_by_role("link", name=model_id, exact=True).click()
    expect(page.get_by_role("tab", name="Overview")).to_be_visible()
    if tab:
        page.get_by_role("tab", name=tab).click()


def row_of(page: Page, model_id: str) -> Locator:
    """The row of a table whose link is the model's."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=model_id, exact=True))


def head(page: Page) -> Locator:
    """What stands above the tabs of a model's page: its state, and what can be done."""
    return page.locator("[data-mh-live]").filter(has=page.locator(".mh-state")).first


def ask(page: Page, button: str, model_id: str) -> Locator:
    """Presses the button of a model's page and returns the dialog, which states the effect and names the model."""
    page.get_by_role("main").get_by_role("button", name=button, exact=True).first.click()
    expect(page.get_by_role("dialog", name=model_id)).to_be_visible()
    return page.get_by_role("dialog")  # the one that is open, whatever it shows next


def confirm(dialog: Locator, verb: str) -> None:
    """Says yes and returns when the operation that follows has succeeded."""
    dialog.get_by_role("button", name=re.compile(f"^{verb}")).click()
    expect(dialog.get_by_text("succeeded", exact=True)).to_be_visible(timeout=OPERATION_MS)


def close(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    expect(dialog).to_be_hidden()


@contextmanager
def loads_wait(stack: Stack) -> Iterator[None]:
    """Inside, a load of scikit-learn begins and gets no further, so that its progress can be looked at."""
    zygote = psutil.Process(stack.loader_client().status()["facts"]["zygotes"]["sklearn"]["pid"])
    zygote.suspend()
    try:
        yield
    finally:
        zygote.resume()
