"""The list of models: parameters, pages, and what it costs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from modelhub.conf import config
from modelhub.registry.choices import Status
from modelhub.registry.models import Model, ModelVersion
from tests.api.conftest import MakeVersion

pytestmark = pytest.mark.usefixtures("loaderd_is_heard")


def make_many(count: int) -> None:
    lineage = Model.objects.create(name=f"many {count}", type="topic")
    ModelVersion.objects.bulk_create(
        ModelVersion(
            lineage=lineage,
            model_id=f"m{number:05}",
            name="Many",
            version=str(number),
            path=f"topic/m{number:05}",
            framework="sklearn",
            artifact_format="skops",
            digest="b" * 64,
        )
        for number in range(count)
    )


def ids(answer: Any) -> list[str]:
    return [entry["id"] for entry in answer.json()]


def link(answer: Any, rel: str) -> str | None:
    found = re.search(rf'<([^>]+)>; rel="{rel}"', answer.headers.get("Link", ""))
    return found[1] if found else None


@pytest.fixture
def limit_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config(), "API_LIST_LIMIT", 10)


class TestPages:
    def test_a_small_registry_is_one_bare_list(self, api: APIClient) -> None:
        make_many(3)
        answer = api.get("/api/models/")
        assert ids(answer) == ["m00000", "m00001", "m00002"]
        assert answer.headers["X-Total-Count"] == "3"
        assert "Link" not in answer.headers

    def test_an_empty_registry_is_an_empty_list(self, api: APIClient) -> None:
        assert api.get("/api/models/").json() == []

    @pytest.mark.usefixtures("limit_of_ten")
    def test_following_next_brings_every_model_once(self, api: APIClient) -> None:
        make_many(25)
        address: str | None = "/api/models/?search=m0"
        seen: list[str] = []
        while address:
            answer = api.get(address)
            assert answer.headers["X-Total-Count"] == "25"
            seen += ids(answer)
            address = link(answer, "next")
        assert seen == [f"m{number:05}" for number in range(25)]

    def test_limit_and_offset(self, api: APIClient) -> None:
        make_many(5)
        answer = api.get("/api/models/?limit=2&offset=2")
        assert ids(answer) == ["m00002", "m00003"]
        assert link(answer, "next") == "http://testserver/api/models/?limit=2&offset=4"
        assert link(answer, "prev") == "http://testserver/api/models/?limit=2"

    @pytest.mark.usefixtures("limit_of_ten")
    def test_no_limit_passes_the_cap(self, api: APIClient) -> None:
        make_many(12)
        assert len(api.get("/api/models/?limit=999999").json()) == 10

    def test_an_offset_past_the_end_is_an_empty_list(self, api: APIClient) -> None:
        make_many(1)
        assert api.get("/api/models/?offset=999999999").json() == []

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=-1", "limit=x", "offset=-1", "offset=1e3", "offset=9999999999"]
    )
    def test_what_is_no_number_is_refused(self, api: APIClient, query: str) -> None:
        answer = api.get(f"/api/models/?{query}")
        assert answer.status_code == 400
        assert list(answer.json()["error"]["details"]) == [query.split("=")[0]]


class TestParameters:
    @pytest.fixture(autouse=True)
    def models(self, make_version: MakeVersion) -> None:
        make_version("a", type="topic", lineage="Letters", framework="tensorflow", usage_count=1, version="1")
        make_version("b", type="intent", name="Bee", status=Status.LOADED, usage_count=3, private_bytes=1, version="2")
        make_version("c", type="topic", lineage="Letters", usage_count=2, version="3")

    @pytest.mark.parametrize(
        ("query", "wanted"),
        [
            ("type=topic", ["a", "c"]),
            ("framework=tensorflow", ["a"]),
            ("framework=none-such", []),
            ("status=loaded", ["b"]),
            ("status=unreachable", []),
            ("search=letters", ["a", "c"]),
            ("search=BEE", ["b"]),
            ("search=", ["a", "b", "c"]),
            ("type=topic&framework=sklearn", ["c"]),
            ("ordering=-id", ["c", "b", "a"]),
            ("ordering=-usage_count", ["b", "c", "a"]),
            ("ordering=type", ["b", "a", "c"]),
            ("ordering=-memory_usage", ["b", "a", "c"]),
            ("ordering=-last_loaded", ["a", "b", "c"]),
        ],
    )
    def test_it_narrows_and_orders(self, api: APIClient, query: str, wanted: list[str]) -> None:
        assert ids(api.get(f"/api/models/?{query}")) == wanted

    @pytest.mark.parametrize(
        "query", ["type=x", "status=x", "ordering=digest", "ordering=--id", "include_loaded=x", "search=%00"]
    )
    def test_what_makes_no_sense_is_refused(self, api: APIClient, query: str) -> None:
        answer = api.get(f"/api/models/?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_input"

    @pytest.mark.parametrize(("value", "memory"), [("true", 1), ("false", None)])
    def test_include_loaded_tells_memory_or_not(self, api: APIClient, value: str, memory: int | None) -> None:
        entry = api.get(f"/api/models/?search=bee&include_loaded={value}").json()[0]
        assert (entry["memory_usage"], entry["loaded"]) == (memory, True)

    @pytest.mark.usefixtures("loaderd_is_silent")
    def test_the_status_filter_agrees_with_what_is_told(self, api: APIClient) -> None:
        assert ids(api.get("/api/models/?status=unreachable")) == ["b"]
        assert ids(api.get("/api/models/?status=loaded")) == []
        assert ids(api.get("/api/models/?status=unloaded")) == ["a", "c"]


class TestCost:
    def test_the_number_of_queries_does_not_grow(self, api: APIClient) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert api.get("/api/models/").status_code == 200
            return len(captured)

        make_many(10)
        few = queries()
        ModelVersion.objects.all().delete()
        make_many(1000)
        assert queries() == few == 5  # token, loaderd, count, rows, aliases

    def test_the_big_columns_stay_in_the_database(self, api: APIClient) -> None:
        make_many(1)
        with CaptureQueriesContext(connection) as captured:
            api.get("/api/models/")
        text = " ".join(query["sql"] for query in captured)
        assert not re.search('manifest|metadata|signature|performance_metrics|canary"|description', text)

    @pytest.mark.parametrize(
        ("address", "count"), [("", 4), ("/performance", 4), ("/samples", 3), ("/state-changes", 3)]
    )
    def test_one_model_costs_few_queries(self, api: APIClient, address: str, count: int) -> None:
        make_many(1)
        with CaptureQueriesContext(connection) as captured:
            assert api.get(f"/api/models/m00000{address}").status_code == 200
        assert len(captured) == count
        assert "manifest" not in " ".join(query["sql"] for query in captured)
