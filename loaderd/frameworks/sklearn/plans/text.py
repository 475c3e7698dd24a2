"""Text pipelines: a vectorizer, perhaps its tf-idf, and a linear model, as one weighted sum over the terms found."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

from loaderd.frameworks.sklearn.plans.heads import Head, head_of
from loaderd.frameworks.sklearn.plans.plan import Plan, is_exactly, steps_of
from loaderd.frameworks.sklearn.plans.words import Found, words_of

MAX_COPY_BYTES = 64 << 20  # of the coefficients, turned so that one term's lie side by side
CHUNK_ITEMS = 256  # of a large batch; keeps what is computed on the way small
FEW_ANSWERS = 32  # up to here one sum over all texts is faster than one product a text

TRIALS = (
    "",
    " \t\n",
    "a I 1 _ __ x1",
    "Grüße, ÉCOLE naïve ŒUVRE İstanbul ẞ ﬁn Ǆ e\u0301 \u0644\u063a\u0629 日本語 \U0001f600",
    "naïve\x00co-operation\x1cover\u00a0and_out 3.14 don't e-mail@example.org",
    "\udcff lone half \ud800",
)


class TextPlan(Plan):
    """The chunks of a batch go through three steps: find the terms, weigh them, sum up their coefficients."""

    def __init__(self, find: Callable[[Sequence[str]], Found], weighting: Weighting, head: Head, terms: list[str]):
        self._find = find
        self._weighting = weighting
        self._head = head
        self._terms = terms
        self._column_bits = head.weights.shape[1].bit_length()
        self._turned = None  # [features, answers]
        if len(head.weights) == 1 or head.weights.nbytes <= MAX_COPY_BYTES:
            self._turned = np.ascontiguousarray(head.weights.T)
        self._at_once = self._turned is not None and len(head.weights) <= FEW_ANSWERS
        if weighting.dtype == np.float32:
            self.rtol = 1e-6

    def __call__(self, items: Sequence[str]) -> np.ndarray:
        if len(items) <= CHUNK_ITEMS:
            return self._answer(items)
        starts = range(0, len(items), CHUNK_ITEMS)
        return np.concatenate([self._answer(items[start : start + CHUNK_ITEMS]) for start in starts])

    def _answer(self, texts: Sequence[str]) -> np.ndarray:
        found = self._find(texts)
        # One number for text and term together: sorted, equal terms of a text lie side by side.
        cells = found.columns if len(texts) == 1 else (found.owners << self._column_bits) | found.columns
        cells.sort()
        if not len(cells):
            return self._head.link(np.zeros((len(texts), len(self._head.weights))) + self._head.intercept)
        starts, counts = _runs(cells)
        cells = cells if counts is None else cells[starts]
        if len(texts) == 1:
            columns, bounds, present = cells, np.zeros(1, np.intp), None
        else:
            owners, columns = cells >> self._column_bits, cells & ((1 << self._column_bits) - 1)
            bounds, _ = _runs(owners)
            present = owners[bounds]
        values, norms = self._weighting(columns, counts, bounds)
        scores = self._sums(columns, values, bounds)
        if norms is not None:
            scores /= norms[:, None]
        if present is not None and len(present) < len(texts):  # some text holds no known term
            scores, some = np.zeros((len(texts), scores.shape[1])), scores
            scores[present] = some
        scores += self._head.intercept
        return self._head.link(scores)

    def _sums(self, columns: np.ndarray, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """[texts, answers]: per text, from each of the bounds to the next, the sum of values times coefficients."""
        if self._turned is not None and len(bounds) == 1:
            return values[None] @ self._turned.take(columns, axis=0)
        if self._turned is not None and self._at_once:
            weighted = self._turned.take(columns, axis=0)
            weighted = weighted * values[:, None]
            return np.add.reduceat(weighted, bounds)
        sums = np.empty((len(bounds), len(self._head.weights)))
        for row, (start, stop) in enumerate(zip(bounds, [*bounds[1:], len(columns)], strict=True)):
            if self._turned is not None:
                sums[row] = values[start:stop] @ self._turned.take(columns[start:stop], axis=0)
            else:
                sums[row] = self._head.weights.take(columns[start:stop], axis=1) @ values[start:stop]
        return sums

    def trial(self) -> list[str]:
        draw = random.Random(7)  # noqa: S311 - the same each time is what is wanted
        texts = [*TRIALS]
        for size in (1, 2, 3, 5, 8, 40, 400):
            words = [draw.choice(self._terms) for _ in range(size)]
            texts += [" ".join(words), ", ".join(words).title(), " ".join([*words, "qqzzx", *words[::-1]])]
        return [*texts, " ".join([texts[-1][:40]] * 9)]


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Where a sorted array begins anew, and how often each value is there: None when each is there once."""
    begins = np.empty(len(values), bool)
    begins[0] = True
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    starts = begins.nonzero()[0]
    if len(starts) == len(values):
        return starts, None
    return starts, np.diff(starts, append=len(values))


class Weighting:
    """What a term's count in a text weighs, as CountVectorizer and TfidfTransformer make it."""

    def __init__(self, vectorizer: Any, tfidf: Any) -> None:
        self.dtype = np.dtype(vectorizer.dtype)
        self._binary = vectorizer.binary
        self._sublinear = tfidf is not None and tfidf.sublinear_tf
        self._idf = getattr(tfidf, "idf_", None)
        self._norm = getattr(tfidf, "norm", None)

    def __call__(
        self, columns: np.ndarray, counts: np.ndarray | None, bounds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The values of the terms, and what each text's are to be divided by: None for nothing."""
        if counts is None or self._binary:
            values = np.ones(len(columns))
        else:
            values = counts.astype(np.float64)
            if self._sublinear:
                np.log(values, out=values)
                values += 1.0
        if self._idf is not None:
            values *= self._idf[columns]
        if self._norm is None:
            return values, None
        sizes = values * values if self._norm == "l2" else np.abs(values)
        norms = np.add.reduceat(sizes, bounds)
        if self._norm == "l2":
            np.sqrt(norms, out=norms)
        norms[norms == 0] = 1.0
        return values, norms


def text_plan(estimator: Any, method: str) -> TextPlan | None:
    """The plan for a pipeline of text; None when a step of it is not known to the letter."""
    steps = steps_of(estimator)
    if len(steps) not in (2, 3) or not is_exactly(steps[0], (CountVectorizer, TfidfVectorizer)):
        return None
    vectorizer, *between, last = steps
    tfidfs = ([vectorizer._tfidf] if type(vectorizer) is TfidfVectorizer else []) + between
    head = head_of(last, method)
    if (
        head is None
        or len(tfidfs) > 1  # tf-idf of a tf-idf
        or not all(is_exactly(tfidf, (TfidfTransformer,)) and _is_plain(tfidf) for tfidf in tfidfs)
        or not _is_ordinary(vectorizer)
        or not _is_plain(vectorizer)
        or head.weights.shape[1] != len(vectorizer.vocabulary_)
    ):
        return None
    tfidf = tfidfs[0] if tfidfs else None
    return TextPlan(_finder(vectorizer), Weighting(vectorizer, tfidf), head, list(vectorizer.vocabulary_))


def _is_plain(transformer: Any) -> bool:
    return not getattr(transformer, "_sklearn_output_config", None)


def _is_ordinary(vectorizer: Any) -> bool:
    """Whether nothing of it is a caller's own function and its vocabulary is a plain one of texts."""
    vocabulary = vectorizer.vocabulary_
    return (
        vectorizer.input == "content"
        and vectorizer.analyzer in ("word", "char", "char_wb")
        and vectorizer.strip_accents in (None, "ascii", "unicode")
        and vectorizer.preprocessor is None
        and vectorizer.tokenizer is None
        and np.dtype(vectorizer.dtype) in (np.float64, np.float32, np.int64)
        and type(vocabulary) is dict
        and {*map(type, vocabulary)} == {str}
        and min(vocabulary.values()) >= 0
        and max(vocabulary.values()) < len(vocabulary)
    )


def _finder(vectorizer: Any) -> Callable[[Sequence[str]], Found]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stop words that the tokenizer takes apart: the training has said it
        analyze = vectorizer.build_analyzer()
    if vectorizer.analyzer == "word":
        words = words_of(vectorizer, vectorizer.build_preprocessor(), vectorizer.build_tokenizer())
        if words is not None:
            return words.found
    column = vectorizer.vocabulary_.get

    def found(texts: Sequence[str]) -> Found:
        """By the vectorizer's own terms, one by one."""
        columns = [[at for at in map(column, analyze(text), repeat(-1)) if at >= 0] for text in texts]
        owners = np.repeat(np.arange(len(texts)), [len(of_one) for of_one in columns])
        return Found(owners, np.array([at for of_one in columns for at in of_one], dtype=np.int64))

    return found
