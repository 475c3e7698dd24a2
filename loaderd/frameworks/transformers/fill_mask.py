"""…ForMaskedLM: the likeliest words for the gap in each text, as JSON."""

from __future__ import annotations

import json

import numpy as np
from transformers import AutoModelForMaskedLM

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.text_model import TextModel

CANDIDATES = 5


class MaskFiller(TextModel):
    """Answers {token, score, sequence} for the CANDIDATES best tokens, best first."""

    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModelForMaskedLM)
        self._mask = checkpoint.tokenizer.mask_token
        super().__init__(artifact, checkpoint, (TensorSpec("predictions", "BYTES", (-1,)),))

    def sample_text(self) -> str:
        return f"A short {self._mask} to try the model with."

    def answer(self, items: list[str]) -> dict[str, np.ndarray]:
        tokenizer = self.checkpoint.tokenizer
        encoded = self.checkpoint.encode(items)
        gaps = encoded["input_ids"] == tokenizer.mask_token_id
        for item, count in enumerate(gaps.sum(dim=1).tolist()):
            if count != 1:
                raise InvalidInput(
                    f"Item {item} has {count} times {self._mask} within the first {self.checkpoint.max_tokens} tokens; "
                    f"put exactly one where the word is missing."
                )
        logits = self.checkpoint.network(**encoded).logits[gaps].float()
        scores, tokens = logits.softmax(dim=-1).topk(min(CANDIDATES, logits.shape[-1]))
        answers = []
        for row, ids in enumerate(encoded["input_ids"]):
            found = []
            for score, token in zip(scores[row].tolist(), tokens[row].tolist(), strict=True):
                filled = ids.masked_fill(gaps[row], token)
                found.append(
                    {
                        "token": tokenizer.decode([token]).strip(),
                        "score": score,
                        "sequence": tokenizer.decode(filled, skip_special_tokens=True),
                    }
                )
            answers.append(json.dumps(found))
        return {"predictions": np.array(answers, dtype=object)}
