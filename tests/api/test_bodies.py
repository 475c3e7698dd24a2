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
