"""What holds for every page: no serious finding of axe-core, light and dark; no sideways scrolling on a phone."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser import people
from tests.browser.conftest import Enter
from tests.browser.pages import DASHBOARD, ENTRIES, LISTS, PLACES, Place, go
from tests.browser.store import BROKEN, LINEAGE, NEW, OLD
from tests.browser.visit import PHONE
from tests.deadline import wait_until
from tests.stack import Stack

GRAVE = ("serious", "critical")


@pytest.fixture(scope="package")
def lived_in(stack: Stack) -> None:
    """Something has happened: loads, one that failed, a shadow, predictions, so that lists and pages have entries."""
    with stack.api() as api:
        assert api.post(f"/api/models/{OLD}/activate").status_code == 200
        assert api.post(f"/api/models/{NEW}/load").status_code == 200
        assert api.post(f"/api/models/{BROKEN}/load").status_code >= 400
        shadow = {"candidate_percent": 0, "shadow": True}
        assert api.put(f"/api/lineages/{LINEAGE}/aliases/candidate", json={"model_id": NEW}).status_code == 200
        assert api.put(f"/api/lineages/{LINEAGE}/traffic", json=shadow).status_code == 200
        assert api.post(f"/api/models/{LINEAGE}/predict", json={"inputs": ["Where is my parcel?"]}).status_code == 200

        def is_written() -> bool:
            return bool(api.get(f"/api/lineages/{LINEAGE}/comparison").status_code == 200)

        wait_until(is_written, 30, "the prediction and its copy are written down")
        assert api.put(f"/api/lineages/{LINEAGE}/traffic", json={**shadow, "shadow": False}).status_code == 200
        assert api.delete(f"/api/lineages/{LINEAGE}/aliases/candidate").status_code in (200, 204)


def grave_findings(page: Page, *rules: str) -> list[str]:
    """What axe-core finds wrong with the page, of its `rules` or of all, as lines: rule, what to do, where."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{finding['id']} ({finding['impact']}): {finding['help']}: {node['html'][:200]} {node['target']}"
        + "".join(f" [{check['message']}]" for check in node["any"][:1])
        for finding in found
        if finding["impact"] in GRAVE
        for node in finding["nodes"]
    ]


def overflowing(page: Page) -> list[str]:
    """What sticks out of the page's width; empty when there is nothing to scroll sideways."""
    found: list[str] = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            const right = (one) => Math.round(one.getBoundingClientRect().right);
            const wide = [...document.querySelectorAll("body *")].filter((one) => right(one) > width);
            const tell = (one) => `${one.tagName.toLowerCase()}#${one.id}.${one.className} to ${right(one)}`;
            return [`scrolls to ${document.documentElement.scrollWidth} of ${width}`, ...wide.slice(0, 5).map(tell)];
        }"""
    )
    return found


@pytest.mark.usefixtures("lived_in")
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_page_is_for_everyone(page: Page, place: Place) -> None:
    go(page, place)
    found = [f"light: {line}" for line in grave_findings(page)]
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_class("dark")
    found += [f"dark: {line}" for line in grave_findings(page, "color-contrast")]
    page.set_viewport_size(PHONE)
    found += [f"phone: {line}" for line in overflowing(page)]
    assert not found, "\n".join(found)


def test_the_login_is_for_everyone(enter: Enter) -> None:
    page = enter(None).page
    page.goto("/admin/")
    assert not grave_findings(page)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_class("dark")
    assert not grave_findings(page, "color-contrast")
    page.set_viewport_size(PHONE)
    assert not overflowing(page)


def test_every_entry_of_the_sidebar_is_looked_at(page: Page) -> None:
    page.goto("/admin/")
    links = page.get_by_role("navigation", name="Main").locator("a[href^='/admin/']")
    led_to = set(links.evaluate_all("(all) => all.map((one) => one.getAttribute('href'))"))
    seen = {place.path for place in (DASHBOARD, *LISTS, *ENTRIES)}
    assert led_to - seen - {"/admin/logout/"} == set()


@pytest.mark.usefixtures("lived_in")
def test_a_viewer_may_look_at_every_page_of_the_sidebar(enter: Enter) -> None:
    page = enter(people.VIEWER).page
    page.goto("/admin/")
    links = page.get_by_role("navigation", name="Main").locator("a[href^='/admin/']")
    addresses = links.evaluate_all("(all) => all.map((one) => one.getAttribute('href'))")
    assert "/admin/registry/modelversion/" in addresses
    for address in addresses:
        response = page.goto(address)
        assert response is not None
        assert response.status == 200, address
