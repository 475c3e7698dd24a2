"""The admin's shell: the sidebar by permission, its badges, what empty lists say, titles, landmarks and names."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from modelhub.console.site import counts
from modelhub.lifecycle.models import Operation, OperationKind, OperationStatus
from modelhub.telemetry.models import Alert
from tests.console.conftest import MakeVersion, client_of

pytestmark = pytest.mark.django_db

MODELS = "admin:registry_modelversion_changelist"
ENTRY = re.compile(r'<span class="mh-grow">([^<]+)</span>')


def page(client: Client, name: str, *args: object, query: str = "") -> str:
    response = client.get(reverse(name, args=args) + query)
    assert response.status_code == 200
    return response.content.decode()


def sidebar(client: Client) -> list[str]:
    """The titles of groups and entries, from top to bottom."""
    shown = page(client, "admin:password_change")
    nav = shown.partition('<nav id="mh-nav"')[2].partition('class="mh-nav__user"')[0]
    return [unescape(title) for title in ENTRY.findall(nav)]


def title_of(shown: str) -> str:
    return unescape(re.search(r"<title>(.*?)</title>", shown, re.S).group(1).strip())  # type: ignore[union-attr]


def heading_of(shown: str) -> str:
    found = re.findall(r"<h1[^>]*>(.*?)</h1>", shown, re.S)
    assert len(found) == 1
    return unescape(found[0].strip())


def badge(shown: str, name: str) -> str | None:
    """What the badge says, None when it is hidden or not there."""
    found = re.search(rf'<span id="mh-badge-{name}"([^>]*)>(.*?)</span></span>', shown, re.S)
    return None if found is None or "hidden" in found.group(1) else re.sub(r"<[^>]+>", "", found.group(2))


@pytest.fixture
def open_alert(db: None) -> Callable[..., Alert]:
    def make(key: str = "a", **fields: object) -> Alert:
        now = timezone.now()
        values = {"kind": "memory", "message": f"Memory is short: {key}.", "opened_at": now, "last_seen_at": now}
        return Alert.objects.create(key=key, **{**values, **fields})

    return make


class TestSidebar:
    def test_an_administrator_sees_every_group(self, admin: Client) -> None:
        shown = sidebar(admin)
        assert {"Models", "Activity", "Settings", "Machinery", "Users", "Policy", "loaderd"} <= set(shown)
        assert shown[0] == "Dashboard"

    def test_a_viewer_sees_no_page_of_users_and_a_group_without_entries_is_not_there(self, viewer: Client) -> None:
        shown = sidebar(viewer)
        assert {"Dashboard", "Models", "Alerts", "Operations"} <= set(shown)
        assert not {"Users", "Groups"} & set(shown)

    def test_who_may_see_nothing_sees_the_dashboard_only(self, db: None) -> None:
        assert sidebar(client_of(User.objects.create_user("nil", password="x", is_staff=True))) == ["Dashboard"]

    @pytest.mark.parametrize(
        ("permission", "shown"),
        [
            ("view_modelversion", ["Dashboard", "Models", "Models"]),
            ("view_alert", ["Dashboard", "Activity", "Alerts"]),
            ("view_policy", ["Dashboard", "Settings", "Policy"]),
            ("view_ormq", ["Dashboard", "Machinery", "Queued tasks"]),
        ],
        ids=["models", "alerts", "policy", "tasks"],
    )
    def test_each_entry_needs_its_permission(self, permission: str, shown: list[str]) -> None:
        user = User.objects.create_user("one", password="x", is_staff=True)
        user.user_permissions.add(Permission.objects.get(codename=permission))
        assert sidebar(client_of(user)) == shown

    def test_the_entry_of_the_page_is_told(self, admin: Client) -> None:
        assert re.search(
            r'aria-current="page">\s*<span[^>]*>deployed_code</span>\s*<span[^>]*>Models', page(admin, MODELS)
        )

    def test_the_dashboard_is_current_on_itself_only(self, admin: Client) -> None:
        assert page(admin, "admin:index").count('aria-current="page"') == 1
        assert not re.search(r'aria-current="[^"]*">\s*<span[^>]*>dashboard<', page(admin, MODELS))


class TestBadges:
    def test_open_alerts_and_operations_under_way_are_counted(
        self, admin: Client, open_alert: Callable[..., Alert], make_version: MakeVersion
    ) -> None:
        open_alert("a")
        open_alert("b")
        open_alert("c", acknowledged_at=timezone.now())
        open_alert("d", resolved_at=timezone.now())
        version = make_version()
        Operation.objects.create(kind=OperationKind.LOAD, version=version, status=OperationStatus.RUNNING)
        Operation.objects.create(kind=OperationKind.UNLOAD, version=version, status=OperationStatus.SUCCEEDED)
        shown = page(admin, "admin:password_change")
        assert badge(shown, "alerts") == "2 open"
        assert badge(shown, "operations") == "1 under way"

    def test_without_any_there_is_no_badge(self, admin: Client) -> None:
        shown = page(admin, "admin:password_change")
        assert badge(shown, "alerts") is None
        assert badge(shown, "operations") is None

    def test_an_open_page_is_told_of_changes_and_only_of_changes(
        self, admin: Client, open_alert: Callable[..., Alert]
    ) -> None:
        url = reverse("console:badges")
        before = admin.get(url)
        assert 'id="mh-badge-alerts"' in before.content.decode()
        seen = re.search(r'data-mh-digest="(\w+)"', before.content.decode()).group(1)  # type: ignore[union-attr]
        assert admin.get(url, {"seen": seen}).status_code == 204
        open_alert()
        counts.forget()
        after = admin.get(url, {"seen": seen})
        assert after.status_code == 200
        assert badge(after.content.decode(), "alerts") == "1 open"
        assert 'hx-swap-oob="true"' in after.content.decode()

    def test_who_may_not_see_alerts_is_not_told_of_them(self, open_alert: Callable[..., Alert]) -> None:
        open_alert()
        client = client_of(User.objects.create_user("nil", password="x", is_staff=True))
        assert "mh-badge-alerts" not in client.get(reverse("console:badges")).content.decode()
        assert "mh-badge-alerts" not in page(client, "admin:password_change")

    def test_they_are_for_staff(self, client: Client) -> None:
        assert client.get(reverse("console:badges")).status_code == 302


class TestEmptyLists:
    @pytest.mark.parametrize(
        ("name", "title"),
        [
            ("telemetry_alert", "Nothing needs your attention"),
            ("lifecycle_operation", "Nobody has asked for anything yet"),
            ("registry_modelversion", "No model is registered yet"),
            ("registry_model", "No lineage yet"),
            ("accounts_apitoken", "No token yet"),
            ("telemetry_trace", "No request was traced yet"),
            ("django_q_failure", "No task has failed"),
            ("policy_policychange", "The policy is as it was configured"),
        ],
    )
    def test_each_says_what_would_be_there(self, admin: Client, name: str, title: str) -> None:
        assert title in page(admin, f"admin:{name}_changelist")

    def test_who_may_run_discovery_can_do_it_from_there(self, admin: Client) -> None:
        discover = reverse("admin:registry_modelversion_discover")
        assert f'formmethod="post" formaction="{discover}"' in page(admin, "admin:registry_model_changelist")

    def test_who_may_not_is_not_asked_to(self, viewer: Client) -> None:
        assert "formaction" not in page(viewer, "admin:registry_model_changelist")

    @pytest.mark.parametrize("query", ["?q=zebra", "?state=resolved"], ids=["search", "filter"])
    def test_a_search_or_filter_without_a_match_says_so_and_is_taken_back(
        self, admin: Client, open_alert: Callable[..., Alert], query: str
    ) -> None:
        open_alert()
        shown = page(admin, "admin:telemetry_alert_changelist", query=query)
        assert "Nothing matches" in shown
        assert "Nothing needs your attention" not in shown
        assert re.search(r'href="\?">\s*Show all', shown)

    def test_what_was_searched_for_is_escaped(self, admin: Client) -> None:
        assert "<b>zebra" not in page(admin, MODELS, query="?q=<b>zebra")


class TestPages:
    def test_title_and_heading_say_which_page_it_is(self, admin: Client, make_version: MakeVersion) -> None:
        version = make_version()
        shown = page(admin, MODELS)
        assert title_of(shown) == "Models | Modelhub"
        assert heading_of(shown) == "Models"
        shown = page(admin, "admin:registry_modelversion_change", version.pk)
        assert title_of(shown).startswith("mail-v1")
        assert heading_of(shown) == "mail-v1"
        assert heading_of(page(admin, "admin:accounts_apitoken_add")) == "Add API token"

    def test_landmarks_language_and_the_link_past_the_menu(self, admin: Client) -> None:
        shown = page(admin, MODELS)
        assert '<html lang="en-us"' in shown
        assert len(re.findall(r"<main\b", shown)) == 1
        assert '<nav id="mh-nav" class="mh-nav" aria-label="Main">' in shown
        assert 'class="mh-skip" href="#content"' in shown

    def test_a_checkbox_says_which_row_it_chooses(self, admin: Client, make_version: MakeVersion) -> None:
        make_version("bench-v1")
        assert 'aria-label="Select bench-v1"' in page(admin, MODELS)

    @pytest.mark.parametrize("name", ["admin:index", MODELS, "admin:auth_user_changelist", "admin:password_change"])
    def test_everything_that_reacts_to_clicks_can_be_reached_by_keyboard(
        self, admin: Client, make_version: MakeVersion, name: str
    ) -> None:
        make_version()
        shown = page(admin, name)
        reacting = re.findall(r"<(\w+)([^>]*\bx-on:click[.=][^>]*)>", shown)
        assert [
            tag for tag, attributes in reacting if tag not in ("button", "dialog") and "href=" not in attributes
        ] == []

    def test_the_page_waits_for_no_script_to_be_seen(self, admin: Client) -> None:
        shown = page(admin, "admin:index")
        assert "x-cloak" not in shown.partition("<body")[0]
        blocking = [tag for tag in re.findall(r"<script[^>]*src=[^>]*>", shown) if "defer" not in tag]
        assert blocking == []

    def test_nothing_is_fetched_from_elsewhere(self, admin: Client) -> None:
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]+)"', page(admin, "admin:index"))
        assert fetched
        assert all(url.startswith("/") for url in fetched)


class TestLogin:
    def test_it_says_what_to_do_when_the_password_is_lost(self, client: Client) -> None:
        shown = page(client, "admin:login")
        assert title_of(shown) == "Log in | Modelhub"
        assert "changepassword" in shown
        assert heading_of(shown) == "Log in"

    def test_a_wrong_password_is_told_and_the_right_one_leads_on(self, client: Client) -> None:
        User.objects.create_superuser("ada", password="right-1")
        url = reverse("admin:login")
        wrong = client.post(url, {"username": "ada", "password": "wrong"})
        assert 'role="alert"' in wrong.content.decode()
        assert 'value="ada"' in wrong.content.decode()
        models = reverse(MODELS)
        right = client.post(f"{url}?next={models}", {"username": "ada", "password": "right-1", "next": models})
        assert right.status_code == 302
        assert right.url == models

    def test_who_logs_in_without_an_aim_sees_the_dashboard(self, client: Client) -> None:
        User.objects.create_superuser("ada", password="right-1")
        answer = client.post(reverse("admin:login"), {"username": "ada", "password": "right-1", "next": ""})
        assert answer.url == reverse("admin:index")

    def test_an_aim_elsewhere_is_not_followed(self, client: Client) -> None:
        shown = client.get(reverse("admin:login"), {"next": "https://elsewhere.example/"}).content.decode()
        assert "elsewhere.example" not in re.sub(r'action="[^"]*"', "", shown)

    def test_after_the_logout_it_says_so(self, admin: Client) -> None:
        shown = admin.post(reverse("admin:logout")).content.decode()
        assert heading_of(shown) == "You are logged out"
