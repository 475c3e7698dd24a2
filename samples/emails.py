"""The corpus of emails: rows, labels, and the fixed split into training and test."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CORPUS = Path(__file__).parent / "corpus" / "emails.jsonl"
LABELS = {
    "sentiment": ("negative", "neutral", "positive"),
    "topic": ("billing", "hr", "logistics", "sales", "technical"),
    "intent": ("complaint", "information", "question", "request", "thanks"),
}
TEST_SHARE = 5

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Email:
    """text: subject, an empty line, body. sentiment, topic and intent are names out of LABELS."""

    id: str
    text: str
    sentiment: str
    topic: str
    intent: str
    split: Split

    def label(self, task: str) -> str:
        return str(getattr(self, task))


@dataclass(frozen=True, slots=True)
class Examples:
    """What a trainer gets: texts and, in the same order, the places of their labels in `names`."""

    texts: list[str]
    classes: list[int]
    names: tuple[str, ...]

    def one_of_each(self) -> list[str]:
        """The first text of every class."""
        return [self.texts[self.classes.index(number)] for number in range(len(self.names))]


def read_emails() -> list[Email]:
    """Every row of the corpus in its order; TypeError for a row with other fields."""
    return [Email(**json.loads(line)) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def examples(task: str, split: Split) -> Examples:
    """One side of the corpus, labelled for "sentiment", "topic" or "intent"."""
    names = LABELS[task]
    emails = [email for email in read_emails() if email.split == split]
    return Examples([email.text for email in emails], [names.index(email.label(task)) for email in emails], names)


def split_of(email_id: str) -> Split:
    """The rule: one email in TEST_SHARE is held out, by the SHA-256 of its id. Known before any text is read."""
    number = int(hashlib.sha256(email_id.encode()).hexdigest(), 16)
    return "test" if number % TEST_SHARE == 0 else "train"


def corpus_digest() -> str:
    """SHA-256 of the file, hexadecimal."""
    return hashlib.sha256(CORPUS.read_bytes()).hexdigest()
