"""…ForCausalLM: continues each text."""

from __future__ import annotations

import numpy as np
from transformers import AutoModelForCausalLM

from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.text_model import TextModel

DEFAULT_NEW_TOKENS = 50


class TextGenerator(TextModel):
    """Answers the continuation only, always the likeliest one: equal texts get equal answers.

    Its length is "max_new_tokens" of metadata.json or generation_config.json, else DEFAULT_NEW_TOKENS. A text
    that leaves no room for it loses its beginning.
    """

    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModelForCausalLM)
        checkpoint.tokenizer.padding_side = checkpoint.tokenizer.truncation_side = "left"
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
        super().__init__(artifact, checkpoint, (TensorSpec("generated_text", "BYTES", (-1,)),))

    def answer(self, items: list[str]) -> dict[str, np.ndarray]:
        encoded = self.checkpoint.encode(items, self._prompt_tokens, return_token_type_ids=False)
        made = self.checkpoint.network.generate(**encoded)[:, encoded["input_ids"].shape[1] :]
        texts = self.checkpoint.tokenizer.batch_decode(made, skip_special_tokens=True)
        return {"generated_text": np.array(texts, dtype=object)}
