from playwright.sync_api import Page, expect


def test_the_dashboard_says_that_loaderd_runs(page: Page) -> None:
    page.goto("/admin/")
    expect(page.get_by_role("heading", name="Models in memory")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
