"""Which pages the console has, for what holds of each: pictures, axe-core, a phone's width, the network."""

from __future__ import annotations

from dataclasses import dataclass

from playwright.sync_api import Page

from tests.browser import store


@dataclass(frozen=True, slots=True)
class Place:
    """A page. name: of its test and its picture. path: its address.

    entry: the page is that of this entry of the list at `path`; "*" is the first entry that there is. within: then
    follows this address, relative to it.
    """

    name: str
    path: str
    entry: str = ""
    within: str = ""


def _list(name: str, app: str, model: str) -> Place:
    return Place(name, f"/admin/{app}/{model}/")


MODELS, LINEAGES = "/admin/registry/modelversion/", "/admin/registry/model/"
LISTS = (
    _list("models", "registry", "modelversion"),
    _list("lineages", "registry", "model"),
    _list("comparisons", "telemetry", "comparison"),
    _list("discoveries", "registry", "discoveryrun"),
    _list("alerts", "telemetry", "alert"),
    _list("operations", "lifecycle", "operation"),
    _list("jobs", "jobs", "job"),
    _list("state-changes", "lifecycle", "statechange"),
    _list("who-was-live", "lifecycle", "lineagechange"),
    _list("audit", "admin", "logentry"),
    _list("traces", "telemetry", "trace"),
    _list("samples", "telemetry", "sample"),
    _list("policy", "policy", "policy"),
    _list("policy-changes", "policy", "policychange"),
    _list("schedules", "django_q", "schedule"),
    _list("users", "auth", "user"),
    _list("groups", "auth", "group"),
    _list("tokens", "accounts", "apitoken"),
    _list("loaderd", "lifecycle", "loaderstatus"),
    _list("queued-tasks", "django_q", "ormq"),
    _list("finished-tasks", "django_q", "success"),
    _list("failed-tasks", "django_q", "failure"),
)
DASHBOARD = Place("dashboard", "/admin/")
ENTRIES = (
    Place("model", MODELS, store.OLD),
    Place("model-failed", MODELS, store.BROKEN),
    Place("model-long-name", MODELS, store.LONG),
    Place("model-history", MODELS, store.OLD, "../history/"),
    Place("lineage", LINEAGES, store.LINEAGE),
    Place("operation", "/admin/lifecycle/operation/", "*"),
    Place("discovery", "/admin/registry/discoveryrun/", "*"),
    Place("user", "/admin/auth/user/", "ada"),
    Place("user-add", "/admin/auth/user/add/"),
    Place("password", "/admin/password_change/"),
    Place("register", "/admin/register/"),
    Place("predict-file", f"/admin/jobs/predict/?model={store.LINEAGE}"),
    Place("models-without-a-match", f"{MODELS}?q=nothing-is-called-like-this"),
)
PLACES = (DASHBOARD, *LISTS, *ENTRIES)


def go(page: Page, place: Place) -> None:
    """Leads to the page and returns when it is loaded and its static files are there."""
    if not place.entry:
        page.goto(place.path)
        return
    if place.entry == "*":
        page.goto(place.path)
        entry = page.locator("#result_list tbody th a").first
    else:
        page.goto(f"{place.path}?q={place.entry}")
        entry = page.locator("#result_list tbody").get_by_role("link", name=place.entry, exact=True).first
    address = entry.get_attribute("href")
    assert address is not None
    page.goto(address)
    if place.within:
        page.goto(page.evaluate("(within) => new URL(within, location.href).href", place.within))
