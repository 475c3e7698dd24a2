"""Bags of weighted terms: what CountVectorizer, HashingVectorizer and TfidfTransformer make of the terms found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer

from loaderd.frameworks.sklearn.plans.plan import is_exactly
from loaderd.frameworks.sklearn.plans.terms import Terms, terms_of


class Weighed(NamedTuple):
    """The terms of some texts, text by text. columns, values: of each. bounds: where each text's begin. owners: which
    texts these are; None when it is all of them. norms: what each text's values are to be divided by, or None."""

    columns: np.ndarray
    values: np.ndarray
    bounds: np.ndarray
    owners: np.ndarray | None
    norms: np.ndarray | None


NARROW_BITS = 31  # what an int32 holds, which is sorted in half the time of an int64
_AT_THE_BEGINNING = np.zeros(1, np.intp)


class Bag:
    """One vectorizer with what weighs its counts. first_column: where its columns begin in the model's features."""

    def __init__(self, terms: Terms, vectorizer: Any, tfidf: Any, first_column: int, factor: float) -> None:
        self._terms = terms
        self._column_bits = terms.width.bit_length()
        self._first_column = first_column
        self._binary = vectorizer.binary
        self._norm = getattr(tfidf or vectorizer, "norm", None)
        self._sublinear = tfidf is not None and tfidf.sublinear_tf
        self._idf = getattr(tfidf, "idf_", None)
        self._factor = factor
        self.dtype = np.dtype(vectorizer.dtype)
        self.width = terms.width
        self.known = terms.known

    def weighed(self, texts: Sequence[str]) -> Weighed | None:
        """None when no text holds a term that is known."""
        found = self._terms.find(texts)
        if not len(found.columns):
            return None
        # One number for text and term together: sorted, equal terms of a text lie side by side.
        cells = found.columns
        if found.owners is not None:
            shift = self._column_bits + self._terms.has_signs
            kind: Any = np.int32 if shift + len(texts).bit_length() <= NARROW_BITS else np.int64
            cells = (found.owners.astype(kind) << kind(shift)) | cells.astype(kind)
        cells.sort()
        cells, values = self._counted(cells)
        if found.owners is None:
            columns, bounds, owners = cells, _AT_THE_BEGINNING, None
        else:
            by_text, columns = cells >> self._column_bits, cells & ((1 << self._column_bits) - 1)
            bounds = _starts(by_text)
            owners = None if len(bounds) == len(texts) else by_text[bounds]
        if self._sublinear:
            np.log(values, out=values)
            values += 1.0
        if self._idf is not None:
            values *= self._idf[columns]
        norms = self._norms(values, bounds)
        if self._factor != 1.0:
            values *= self._factor
        if self._first_column:
            columns = columns + self._first_column
        return Weighed(columns, values, bounds, owners, norms)

    def _counted(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each cell once, and how often it is there (1 at any number for a binary bag): signs against each other."""
        if self._terms.has_signs:
            signs = 1.0 - 2.0 * (cells & 1)
            cells = cells >> 1
            starts = _starts(cells)
            counts = np.add.reduceat(signs, starts)
        else:
            starts = _starts(cells)
            if len(starts) == len(cells):
                return cells, np.ones(len(cells))
            counts = np.empty(len(starts))
            np.subtract(starts[1:], starts[:-1], out=counts[:-1])
            counts[-1] = len(cells) - starts[-1]
        return cells[starts], np.ones(len(starts)) if self._binary else counts

    def _norms(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray | None:
        if self._norm is None:
            return None
        if len(bounds) == 1:
            norm = math.sqrt(np.vdot(values, values)) if self._norm == "l2" else float(np.abs(values).sum())
            return np.full(1, norm or 1.0)
        norms = np.add.reduceat(values * values if self._norm == "l2" else np.abs(values), bounds)
        if self._norm == "l2":
            np.sqrt(norms, out=norms)
        norms[norms == 0] = 1.0
        return norms


def _starts(values: np.ndarray) -> np.ndarray:
    """Where a sorted array, not empty, begins anew."""
    begins = np.empty(len(values), bool)
    begins[0] = True
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    return begins.nonzero()[0]


def bag_of(steps: Sequence[Any], first_column: int, factor: float = 1.0) -> Bag | None:
    """The bag that a vectorizer and what follows it make; None when one of them is not known to the letter."""
    vectorizer, *tfidfs = steps
    terms = terms_of(vectorizer)
    if terms is None:
        return None
    if type(vectorizer) is TfidfVectorizer:
        tfidfs = [vectorizer._tfidf, *tfidfs]
    if len(tfidfs) > 1 or not all(is_exactly(tfidf, (TfidfTransformer,)) for tfidf in tfidfs):
        return None
    if any(getattr(step, "_sklearn_output_config", None) for step in (vectorizer, *tfidfs)):
        return None
    tfidf = tfidfs[0] if tfidfs else None
    if not np.isfinite(getattr(tfidf, "idf_", 0.0)).all():  # unsmoothed, of what no text had: an error when it comes
        return None
    hashes = type(vectorizer) is HashingVectorizer
    if hashes and tfidf is not None and (vectorizer.norm is not None or terms.has_signs):  # weighed twice; logs of < 0
        return None
    return Bag(terms, vectorizer, tfidf, first_column, factor)
