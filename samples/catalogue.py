"""Which sample models there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TRAINERS = {
    "transformers": "samples.train_transformers",
    "tensorflow": "samples.train_keras",
    "sklearn": "samples.train_sklearn",
}
"""Framework -> the module to run. The slowest comes first, so that the others are done beside it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One model. model_id: `<lineage>-v<version>`; type: its folder in the store; framework: a key of TRAINERS."""

    model_id: str
    type: str
    framework: str
    name: str
    description: str

    @property
    def lineage(self) -> str:
        return self.model_id.rpartition("-v")[0]

    @property
    def version(self) -> str:
        return self.model_id.rpartition("-v")[2]

    def directory(self, store: Path) -> Path:
        return store / self.type / self.model_id


SAMPLES = (
    Sample(
        "sentiment-sklearn-v1.0",
        "sentiment",
        "sklearn",
        "Email sentiment",
        "Tone of an email. TF-IDF over words, logistic regression.",
    ),
    Sample(
        "sentiment-sklearn-v2.0",
        "sentiment",
        "sklearn",
        "Email sentiment",
        "Tone of an email. TF-IDF over hashed word pairs and pieces of words, logistic regression.",
    ),
    Sample(
        "sentiment-bert-v1.0",
        "sentiment",
        "transformers",
        "Email sentiment (BERT)",
        "Tone of an email. A BERT of two layers, trained from nothing on the corpus with its own tokenizer.",
    ),
    Sample(
        "topic-sklearn-v1.0",
        "topic",
        "sklearn",
        "Email topic",
        "Which department an email belongs to. TF-IDF over hashed word pairs and pieces of words, logistic regression.",
    ),
    Sample(
        "topic-keras-v1.0",
        "topic",
        "tensorflow",
        "Email topic (keras)",
        "Which department an email belongs to. Text vectorization inside the model, one hidden layer.",
    ),
    Sample(
        "intent-sklearn-v1.0",
        "intent",
        "sklearn",
        "Email intent",
        "What the writer wants. TF-IDF over hashed word pairs and pieces of words, logistic regression.",
    ),
    Sample(
        "intent-bert-v1.0",
        "intent",
        "transformers",
        "Email intent (BERT)",
        "What the writer wants. A BERT of two layers, trained from nothing on the corpus with its own tokenizer.",
    ),
    Sample(
        "digits-sklearn-v1.0",
        "other",
        "sklearn",
        "Handwritten digits",
        "Which digit an image of 8×8 grey values from 0 to 16 shows. Nearest neighbours; takes rows of 64 numbers.",
    ),
    Sample(
        "wine-keras-v1.0",
        "other",
        "tensorflow",
        "Wine cultivars (keras)",
        "Which of three cultivars a wine comes from, by 13 chemical measures. Normalization and one hidden layer.",
    ),
)

ON_REQUEST = (
    Sample(
        "email-gpt-v1.0",
        "other",
        "transformers",
        "Email writer (GPT)",
        "Writes an email for a subject line. A GPT-2 of two layers, trained from nothing on the corpus.",
    ),
)
"""Made only where they are named: they take longer than the others together."""


class UnknownSample(Exception):
    """Nothing here has that id."""


def sample(model_id: str) -> Sample:
    """The sample of that id; raises UnknownSample naming all."""
    every = (*SAMPLES, *ON_REQUEST)
    for found in every:
        if found.model_id == model_id:
            return found
    known = ", ".join(found.model_id for found in every)
    raise UnknownSample(f"No sample model is named {model_id!r}; there are {known}.")
