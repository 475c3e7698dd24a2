"""One product, one Chromium and some people for the browser tests; all end with the last of these tests.

They end with the package, not with the session: Playwright's synchronous calls leave an event loop running in this
thread, and other tests of this worker begin one of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser import chromium, people, store
from tests.browser.visit import Visit
from tests.stack import PROJECT_DIR, Stack, fresh_stack

KEPT = PROJECT_DIR / "var" / "browser"
Enter = Callable[..., Visit]
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="package")
def stack(sample_store: Path) -> Iterator[Stack]:
    with fresh_stack() as stack:
        store.small(sample_store, stack.models_dir)
        stack.start().wait_for_zygotes()
        yield stack
        assert stack.process is not None
        assert stack.process.poll() is None, "up ended by itself:\n" + "".join(stack.output[-80:])


@pytest.fixture(scope="package")
def sessions(stack: Stack) -> dict[str, str]:
    return people.sessions(stack)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def enter(browser: Browser, stack: Stack, sessions: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Enter]:
    """Makes a visit of a person (None: nobody who is known). What went wrong in it fails the test at its end.

    What a failed test saw lies in var/browser afterwards: a picture, and a trace for `playwright show-trace`.
    """
    visits: list[Visit] = []

    def enter(person: str | None, *, dark: bool = False, phone: bool = False) -> Visit:
        session = None if person is None else sessions[person]
        visit = Visit(browser, stack.web, session, dark=dark, phone=phone)
        visit.context.tracing.start(snapshots=True)
        visits.append(visit)
        return visit

    yield enter
    problems = [line for visit in visits for line in visit.unexpected()]
    for number, visit in enumerate(visits):
        if problems or request.node.stash.get(_FAILED, False):
            visit.keep(KEPT, f"{re.sub(r'[^a-z0-9]+', '-', request.node.name)}-{number}")
        visit.context.close()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def visit(enter: Enter) -> Visit:
    """The admin's."""
    return enter(people.ADMIN)


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
