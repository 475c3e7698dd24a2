"""A budget that does not hold all models: what is evicted, what is refused, what comes back when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.deadline import wait_until
from tests.stack import Stack
from tests.traffic import text_request

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

BIG, OTHER, SMALL = "sentiment-bert-v1.0", "intent-bert-v1.0", "topic-sklearn-v1.0"
MIB = 2**20


@pytest.fixture
def measured(stack: Stack, api: httpx.Client) -> Iterator[dict[str, int]]:
    """Each was loaded once, so its peak is known; nothing is loaded. Bytes by model."""
    stack.wait_for_zygotes()
    peaks = {}
    for model_id in (BIG, OTHER, SMALL):
        assert api.post(f"/api/models/{model_id}/load").status_code == 200
        plan = api.post(f"/api/models/{model_id}/load", json={"dry_run": True}).json()
        assert "nothing would change" in plan["sentence"], plan
        assert api.post(f"/api/models/{model_id}/unload").status_code == 200
        plan = api.post(f"/api/models/{model_id}/load", json={"dry_run": True}).json()
        assert plan["decision"] == "fits", plan
        assert plan["measured"], "the last load of these bytes was measured"
        peaks[model_id] = plan["needed_bytes"]
    api.patch("/api/policy", json={"MIN_RESIDENCY_SECONDS": 0})
    yield peaks
    api.patch("/api/policy", json={"MIN_RESIDENCY_SECONDS": None, "MAX_MEMORY_USAGE_MB": None})
    for model_id in peaks:
        api.patch(f"/api/models/{model_id}", json={"pinned": False, "autoload": False})
        api.post(f"/api/models/{model_id}/unload")


def set_budget(api: httpx.Client, bytes_: int) -> None:
    changed = api.patch("/api/policy", json={"MAX_MEMORY_USAGE_MB": bytes_ // MIB + 1})
    assert changed.status_code == 200, changed.text


def test_what_does_not_fit_evicts_or_is_refused_with_the_sum(
    stack: Stack, api: httpx.Client, measured: dict[str, int]
) -> None:
    set_budget(api, max(measured[BIG], measured[OTHER]) + 4 * MIB)
    assert api.post(f"/api/models/{BIG}/load").status_code == 200

    plan = api.post(f"/api/models/{OTHER}/load", json={"dry_run": True}).json()
    assert plan["decision"] == "evicts", plan
    assert [victim["model_id"] for victim in plan["evict"]] == [BIG]
    assert BIG in stack.manage("load", OTHER, "--dry-run").stdout
    assert api.get(f"/api/models/{BIG}").json()["status"] == "loaded", "a dry run changes nothing"

    api.patch(f"/api/models/{BIG}", json={"pinned": True})

    def is_refused() -> bool:
        return bool(api.post(f"/api/models/{OTHER}/load", json={"dry_run": True}).json()["decision"] == "refused")

    wait_until(is_refused, 5, "the pin works within a second or so")
    refused = api.post(f"/api/models/{OTHER}/load")
    assert refused.status_code == 507, refused.text
    error = refused.json()["error"]
    assert error["code"] == "insufficient_memory"
    assert error["details"]["needed_bytes"] == measured[OTHER]
    assert "pinned" in str(error["details"]["kept"])
    assert api.get(f"/api/models/{BIG}").json()["status"] == "loaded", "nothing was touched"

    api.patch(f"/api/models/{BIG}", json={"pinned": False})
    wait_until(lambda: not is_refused(), 5, "the pin is off")
    assert api.post(f"/api/models/{OTHER}/load").status_code == 200
    evicted = api.get(f"/api/models/{BIG}").json()
    assert evicted["status"] == "unloaded"
    assert OTHER in evicted["status_reason"]
    assert evicted["desired_state"] == "unloaded"


def test_an_evicted_model_comes_back_when_it_is_asked_for(
    stack: Stack, api: httpx.Client, measured: dict[str, int]
) -> None:
    for model_id in (BIG, OTHER):
        assert api.patch(f"/api/models/{model_id}", json={"autoload": True}).status_code == 200
    set_budget(api, max(measured[BIG], measured[OTHER]) + 4 * MIB)
    with httpx.Client(headers=dict(stack.headers), timeout=60) as door:

        def status_of(model_id: str) -> str:
            return str(api.get(f"/api/models/{model_id}").json()["status"])

        def ask(model_id: str) -> httpx.Response:
            return door.post(f"http://{stack.inference}/v2/models/{model_id}/infer", json=text_request())

        wait_until(lambda: ask(BIG).status_code == 200, 10, "autoload works within a second or so")
        for model_id in (OTHER, BIG, OTHER):
            answer = ask(model_id)
            assert answer.status_code == 200, answer.text
            wait_until(lambda model_id=model_id: status_of(model_id) == "loaded", 10, "the registry is told")
    assert status_of(BIG) == "unloaded"


def test_optimise_frees_what_it_promised(stack: Stack, api: httpx.Client, measured: dict[str, int]) -> None:
    for model_id in measured:
        assert api.post(f"/api/models/{model_id}/load").status_code == 200
    policy = {"UNUSED_MODEL_TIMEOUT_HOURS": 0.0001}
    assert api.patch("/api/policy", json=policy).status_code == 200
    try:

        def plan() -> dict:
            return dict(api.post("/api/models/optimize-memory", json={"dry_run": True}).json())

        wait_until(lambda: {victim["model_id"] for victim in plan()["victims"]} >= set(measured), 30, "all are unused")
        promised = plan()["frees_bytes"]
        done = api.post("/api/models/optimize-memory").json()
    finally:
        api.patch("/api/policy", json=dict.fromkeys(policy))
    assert done["status"] == "completed"
    assert done["models_unloaded"] >= len(measured)
    assert abs(done["memory_freed_mb"] * MIB - promised) < 0.1 * promised + MIB
    assert {api.get(f"/api/models/{model_id}").json()["status"] for model_id in measured} == {"unloaded"}
