"""From texts to the columns of a vocabulary of words and of sequences of them (n-grams)."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

MAX_TERMS = 500_000  # a larger vocabulary takes more than half a second to take apart

SHORTEST_WORD = {
    pattern: len(words) // 2
    for words in (r"\w+", r"\w\w+")
    for pattern in (words, rf"\b{words}\b", rf"(?u)\b{words}\b", rf"(?u){words}")
} | {r"\w{1,}": 1, r"\w{2,}": 2, r"(?u)\b\w{2,}\b": 2}
"""Token patterns that mean runs of word characters -> how long one must be."""

_UNKNOWN = 0
_LEFT_OUT = -1  # stop words, and words too short to be one: their neighbours are neighbours
_SINGLE = [chr(code) for code in range(128) if re.match(r"\w", chr(code))]


class Found(NamedTuple):
    """The terms that texts hold, in no order: a term of text `owners[i]` leads to `columns[i]`, once for each time.

    The columns are the receiver's to change. With signs a column is doubled, plus 1 where the term counts as -1.
    owners is None for a single text.
    """

    owners: np.ndarray | None
    columns: np.ndarray


class Level:
    """All sequences of n words that are a term, or that one begins with; each has a place among them.

    A sequence's key is (number of the sequence without its last word) * stride + last word, its number its place + 1.
    columns: of the term, by place; -1 where a sequence only begins one.
    """

    def __init__(self, keys: np.ndarray, columns: np.ndarray) -> None:
        """keys: sorted."""
        self.columns = columns
        self._keys = np.append(keys, np.iinfo(np.int64).max)  # one above them all
        bits = max(1, (4 * len(keys)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._slots = np.full(1 << bits, -1, np.int32)
        self._slots[self._slots_of(keys)] = np.arange(len(keys), dtype=np.int32)  # of two with one slot, the last

    def found(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the keys are here, and their places.

        A binary search costs 70 ns a key in a vocabulary of 10,000, most of it in branches foreseen wrongly; so large
        batches are looked up by hash, and searched for only when the slot holds another key.
        """
        if len(keys) < _FEW_KEYS:
            places = self._keys.searchsorted(keys)
        else:
            places = self._slots.take(self._slots_of(keys)).astype(np.intp)
            other = ((self._keys.take(places) != keys) & (places >= 0)).nonzero()[0]
            places[other] = self._keys.searchsorted(keys[other])
        hits = (self._keys.take(places) == keys).nonzero()[0]
        return hits, places[hits]

    def _slots_of(self, keys: np.ndarray) -> np.ndarray:
        """The upper bits of a product with 2**64 / golden ratio (Knuth, The Art of Computer Programming, 6.4)."""
        return ((keys.view(np.uint64) * _GOLDEN) >> self._shift).view(np.int64)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FEW_KEYS = 128


@dataclass(frozen=True, slots=True)
class Words:
    """Finds the n-grams of a fitted vectorizer, whole batches at once, by the numbers of their words.

    Costs 32 to 48 bytes a term and some 150 a different word.
    """

    numbers: dict[str, int]
    columns: np.ndarray  # of the terms of one word, by the word's number; -1: none
    levels: tuple[Level, ...]
    stride: int
    ascii_words: str  # for str.translate: word characters as the vectorizer sees them, a blank for all else
    preprocess: Any
    tokenize: Any

    def found(self, texts: Sequence[str]) -> Found:
        words: list[str] = []
        sizes = []
        for text in texts:
            before = len(words)
            if text.isascii():
                words += text.translate(self.ascii_words).split()
            else:
                words += self.tokenize(self.preprocess(text))
            words.append("")  # no word: no sequence goes from one text into the next
            sizes.append(len(words) - before)
        numbers = np.fromiter(map(self.numbers.get, words, repeat(_UNKNOWN)), np.int64, len(words))
        owners = owners_of(sizes)
        kept = (numbers != _LEFT_OUT).nonzero()[0]
        if len(kept) < len(numbers):
            numbers = numbers[kept]
            owners = None if owners is None else owners[kept]
        places, columns = [], []  # of the words that terms begin with; of the terms
        if len(self.columns):
            places.append((self.columns[numbers] >= 0).nonzero()[0])
            columns.append(self.columns[numbers[places[-1]]])
        ahead = numbers
        for at, level in enumerate(self.levels, 1):
            keys = ahead[: len(numbers) - at] * self.stride + numbers[at:]
            hits, found = level.found(keys)
            of_hits = level.columns[found]
            if at < len(self.levels):
                ahead = np.zeros(len(keys), np.int64)
                ahead[hits] = found + 1
                terms = (of_hits >= 0).nonzero()[0]
                hits, of_hits = hits[terms], of_hits[terms]
            places.append(hits)
            columns.append(of_hits)
        return Found(None if owners is None else owners[np.concatenate(places)], np.concatenate(columns))


def owners_of(sizes: Sequence[int]) -> np.ndarray | None:
    """The text of each of the things of which text i has sizes[i]; None for a single text."""
    return np.repeat(np.arange(len(sizes)), sizes) if len(sizes) > 1 else None


def words_of(vectorizer: Any, preprocess: Any, tokenize: Any) -> Words | None:
    """The finder for a vectorizer whose words are runs of word characters; None for any other.

    preprocess, tokenize: the vectorizer's own.
    """
    shortest = SHORTEST_WORD.get(vectorizer.token_pattern)
    if shortest is None or len(vectorizer.vocabulary_) > MAX_TERMS:
        return None
    fewest, most = vectorizer.ngram_range
    numbers, terms = _taken_apart(vectorizer.vocabulary_, fewest, most)
    stride = len(numbers) + 1
    columns = np.full(stride if fewest == 1 else 0, -1)
    for sequences, term_columns in terms[:1]:
        if fewest == 1:
            columns[sequences[:, 0]] = term_columns
    numbers.update(dict.fromkeys(vectorizer.get_stop_words() or (), _LEFT_OUT))
    if shortest == 2:  # blanks do not tell words of one letter apart, as the pattern does
        numbers.update(dict.fromkeys(_SINGLE, _LEFT_OUT))
    numbers.pop("", None)  # ends a text
    return Words(
        numbers,
        columns,
        _levels(terms, stride),
        stride,
        "".join(_as_word(chr(code), vectorizer.lowercase) for code in range(128)),
        preprocess,
        tokenize,
    )


def _as_word(character: str, lowercase: bool) -> str:
    if not re.match(r"\w", character):
        return " "
    return character.lower() if lowercase else character


def _taken_apart(
    vocabulary: Mapping[str, int], fewest: int, most: int
) -> tuple[dict[str, int], list[tuple[np.ndarray, np.ndarray]]]:
    """A number from 1 on for every word, and for 1, 2, … words: the numbers [terms, words] and columns of the terms.

    A term is its words joined by blanks, and no word holds one; what has another number of words is never found.
    """
    terms: list[list[str]] = [[] for _ in range(most)]
    columns: list[list[int]] = [[] for _ in range(most)]
    for term, column in vocabulary.items():
        blanks = term.count(" ")
        if fewest <= blanks + 1 <= most:
            terms[blanks].append(term)
            columns[blanks].append(column)
    numbers: defaultdict[str, int] = defaultdict(itertools.count(1).__next__)
    taken_apart = []
    for of_length, some in enumerate(terms, 1):
        words = " ".join(some).split(" ") if some else []  # of_length of each term
        sequences = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words)).reshape(-1, of_length)
        taken_apart.append((sequences, np.array(columns[of_length - 1], np.int64)))
    return dict(numbers), taken_apart


def _levels(terms: list[tuple[np.ndarray, np.ndarray]], stride: int) -> tuple[Level, ...]:
    levels: list[Level] = []
    # What the terms of each length have been resolved to so far: the number of their first words.
    ahead = [sequences[:, 0] for sequences, _ in terms]
    for at in range(1, len(terms)):
        keys = [ahead[longer] * stride + terms[longer][0][:, at] for longer in range(at, len(terms))]
        known, places = np.unique(np.concatenate(keys), return_inverse=True)
        of_lengths = np.split(places, np.cumsum([len(key) for key in keys])[:-1])
        columns = np.full(len(known), -1)
        columns[of_lengths[0]] = terms[at][1]
        for longer, of_length in enumerate(of_lengths, at):
            ahead[longer] = of_length + 1
        levels.append(Level(known, columns))
    return tuple(levels)
