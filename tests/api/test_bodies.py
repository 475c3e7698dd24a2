"""What a body may be: as long as the API promises, with no field that would be passed over."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django_q.models import OrmQ
from rest_framework.test import APIClient

from modelhub.conf import config
from modelhub.inference import client
from modelhub.lifecycle.models import LineageChange, Operation
from modelhub.registry.models import Alias, Model, ModelVersion

MIB = 1024 * 1024


@pytest.mark.parametrize("is_form", [False, True], ids=["json", "form"])
def test_a_body_of_4_mib_is_read(admin_user: Any, monkeypatch: pytest.MonkeyPatch, is_form: bool) -> None:
    reached: list[list[Any]] = []
    monkeypatch.setattr(client, "predict", lambda _, inputs, **options: reached.append(inputs) or {})
    text = "x" * 4 * MIB
    browser = Client()
    browser.force_login(admin_user)
    answer = (
        browser.post("/api/models/m/predict", {"inputs": f'["{text}"]'})
        if is_form
        else browser.post("/api/models/m/predict", {"inputs": [text]}, content_type="application/json")
    )
    assert (answer.status_code, reached) == (200, [[text]])


def test_django_reads_as_much_as_the_api_promises(settings: Any) -> None:
    assert settings.DATA_UPLOAD_MAX_MEMORY_SIZE == config().API_MAX_BODY_MB * MIB


@pytest.mark.usefixtures("lineage")
class TestUnknownFields:
    @pytest.fixture(autouse=True)
    def nothing_changes(self, lineage: Model) -> Any:
        def rows() -> list[Any]:
            return [list(model.objects.order_by("pk").values()) for model in (ModelVersion, Model, Alias)]

        before = rows()
        yield
        assert rows() == before
        assert not Operation.objects.exists()
        assert not OrmQ.objects.exists()
        assert not LineageChange.objects.exists()

    @pytest.mark.parametrize(
        ("method", "address", "body", "unknown"),
        [
            ("put", "/api/lineages/sentiment/traffic", {"candidate_percentage": 50}, "candidate_percentage"),
            ("put", "/api/lineages/sentiment/traffic", {"candidate_percent": 5, "dry_run": True}, "dry_run"),
            ("put", "/api/lineages/sentiment/aliases/x", {"model_id": "sentiment-v1", "why": ""}, "why"),
            ("delete", "/api/lineages/sentiment/aliases/candidate", {"dry_run": True}, "dry_run"),
            ("post", "/api/lineages/sentiment/rollback", {"version": "sentiment-v1"}, "version"),
            ("patch", "/api/models/sentiment-v1", {"pin": True}, "pin"),
            ("post", "/api/models/sentiment-v1/load", {"dryrun": True}, "dryrun"),
            ("post", "/api/models/sentiment-v1/activate", {"gap": True}, "gap"),
            ("post", "/api/models/sentiment-v1/approve", {"sha256": "a"}, "sha256"),
            ("post", "/api/models/sentiment-v1/forget-canary", {"why": "x"}, "why"),
            ("post", "/api/models/sentiment-v1/predict", {"inputs": ["x"], "version": "1"}, "version"),
            ("post", "/api/models/optimize-memory", {"all": True}, "all"),
            ("post", "/api/models/discover", {"dry_run": True}, "dry_run"),
            ("patch", "/api/policy", {"NONE_SUCH": 1}, "NONE_SUCH"),
        ],
    )
    def test_is_refused_by_its_name(
        self, api: APIClient, method: str, address: str, body: dict[str, Any], unknown: str
    ) -> None:
        answer = getattr(api, method)(address, body)
        assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, [unknown])

    @pytest.mark.parametrize(
        ("method", "address", "body"),
        [
            ("put", "/api/lineages/sentiment/traffic", {"candidate_percent": 50}),
            ("put", "/api/lineages/sentiment/aliases/x", {"model_id": "sentiment-v1"}),
            ("delete", "/api/lineages/sentiment/aliases/candidate", None),
            ("patch", "/api/models/sentiment-v1", {"pinned": True}),
            ("post", "/api/models/sentiment-v1/approve", None),
            ("post", "/api/models/sentiment-v1/forget-canary", None),
            ("post", "/api/models/discover", None),
            ("patch", "/api/policy", {"HANG_SECONDS": 50}),
        ],
    )
    def test_a_dry_run_of_what_has_no_plan_is_refused(
        self, api: APIClient, method: str, address: str, body: dict[str, Any] | None
    ) -> None:
        answer = getattr(api, method)(f"{address}?dry_run=true", body)
        assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, ["dry_run"])


@pytest.mark.usefixtures("lineage")
class TestTypes:
    """Nothing is guessed: `true` is not 1, 5 is no text, "50" is no number."""

    @pytest.mark.parametrize(
        ("method", "address", "body", "told"),
        [
            ("put", "lineages/sentiment/traffic", {"candidate_percent": True}, "Must be a number, not true."),
            ("put", "lineages/sentiment/traffic", {"candidate_percent": "50"}, 'Must be a number, not "50".'),
            ("put", "lineages/sentiment/traffic", {"candidate_percent": 10**400}, "The number is too large."),
            ("put", "lineages/sentiment/traffic", {"candidate_percent": [5]}, "Must be a number, not [5]."),
            ("put", "lineages/sentiment/traffic", {"shadow": 1}, "Must be true or false, not 1."),
            ("put", "lineages/sentiment/traffic", {"shadow": "yes"}, 'Must be true or false, not "yes".'),
            ("put", "lineages/sentiment/traffic", {"reason": 5}, "Must be a text, not 5."),
            ("put", "lineages/sentiment/aliases/x", {"model_id": 5}, "Must be a text, not 5."),
            ("post", "lineages/sentiment/rollback", {"to": False}, "Must be a text, not false."),
            ("post", "models/sentiment-v1/load", {"dry_run": "true"}, 'Must be true or false, not "true".'),
            ("post", "models/sentiment-v1/activate", {"allow_gap": 1}, "Must be true or false, not 1."),
            ("post", "models/sentiment-v1/unload", {"reason": ["x"]}, 'Must be a text, not ["x"].'),
            ("post", "models/sentiment-v1/approve", {"digest": 7}, "Must be a text, not 7."),
            ("post", "models/optimize-memory", {"dry_run": 0}, "Must be true or false, not 0."),
            ("patch", "models/sentiment-v1", {"priority": True}, "Must be a whole number, not true."),
            ("patch", "models/sentiment-v1", {"threads": 2.5}, "Must be a whole number, not 2.5."),
            ("patch", "models/sentiment-v1", {"pinned": "on"}, 'Must be true or false, not "on".'),
            ("patch", "models/sentiment-v1", {"keep_alive_seconds": "60"}, 'Must be a number, not "60".'),
            ("patch", "policy", {"MAX_MEMORY_USAGE_MB": "600"}, 'Must be a whole number, not "600".'),
            ("patch", "policy", {"SAMPLING_RATE": True}, "Must be a number, not true."),
            ("patch", "policy", {"PERFORMANCE_LOG_LEVEL": 10}, "Must be a text, not 10."),
        ],
    )
    def test_another_type_is_refused(
        self, api: APIClient, lineage: Model, method: str, address: str, body: dict[str, Any], told: str
    ) -> None:
        answer = getattr(api, method)(f"/api/{address}", body)
        (name,) = body
        assert (answer.status_code, answer.json()["error"]["details"]) == (400, {name: [told]})
        lineage.refresh_from_db()
        assert (lineage.candidate_percent, lineage.traffic_changed_at) == (0.0, None)
        assert not Operation.objects.exists()

    def test_all_that_is_wrong_is_told_at_once(self, api: APIClient) -> None:
        answer = api.patch("/api/models/sentiment-v1", {"threads": 0, "pinned": 1, "priority": 101})
        assert list(answer.json()["error"]["details"]) == ["threads", "pinned", "priority"]

    def test_a_whole_number_is_a_number(self, api: APIClient) -> None:
        assert api.put("/api/lineages/sentiment/traffic", {"candidate_percent": 5}).json()["candidate_percent"] == 5.0

    def test_a_form_has_only_texts(self, admin_user: Any) -> None:
        browser = Client()
        browser.force_login(admin_user)
        told = browser.post("/api/lineages/sentiment/rollback", {"to": "sentiment-v1", "allow_gap": "5", "reason": "5"})
        assert told.json()["error"]["details"] == {"allow_gap": ["Must be a valid boolean."]}

    def test_a_field_of_forms_is_unknown_in_json(self, api: APIClient) -> None:
        answer = api.post("/api/models/sentiment-v1/load", {"csrfmiddlewaretoken": "x"})
        assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, ["csrfmiddlewaretoken"])
