"""Few texts, clearly of two kinds, for models that train in an instant."""

from __future__ import annotations

PRAISE = [
    "what a wonderful and lovely day",
    "the food was great and the staff were kind",
    "I love this excellent product",
    "a brilliant film with a happy end",
    "fast delivery and perfect quality",
    "the best service that I have had",
    "a lovely room with a wonderful view",
    "great value and excellent support",
    "kind people and perfect weather",
]
COMPLAINTS = [
    "what a terrible and boring day",
    "the food was cold and the staff were rude",
    "I hate this broken product",
    "an awful film with a stupid end",
    "late delivery and poor quality",
    "the worst service that I have had",
    "a dirty room with an ugly view",
    "poor value and useless support",
]
TEXTS = PRAISE + COMPLAINTS
SENTIMENTS = ["positive"] * len(PRAISE) + ["negative"] * len(COMPLAINTS)
