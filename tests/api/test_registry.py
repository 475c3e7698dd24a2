"""What people decide about a model, and what discovery finds, through the API."""

from __future__ import annotations

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from modelhub.api.serializers.registry import FoundSerializer
from modelhub.conf import config
from modelhub.lifecycle.models import StateChange
from modelhub.registry.models import ModelVersion
from tests.api.conftest import MakeVersion

ADDRESS = "/api/models/sentiment-model-v1"


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version(artifact_format="pickle")


class TestApproval:
    def test_it_is_recorded_and_told(self, api: APIClient, version: ModelVersion) -> None:
        body = api.post(f"{ADDRESS}/approve", {"digest": "a" * 64}).json()
        assert body.pop("approved_at") == pytest.approx(timezone.now().timestamp(), abs=30)
        assert body == {
            "model_id": "sentiment-model-v1",
            "approved": True,
            "digest": "a" * 64,
            "approved_by": "admin",
        }
        assert api.get(ADDRESS).json()["approved"] is True

    def test_it_is_taken_back(self, api: APIClient, version: ModelVersion) -> None:
        api.post(f"{ADDRESS}/approve")
        body = api.delete(f"{ADDRESS}/approve").json()
        assert (body["approved"], body["approved_by"], body["approved_at"]) == (False, None, None)
        assert api.get(ADDRESS).json()["approved"] is False

    def test_other_bytes_are_not_approved(self, api: APIClient, version: ModelVersion) -> None:
        answer = api.post(f"{ADDRESS}/approve", {"digest": "b" * 64})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "approval_refused")

    def test_a_digest_that_is_none_is_refused(self, api: APIClient, version: ModelVersion) -> None:
        assert api.post(f"{ADDRESS}/approve", {"digest": "latest"}).status_code == 400


class TestForgetCanary:
    CANARY = {"source": "recorded", "inputs": ["x"], "outputs": {"label": [1]}}
    ADDRESS = "/api/models/sentiment-model-v1/forget-canary"

    def test_it_answers_what_was_forgotten(self, api: APIClient, version: ModelVersion) -> None:
        ModelVersion.objects.update(canary=self.CANARY, canary_digest="b" * 64)
        answer = api.post(self.ADDRESS, {"reason": "another library"})
        assert (answer.status_code, answer.json()) == (
            200,
            {"model_id": "sentiment-model-v1", "digest": "b" * 64, "canary": self.CANARY},
        )
        version.refresh_from_db()
        assert version.canary is None
        (change,) = api.get("/api/models/sentiment-model-v1/state-changes").json()
        assert (change["actor"], change["from_state"], change["to_state"]) == ("admin", "unloaded", "unloaded")
        assert change["reason"] == "the recorded canary was forgotten: another library"

    def test_a_declared_one_is_refused(self, api: APIClient, version: ModelVersion) -> None:
        ModelVersion.objects.update(canary=self.CANARY, metadata={"canary": {"inputs": ["x"], "predictions": ["y"]}})
        answer = api.post(self.ADDRESS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "state_forbids")
        assert "is declared in its metadata.json" in answer.json()["error"]["message"]
        version.refresh_from_db()
        assert version.canary == self.CANARY


class TestPolicy:
    def test_it_sets_limits_and_answers_the_detail(self, api: APIClient, version: ModelVersion) -> None:
        body = api.patch(ADDRESS, {"load_timeout_seconds": 60, "threads": 2, "max_batch_size": 8}).json()
        assert (body["load_timeout_seconds"], body["threads"], body["max_batch_size"]) == (60.0, 2, 8)
        assert api.patch(ADDRESS, {"threads": None}).json()["threads"] is None

    @pytest.mark.parametrize("field", ["name", "desired_state", "status", "approved_digest", "digest"])
    def test_it_sets_nothing_else(self, api: APIClient, version: ModelVersion, field: str) -> None:
        assert api.patch(ADDRESS, {field: "loaded"}).status_code == 400
        assert getattr(ModelVersion.objects.get(), field) == getattr(version, field)


def test_state_changes_come_newest_first_with_pages(api: APIClient, version: ModelVersion) -> None:
    for second, state in enumerate(("loading", "loaded", "unloading")):
        StateChange.objects.create(
            version=version,
            from_state="unloaded",
            to_state=state,
            reason="asked",
            actor="admin",
            at=timezone.datetime.fromtimestamp(1_700_000_000 + second, tz=timezone.get_current_timezone()),
        )
    answer = api.get(f"{ADDRESS}/state-changes?limit=2")
    assert [change["to_state"] for change in answer.json()] == ["unloading", "loaded"]
    assert answer.headers["X-Total-Count"] == "3"
    assert 'rel="next"' in answer.headers["Link"]
    assert answer.json()[0] == {
        "from_state": "unloaded",
        "to_state": "unloading",
        "reason": "asked",
        "actor": "admin",
        "operation": None,
        "at": 1_700_000_002.0,
    }


class TestDiscovery:
    def test_it_reports_and_the_report_is_kept(self, api: APIClient, transactional_db: None) -> None:
        folder = config().MODELS_DIR / "topic" / "api-broken"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text("{")
        try:
            answer = api.post("/api/models/discover")
        finally:
            (folder / "metadata.json").unlink()
            folder.rmdir()
        body = answer.json()
        assert answer.status_code == 200
        assert (body["actor"], body["error"]) == ("admin", "")
        assert [found["path"] for found in body["report"]["refused"]] == ["topic/api-broken"]
        assert set(body["report"]) == set(FoundSerializer().fields)
        assert api.get("/api/models/discover").json() == body

    def test_404_before_the_first(self, api: APIClient) -> None:
        assert api.get("/api/models/discover").status_code == 404

    def test_503_when_there_is_no_store(self, api: APIClient, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(config(), "MODELS_DIR", config().MODELS_DIR / "gone")
        answer = api.post("/api/models/discover")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "discovery_failed")
