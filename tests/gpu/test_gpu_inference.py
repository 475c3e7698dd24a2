"""Encoders on a GPU: the answers of a processor, and no slower than the network called by hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd import catalogue
from loaderd.errors import LoadFailed
from tests.contract import transformers_artifacts
from tests.loaderd.frameworks.transformers.tiny import batch, load, tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600), pytest.mark.xdist_group("gpu")]

TEXTS = [
    " ".join(["the parcel that I ordered in May has not arrived and nobody answers the phone"] * (1 + at % 5))
    for at in range(256)
]
ROUNDS = 7
MIN_SHARE = 0.95


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    catalogue.framework("transformers").ensure_imported()
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and a torch that is built for CUDA")
    directory = tmp_path_factory.mktemp("minilm")
    transformers_artifacts.minilm(directory)
    return directory


def by_hand(directory: Path, device: str) -> Callable[[], np.ndarray]:
    """The mean of the last layer, normalised, of all texts in one padded batch."""
    import torch
    import transformers

    network = transformers.AutoModel.from_pretrained(directory).eval().to(device)
    words = tokenizer(directory)

    def embed() -> np.ndarray:
        encoded = words(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt").to(device)
        with torch.inference_mode():
            hidden = network(**encoded).last_hidden_state
            mask = encoded["attention_mask"][..., None]
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            found: np.ndarray = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return found

    return embed


def test_a_gpu_answers_as_a_processor_does_in_either_precision(minilm: Path) -> None:
    wanted = by_hand(minilm, "cpu")()
    for precision, least in (("", 0.9999), ("bf16", 0.99)):
        model: Any = load(minilm, precision)
        assert model.checkpoint.device.type == "cuda"
        found = model.predict(batch(*TEXTS))["embedding"]
        assert (found * wanted).sum(axis=1).min() > least


def test_integers_are_for_processors(minilm: Path) -> None:
    with pytest.raises(LoadFailed, match="made for processors, and it runs on a GPU; set its precision to bf16"):
        load(minilm, "int8")


def test_a_batch_takes_no_longer_than_by_hand(minilm: Path) -> None:
    model = load(minilm)
    prepared = model.prepare(batch(*TEXTS))
    assert prepared is not None
    embed = by_hand(minilm, "cuda")
    shares = []
    for round_ in range(ROUNDS + 2):  # the first two warm up
        seconds = []
        for call in (embed, lambda: model.predict(prepared)):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
        if round_ >= 2:
            shares.append(seconds[0] / seconds[1])
    assert statistics.median(shares) >= MIN_SHARE
