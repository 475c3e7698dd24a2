"""The response cache in the running product: turned on and off by the API, asked by real clients, measured, cleared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests.deadline import wait_until
from tests.integration.counting import settled
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

MODEL = "sentiment-sklearn-v1.0"
TEXT = "The third delivery in a row that never came. What do I pay you for?"


@pytest.fixture
def loaded(api: httpx.Client) -> Iterator[None]:
    """Its answers are kept, and no request is traced."""
    assert api.patch(f"/api/models/{MODEL}", json={"cache_enabled": True, "cache_ttl_seconds": 600}).status_code == 200
    assert api.patch("/api/policy", json={"SAMPLING_RATE": 0}).status_code == 200
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    yield
    api.post(f"/api/models/{MODEL}/unload")
    api.patch(f"/api/models/{MODEL}", json={"cache_enabled": None, "cache_ttl_seconds": None})
    api.patch("/api/policy", json={"SAMPLING_RATE": None})


def figures(stack: Stack) -> dict[str, float]:
    """The door's counters of the model's cache; {} before it was used."""
    text = httpx.get(f"http://{stack.inference}/metrics", headers=dict(stack.headers)).raise_for_status().text
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name.startswith("modelhub_cache_") and f'model="{MODEL}"' in rest:
            found[name.removeprefix("modelhub_cache_")] = float(rest.split()[-1])
    return found


def hits(stack: Stack) -> float:
    return figures(stack).get("hits_total", 0.0)


def tensor(module: Any, text: str) -> Any:
    made = module.InferInput("text", [1], "BYTES")
    made.set_data_from_numpy(np.array([text], dtype=object))
    return made


@pytest.mark.usefixtures("loaded")
def test_real_clients_get_their_own_ids_with_the_kept_answer(stack: Stack) -> None:
    with triton_http.InferenceServerClient(stack.inference) as client:
        wait_until(lambda: stack.loader_client().status()["facts"]["limits"]["sampling_rate"] == 0, 20)
        first = client.infer(MODEL, [tensor(triton_http, TEXT)], headers=dict(stack.headers), request_id="one")
        before = hits(stack)
        again = client.infer(MODEL, [tensor(triton_http, TEXT)], headers=dict(stack.headers), request_id="another one")
        assert (first.get_response()["id"], again.get_response()["id"]) == ("one", "another one")
        for output in ("label", "probabilities"):
            assert (first.as_numpy(output) == again.as_numpy(output)).all()
        wait_until(lambda: hits(stack) == before + 1, 20, "the hit is told")
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{stack.grpc_port}") as client:
        lower = {name.lower(): value for name, value in stack.headers.items()}
        told = [
            client.infer(MODEL, [tensor(triton_grpc, TEXT)], headers=lower, request_id=name) for name in ("x", "yy")
        ]
        assert [answer.get_response().id for answer in told] == ["x", "yy"]
        assert (told[0].as_numpy("label") == told[1].as_numpy("label")).all()
        wait_until(lambda: hits(stack) == before + 2, 20, "the hit is told")


@pytest.mark.usefixtures("loaded")
def test_it_is_told_cleared_and_switched_off_without_a_reload(stack: Stack, api: httpx.Client) -> None:
    def predict() -> None:
        answer = api.post(f"/api/models/{MODEL}/predict", json={"inputs": [TEXT + " Twice."]})
        assert answer.json()["predictions"][0]["label"]

    before = api.get(f"/api/models/{MODEL}").json()
    for _ in range(10):
        predict()

    def counted() -> tuple[int, int]:
        now = api.get(f"/api/models/{MODEL}").json()
        return tuple(now[name] - before[name] for name in ("cache_hit_count", "cache_miss_count"))

    wait_until(lambda: counted() == (9, 1), 30, "hits and misses are in the registry")
    after = api.get(f"/api/models/{MODEL}").json()
    assert 0 < after["cache_hit_rate"] < 1
    assert after["runtime"]["pid"] == before["runtime"]["pid"]

    assert api.post(f"/api/models/{MODEL}/clear-cache").json()["forgotten"] >= 1
    assert api.delete("/api/cache").json() == {"model_id": None, "forgotten": 0}
    predict()
    wait_until(lambda: counted() == (9, 2), 30, "what was cleared was computed again")
    assert stack.manage("clear_cache", MODEL).stdout == f"{MODEL}: 1 kept answers forgotten\n"

    api.patch(f"/api/models/{MODEL}", json={"cache_enabled": False})
    wait_until(lambda: figures(stack).get("entries") == 0, 20, "nothing is kept of it any more")
    usage = settled(api, MODEL)["usage_count"]
    for _ in range(3):
        predict()
    wait_until(lambda: api.get(f"/api/models/{MODEL}").json()["usage_count"] == usage + 3, 30, "each is computed")
    assert counted() == (9, 2)
