"""Which token comes next."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from loaderd.generation.asked import Asked

_LIKELIEST = 1024  # where top_p is looked for first: all tokens are seldom needed, and sorting them takes long


class Sampler:
    """Chooses the tokens of one text. number: which of the request's texts, so that with a seed they differ."""

    def __init__(self, asked: Asked, number: int) -> None:
        self._temperature = asked.temperature
        self._top_p = asked.top_p
        self._presence = asked.presence_penalty
        self._frequency = asked.frequency_penalty
        self._biases = asked.logit_bias
        self._counts: dict[int, int] = {}
        # No secret depends on it. A text as seed gives the same numbers on every machine.
        self._random = Random() if asked.seed is None else Random(f"{asked.seed}/{number}")  # noqa: S311

    def choose(self, logits: np.ndarray) -> int:
        """The next token by float32 [tokens of the vocabulary]. Raises ValueError when they are no numbers."""
        logits = self._penalised(logits)
        token = int(logits.argmax())
        if not np.isfinite(logits[token]):
            raise ValueError("the logits are not finite")
        if self._temperature > 0.0:
            token = self._drawn(logits)
        if self._presence or self._frequency:
            self._counts[token] = self._counts.get(token, 0) + 1
        return token

    def _penalised(self, logits: np.ndarray) -> np.ndarray:
        if not self._biases and not self._counts:
            return logits
        logits = logits.copy()
        for token, bias in self._biases.items():
            logits[token] += bias
        for token, count in self._counts.items():
            logits[token] -= self._presence + self._frequency * count
        return logits

    def _drawn(self, logits: np.ndarray) -> int:
        scaled = (logits - logits.max()).astype(np.float64) / self._temperature
        shares = np.exp(scaled)
        shares /= shares.sum()
        tokens: np.ndarray | None = None
        if self._top_p < 1.0:
            tokens = _nucleus(shares, self._top_p)
            shares = shares[tokens]
        reached = shares.cumsum()
        place = int(np.searchsorted(reached, self._random.random() * reached[-1], side="right"))
        place = min(place, len(reached) - 1)
        return place if tokens is None else int(tokens[place])


def _nucleus(shares: np.ndarray, top_p: float) -> np.ndarray:
    """The likeliest tokens, likeliest first, that together reach top_p; at least one."""
    tokens = np.arange(len(shares))
    if len(shares) > _LIKELIEST:
        few = np.argpartition(shares, -_LIKELIEST)[-_LIKELIEST:]
        if shares[few].sum() >= top_p:
            tokens = np.sort(few)
    tokens = tokens[np.argsort(-shares[tokens], kind="stable")]
    enough = int(np.searchsorted(shares[tokens].cumsum(), top_p)) + 1
    return tokens[:enough]


def logprobs(logits: np.ndarray, token: int, top: int) -> dict[str, Any]:
    """{"token", "logprob", "top": [(token, logprob)]} of the model's own distribution, before temperature and
    penalties."""
    shifted = (logits - logits.max()).astype(np.float64)
    logs = shifted - np.log(np.exp(shifted).sum())
    top = min(top, len(logs))
    best = np.argpartition(-logs, top - 1)[:top] if top else np.array([], dtype=int)
    ranked = best[np.argsort(-logs[best], kind="stable")]
    return {
        "token": token,
        "logprob": float(logs[token]),
        "top": [(int(number), float(logs[number])) for number in ranked],
    }
