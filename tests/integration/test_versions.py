"""Versions that replace one another while clients ask: activated, rolled back, split, shadowed."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.deadline import wait_until
from tests.stack import Stack
from tests.traffic import Traffic, text_request

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

LINEAGE, OLD, NEW = "sentiment-sklearn", "sentiment-sklearn-v1.0", "sentiment-sklearn-v2.0"


@pytest.fixture
def old_is_live(api: httpx.Client) -> Iterator[None]:
    activated = api.post(f"/api/models/{OLD}/activate", json={"reason": "test"})
    assert activated.status_code == 200, activated.text
    yield
    api.put(f"/api/lineages/{LINEAGE}/traffic", json={"candidate_percent": 0, "shadow": False})
    for model_id in (OLD, NEW):
        api.post(f"/api/models/{model_id}/unload")


def status_of(api: httpx.Client, model_id: str) -> str:
    return str(api.get(f"/api/models/{model_id}").json()["status"])


@pytest.mark.usefixtures("old_is_live")
def test_switches_under_constant_traffic_lose_no_request(stack: Stack, api: httpx.Client) -> None:
    with Traffic(stack.inference, stack.headers, {LINEAGE: text_request()}, per_second=150, clients=3) as traffic:
        for _ in range(5):
            assert api.post(f"/api/models/{NEW}/activate").status_code == 200
            assert status_of(api, OLD) == "unloaded"
            back = api.post(f"/api/lineages/{LINEAGE}/rollback", json={"reason": "it was worse"})
            assert back.status_code == 200, back.text
            assert back.json()["model_id"] == OLD
    assert not traffic.bad(LINEAGE), traffic.bad(LINEAGE)[:3]
    assert len(traffic.of(LINEAGE)) > 50
    history = api.get(f"/api/lineages/{LINEAGE}/history").json()
    assert [change["kind"] for change in history["changes"][:2]] == ["rollback", "activate"]
    assert history["changes"][0]["actor"] == "ada"
    assert history["changes"][0]["reason"] == "it was worse"
    assert api.get(f"/api/models/{NEW}").json()["rolled_back_at"] is not None, "the version that was left is marked"


@pytest.mark.usefixtures("old_is_live")
def test_split_and_shadow_compare_two_versions(stack: Stack, api: httpx.Client) -> None:
    assert api.post(f"/api/models/{NEW}/load").status_code == 200
    assert api.put(f"/api/lineages/{LINEAGE}/aliases/candidate", json={"model_id": NEW}).status_code == 200
    counts = {model_id: api.get(f"/api/models/{model_id}").json()["usage_count"] for model_id in (OLD, NEW)}
    changed = api.put(f"/api/lineages/{LINEAGE}/traffic", json={"candidate_percent": 50, "shadow": True})
    assert changed.status_code == 200, changed.text

    def compared() -> bool:
        answer = api.get(f"/api/lineages/{LINEAGE}/comparison")
        seen = answer.json()
        return (
            answer.status_code == 200  # 404 before the first figures
            and seen["compared"] > 20
            and seen["candidate"]["requests"] > 20
            and seen["live"]["requests"] > 20
        )

    with Traffic(stack.inference, stack.headers, {LINEAGE: text_request()}, per_second=150, clients=3) as traffic:
        wait_until(compared, 60, "both versions are compared")
    assert not traffic.bad(LINEAGE)
    seen = api.get(f"/api/lineages/{LINEAGE}/comparison").json()
    assert seen["live"]["model_id"] == OLD
    assert seen["candidate"]["model_id"] == NEW
    assert 0 <= seen["disagreement_rate"] <= 1
    for side in ("live", "candidate"):
        assert seen[side]["latency_ms"]["p50"] > 0
        assert seen[side]["error_rate"] == 0

    def counted(model_id: str) -> int:
        return int(api.get(f"/api/models/{model_id}").json()["usage_count"]) - counts[model_id]

    wait_until(lambda: all(counted(model_id) > 20 for model_id in counts), 20, "both versions' requests are counted")


@pytest.mark.usefixtures("old_is_live")
def test_commands_tell_and_change_the_versions(stack: Stack, api: httpx.Client) -> None:
    assert "live" in stack.manage("versions", LINEAGE).stdout
    stack.manage("activate", NEW, "--reason", "by the command")
    assert status_of(api, NEW) == "loaded"
    stack.manage("rollback", LINEAGE)
    assert status_of(api, OLD) == "loaded"
    assert api.get(f"/api/models/{LINEAGE}").json()["id"] == OLD
