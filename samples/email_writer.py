"""A small GPT-2 that writes an email for a subject line: trained from nothing, with a byte-level vocabulary of its own.

It knows its few hundred emails more or less by heart and mixes them, which is all that so little text can teach. It is
there to try streaming and conversations with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from samples.emails import read_emails
from samples.trainer import SEED, Progress, Trained

VOCABULARY = 3_000  # whole words, mostly: what it writes is spelt right
MAX_TOKENS = 128
MAX_NEW_TOKENS = 64
EPOCHS = 25
BATCH = 8
LEARNING_RATE = 4e-3
END, USER, ASSISTANT = SPECIAL_TOKENS = ("<|end|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] | trim }}{% endif %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] | trim }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A user gives a subject line, the assistant writes the email. Other messages are left out: it has learned none."""

Rows = list[list[int]]


def train_email_gpt(folder: Path, progress: Progress, epochs: int = EPOCHS) -> Trained:
    """Its metrics are of the next token: of those in the emails that were held out, how many it would have chosen."""
    torch.manual_seed(SEED)
    emails = read_emails()
    known, held_out = ([email.text for email in emails if email.split == split] for split in ("train", "test"))
    tokenizer = _tokenizer(known)
    network = GPT2LMHeadModel(_config(tokenizer))
    rows = _rows(tokenizer, known)
    _fit(network, rows, epochs, progress)
    network.generation_config.max_new_tokens = MAX_NEW_TOKENS
    network.eval().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    expected, predicted = _next_tokens(folder, held_out)
    return Trained(
        labels=(),
        expected=expected,
        predicted=predicted,
        trained_on=[token for row in rows for token in row],
        sample_input=[f"{USER}{_parts(text)[0]}{ASSISTANT}" for text in held_out[:3]],
        parameters={"epochs": epochs, "batch": BATCH, "learning_rate": LEARNING_RATE},
    )


def _parts(text: str) -> tuple[str, str]:
    """Subject and body."""
    subject, _, body = text.partition("\n\n")
    return subject, body


def _rows(tokenizer: Any, texts: list[str]) -> Rows:
    written = (f"{USER}{subject}{ASSISTANT}{body}{END}" for subject, body in map(_parts, texts))
    return [tokenizer(text, truncation=True)["input_ids"] for text in written]


def _tokenizer(texts: list[str]) -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],  # GPT-2 would add the embedding of a token's type
        chat_template=CHAT_TEMPLATE,
    )


def _config(tokenizer: Any) -> GPT2Config:
    end = tokenizer.eos_token_id
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_TOKENS,
        n_embd=128,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def _fit(network: Any, rows: Rows, epochs: int, progress: Progress) -> None:
    in_order = sorted(rows, key=len)  # a batch of equal lengths needs no padding
    batches = [_padded(in_order[at : at + BATCH]) for at in range(0, len(in_order), BATCH)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    steps = epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    network.train()
    for epoch in range(epochs):
        for number in torch.randperm(len(batches)).tolist():
            tokens, mask = batches[number]
            logits = network(input_ids=tokens, attention_mask=mask).logits[:, :-1]
            wanted = tokens.masked_fill(mask == 0, -100)[:, 1:]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        progress(0.95 * (epoch + 1) / epochs)


def _padded(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def _next_tokens(folder: Path, texts: list[str]) -> tuple[list[int], list[int]]:
    """(what comes, what it would choose) behind each token of the texts, by the model as it is read back."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    expected: list[int] = []
    predicted: list[int] = []
    with torch.inference_mode():
        for row in _rows(tokenizer, texts):
            expected += row[1:]
            predicted += network(torch.tensor([row])).logits[0, :-1].argmax(dim=1).tolist()
    return expected, predicted
