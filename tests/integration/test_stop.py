"""A stop in the middle of something: what the registry says afterwards is true, and nothing counted is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deadline import wait_until
from tests.stack import Stack, fresh_stack

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("up")]

MODEL = "sentiment-sklearn-v1.0"
PREDICTIONS = 7


@pytest.fixture
def stack_of_one(sample_store: Path) -> Iterator[Stack]:
    with fresh_stack() as stack:
        shutil.copytree(sample_store / "sentiment" / MODEL, stack.models_dir / "sentiment" / MODEL)
        yield stack


def test_an_unload_just_before_sigterm_is_done_or_refused_and_no_prediction_is_lost(
    stack_of_one: Stack,
) -> None:
    stack = stack_of_one.start()
    with stack.api() as api:
        assert api.post(f"/api/models/{MODEL}/load").status_code == 200
        before = api.get(f"/api/models/{MODEL}/performance").json()["usage_count"]
        for _ in range(PREDICTIONS):
            assert api.post(f"/api/models/{MODEL}/predict", json={"inputs": ["Thank you"]}).status_code == 200
        unload = api.post(f"/api/models/{MODEL}/unload", headers={"Prefer": "respond-async"})
        assert unload.status_code == 202
    assert stack.stop() == 0
    assert stack.family() == []

    stack.start()
    with stack.api() as api:
        operation = unload.headers["Location"]
        wait_until(lambda: api.get(operation).json()["finished_at"], 60, "the unload has ended")
        ended = api.get(operation).json()
        if ended["status"] == "succeeded":
            state = "unloaded"
        else:  # loaderd was stopping when the command came: refused, so what was wished before holds
            assert ended["error"]["code"] in ("shutting_down", "loaderd_unreachable"), ended
            state = "loaded"
        wait_until(lambda: api.get(f"/api/models/{MODEL}").json()["status"] == state, 60, f"it is {state}")
        known = stack.loader_client().status()["models"].get(MODEL, {"state": "unloaded"})
        assert known["state"] == state, "which is true"
        assert api.get(f"/api/models/{MODEL}/performance").json()["usage_count"] == before + PREDICTIONS
