"""Parts that die while the product runs: nothing claims what is not true, and it comes back by itself."""

from __future__ import annotations

import os
import signal

import httpx
import psutil
import pytest

from tests.deadline import wait_until
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

MODEL = "sentiment-sklearn-v1.0"
OTHER = "topic-sklearn-v1.0"


def answers(api: httpx.Client, model_id: str) -> bool:
    return api.post(f"/api/models/{model_id}/predict", json={"inputs": ["Where is my parcel?"]}).status_code == 200


def test_a_killed_model_process_is_reported_with_its_signal_and_harms_no_other(api: httpx.Client) -> None:
    for model_id in (MODEL, OTHER):
        assert api.post(f"/api/models/{model_id}/load").status_code == 200
    os.kill(api.get(f"/api/models/{MODEL}").json()["runtime"]["pid"], signal.SIGKILL)
    wait_until(lambda: api.get(f"/api/models/{MODEL}").json()["status"] == "error", 30, "the death is reported")
    assert "SIGKILL" in api.get(f"/api/models/{MODEL}").json()["last_error"]
    assert answers(api, OTHER)
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    for model_id in (MODEL, OTHER):
        api.post(f"/api/models/{model_id}/unload")


def test_a_killed_loaderd_is_never_shown_as_loaded_and_comes_back_with_its_models(
    stack: Stack, api: httpx.Client
) -> None:
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    model = psutil.Process(api.get(f"/api/models/{MODEL}").json()["runtime"]["pid"])
    old = stack.loaderd()
    old.kill()
    wait_until(lambda: not model.is_running(), 10, "no orphan is left")

    def back() -> bool:
        detail = api.get(f"/api/models/{MODEL}").json()
        return detail["status"] == "loaded" and detail["runtime"]["pid"] != model.pid

    wait_until(back, 60, "loaded again without a person")
    assert stack.loaderd().pid != old.pid
    wait_until(lambda: answers(api, MODEL), 30, "it answers again")
    api.post(f"/api/models/{MODEL}/unload")


def test_while_loaderd_is_away_commands_say_so(stack: Stack, api: httpx.Client) -> None:
    loaderd = stack.loaderd()
    loaderd.suspend()
    try:
        wait_until(
            lambda: api.get("/api/models/health").json()["loaderd"]["reachable"] is False, 30, "its silence is seen"
        )
        refused = api.post(f"/api/models/{MODEL}/load")
        assert refused.status_code == 503
        assert "loaderd" in refused.json()["error"]["message"]
    finally:
        loaderd.resume()
    wait_until(lambda: api.get("/api/models/health").json()["loaderd"]["reachable"], 30, "it is heard again")
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    api.post(f"/api/models/{MODEL}/unload")


def test_a_killed_queue_comes_back_and_commands_work_again(stack: Stack, api: httpx.Client) -> None:
    queues = [p for p in stack.family() if "queue" in p.info["cmdline"][-1:]]
    assert queues, "the queue's processes are found"
    for process in queues:
        process.kill()
    loaded = api.post(f"/api/models/{MODEL}/load")
    assert loaded.status_code == 200, loaded.text
    api.post(f"/api/models/{MODEL}/unload")


def test_a_killed_web_server_comes_back(stack: Stack) -> None:
    servers = [p for p in stack.family() if "gunicorn" in " ".join(p.info["cmdline"])]
    masters = [p for p in servers if p.parent() not in servers]
    assert masters
    for process in masters:
        process.kill()

    def alive() -> bool:
        try:
            return httpx.get(f"{stack.web}/livez", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(alive, 60, "the web server answers again")
