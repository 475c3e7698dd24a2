"""Which columns the terms of a text lead to: by a vocabulary or by a hash, by words or by pieces of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.utils.murmurhash import murmurhash3_bytes_s32

from loaderd.frameworks.sklearn.plans.plan import is_exactly
from loaderd.frameworks.sklearn.plans.words import Found, owners_of, words_of

VECTORIZERS = (CountVectorizer, TfidfVectorizer, HashingVectorizer)
MAX_KNOWN = 1000  # terms that a trial draws from
MAX_REMEMBERED = 20_000
"""Words whose pieces, and terms whose hashes, are kept: below 10 MB."""
MAX_REMEMBERED_LENGTH = 64  # of a word; what is longer is no word and does not come again


@dataclass(frozen=True, slots=True)
class Terms:
    """find: the terms of some texts. width: how many columns there are. has_signs: see Found. known: a few terms."""

    find: Callable[[Sequence[str]], Found]
    width: int
    has_signs: bool
    known: Sequence[str]


ColumnsOf = Callable[[Sequence[str]], np.ndarray]
"""The columns of terms, those that lead nowhere left out."""


def terms_of(vectorizer: Any) -> Terms | None:
    """What a fitted vectorizer finds; None when it is not known to the letter, or calls a function of its owner's."""
    if not is_exactly(vectorizer, (CountVectorizer, TfidfVectorizer, HashingVectorizer)) or not _is_ordinary(
        vectorizer
    ):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stop words that the tokenizer takes apart: the training has said it
        analyze = vectorizer.build_analyzer()
    hashes = type(vectorizer) is HashingVectorizer
    columns_of = _by_hash(vectorizer) if hashes else _by_vocabulary(vectorizer)
    if columns_of is None:
        return None
    width = vectorizer.n_features if hashes else len(vectorizer.vocabulary_)
    find: Callable[[Sequence[str]], Found] = partial(_found, analyze, columns_of)
    if vectorizer.analyzer == "char_wb":
        find = Pieces(vectorizer, columns_of).found
    elif vectorizer.analyzer == "word" and not hashes:
        words = words_of(vectorizer, vectorizer.build_preprocessor(), vectorizer.build_tokenizer())
        if words is not None:
            find = words.found
    known = ["hashed", "terms", "have", "no", "list"]
    if not hashes:
        known = list(islice(vectorizer.vocabulary_, 0, None, max(1, width // MAX_KNOWN)))
    return Terms(find, width, hashes and vectorizer.alternate_sign, known)


def _is_ordinary(vectorizer: Any) -> bool:
    return (
        vectorizer.input == "content"
        and vectorizer.analyzer in ("word", "char", "char_wb")
        and vectorizer.strip_accents in (None, "ascii", "unicode")
        and vectorizer.preprocessor is None
        and vectorizer.tokenizer is None
        and np.dtype(vectorizer.dtype) in (np.float64, np.float32, np.int64)
    )


def _by_vocabulary(vectorizer: Any) -> ColumnsOf | None:
    vocabulary = vectorizer.vocabulary_
    if type(vocabulary) is not dict or {*map(type, vocabulary)} != {str}:
        return None
    if min(vocabulary.values()) < 0 or max(vocabulary.values()) >= len(vocabulary):
        return None
    column = vocabulary.get

    def columns_of(terms: Sequence[str]) -> np.ndarray:
        columns = np.fromiter(map(column, terms, repeat(-1)), np.int64, len(terms))
        return columns[columns >= 0]

    return columns_of


def _by_hash(vectorizer: Any) -> ColumnsOf:
    column = Hashes(vectorizer.n_features, vectorizer.alternate_sign).__getitem__

    def columns_of(terms: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(column, terms), np.int64, len(terms))

    return columns_of


class Hashes(dict[str, int]):
    """Term -> column, as FeatureHasher hashes it; remembers the terms that came last."""

    def __init__(self, width: int, has_signs: bool) -> None:
        self._width = width
        self._has_signs = has_signs

    def __missing__(self, term: str) -> int:
        number = murmurhash3_bytes_s32(term.encode(), 0)
        # The one number whose amount is no int32: FeatureHasher computes around it.
        column = (2**31 - 1 - (self._width - 1) if number == -(2**31) else abs(number)) % self._width
        if self._has_signs:
            column = column << 1 | (number < 0)
        _remember(self, term, column)
        return column


def _found(analyze: Callable[[str], list[str]], columns_of: ColumnsOf, texts: Sequence[str]) -> Found:
    """By the vectorizer's own analyzer."""
    columns = [columns_of(analyze(text)) for text in texts]
    return Found(owners_of([len(of_text) for of_text in columns]), np.concatenate(columns))


class Pieces:
    """n-grams of characters within words ("char_wb"): those of a word are the same wherever it stands."""

    def __init__(self, vectorizer: Any, columns_of: ColumnsOf) -> None:
        self._preprocess = vectorizer.build_preprocessor()
        pieces = vectorizer._char_wb_ngrams
        self._of_word = _ColumnsOfWord(lambda word: columns_of(pieces(word)))

    def found(self, texts: Sequence[str]) -> Found:
        columns = [np.empty(0, np.int64)]
        sizes = []
        for text in texts:
            of_words = [*map(self._of_word.__getitem__, self._preprocess(text).split())]
            columns += of_words
            sizes.append(sum(map(len, of_words)))
        return Found(owners_of(sizes), np.concatenate(columns))


class _ColumnsOfWord(dict[str, np.ndarray]):
    def __init__(self, columns_of: Callable[[str], np.ndarray]) -> None:
        self._columns_of = columns_of

    def __missing__(self, word: str) -> np.ndarray:
        columns = self._columns_of(word)
        _remember(self, word, columns)
        return columns


def _remember(kept: dict[str, Any], key: str, value: Any) -> None:
    if len(key) <= MAX_REMEMBERED_LENGTH:
        if len(kept) >= MAX_REMEMBERED:
            kept.clear()
        kept[key] = value
