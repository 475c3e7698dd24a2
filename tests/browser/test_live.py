"""What changes by itself in a page that is open: for several viewers, while nobody looks, while loaderd is away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.browser import people
from tests.browser.conftest import Enter
from tests.browser.following import row_of
from tests.browser.store import TOPIC
from tests.browser.visit import Visit
from tests.stack import Stack

SECONDS_FOR_A_CHANGE = 3.0


@pytest.fixture
def unloaded(stack: Stack) -> Iterator[str]:
    """A model that is not in memory, nor afterwards."""
    with stack.api() as api:
        api.post(f"/api/models/{TOPIC}/unload")
        yield TOPIC
        api.post(f"/api/models/{TOPIC}/unload")


def test_two_viewers_see_a_change_within_three_seconds(stack: Stack, enter: Enter, unloaded: str) -> None:
    pages = [enter(person).page for person in (people.OPERATOR, people.VIEWER)]
    for page in pages:
        page.goto("/admin/")
        expect(row_of(page, unloaded)).to_have_count(0)
    with stack.api() as api:
        assert api.post(f"/api/models/{unloaded}/load").status_code == 200
        deadline = time.monotonic() + SECONDS_FOR_A_CHANGE
        for page in pages:
            left = max(1.0, (deadline - time.monotonic()) * 1000)
            expect(row_of(page, unloaded).get_by_text("loaded", exact=True)).to_be_visible(timeout=left)
        api.post(f"/api/models/{unloaded}/unload")
    deadline = time.monotonic() + SECONDS_FOR_A_CHANGE
    for page in pages:
        left = max(1.0, (deadline - time.monotonic()) * 1000)
        expect(row_of(page, unloaded)).to_have_count(0, timeout=left)


def show(page: Page, is_visible: bool) -> None:
    """As the browser does when its tab is put behind another and taken to the front again."""
    page.evaluate(
        """(state) => {
            Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
            Object.defineProperty(document, "hidden", { configurable: true, get: () => state === "hidden" });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        "visible" if is_visible else "hidden",
    )


@pytest.mark.parametrize("path", ["/admin/", "/admin/registry/modelversion/"], ids=["dashboard", "models"])
def test_a_hidden_tab_asks_nothing_and_asks_at_once_when_it_is_seen(visit: Visit, path: str) -> None:
    page = visit.page
    page.clock.install()
    page.goto(path)
    with page.expect_response(lambda response: "/live/" in response.url):
        page.clock.run_for(10_000)
    show(page, False)
    page.wait_for_load_state("networkidle")
    before = list(visit.urls)
    page.clock.run_for(60_000)
    assert visit.urls == before
    with page.expect_request(lambda request: "/live/" in request.url):
        show(page, True)


@contextmanager
def loaderd_away(stack: Stack) -> Iterator[None]:
    """Inside, loaderd is dead and what starts it again is held; afterwards that goes on."""
    assert stack.process is not None
    keeper = psutil.Process(stack.process.pid)
    loaderd = stack.loaderd()
    keeper.suspend()
    try:
        os.kill(loaderd.pid, signal.SIGKILL)
        yield
    finally:
        keeper.resume()


def test_the_banner_appears_when_loaderd_is_killed_and_goes_when_it_is_back(stack: Stack, visit: Visit) -> None:
    page = visit.page
    page.goto("/admin/")
    banner = page.get_by_role("alert").filter(has_text="loaderd is unreachable")
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    expect(banner).to_have_count(0)
    with loaderd_away(stack):
        expect(banner).to_be_visible(timeout=20_000)
    expect(banner).to_have_count(0, timeout=60_000)
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    stack.wait_for_zygotes()
