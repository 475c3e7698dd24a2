"""Texts to tokens, without padding, on any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loaderd.errors import InvalidInput
from loaderd.frameworks.transformers.checkpoint import Checkpoint

PROBE = "one"


class TokenEncoder:
    """A checkpoint's tokenizer. Threads may use it beside each other: what it cuts at is set once, here.

    type_ids: whether the architecture is told a kind per token, and the kinds are not all 0, which it assumes.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        tokenizer = checkpoint.tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        if checkpoint.max_tokens is None:
            self._backend.no_truncation()
        else:
            self._backend.enable_truncation(checkpoint.max_tokens, direction=tokenizer.truncation_side)
        takes_types = "token_type_ids" in tokenizer.model_input_names
        self.type_ids = takes_types and any(self._backend.encode(PROBE).type_ids)

    def encode(self, items: Sequence[str], with_places: bool = False) -> list[Any]:
        """One tokenizers.Encoding per text. with_places: also of each token, where it stands and in which word.

        Raises InvalidInput where a text has no tokens.
        """
        encode_batch = self._backend.encode_batch if with_places else self._backend.encode_batch_fast
        encodings: list[Any] = encode_batch(list(items))
        for item, encoding in enumerate(encodings):
            if not len(encoding):
                raise InvalidInput(f"Item {item} is empty; the model needs at least one word.")
        return encodings


def column(values: Sequence[Any]) -> np.ndarray:
    """An object array of one dimension, whatever the values are."""
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def id_column(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """An object array of int64 arrays."""
    made = np.empty(len(rows), dtype=object)
    for at, row in enumerate(rows):
        made[at] = np.array(row, dtype=np.int64)
    return made
