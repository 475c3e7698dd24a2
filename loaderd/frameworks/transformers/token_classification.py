"""…ForTokenClassification: the entities in each text, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from transformers import AutoModelForTokenClassification

from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.labels import declared_labels
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.encoder_model import EncoderModel, MicroBatch
from loaderd.frameworks.transformers.networks import Network
from loaderd.frameworks.transformers.tokens import column


class TokenClassifier(EncoderModel):
    """Answers {entity, word, start, end, score} per entity; start and end count characters, end excluded."""

    with_places = True

    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModelForTokenClassification)
        config = checkpoint.config
        self._tags = declared_labels(artifact, config.num_labels) or tuple(
            str(config.id2label[number]) for number in range(config.num_labels)
        )
        super().__init__(artifact, checkpoint, (TensorSpec("entities", "BYTES", (-1,)),))

    def columns(self, items: Sequence[str], encodings: Sequence[Any]) -> dict[str, np.ndarray]:
        return {"text": column(items), "encoding": column(encodings)}

    def answer_micro_batch(self, network: Network, batch: MicroBatch) -> dict[str, np.ndarray]:
        probabilities = network.of_tokens(batch.texts, batch.types).softmax(dim=-1)
        scores, tags = (found.tolist() for found in probabilities.max(dim=-1))
        answers = []
        start = 0
        for text, encoding in zip(batch.columns["text"], batch.columns["encoding"], strict=True):
            real = slice(start, start := start + len(encoding))
            words = self._words(encoding.word_ids, encoding.offsets, tags[real], scores[real])
            answers.append(json.dumps(entities(text, list(words))))
        return {"entities": column(answers)}

    def _words(
        self, words: list[int | None], offsets: list[tuple[int, int]], tags: list[int], scores: list[float]
    ) -> Iterator[tuple[str, int, int, float]]:
        """(tag, start, end, score) per word. The first of its tokens decides: that is how such models are trained."""
        found: tuple[str, int, int, float] | None = None
        last = None
        for word, (start, end), tag, score in zip(words, offsets, tags, scores, strict=True):
            if word is None:
                continue
            if found is not None and word == last:
                found = (found[0], found[1], end, found[3])
                continue
            if found is not None:
                yield found
            found, last = (self._tags[tag], start, end, score), word
        if found is not None:
            yield found


def entities(text: str, words: list[tuple[str, int, int, float]]) -> list[dict[str, Any]]:
    """Words joined to entities: I-X continues X, B-X begins a new one, O is none. score: mean over the words."""
    groups: list[tuple[str, list[tuple[str, int, int, float]]]] = []
    previous = "O"
    for word in words:
        tag = word[0]
        name = tag[2:] if tag[:2] in ("B-", "I-") else tag
        continues = previous != "O" and not tag.startswith("B-") and groups and groups[-1][0] == name
        if tag != "O":
            if continues:
                groups[-1][1].append(word)
            else:
                groups.append((name, [word]))
        previous = tag
    return [
        {
            "entity": name,
            "word": text[group[0][1] : group[-1][2]],
            "start": group[0][1],
            "end": group[-1][2],
            "score": sum(word[3] for word in group) / len(group),
        }
        for name, group in groups
    ]
