"""The gRPC door of the running product, with its sample models."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import httpx
import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.deadline import wait_until
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

MODEL = "sentiment-sklearn-v1.0"


@pytest.fixture
def triton(stack: Stack) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{stack.grpc_port}") as client:
        yield client


@pytest.fixture
def headers(stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.token}"}


def texts(*given: str) -> list[InferInput]:
    entry = InferInput("text", [len(given)], "BYTES")
    entry.set_data_from_numpy(np.array(given, dtype=object))
    return [entry]


def test_load_predict_count_unload(stack: Stack, triton: InferenceServerClient, headers: dict[str, str]) -> None:
    names = {entry.name for entry in triton.get_model_repository_index(headers=headers).models}
    assert MODEL in names
    triton.load_model(MODEL, headers=headers)
    assert triton.is_model_ready(MODEL, headers=headers)
    asked = ["Your invoice is overdue.", "You won a prize, click here!"]
    result = triton.infer(MODEL, texts(*asked), headers=headers)
    with httpx.Client(base_url=f"http://{stack.inference}", headers=dict(stack.headers), timeout=60) as http:
        body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": asked}]}
        (label, *_) = http.post(f"/v2/models/{MODEL}/infer", json=body).raise_for_status().json()["outputs"]
    assert [text.decode() for text in result.as_numpy(label["name"])] == label["data"]
    (told,) = triton.get_inference_statistics(MODEL, headers=headers).model_stats
    assert told.inference_stats.success.count >= 2
    triton.unload_model(MODEL, headers=headers)
    assert not triton.is_model_ready(MODEL, headers=headers)
    with pytest.raises(InferenceServerException, match="is unloaded") as refused:
        triton.infer(MODEL, texts("a"), headers=headers)
    assert refused.value.status() == "StatusCode.FAILED_PRECONDITION"


def test_it_comes_back_with_a_new_gateway(stack: Stack, triton: InferenceServerClient, headers: dict[str, str]) -> None:
    assert triton.is_server_ready()
    (gateway,) = [
        process for process in stack.family() if process.is_running() and "loaderd.gateway" in process.cmdline()
    ]
    gateway.send_signal(signal.SIGKILL)
    psutil.wait_procs([gateway], timeout=10)

    def is_back() -> bool:
        try:
            return bool(triton.is_server_ready() and triton.get_server_metadata(headers=headers).name == "modelhub")
        except InferenceServerException:
            return False

    wait_until(is_back, 30, "the gRPC door is open again")
