"""GPU memory of a model process, by the real NVML: measured while it is loaded, back after the unload."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loaderd.resources import Gpus
from tests.deadline import wait_until
from tests.stack import Stack, fresh_stack

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900), pytest.mark.xdist_group("gpu")]

MODEL = "sentiment-bert-v1.0"
MEASURED_SECONDS = 60.0


@pytest.fixture(scope="module")
def gpus() -> Iterator[Gpus]:
    gpus = Gpus()
    if not gpus:
        pytest.skip(f"needs an NVIDIA GPU; {gpus.reason_for_none}")
    import torch

    if not torch.backends.cuda.is_built():
        pytest.skip("needs a torch that is built for CUDA; this one computes on the CPU only")
    yield gpus
    gpus.close()


@pytest.fixture(scope="module")
def stack(gpus: Gpus, sample_store: Path) -> Iterator[Stack]:
    with fresh_stack() as stack:
        shutil.copytree(sample_store / "sentiment" / MODEL, stack.models_dir / "sentiment" / MODEL)
        stack.start().wait_for_zygotes()
        yield stack


def test_a_loaded_model_holds_gpu_memory_and_an_unload_gives_it_back(gpus: Gpus, stack: Stack) -> None:
    def runtime() -> dict[str, Any]:
        found: dict[str, Any] = api.get(f"/api/models/{MODEL}").json()["runtime"]
        return found

    with stack.api() as api:
        loaded = api.post(f"/api/models/{MODEL}/load")
        assert loaded.status_code == 200, loaded.text
        wait_until(lambda: runtime()["gpu_bytes"], MEASURED_SECONDS, "its GPU memory is measured")
        pid, gpu_bytes = runtime()["pid"], runtime()["gpu_bytes"]
        assert (gpus.bytes_by_pid() or {})[pid] == pytest.approx(gpu_bytes, rel=0.1)
        free_bytes = sum(gpu["memory_free_bytes"] for gpu in gpus.facts())

        assert api.post(f"/api/models/{MODEL}/unload").status_code == 200
        assert pid not in (gpus.bytes_by_pid() or {})
        given_back = sum(gpu["memory_free_bytes"] for gpu in gpus.facts()) - free_bytes
        assert given_back >= 0.9 * gpu_bytes
