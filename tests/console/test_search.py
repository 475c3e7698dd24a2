"""Ctrl+K finds pages, models, lineages and actions, offers what is permitted, and stays quick with many models."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from loaderd.rules import LIVE
from modelhub.console.search import MOST_MODELS, search
from modelhub.lifecycle.models import LineageChange, LoaderStatus
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.console.conftest import MakeVersion, client_of

pytestmark = pytest.mark.django_db

LINE = re.compile(r'<a role="option"[^>]*>.*?<span class="mh-palette__title">(.*?)</span>', re.S)
# Session, user, and the user's permissions (of groups and own) are asked for on every page.
OF_EVERY_PAGE = 4


def answer(client: Client, query: str = "") -> str:
    response = client.get(reverse("console:search"), {"q": query})
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    return response.content.decode()


def titles(client: Client, query: str = "") -> list[str]:
    return [unescape(title) for title in LINE.findall(answer(client, query))]


def line(client: Client, query: str, title: str) -> str:
    """The opening tag of the line with this title."""
    found = [
        match for match in re.finditer(LINE, answer(client, query)) if unescape(match.group(1)) == title
    ]  # fmt: skip
    assert len(found) == 1, titles(client, query)
    return found[0].group(0).partition(">")[0]


def url_of(name: str, version: ModelVersion) -> str:
    return reverse(f"admin:registry_modelversion_{name}", args=[version.pk])


def make_live(version: ModelVersion) -> None:
    Alias.objects.update_or_create(
        lineage=version.lineage, name=LIVE, defaults={"version": version, "set_by": "ada"}
    )  # fmt: skip
    LineageChange.objects.create(
        lineage=version.lineage,
        alias=LIVE,
        kind=LineageChange.Kind.ACTIVATE,
        version=version,
        actor="ada",
        at=timezone.now(),
    )


@pytest.fixture
def mails(make_version: MakeVersion, make_loaded: MakeVersion) -> dict[str, ModelVersion]:
    """mail-v1 was live and rests; mail-v2 is live and loaded; mail-v3 is new."""
    versions = {
        "mail-v1": make_version("mail-v1"),
        "mail-v2": make_loaded("mail-v2"),
        "mail-v3": make_version("mail-v3"),
    }
    make_live(versions["mail-v1"])
    make_live(versions["mail-v2"])
    return versions


class TestFinding:
    def test_a_model_by_a_part_of_its_id_leads_to_its_page(self, admin: Client, make_version: MakeVersion) -> None:
        version = make_version("news-topic-v3", lineage="news")
        assert f'href="{url_of("change", version)}"' in line(admin, "topic-v", "news-topic-v3")

    def test_every_word_must_be_found_in_id_name_or_lineage(self, admin: Client, make_version: MakeVersion) -> None:
        make_version("news-v1", lineage="headlines", name="Topics of news")
        assert "news-v1" in titles(admin, "headl topics v1")
        assert "news-v1" not in titles(admin, "headl v2")

    def test_what_begins_with_the_words_comes_before_what_contains_them(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        for model_id in ("a-mail-v1", "mail-v1", "b-mail-v1"):
            make_version(model_id, lineage=model_id)
        models = [title for title in titles(admin, "mail") if title.endswith("-v1")]
        assert models[0] == "mail-v1"
        assert {"a-mail-v1", "b-mail-v1"} <= set(models)

    def test_a_lineage_leads_to_its_page(self, admin: Client, make_version: MakeVersion) -> None:
        make_version("m1", lineage="headlines")
        lineage = Model.objects.get(name="headlines")
        assert reverse("admin:registry_model_change", args=[lineage.pk]) in line(admin, "headl", "headlines")

    def test_a_page_is_found_by_its_name_and_by_what_else_it_is_called(self, admin: Client) -> None:
        assert "API tokens" in titles(admin, "tok")
        assert "Policy" in titles(admin, "budget")
        assert "Change password" in titles(admin, "passw")
        assert reverse("admin:policy_policy_changelist") in line(admin, "budget", "Policy")

    def test_a_model_shows_the_state_that_is_true_now(
        self, admin: Client, make_loaded: MakeVersion, loaderd: LoaderStatus
    ) -> None:
        make_loaded("mail-v1")
        assert "mh-state--good" in answer(admin, "mail-v1")
        LoaderStatus.objects.update(stopped_at=timezone.now())
        assert "unreachable" in answer(admin, "mail-v1")

    def test_before_typing_the_models_loaded_last_and_the_pages_are_offered(
        self, admin: Client, make_version: MakeVersion
    ) -> None:
        make_version("never", lineage="never")
        make_version("older", lineage="older", last_loaded_at=timezone.now() - timedelta(hours=2))
        make_version("newer", lineage="newer", last_loaded_at=timezone.now())
        offered = titles(admin)
        assert offered[:2] == ["newer", "older"]
        assert "never" not in offered
        assert {"Dashboard", "Models", "Operations", "Run discovery", "Load…"} <= set(offered)

    def test_nothing_found_says_so_and_what_is_typed_is_escaped(self, admin: Client) -> None:
        shown = answer(admin, "<script>alert(1)</script>")
        assert "Nothing fits" in shown
        assert "<script>" not in shown

    @pytest.mark.parametrize(
        "query",
        ["%", "_", "\\", "'; drop table", "x" * 5000],
        ids=["percent", "underscore", "backslash", "quote", "long"],
    )
    def test_what_means_something_to_a_database_means_nothing_here(
        self, admin: Client, make_version: MakeVersion, query: str
    ) -> None:
        make_version("mail-v1")
        assert "mail-v1" not in titles(admin, query)


class TestActions:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("load mail", ["Load mail-v1", "Load mail-v3", "mail-v2"]),
            ("unload mail", ["Unload mail-v2", "mail-v1", "mail-v3"]),
            ("activate mail", ["Activate mail-v1", "Activate mail-v3", "mail-v2"]),
            ("roll back mail", ["Roll back to mail-v1", "mail-v2", "mail-v3"]),
            ("rollback to mail-v1", ["Roll back to mail-v1"]),
        ],
        ids=["load", "unload", "activate", "roll-back", "rollback-to"],
    )
    def test_a_verb_offers_its_action_for_each_model_with_which_it_can_be_done(
        self, admin: Client, mails: dict[str, ModelVersion], loaderd: LoaderStatus, query: str, expected: list[str]
    ) -> None:
        assert sorted(titles(admin, query)) == sorted(expected)
        assert titles(admin, query)[0] == expected[0]

    @pytest.mark.parametrize(
        ("query", "title", "name", "model_id"),
        [
            ("load mail-v1", "Load mail-v1", "load", "mail-v1"),
            ("unload mail", "Unload mail-v2", "unload", "mail-v2"),
            ("activate mail-v3", "Activate mail-v3", "activate", "mail-v3"),
            ("roll back mail", "Roll back to mail-v1", "rollback", "mail-v1"),
        ],
        ids=["load", "unload", "activate", "roll-back"],
    )
    def test_choosing_it_opens_the_dialog_of_the_action(
        self, admin: Client, mails: dict[str, ModelVersion], query: str, title: str, name: str, model_id: str
    ) -> None:
        assert f'data-mh-dialog="{url_of(name, mails[model_id])}"' in line(admin, query, title)

    def test_a_verb_alone_offers_what_can_be_done_and_nothing_else(
        self, admin: Client, mails: dict[str, ModelVersion]
    ) -> None:
        assert titles(admin, "unload")[0] == "Unload mail-v2"
        assert "mail-v1" not in titles(admin, "unload")

    def test_the_beginning_of_a_verb_is_gone_on_with(self, admin: Client) -> None:
        assert 'data-mh-fill="unload "' in line(admin, "unl", "Unload…")
        assert 'data-mh-fill="roll back "' in line(admin, "rol", "Roll back to…")

    def test_beside_a_model_stands_what_can_be_done_with_it(
        self, admin: Client, mails: dict[str, ModelVersion]
    ) -> None:
        offered = titles(admin, "mail-v1")
        assert offered[0] == "mail-v1"
        assert {"Load mail-v1", "Activate mail-v1", "Roll back to mail-v1"} <= set(offered)
        assert "Unload mail-v1" not in offered

    def test_a_model_whose_directory_is_gone_is_not_loaded(self, admin: Client, make_version: MakeVersion) -> None:
        make_version("mail-v1", missing_since=timezone.now())
        assert titles(admin, "load mail") == ["mail-v1"]

    def test_discovery_and_optimisation_ask_in_a_dialog(self, admin: Client) -> None:
        discover = reverse("admin:registry_modelversion_discover")
        assert f'data-mh-dialog="{discover}"' in line(admin, "run disc", "Run discovery")
        optimise = reverse("admin:registry_modelversion_optimize")
        assert f'data-mh-dialog="{optimise}"' in line(admin, "optimize", "Optimise memory")


class TestPermission:
    QUERIES = (
        "",
        "load mail",
        "unload mail",
        "activate mail",
        "roll back mail",
        "mail-v1",
        "lo",
        "optimise",
        "run discovery",
    )

    @pytest.mark.parametrize("query", QUERIES, ids=[query.replace(" ", "-") or "nothing" for query in QUERIES])
    def test_a_viewer_is_offered_no_action(self, viewer: Client, mails: dict[str, ModelVersion], query: str) -> None:
        shown = answer(viewer, query)
        assert "data-mh-dialog" not in shown
        assert "data-mh-fill" not in shown

    def test_a_viewer_finds_models_all_the_same(self, viewer: Client, mails: dict[str, ModelVersion]) -> None:
        assert {"mail-v1", "mail-v2", "mail-v3"} <= set(titles(viewer, "mail"))

    def test_only_the_action_that_is_permitted_is_offered(self, mails: dict[str, ModelVersion]) -> None:
        client = client_of(staff("registry.view_modelversion", "registry.unload_modelversion"))
        assert titles(client, "unload mail")[0] == "Unload mail-v2"
        assert "Load mail-v1" not in titles(client, "load mail-v1")
        assert "Run discovery" not in titles(client, "run")

    def test_models_and_lineages_are_found_by_whom_it_is_permitted(self, mails: dict[str, ModelVersion]) -> None:
        assert titles(client_of(staff()), "mail") == []
        loads_unseen = client_of(staff("registry.load_modelversion"))
        assert titles(loads_unseen, "load mail") == []

    def test_pages_are_found_by_whom_it_is_permitted(self, viewer: Client) -> None:
        assert "Users" not in titles(viewer, "users")
        assert set(titles(client_of(staff()))) == {"Dashboard", "Change password"}

    def test_nobody_else_finds_anything(self, client: Client, mails: dict[str, ModelVersion]) -> None:
        response = client.get(reverse("console:search"), {"q": "mail"})
        assert response.status_code == 302
        assert response.url.startswith(reverse("admin:login"))

    def test_a_page_whose_session_ended_is_told_to_load_itself_again(self, client: Client) -> None:
        response = client.get(reverse("console:search"), headers={"HX-Request": "true"})
        assert response.status_code == 204
        assert response.headers["HX-Refresh"] == "true"


def staff(*permissions: str) -> User:
    user = User.objects.create_user("+".join(permissions) or "nobody", password="x", is_staff=True)
    for permission in permissions:
        app, _, codename = permission.partition(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return user


class TestCost:
    @pytest.fixture
    def many(self, db: None) -> None:
        lineages = Model.objects.bulk_create([Model(name=f"lineage-{number}") for number in range(100)])
        ModelVersion.objects.bulk_create(
            ModelVersion(
                lineage=lineages[number % 100],
                model_id=f"model-{number:04}",
                name=f"Model {number}",
                version=str(number),
                path=f"topic/model-{number:04}",
                framework="sklearn",
                artifact_format="skops",
                digest="a" * 64,
                status=Status.LOADED if number % 25 == 0 else Status.UNLOADED,
                last_loaded_at=timezone.now(),
            )
            for number in range(1000)
        )

    @pytest.mark.parametrize(
        "query",
        ["", "m", "model-05", "load", "load model", "unload model-0500", "lineage-7", "nothing like it"],
        ids=lambda query: query.replace(" ", "-") or "nothing",
    )
    def test_a_fixed_number_of_queries_and_of_lines_with_a_thousand_models(
        self, operator: Client, many: Any, loaderd: LoaderStatus, query: str
    ) -> None:
        titles(operator, query)  # content types and the badges' counts are known now
        with CaptureQueriesContext(
            connection,
        ) as queries:
            found = titles(operator, query)
        assert len(queries) <= OF_EVERY_PAGE + 3, [each["sql"][:120] for each in queries]
        assert sum(title.startswith("model-") for title in found) <= MOST_MODELS

    def test_the_one_that_is_meant_is_found_among_a_thousand(self, operator: Client, many: Any) -> None:
        assert titles(operator, "model-0917")[0] == "model-0917"
        assert titles(operator, "load model-0917")[0] == "Load model-0917"


@pytest.mark.parametrize("query", ["\0", "load \0", "mail\0v1", "load\x01mail", "\x7f", "\u200bmail"])
def test_what_cannot_be_printed_is_no_part_of_a_query(
    rf: RequestFactory, admin: Client, make_version: MakeVersion, query: str
) -> None:
    make_version()
    request = rf.get("/", {"q": query})
    request.user = User.objects.get(username="ada")
    response = search(request)
    assert response.status_code == 200
    assert ("mail-v1" in response.content.decode()) is ("mail" in query or "load" in query)
