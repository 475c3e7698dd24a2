"""Pooling, entities and long texts: what the contract suite cannot see from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd import catalogue
from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, LoadedModel
from tests.contract import transformers_artifacts
from tests.contract.cases import listed_files

pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    catalogue.framework("transformers").import_library()


def load(directory: Path, **metadata: Any) -> LoadedModel:
    config = json.loads((directory / "config.json").read_text())
    files = listed_files(directory)
    artifact = Artifact("m-v1", directory, "safetensors", files, approved=False, config=config, metadata=metadata)
    return catalogue.framework("transformers").load(artifact, lambda share: None)


def ask(model: LoadedModel, *texts: str) -> np.ndarray:
    return model.predict({"text": np.array(texts, dtype=object)})[model.signature.outputs[0].name]


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_looks_at_real_tokens_only(side: str) -> None:
    import torch

    from loaderd.frameworks.transformers.embedding import pool

    real, padding = [[1.0, 4.0], [3.0, 0.0]], [[9.0, 9.0]]
    hidden = torch.tensor([padding + real if side == "left" else real + padding])
    mask = torch.tensor([[0, 1, 1] if side == "left" else [1, 1, 0]])
    pooled = {mode: pool(mode, hidden, mask)[0].tolist() for mode in ("cls", "lasttoken", "max", "mean")}
    assert pooled == {"cls": [1.0, 4.0], "lasttoken": [3.0, 0.0], "max": [3.0, 4.0], "mean": [2.0, 2.0]}
    assert pool("mean_sqrt_len_tokens", hidden, mask)[0].tolist() == pytest.approx([4 / 2**0.5, 4 / 2**0.5])


def test_several_poolings_are_joined_and_normalised_as_the_layout_says(tmp_path: Path) -> None:
    transformers_artifacts.encoder(tmp_path)
    assert np.linalg.norm(ask(load(tmp_path), "a lovely day")) == pytest.approx(1.0, abs=1e-5)
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps(modules[:2]))
    vector = ask(load(tmp_path), "a lovely day")[0]
    assert vector.shape == (64,)
    assert np.linalg.norm(vector) != pytest.approx(1.0, abs=1e-2)


def test_a_layout_with_an_unknown_module_is_named(tmp_path: Path) -> None:
    transformers_artifacts.encoder(tmp_path)
    modules = [*json.loads((tmp_path / "modules.json").read_text()), {"path": "3", "type": "x.models.Dense"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(LoadFailed, match=r"modules.json of m-v1 names Dense"):
        load(tmp_path)


def test_minilm_puts_like_beside_like(tmp_path: Path) -> None:
    transformers_artifacts.minilm(tmp_path)
    cat, kitten, tax = ask(load(tmp_path), "a cat sleeps", "a kitten is napping", "the tax on fuel rises")
    assert cat @ kitten > 0.5 > 0.2 > cat @ tax


def test_a_text_longer_than_the_model_is_cut(tmp_path: Path) -> None:
    transformers_artifacts.sequence_classifier(tmp_path)
    model = load(tmp_path)
    short, long = "good " * 62, "good " * 500
    np.testing.assert_allclose(
        *(model.predict({"text": np.array([text], dtype=object)})["probabilities"] for text in (short, long)), rtol=1e-5
    )


def test_a_prompt_that_fills_the_model_keeps_its_end(tmp_path: Path) -> None:
    transformers_artifacts.generator(tmp_path)
    model = load(tmp_path, max_new_tokens=4)
    tail = "the best service that I have had " * 8
    assert ask(model, "rude " * 300 + tail)[0] == ask(model, "kind " * 300 + tail)[0]


def test_words_of_one_tag_are_one_entity() -> None:
    from loaderd.frameworks.transformers.token_classification import entities

    text = "Anna Berg met Carl in New York"
    words = [
        ("B-PER", 0, 4, 0.9), ("I-PER", 5, 9, 0.7), ("O", 10, 13, 0.9), ("I-PER", 14, 18, 0.8),
        ("O", 19, 21, 0.9), ("B-LOC", 22, 25, 0.6), ("B-LOC", 26, 30, 0.6),
    ]  # fmt: skip
    found = entities(text, words)
    assert [(one["entity"], one["word"], text[one["start"] : one["end"]]) for one in found] == [
        ("PER", "Anna Berg", "Anna Berg"), ("PER", "Carl", "Carl"), ("LOC", "New", "New"), ("LOC", "York", "York"),
    ]  # fmt: skip
    assert found[0]["score"] == pytest.approx(0.8)
