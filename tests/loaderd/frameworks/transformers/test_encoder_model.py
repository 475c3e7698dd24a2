"""Encoders answer what transformers answers, in the order of their texts, however they are batched."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import TOKENS
from tests.contract import transformers_artifacts
from tests.loaderd.frameworks.transformers.tiny import (
    FAMILIES,
    TEXTS,
    batch,
    load,
    made,
    padded_by_transformers,
    tokenizer,
)

pytestmark = pytest.mark.xdist_group("transformers")


def network_of(model: Any) -> str:
    return type(model._network).__name__


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_answers_as_transformers_does(tmp_path: Path, family: str) -> None:
    network = made(tmp_path, family)
    model = load(tmp_path)
    assert network_of(model) == ("PaddedNetwork" if family == "Albert" else "PackedNetwork")
    wanted = padded_by_transformers(network, tmp_path, TEXTS)[0].logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(model.predict(batch(*TEXTS))["probabilities"], wanted, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_encoder_answers_the_mean_of_what_transformers_does(tmp_path: Path, family: str) -> None:
    network = made(tmp_path, family, "Model")
    hidden, mask = padded_by_transformers(network, tmp_path, TEXTS)
    kept = mask[..., None].float()
    wanted = (hidden.last_hidden_state * kept).sum(dim=1) / kept.sum(dim=1)
    np.testing.assert_allclose(load(tmp_path).predict(batch(*TEXTS))["embedding"], wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra", "Albert"])
def test_words_for_a_gap_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    network = made(tmp_path, family, "ForMaskedLM")
    texts = [f"{text} [MASK] good" for text in TEXTS if len(text) < 100]
    gap = tokenizer(tmp_path).mask_token_id
    logits = padded_by_transformers(network, tmp_path, texts)[0].logits
    found = load(tmp_path).predict(batch(*texts))["predictions"]
    encoded = tokenizer(tmp_path)(texts)["input_ids"]
    for row, (ids, answer) in enumerate(zip(encoded, found, strict=True)):
        best = logits[row, ids.index(gap)].softmax(dim=-1).max()
        assert json.loads(answer)[0]["score"] == pytest.approx(float(best), abs=1e-5)


@pytest.mark.parametrize("family", ["Bert", "Electra", "Albert"])
def test_entities_are_those_of_each_text_alone(tmp_path: Path, family: str) -> None:
    made(tmp_path, family, "ForTokenClassification", id2label={0: "O", 1: "B-X", 2: "I-X"})
    model = load(tmp_path)
    together = [json.loads(text) for text in model.predict(batch(*TEXTS))["entities"]]
    alone = [json.loads(model.predict(batch(text))["entities"][0]) for text in TEXTS]
    assert sum(map(len, alone)) > 1
    for some, others, text in zip(together, alone, TEXTS, strict=True):
        assert [(one["word"], one["start"], one["entity"]) for one in some] == [
            (one["word"], one["start"], one["entity"]) for one in others
        ]
        assert all(text[one["start"] : one["end"]] == one["word"] for one in some)


@pytest.mark.parametrize(
    "options",
    [{"position_embedding_type": "relative_key"}, {"hidden_act": "silu"}, {"hidden_act": "gelu_new"}],
    ids=lambda options: next(iter(options.values())),
)
def test_variants_of_a_known_family_are_right(tmp_path: Path, options: dict[str, str]) -> None:
    network = made(tmp_path, "Bert", **options)
    model = load(tmp_path)
    assert network_of(model) == ("PaddedNetwork" if "position_embedding_type" in options else "PackedNetwork")
    wanted = padded_by_transformers(network, tmp_path, TEXTS)[0].logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(model.predict(batch(*TEXTS))["probabilities"], wanted, atol=1e-5)


def test_a_network_that_answers_otherwise_without_padding_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from loaderd.frameworks.transformers import packed

    monkeypatch.setattr(packed, "COUNTING_REAL_TOKENS", frozenset())  # so RoBERTa's places are counted from 0
    network = made(tmp_path, "Roberta")
    model = load(tmp_path)
    assert network_of(model) == "PaddedNetwork"
    assert "m-v1: without padding it answers otherwise" in caplog.text
    wanted = padded_by_transformers(network, tmp_path, TEXTS)[0].logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(model.predict(batch(*TEXTS))["probabilities"], wanted, atol=1e-5)


def test_prepared_parts_of_several_requests_are_answered_like_the_texts(tmp_path: Path) -> None:
    made(tmp_path, "Bert")
    model = load(tmp_path)
    assert model.prepares
    parts = [model.prepare(batch(*texts)) for texts in (TEXTS[:3], TEXTS[3:4], TEXTS[4:])]
    joined = {name: np.concatenate([part[name] for part in parts if part is not None]) for name in parts[0] or {}}
    wanted = model.predict(batch(*TEXTS))
    found = model.predict({name: values[1:6] for name, values in joined.items()})
    np.testing.assert_allclose(found["probabilities"], wanted["probabilities"][1:6], atol=1e-6)
    assert found["label"].tolist() == wanted["label"][1:6].tolist()


def test_tokens_are_counted_with_special_ones_and_without_padding(tmp_path: Path) -> None:
    made(tmp_path, "Bert")
    model = load(tmp_path)
    tokens = model.predict(batch(*TEXTS))[TOKENS]
    wanted = tokenizer(tmp_path)(TEXTS, truncation=True, max_length=64)["input_ids"]
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [len(ids) for ids in wanted]
    assert TOKENS not in {spec.name for spec in model.signature.outputs}


def test_a_text_without_tokens_is_named_by_its_place(tmp_path: Path) -> None:
    network = made(tmp_path, "Bert")
    words = transformers_artifacts.tokenizer()
    backend = words.backend_tokenizer
    backend.post_processor = backend.post_processor.__class__(single="$A", special_tokens=[])
    network.save_pretrained(tmp_path)
    words.__class__(tokenizer_object=backend, **transformers_artifacts.SPECIAL).save_pretrained(tmp_path)
    model = load(tmp_path)
    with pytest.raises(InvalidInput, match=r"^Item 2 is empty; the model needs at least one word\.$"):
        model.prepare(batch("good", "bad", "  ", "good"))
    with pytest.raises(InvalidInput, match=r"^Item 1 is empty"):
        model.predict(batch("good", ""))


def test_a_text_with_no_gap_or_two_is_named_before_its_turn(tmp_path: Path) -> None:
    made(tmp_path, "Bert", "ForMaskedLM")
    model = load(tmp_path)
    with pytest.raises(InvalidInput, match=r"^Item 1 has 0 times \[MASK\] within the first 64 tokens"):
        model.prepare(batch("good [MASK]", "good"))
    with pytest.raises(InvalidInput, match=r"^Item 0 has 2 times \[MASK\]"):
        model.prepare(batch("good [MASK] [MASK]"))


def test_texts_are_prepared_on_other_threads_while_the_model_answers(tmp_path: Path) -> None:
    made(tmp_path, "Bert", "ForTokenClassification")
    model = load(tmp_path)
    wanted = [ids.tolist() for ids in (model.prepare(batch(*TEXTS)) or {})["input_ids"]]
    answered = model.predict(batch(*TEXTS))["entities"].tolist()
    faults: list[object] = []

    def prepare() -> None:
        for _ in range(20):
            try:
                found = [ids.tolist() for ids in (model.prepare(batch(*TEXTS)) or {})["input_ids"]]
            except BaseException as error:
                faults.append(error)
                return
            if found != wanted:
                faults.append(found)

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert model.predict(batch(*TEXTS))["entities"].tolist() == answered
    for thread in threads:
        thread.join()
    assert faults == []


def test_many_texts_come_back_in_their_order(tmp_path: Path) -> None:
    made(tmp_path, "Bert", "Model")
    model = load(tmp_path)
    texts = [" ".join(["good", "bad", "room", "food"][: 1 + at % 4] * (1 + at * 7 % 13)) for at in range(150)]
    together = model.predict(batch(*texts))["embedding"]
    for at in (0, 1, 17, 76, 149):
        np.testing.assert_allclose(together[at], model.predict(batch(texts[at]))["embedding"][0], atol=1e-5)
