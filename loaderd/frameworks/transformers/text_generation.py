"""…ForCausalLM: continues each text, or writes several at once, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.transformers.causal_decoder import CausalDecoder, decodes
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.text_model import TextModel
from loaderd.generation.asked import refused
from loaderd.generation.contract import Generation
from loaderd.generation.engine import Engine

DEFAULT_NEW_TOKENS = 50
MAX_CHARACTERS = 1_000_000  # of a prompt, for a model without a limit of its own


class TextGenerator(TextModel):
    """`predict` answers the continuation only, always the likeliest one: equal texts get equal answers.

    Its length is "max_new_tokens" of metadata.json or generation_config.json, else DEFAULT_NEW_TOKENS. A text that
    leaves no room for it loses its beginning. `generation` takes the wishes of each request; it is None for a network
    that keeps no keys and values.
    """

    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModelForCausalLM)
        defaults = checkpoint.network.generation_config
        wanted = artifact.metadata.get("max_new_tokens") or defaults.max_new_tokens or DEFAULT_NEW_TOKENS
        limit = checkpoint.max_tokens
        self._new_tokens = int(wanted) if limit is None else min(int(wanted), limit // 2)
        self._prompt_tokens = None if limit is None else limit - self._new_tokens
        defaults.update(
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_length=None,
            max_new_tokens=self._new_tokens,
            pad_token_id=checkpoint.tokenizer.pad_token_id,
        )
        self._words = Words(checkpoint)
        self.generation: Generation | None = None
        if decodes(checkpoint.network):
            self.generation = Engine(artifact.model_id, CausalDecoder(checkpoint.network), self._words)
        super().__init__(artifact, checkpoint, (TensorSpec("generated_text", "BYTES", (-1,)),))

    def answer(self, items: list[str]) -> dict[str, np.ndarray]:
        encoded = self._encoded(items)
        made = self.checkpoint.network.generate(**encoded)[:, encoded["input_ids"].shape[1] :]
        texts = self.checkpoint.tokenizer.batch_decode(made, skip_special_tokens=True)
        return {"generated_text": np.array(texts, dtype=object)}

    def _encoded(self, items: list[str]) -> Any:
        """The texts as tensors on the device, cut and padded on their left."""
        prompts = [self._words.tokens_of(item, self._prompt_tokens) for item in items]
        empty = [item for item, tokens in enumerate(prompts) if not tokens]
        if empty:
            raise InvalidInput(f"Item {empty[0]} is empty; the model needs at least one word.")
        longest = max(map(len, prompts))
        padding = self.checkpoint.tokenizer.pad_token_id
        rows = {
            "input_ids": [[padding] * (longest - len(tokens)) + tokens for tokens in prompts],
            "attention_mask": [[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in prompts],
        }
        return {name: torch.tensor(row, device=self.checkpoint.device) for name, row in rows.items()}


class Words:
    """The `Vocabulary` of a checkpoint. Threads may use it beside each other: nothing here sets the tokenizer's
    truncation or padding, which it refuses while another one uses it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model_id = checkpoint.model_id
        self._tokenizer = checkpoint.tokenizer
        self._backend = checkpoint.tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self.size = int(checkpoint.network.get_input_embeddings().weight.shape[0])
        self.max_tokens = checkpoint.max_tokens
        longest = max(map(len, self._backend.get_vocab()))
        self.max_characters = MAX_CHARACTERS if self.max_tokens is None else self.max_tokens * longest
        ends = checkpoint.network.generation_config.eos_token_id
        known = [*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id]
        self.ends = frozenset(int(token) for token in known if token is not None)

    def tokens_of(self, text: str, at_most: int | None = None) -> list[int]:
        """The tokens of a text, special ones included; at_most: of a longer one the last so many."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        if at_most is not None:
            encoding.truncate(max(0, at_most - self._backend.num_special_tokens_to_add(False)), direction="left")
        return list(self._backend.post_process(encoding).ids)

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        if not self._tokenizer.chat_template:
            raise refused(
                "messages",
                f"{self._model_id} has no chat template, so it does not know what a conversation looks like; "
                "send a prompt to /v1/completions.",
            )
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise refused(
                "messages", f"The chat template of {self._model_id} refuses this conversation: {error}."
            ) from error
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def text_of(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text
