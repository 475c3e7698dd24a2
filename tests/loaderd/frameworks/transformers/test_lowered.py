"""bf16 and 8-bit integers: close to the full precision or refused, and the full one's weights are gone."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import LoadFailed
from tests.contract import transformers_artifacts
from tests.loaderd.frameworks.transformers.tiny import FAMILIES, TEXTS, batch, load, made

pytestmark = pytest.mark.xdist_group("transformers")

LOWER = ("bf16", "int8")


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_point_the_same_way(tmp_path: Path, family: str, precision: str) -> None:
    made(tmp_path, family, "Model")
    full, lowered = (load(tmp_path, wanted).predict(batch(*TEXTS))["embedding"] for wanted in ("", precision))
    norms = np.linalg.norm(full, axis=1) * np.linalg.norm(lowered, axis=1)
    assert ((full * lowered).sum(axis=1) / norms).min() > 0.99
    assert np.abs(full - lowered).max() > 1e-6, "the precision was not lowered at all"
    assert lowered.dtype == np.float32


@pytest.mark.parametrize("precision", LOWER)
def test_the_full_precision_is_let_go(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from loaderd.frameworks.transformers import encoder_model

    made(tmp_path, "Bert")
    layers: list[weakref.ref[Any]] = []
    settle = encoder_model.EncoderModel._settle

    def watched(model: Any, artifact: Any) -> None:
        layers.extend(weakref.ref(layer) for layer in model.checkpoint.network.base_model.encoder.layer)
        settle(model, artifact)

    monkeypatch.setattr(encoder_model.EncoderModel, "_settle", watched)
    model: Any = load(tmp_path, precision)
    gc.collect()
    assert len(layers) == 2
    assert all(layer() is None for layer in layers)
    kept = [module for module in model.checkpoint.network.modules() if isinstance(module, torch.nn.Linear)]
    assert len(kept) == 2, "the pooler's and the head's"


@pytest.mark.parametrize("precision", LOWER)
def test_a_network_with_padding_has_no_wide_layer_left(tmp_path: Path, precision: str) -> None:
    import torch

    made(tmp_path, "Albert", "Model")  # labels of untrained weights are ties, which it may decide otherwise
    model: Any = load(tmp_path, precision)
    linear = [module for module in model.checkpoint.network.modules() if type(module) is torch.nn.Linear]
    assert [layer for layer in linear if layer.weight.dtype == torch.float32] == []
    assert len(linear) > 0 if precision == "bf16" else linear == []


def test_texts_are_generated_as_they_are_stored(tmp_path: Path) -> None:
    transformers_artifacts.generator(tmp_path)
    with pytest.raises(LoadFailed, match=r"and models of this task \(text generation\) compute as they are stored"):
        load(tmp_path, "int8")


@pytest.mark.parametrize("precision", LOWER)
def test_a_text_is_the_same_beside_others(tmp_path: Path, precision: str) -> None:
    made(tmp_path, "Bert", "Model")
    model = load(tmp_path, precision)
    together = model.predict(batch(*TEXTS))["embedding"]
    for text, vector in zip(TEXTS, together, strict=True):
        alone = model.predict(batch(text))["embedding"][0]
        assert alone @ vector / np.linalg.norm(alone) / np.linalg.norm(vector) > 0.9999


def test_minilm_says_in_bf16_what_is_alike_and_is_refused_in_int8(tmp_path: Path) -> None:
    transformers_artifacts.minilm(tmp_path)
    texts = ["a cat sleeps", "a kitten is napping", "the tax on fuel rises"]
    cat, kitten, tax = load(tmp_path, "bf16").predict(batch(*texts))["embedding"]
    assert cat @ kitten > 0.5 > 0.2 > cat @ tax
    with pytest.raises(LoadFailed, match=r"^m-v1 answers otherwise in int8 \(.*\): embedding 0 points") as raised:
        load(tmp_path, "int8")
    assert raised.value.message.endswith("load it in another precision, or as it is stored.")
    assert raised.value.facts["precision"] == "int8"
