"""Sending a model from the browser."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

TOLD = "Told by the test."


def test_a_double_click_sends_once(page: Page) -> None:
    sent: list[str] = []

    def answer_name(route: Route) -> None:
        sent.append("name")
        route.fulfill(json={"errors": {}})

    def answer_upload(route: Route) -> None:
        if route.request.method == "POST":
            sent.append("upload")
            route.fulfill(json={"errors": {"files": [TOLD]}})
        else:
            route.continue_()

    page.route("**/admin/register/name/**", answer_name)
    page.route("**/admin/register/", answer_upload)
    page.goto("/admin/register/")
    page.set_input_files("#mh-choose", {"name": "m.zip", "mimeType": "application/zip", "buffer": b"PK"})
    page.select_option("[name=type]", "spam")
    page.fill("[name=model_id]", "twice-v1")
    told = page.locator("#error-files")
    page.locator("form[data-mh-upload]").evaluate("(form) => { form.requestSubmit(); form.requestSubmit(); }")
    expect(told).to_have_text(TOLD)
    assert sent == ["name", "upload"]
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.get_by_role("button", name="Send and look at it").click()  # what was told is over; it can be sent again
    assert sent == ["name", "upload"] * 2
