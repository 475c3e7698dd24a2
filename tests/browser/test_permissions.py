"""Who may not act sees no action, and is refused when the request is forged all the same."""

from __future__ import annotations

import pytest
from playwright.sync_api import APIResponse, Page, expect

from tests.browser import people
from tests.browser.conftest import Enter
from tests.browser.following import open_model, row_of
from tests.browser.pages import MODELS
from tests.browser.store import OLD, TOPIC
from tests.stack import Stack

ACTIONS = ("load", "unload", "activate", "rollback", "approve")
WORDS = ("Load", "Load again", "Unload", "Activate", "Roll back to this", "Approve", "Delete", "Run discovery")


@pytest.fixture
def loaded(stack: Stack) -> str:
    with stack.api() as api:
        assert api.post(f"/api/models/{OLD}/load").status_code == 200
    return OLD


def post(page: Page, path: str, *, token: bool = True) -> APIResponse:
    """As a script of the page's own origin would: with the session, and the CSRF token of a page that was shown."""
    (found,) = (cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "csrftoken")
    headers = {"Referer": page.url} | ({"X-CSRFToken": found} if token else {})
    return page.request.post(path, headers=headers, form={"confirmed": "yes"}, max_redirects=0)


def test_a_viewer_sees_no_action(enter: Enter, loaded: str) -> None:
    page = enter(people.VIEWER).page
    page.goto("/admin/")
    expect(row_of(page, loaded)).to_be_visible()
    expect(row_of(page, loaded).get_by_role("button")).to_have_count(0)
    page.goto(MODELS)
    expect(row_of(page, loaded)).to_be_visible()
    expect(row_of(page, loaded).get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("button", name="Run discovery")).to_have_count(0)
    for model_id in (loaded, TOPIC):
        open_model(page, model_id)
        for word in WORDS:
            expect(page.get_by_role("main").get_by_role("button", name=word, exact=True)).to_have_count(0)
            expect(page.get_by_role("main").get_by_role("link", name=word, exact=True)).to_have_count(0)


def test_a_forged_action_of_a_viewer_is_answered_403(stack: Stack, enter: Enter, loaded: str) -> None:
    viewer, operator = enter(people.VIEWER).page, enter(people.OPERATOR).page
    open_model(viewer, loaded)
    operator.goto(viewer.url)
    model = viewer.url.partition("/change/")[0]
    for name in ACTIONS:
        assert post(viewer, f"{model}/{name}/").status == 403, name
        assert viewer.request.get(f"{model}/{name}/").status in (403, 405), name
    lineages = [f"/admin/registry/model/1/{name}/" for name in ("rollback", "alias", "alias-remove", "traffic")]
    for path in (*lineages, f"{MODELS}optimize/", f"{MODELS}discover/"):
        assert post(viewer, path).status == 403, path
    # It was the permission that was missing: the same request of an operator is carried out.
    assert post(operator, f"{model}/unload/", token=False).status == 403
    assert operator.request.get(f"{model}/unload/").status == 200
    with stack.api() as api:
        assert api.get(f"/api/models/{loaded}").json()["status"] == "loaded"
        assert post(operator, f"{model}/unload/").status in (200, 302)
        operations = api.get("/api/operations", params={"model": loaded}).json()
    newest = (operations["results"] if isinstance(operations, dict) else operations)[0]
    assert (newest["kind"], newest["requested_by"]) == ("unload", people.OPERATOR)
