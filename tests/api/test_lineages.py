"""Lineages: their versions and names, activation and the way back, traffic, and who was live when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from loaderd import errors
from loaderd.reporter import Comparison
from modelhub.conf import config
from modelhub.lifecycle.models import LineageChange, Operation
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.recording import record_comparisons
from tests.api.conftest import FakeLoaderd, MakeVersion

BASE = "/api/lineages/sentiment"


@pytest.fixture
def history(lineage: Model) -> None:
    """v1 was live from the first load on, v2 is since ada activated it."""
    v1, v2 = (lineage.versions.get(model_id=f"sentiment-{name}") for name in ("v1", "v2"))
    now = timezone.now()
    for version, previous, kind, age_hours in ((v1, None, "first", 2), (v2, v1, "activate", 1)):
        LineageChange.objects.create(
            lineage=lineage,
            alias="live",
            kind=kind,
            version=version,
            previous=previous,
            details={"version_id": version.model_id, "previous_id": previous and previous.model_id},
            reason="new corpus",
            actor="ada",
            at=now - timedelta(hours=age_hours),
        )


@pytest.mark.usefixtures("loaderd_is_heard")
class TestReading:
    def test_the_list(self, api: APIClient, lineage: Model) -> None:
        (entry,) = api.get("/api/lineages/").json()
        assert entry.pop("created_at") == pytest.approx(lineage.created_at.timestamp())
        assert entry.pop("links")["rollback"] == f"{BASE}/rollback"
        assert entry == {
            "name": "sentiment",
            "type": "sentiment",
            "description": "",
            "live": "sentiment-v2",
            "aliases": {"candidate": "sentiment-v10", "live": "sentiment-v2"},
            "candidate_percent": 0.0,
            "shadow": False,
            "version_count": 3,
        }

    def test_its_queries_do_not_grow(self, api: APIClient, lineage: Model, make_version: MakeVersion) -> None:
        for number in range(20):
            make_version(f"other-v{number}", lineage=f"other {number}")
        with CaptureQueriesContext(connection) as captured:
            assert len(api.get("/api/lineages/").json()) == 21
        assert len(captured) == 4  # token, count, rows, aliases with their versions
        assert "manifest" not in " ".join(query["sql"] for query in captured)

    @pytest.mark.usefixtures("history")
    def test_one_with_its_versions_the_highest_first(self, api: APIClient) -> None:
        body = api.get(BASE).json()
        told = [(version["id"], version["aliases"], version["is_live"]) for version in body["versions"]]
        assert told == [
            ("sentiment-v10", ["candidate"], False),
            ("sentiment-v2", ["live"], True),
            ("sentiment-v1", [], False),
        ]
        assert (body["live"], body["previous"]) == ("sentiment-v2", "sentiment-v1")
        assert body["traffic"]["candidate"] == "sentiment-v10"

    @pytest.mark.usefixtures("lineage")
    @pytest.mark.parametrize("part", ["", "/history", "/aliases", "/traffic", "/comparison"])
    @pytest.mark.parametrize("name", ["none-such", "a%00b"])
    def test_404_for_an_unknown_one(self, api: APIClient, part: str, name: str) -> None:
        assert api.get(f"/api/lineages/{name}{part}").status_code == 404

    @pytest.mark.usefixtures("history")
    def test_the_history(self, api: APIClient, lineage: Model) -> None:
        lineage.versions.get(model_id="sentiment-v1").delete()
        answer = api.get(f"{BASE}/history?limit=1")
        body = answer.json()
        assert answer.headers["X-Total-Count"] == "2"
        new, old = body["periods"]
        assert (old["model_id"], old["kind"], old["until"]) == ("sentiment-v1", "first", new["since"])
        assert (new["model_id"], new["actor"], new["reason"], new["until"]) == (
            "sentiment-v2", "ada", "new corpus", None,
        )  # fmt: skip
        (change,) = body["changes"]
        assert (change["model_id"], change["previous"]) == ("sentiment-v2", "sentiment-v1")

    @pytest.mark.usefixtures("history")
    def test_the_periods_of_a_long_history_are_the_newest(
        self, api: APIClient, lineage: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = config().model_copy(update={"API_LIST_LIMIT": 1})
        monkeypatch.setattr("modelhub.api.views.lineages.config", lambda: few)
        (period,) = api.get(f"{BASE}/history").json()["periods"]
        assert (period["model_id"], period["until"]) == ("sentiment-v2", None)


@pytest.mark.usefixtures("loaderd_is_heard", "lineage")
class TestAliases:
    def test_one_is_set_moved_and_taken_away(self, api: APIClient) -> None:
        made = api.put(f"{BASE}/aliases/stable", {"model_id": "sentiment-v1", "reason": "tried"})
        assert made.status_code == 200
        body = made.json()
        assert (body["name"], body["model_id"], body["version"], body["set_by"]) == (
            "stable", "sentiment-v1", "1.0.0", "admin",
        )  # fmt: skip
        assert api.put(f"{BASE}/aliases/stable", {"model_id": "sentiment-v2"}).json()["model_id"] == "sentiment-v2"
        assert [alias["name"] for alias in api.get(f"{BASE}/aliases").json()] == ["candidate", "live", "stable"]
        assert api.delete(f"{BASE}/aliases/stable").status_code == 204
        assert api.delete(f"{BASE}/aliases/stable").status_code == 404
        assert [change.kind for change in LineageChange.objects.all()] == ["remove", "set", "set"]

    def test_live_is_not_set_but_activated(self, api: APIClient) -> None:
        for answer in (
            api.put(f"{BASE}/aliases/live", {"model_id": "sentiment-v1"}),
            api.delete(f"{BASE}/aliases/live"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "state_forbids")

    @pytest.mark.parametrize(
        ("name", "body", "status"),
        [
            ("stable", {}, 400),
            ("stable", {"model_id": "none-such"}, 404),
            ("stable", {"model_id": "a\0b"}, 400),
            ("no%20name", {"model_id": "sentiment-v1"}, 400),
            ("candidate", {"model_id": "sentiment-v2"}, 409),  # it is live
        ],
    )
    def test_what_does_not_fit_is_refused(self, api: APIClient, name: str, body: dict[str, str], status: int) -> None:
        assert api.put(f"{BASE}/aliases/{name}", body).status_code == status

    def test_a_version_of_another_lineage_is_refused(self, api: APIClient, make_version: MakeVersion) -> None:
        make_version("topic-v1", type="topic")
        answer = api.put(f"{BASE}/aliases/stable", {"model_id": "topic-v1"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.usefixtures("loaderd_is_heard", "lineage")
class TestTraffic:
    def test_it_is_set_and_what_is_absent_stays(self, api: APIClient) -> None:
        assert api.put(f"{BASE}/traffic", {"candidate_percent": 12.5}).status_code == 200
        body = api.put(f"{BASE}/traffic", {"shadow": True, "reason": "look"}).json()
        assert body.pop("since") == pytest.approx(timezone.now().timestamp(), abs=30)
        assert body == {
            "live": "sentiment-v2",
            "candidate": "sentiment-v10",
            "candidate_percent": 12.5,
            "shadow": True,
        }
        assert api.get(f"{BASE}/traffic").json().items() >= body.items()

    @pytest.mark.parametrize("body", [{"candidate_percent": 101}, {"candidate_percent": "x"}, {"shadow": "x"}])
    def test_what_makes_no_sense_is_refused(self, api: APIClient, body: dict[str, object]) -> None:
        answer = api.put(f"{BASE}/traffic", body)
        assert (answer.status_code, set(answer.json()["error"]["details"])) == (400, set(body))

    def test_409_without_a_candidate(self, api: APIClient) -> None:
        api.delete(f"{BASE}/aliases/candidate")
        assert api.put(f"{BASE}/traffic", {"candidate_percent": 1}).status_code == 409

    def test_the_comparison_shows_both_side_by_side(self, api: APIClient) -> None:
        assert api.get(f"{BASE}/comparison").status_code == 404
        api.put(f"{BASE}/traffic", {"shadow": True})
        record_comparisons(
            [
                Comparison(
                    *("sentiment", "sentiment-v2", "sentiment-v10"),
                    at=timezone.now().timestamp() + 1,
                    compared=100,
                    disagreed=3,
                    live_requests=50,
                    live_latency_seconds=0.1,
                    live_histogram=[0] * 20 + [50],
                    candidate_requests=50,
                    candidate_errors=1,
                    candidate_latency_seconds=0.2,
                )
            ]
        )
        body = api.get(f"{BASE}/comparison").json()
        assert (body["compared"], body["disagreement_rate"], body["is_current"]) == (100, 0.03, True)
        assert (body["live"]["model_id"], body["live"]["latency_ms"]["mean"]) == ("sentiment-v2", 2.0)
        assert body["live"]["latency_ms"]["p99"] == pytest.approx(1.6, rel=0.1)
        assert (body["candidate"]["error_rate"], body["candidate"]["latency_ms"]["p50"]) == (0.02, None)


@pytest.mark.usefixtures("lineage")
class TestSwitching:
    RESULT = {
        "model_id": "sentiment-v1",
        "status": "live",
        "previous": "sentiment-v2",
        "load_seconds": 0.21,
        "freed_bytes": 120 * 1024**2,
        "gap_seconds": None,
    }
    ANSWER = {
        "model_id": "sentiment-v1",
        "lineage": "sentiment",
        "status": "live",
        "previous": "sentiment-v2",
        "load_time": 0.21,
        "memory_freed_mb": 120,
        "gap_seconds": None,
    }

    def test_activate(self, api: APIClient, loaderd: FakeLoaderd) -> None:
        loaderd.result = self.RESULT
        answer = api.post("/api/models/sentiment-v1/activate", {"reason": "it is better", "allow_gap": True})
        assert (answer.status_code, answer.json()) == (200, self.ANSWER)
        (operation,) = loaderd.seen
        assert (operation.kind, operation.reason, operation.source) == ("activate", "it is better", "api")
        assert operation.parameters["allow_gap"] is True

    @pytest.mark.parametrize("to", [None, "", "sentiment-v1"])
    def test_roll_back(self, api: APIClient, loaderd: FakeLoaderd, history: None, to: str | None) -> None:
        loaderd.result = self.RESULT
        answer = api.post(f"{BASE}/rollback", {"to": to})
        assert (answer.status_code, answer.json()) == (200, self.ANSWER)
        assert [(operation.kind, operation.version.model_id) for operation in loaderd.seen] == [
            ("rollback", "sentiment-v1")
        ]

    def test_respond_async(self, api: APIClient, loaderd: FakeLoaderd, history: None) -> None:
        asked = {"Prefer": "respond-async"}
        answer = api.post(f"{BASE}/rollback", headers=asked)
        assert (answer.status_code, answer.json()["kind"]) == (202, "rollback")
        assert answer.headers["Location"] == f"/api/operations/{Operation.objects.get().id}"
        refused = api.post("/api/models/sentiment-v10/activate", headers=asked)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "state_forbids")  # one at a time

    def test_409_when_nothing_was_live_before(self, api: APIClient, loaderd: FakeLoaderd) -> None:
        assert api.post(f"{BASE}/rollback").status_code == 409

    def test_404_for_a_version_that_is_none_of_it(self, api: APIClient, loaderd: FakeLoaderd) -> None:
        assert api.post(f"{BASE}/rollback", {"to": "none-such"}).status_code == 404

    @pytest.mark.parametrize(
        "error",
        [errors.InsufficientMemory("Both do not fit.", needed_bytes=7), errors.CanaryFailed("Another answer.")],
        ids=lambda error: error.code,
    )
    def test_a_failure_is_answered_with_its_facts(
        self, api: APIClient, loaderd: FakeLoaderd, error: errors.LoaderdError
    ) -> None:
        loaderd.error = error.to_message()
        answer = api.post("/api/models/sentiment-v1/activate")
        body = answer.json()["error"]
        assert (answer.status_code, body["code"]) == (error.http_status, error.code)
        assert error.facts.items() <= body["details"].items()


@pytest.mark.usefixtures("loaderd_is_heard")
class TestNames:
    """At the management doors a lineage's name means its live version; a model's own id comes first."""

    def test_a_lineage_means_its_live_version(self, api: APIClient, lineage: Model) -> None:
        assert api.get("/api/models/sentiment").json()["id"] == "sentiment-v2"
        lineage.aliases.all().delete()
        assert api.get("/api/models/sentiment").json()["id"] == "sentiment-v10"  # the highest
        assert api.get("/api/models/sentiment/performance").json()["model_id"] == "sentiment-v10"

    def test_an_id_comes_before_a_lineage(self, api: APIClient, lineage: Model, make_version: MakeVersion) -> None:
        make_version("sentiment", lineage="other")
        assert api.get("/api/models/sentiment").json()["lineage"] == "other"

    def test_what_is_set_is_set_of_the_live_version(self, api: APIClient, lineage: Model) -> None:
        assert api.patch("/api/models/sentiment", {"pinned": True}).json()["id"] == "sentiment-v2"
        assert list(ModelVersion.objects.filter(pinned=True).values_list("model_id", flat=True)) == ["sentiment-v2"]
