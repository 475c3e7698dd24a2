"""Settings that change at run time: what is in force, where it comes from, and who changed it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from modelhub.conf import config
from modelhub.lifecycle.models import LoaderStatus
from modelhub.lifecycle.settings import own_environment
from modelhub.policy.effective import RULES_CHANNEL, effective
from modelhub.policy.models import OVERRIDABLE, PolicyChange
from modelhub.registry.models import ModelVersion
from tests.api.conftest import MakeVersion

ADDRESS = "/api/policy"


def told(api: APIClient) -> dict[str, Any]:
    return {setting["name"]: setting for setting in api.get(ADDRESS).json()}


def test_every_setting_is_told_with_what_it_means(api: APIClient) -> None:
    settings = told(api)
    assert tuple(settings) == OVERRIDABLE
    assert settings["MAX_MEMORY_USAGE_MB"] == {
        "name": "MAX_MEMORY_USAGE_MB",
        "value": config().MAX_MEMORY_USAGE_MB,
        "source": "environment" if "MAX_MEMORY_USAGE_MB" in own_environment() else "default",
        "environment": config().MAX_MEMORY_USAGE_MB,
        "override": None,
        "observed": None,
        "observed_at": None,
        "description": "Memory that all models together may hold, in MiB. 0: no limit.",
    }


def test_what_runs_counts_and_not_the_environment_of_who_asks(api: APIClient, loaderd_is_heard: LoaderStatus) -> None:
    assert config().MAX_MEMORY_USAGE_MB not in (3000, 4000)
    facts = {"environment": {"MAX_MEMORY_USAGE_MB": 4000}, "limits": {"max_memory_bytes": 3000 * 2**20}}
    LoaderStatus.objects.update(facts=facts)
    setting = told(api)["MAX_MEMORY_USAGE_MB"]
    assert (setting["value"], setting["source"], setting["environment"]) == (4000, "environment", 4000)
    assert (setting["observed"], setting["observed_at"]) == (3000, loaderd_is_heard.observed_at.timestamp())


def test_an_override_counts_until_it_is_taken_back(api: APIClient) -> None:
    answer = api.patch(ADDRESS, {"MAX_MEMORY_USAGE_MB": 600, "SAMPLING_RATE": 0.5, "PERFORMANCE_LOG_LEVEL": "DEBUG"})
    assert answer.status_code == 200
    changed = told(api)["MAX_MEMORY_USAGE_MB"]
    assert (changed["value"], changed["environment"], changed["override"]) == (600, config().MAX_MEMORY_USAGE_MB, 600)
    assert changed["source"] == "policy"
    assert (effective().SAMPLING_RATE, effective().PERFORMANCE_LOG_LEVEL) == (0.5, "DEBUG")
    api.patch(ADDRESS, {"MAX_MEMORY_USAGE_MB": None, "PERFORMANCE_LOG_LEVEL": None})
    assert effective().MAX_MEMORY_USAGE_MB == config().MAX_MEMORY_USAGE_MB
    assert effective().SAMPLING_RATE == 0.5


def test_each_change_is_kept(api: APIClient) -> None:
    api.patch(ADDRESS, {"MAX_MEMORY_USAGE_MB": 600})
    api.patch(ADDRESS, {"MAX_MEMORY_USAGE_MB": 700, "SAMPLING_RATE": None})
    changes = api.get(f"{ADDRESS}/changes").json()
    assert [(change["setting"], change["before"], change["after"], change["actor"]) for change in changes] == [
        ("MAX_MEMORY_USAGE_MB", "600", "700", "admin"),
        ("MAX_MEMORY_USAGE_MB", "", "600", "admin"),
    ]
    assert api.get(f"{ADDRESS}/changes?limit=1").headers["X-Total-Count"] == "2"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"MAX_MEMORY_USAGE_MB": "much"}, "MAX_MEMORY_USAGE_MB"),
        ({"MAX_MEMORY_USAGE_MB": -1}, "MAX_MEMORY_USAGE_MB"),
        ({"CACHE_TTL_SECONDS": 0}, "CACHE_TTL_SECONDS"),
        ({"CACHE_MAX_MB": 0}, "CACHE_MAX_MB"),
        ({"CACHE_ENABLED": "perhaps"}, "CACHE_ENABLED"),
        ({"SAMPLING_RATE": 2, "MAX_MEMORY_USAGE_MB": 600}, "SAMPLING_RATE"),
        ({"PERFORMANCE_LOG_LEVEL": "LOUD"}, "PERFORMANCE_LOG_LEVEL"),
        ({"WEB_PORT": 80}, "WEB_PORT"),
        ({"none_such": 1}, "none_such"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_changes(api: APIClient, body: dict[str, Any], name: str) -> None:
    answer = api.patch(ADDRESS, body)
    assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, [name])
    assert not PolicyChange.objects.exists()
    assert effective() == config()


class TestOfAModel:
    MODEL = "/api/models/sentiment-model-v1"
    WANTED = {
        "pinned": True,
        "priority": 80,
        "autoload": True,
        "keep_alive_seconds": 60.0,
        "memory_limit_mb": 256,
    }

    @pytest.fixture(autouse=True)
    def version(self, make_version: MakeVersion) -> ModelVersion:
        return make_version()

    def test_it_is_set_told_and_kept(self, api: APIClient) -> None:
        body = api.patch(self.MODEL, self.WANTED).json()
        assert self.WANTED.items() <= body.items()
        assert self.WANTED.items() <= api.get("/api/models/").json()[0].items()
        cleared = api.patch(self.MODEL, {"keep_alive_seconds": None, "memory_limit_mb": None}).json()
        assert (cleared["keep_alive_seconds"], cleared["memory_limit_mb"], cleared["priority"]) == (None, None, 80)
        entries = [entry.change_message for entry in LogEntry.objects.order_by("pk")]
        assert "pinned: False → True, priority: 50 → 80" in entries[0]
        assert len(entries) == 2

    SERVING = {
        "instances": 4,
        "max_queue": 16,
        "precision": "bf16",
        "cache_enabled": True,
        "cache_ttl_seconds": 60.0,
    }  # fmt: skip

    def test_how_it_serves_is_set_and_told(self, api: APIClient) -> None:
        before = {"instances": 1, "max_queue": 1024, "precision": "", "cache_enabled": None, "cache_ttl_seconds": None}
        assert before.items() <= api.get(self.MODEL).json().items()
        assert self.SERVING.items() <= api.patch(self.MODEL, self.SERVING).json().items()
        assert before.items() <= api.patch(self.MODEL, before).json().items()

    def test_what_stays_as_it_is_leaves_no_entry(self, api: APIClient) -> None:
        assert api.patch(self.MODEL, {"priority": 50}).status_code == 200
        assert not LogEntry.objects.exists()

    def test_loaderd_is_told(self, api: APIClient) -> None:
        with CaptureQueriesContext(connection) as captured:
            api.patch(self.MODEL, {"priority": 60})
        assert any("pg_notify" in query["sql"] and RULES_CHANNEL in query["sql"] for query in captured)

    @pytest.mark.parametrize(
        "body",
        [
            {"priority": 101},
            {"priority": -1},
            {"keep_alive_seconds": 0},
            {"memory_limit_mb": 0},
            {"instances": 0},
            {"instances": 65},
            {"max_queue": 0},
            {"max_queue": 1_000_001},
            {"precision": "fp8"},
            {"precision": None},
            {"cache_enabled": "perhaps"},
            {"cache_ttl_seconds": 0},
            {"pinned": "perhaps"},
            {"pinned": None},
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_refused(self, api: APIClient, body: dict[str, Any]) -> None:
        answer = api.patch(self.MODEL, body)
        assert (answer.status_code, set(answer.json()["error"]["details"])) == (400, set(body))
