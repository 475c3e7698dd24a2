"""Tiny networks of every family, with random weights, and what transformers itself answers for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from loaderd import catalogue
from loaderd.frameworks.base import Artifact, LoadedModel
from tests.contract import transformers_artifacts
from tests.contract.cases import listed_files

LIKE_BERT = {
    "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 70, "initializer_range": 0.3, "num_labels": 3,
}  # fmt: skip
LIKE_DISTILBERT = {
    "vocab_size": 200, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64,
    "max_position_embeddings": 70, "initializer_range": 0.3, "num_labels": 3,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": LIKE_BERT,
    "Roberta": LIKE_BERT | {"pad_token_id": 1},
    "XLMRoberta": LIKE_BERT | {"pad_token_id": 1},
    "Camembert": LIKE_BERT | {"pad_token_id": 1},
    "Electra": LIKE_BERT | {"embedding_size": 16},
    "MPNet": LIKE_BERT | {"pad_token_id": 1},
    "DistilBert": LIKE_DISTILBERT,
    "Albert": LIKE_BERT | {"embedding_size": 16},
}
"""All but the last are computed without padding."""

TEXTS = [
    "good",
    "the staff was rude and the room was cold and the food was late and the bill was wrong",
    "a lovely day",
    "",
    "the best service that I have had",
    "good",
    "the worst food " * 40,
    "never again [UNK] [SEP] [UNK]",
]


def made(directory: Path, family: str, task: str = "ForSequenceClassification", **options: Any) -> Any:
    """The network, which is saved in the directory with a tokenizer."""
    import torch
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family] | options)
    network = getattr(transformers, f"{family}{task}")(config).eval()
    transformers_artifacts.save(network, directory)
    return network


def load(directory: Path, precision: str = "", **metadata: Any) -> LoadedModel:
    config = json.loads((directory / "config.json").read_text())
    artifact = Artifact(
        "m-v1", directory, "safetensors", listed_files(directory), approved=False, precision=precision,
        config=config, metadata=metadata,
    )  # fmt: skip
    return catalogue.framework("transformers").load(artifact, lambda share: None)


def batch(*texts: str) -> dict[str, np.ndarray]:
    return {"text": np.array(texts, dtype=object)}


def tokenizer(directory: Path) -> Any:
    """The one that was saved: training it again may find other words."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(directory)


def padded_by_transformers(network: Any, directory: Path, texts: list[str]) -> tuple[Any, Any]:
    """(the network's own output, attention mask) of all texts in one padded batch, cut at 64 tokens."""
    import torch

    encoded = tokenizer(directory)(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        return network(**inputs), inputs["attention_mask"]
