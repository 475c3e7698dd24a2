"""Trains the BERT samples from nothing: a tokenizer of the corpus' own words, then the network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
)

from samples.email_writer import train_email_gpt
from samples.emails import Examples, examples
from samples.trainer import SEED, Progress, Trained, main

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors")
VOCABULARY = 2_000
MAX_TOKENS = 128
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
EPOCHS = 16
BATCH = 16
LEARNING_RATE = 5e-4
HIDDEN_TOKENS = 0.15  # share of the words that are masked in training, so that no single one is relied on


def train_bert(task: str, folder: Path, progress: Progress) -> Trained:
    torch.manual_seed(SEED)
    known, held_out = examples(task, "train"), examples(task, "test")
    tokenizer = _tokenizer(known.texts)
    network = BertForSequenceClassification(_config(tokenizer, known.names))
    _fit(network, tokenizer, known, progress)
    tokenizer.save_pretrained(folder)
    network.save_pretrained(folder, safe_serialization=True)
    return Trained(
        labels=known.names,
        expected=held_out.classes,
        predicted=_answers(folder, held_out.texts),
        trained_on=known.classes,
        sample_input=held_out.one_of_each(),
        parameters={"epochs": EPOCHS, "batch": BATCH, "learning_rate": LEARNING_RATE},
    )


def _tokenizer(texts: list[str]) -> Any:
    """A WordPiece tokenizer of the texts' own pieces; the same texts give the same one."""
    pieces = BertWordPieceTokenizer(lowercase=True)
    letters = sorted(set(pieces.normalize(" ".join(texts))) - {" "})
    # The trainer numbers single letters in the order in which it happens to meet them, and settles ties between
    # equally frequent pieces by number. So they get their numbers first.
    first = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    pieces.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=2, special_tokens=first, show_progress=False)
    made = BertWordPieceTokenizer(vocab=pieces.get_vocab(), lowercase=True)
    return BertTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=MAX_TOKENS)


def _config(tokenizer: Any, names: tuple[str, ...]) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.2,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        problem_type="single_label_classification",
    )


def _fit(network: Any, tokenizer: Any, known: Examples, progress: Progress) -> None:
    classes = torch.tensor(known.classes)
    encoded = tokenizer(known.texts, padding=True, truncation=True, return_tensors="pt")
    tokens, mask = encoded["input_ids"], encoded["attention_mask"]
    ordinary = tokens > tokenizer.mask_token_id  # the special ones come first in the vocabulary
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    steps = EPOCHS * -(-len(classes) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    network.train()
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(classes)).split(BATCH):
            width = int(mask[batch].sum(dim=1).max())
            hidden = (torch.rand(len(batch), width) < HIDDEN_TOKENS) & ordinary[batch, :width]
            given = tokens[batch, :width].masked_fill(hidden, tokenizer.mask_token_id)
            logits = network(input_ids=given, attention_mask=mask[batch, :width]).logits
            loss = torch.nn.functional.cross_entropy(logits, classes[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        progress(0.95 * (epoch + 1) / EPOCHS)


def _answers(folder: Path, texts: list[str]) -> list[int]:
    """The classes that the model gives when it is read back from its files."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    with torch.inference_mode():
        encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        answers: list[int] = network.eval()(**encoded).logits.argmax(dim=1).tolist()
    return answers


TRAINS = {
    "sentiment-bert-v1.0": partial(train_bert, "sentiment"),
    "intent-bert-v1.0": partial(train_bert, "intent"),
    "email-gpt-v1.0": train_email_gpt,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    raise SystemExit(main(TRAINS, LIBRARIES))
