"""Without a mouse: everything is reached, what has the focus is seen, a dialog keeps the focus and gives it back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.following import OPERATION_MS, open_model
from tests.browser.store import TOPIC
from tests.stack import Stack

MOST_STEPS = 80
FOCUSED = """() => {
    const one = document.activeElement, style = getComputedStyle(one);
    return {
        tag: one.tagName.toLowerCase(),
        name: (one.getAttribute("aria-label") || one.innerText || one.value || "").trim().replace(/\\s+/g, " "),
        inDialog: Boolean(one.closest("dialog[open]")),
        isSeen: one === document.body || style.outlineStyle !== "none" || style.boxShadow !== "none",
    };
}"""


@pytest.fixture
def unloaded(stack: Stack) -> Iterator[str]:
    with stack.api() as api:
        api.post(f"/api/models/{TOPIC}/unload")
        yield TOPIC
        api.post(f"/api/models/{TOPIC}/unload")


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until what is called `name` has the focus; on the way, whatever has it is seen to have it."""
    passed = []
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        passed.append(focused["name"])
        assert focused["isSeen"], f"nothing shows that {focused} has the focus"
        if focused["name"] == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}, but {passed}")


def test_the_first_step_skips_the_menu(page: Page) -> None:
    page.goto("/admin/")
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED)["name"] == "Skip to the content"
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()


def test_a_model_is_loaded_by_keys_alone(page: Page, unloaded: str) -> None:
    open_model(page, unloaded)
    page.evaluate("document.activeElement.blur()")
    load = page.get_by_role("main").get_by_role("button", name="Load", exact=True)
    tab_to(page, "Load")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(12):
        focused = page.evaluate(FOCUSED)
        assert focused["inDialog"] or focused["tag"] == "body", f"{focused} is behind the dialog"
        page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(load).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    tab_to_in_dialog(page, "Load")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("Loaded in")).to_be_visible(timeout=OPERATION_MS)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    focused = page.evaluate(FOCUSED)
    assert focused["tag"] != "body", "the focus is lost when the dialog closes"


def tab_to_in_dialog(page: Page, name: str) -> None:
    for _ in range(12):
        if page.evaluate(FOCUSED)["name"] == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name!r} in the dialog")


def test_the_tabs_of_a_model_go_by_arrows(page: Page, unloaded: str) -> None:
    open_model(page, unloaded)
    page.get_by_role("tab", name="Overview").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Versions")).to_be_focused()
    expect(page.get_by_role("tab", name="Versions")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("tabpanel", name="Versions").get_by_role("table").first).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tab").last).to_be_focused()
    page.keyboard.press("Home")
    expect(page.get_by_role("tab", name="Overview")).to_be_focused()


def test_ctrl_k_finds_a_model_and_opens_it(page: Page, unloaded: str) -> None:
    page.goto("/admin/")
    page.keyboard.press("Control+k")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.type(unloaded)
    expect(dialog.get_by_role("option", name=unloaded).first).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Overview")).to_be_visible()
    page.keyboard.press("Control+k")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
