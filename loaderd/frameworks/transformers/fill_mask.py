"""…ForMaskedLM: the likeliest words for the gap in each text, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AutoModelForMaskedLM

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.encoder_model import TRIALS, EncoderModel, MicroBatch
from loaderd.frameworks.transformers.networks import Network
from loaderd.frameworks.transformers.tokens import column

CANDIDATES = 5


class MaskFiller(EncoderModel):
    """Answers {token, score, sequence} for the CANDIDATES best tokens, best first."""

    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModelForMaskedLM)
        self._mask = checkpoint.tokenizer.mask_token
        self._mask_id = checkpoint.tokenizer.mask_token_id
        super().__init__(artifact, checkpoint, (TensorSpec("predictions", "BYTES", (-1,)),))

    def sample_text(self) -> str:
        return f"A short {self._mask} to try the model with."

    def trial_texts(self) -> tuple[str, ...]:
        return tuple(f"{text} {self._mask}." for text in TRIALS)

    def columns(self, items: Sequence[str], encodings: Sequence[Any]) -> dict[str, np.ndarray]:
        """The place of each text's gap among its tokens."""
        del items
        places = []
        for item, encoding in enumerate(encodings):
            gaps = [at for at, token in enumerate(encoding.ids) if token == self._mask_id]
            if len(gaps) != 1:
                raise InvalidInput(
                    f"Item {item} has {len(gaps)} times {self._mask} within the first {self.checkpoint.max_tokens} "
                    "tokens; put exactly one where the word is missing."
                )
            places.append(gaps[0])
        return {"gap": np.array(places, dtype=np.int64)}

    def answer_micro_batch(self, network: Network, batch: MicroBatch) -> dict[str, np.ndarray]:
        gaps = batch.columns["gap"]
        lengths = np.array([len(text) for text in batch.texts])
        logits = network.of_tokens(batch.texts, batch.types, np.cumsum(lengths) - lengths + gaps)
        scores, tokens = logits.softmax(dim=-1).topk(min(CANDIDATES, logits.shape[-1]))
        return {
            "predictions": column(
                [
                    json.dumps([self._filled(text, gap, *found) for found in zip(*best, strict=True)])
                    for text, gap, *best in zip(batch.texts, gaps, tokens.tolist(), scores.tolist(), strict=True)
                ]
            )
        }

    def _filled(self, text: np.ndarray, gap: int, token: int, score: float) -> dict[str, Any]:
        tokenizer = self.checkpoint.tokenizer
        filled = text.copy()
        filled[gap] = token
        return {
            "token": tokenizer.decode([token]).strip(),
            "score": score,
            "sequence": tokenizer.decode(filled, skip_special_tokens=True),
        }
