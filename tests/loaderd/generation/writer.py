"""A GPT-2 of two layers with a byte-level vocabulary, trained for some seconds until it knows a few mails by heart.

It is kept in pytest's cache and trained again only when this file changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

SUBJECTS = {
    "Invoice": "Thank you for the invoice. It will be paid on Friday.",
    "Délai": "Très désolé : la livraison arrive lundi à 14 h. 😀🎉",
    "Broken laptop": "Please send the laptop back. We repair it within a week.",
    "Größe": "Die Größe 42 ist übermorgen wieder verfügbar. 👍🏽",
}
"""What a user says, and what is answered."""

MAX_TOKENS = 160
SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('This model takes no system message.') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}{% if message['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_STEPS = 200


def write(directory: Path, cache: pytest.Cache, *, chat: bool = True) -> None:
    """Fills the directory as transformers does. chat: with a template for conversations."""
    folder = cache.mkdir("writer")
    kept = folder / hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest-xdist come here together
        if not kept.exists():
            making = folder / f"making-{os.getpid()}"
            _train(making)
            making.rename(kept)
    shutil.copytree(kept, directory, dirs_exist_ok=True)
    if not chat:
        (directory / "chat_template.jinja").unlink()


def _train(directory: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(1)  # more of them wait for each other where the cores are busy
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_TOKENS,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    network = GPT2LMHeadModel(config).train()
    texts = [f"<|user|>{subject}<|assistant|>{answer}<|end|>" for subject, answer in SUBJECTS.items()]
    given = tokenizer(texts, padding=True, return_tensors="pt")
    wanted = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        network(**given, labels=wanted).loss.backward()
        optimizer.step()
    network.eval().save_pretrained(directory, safe_serialization=True)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    (directory / "metadata.json").write_text(json.dumps({"max_new_tokens": 24}))


def _tokenizer() -> Any:
    """Every byte is a token of its own where nothing longer is known: an emoji comes in up to four."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(list(SUBJECTS.values()), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|end|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],  # GPT-2 would add the embedding of a token's type
    )
