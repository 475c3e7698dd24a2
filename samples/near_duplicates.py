"""Finds emails that say the same in almost the same words: `python -m samples.near_duplicates` lists them."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from samples.emails import Email, read_emails

SHINGLE_WORDS = 3
MAX_SIMILARITY = 0.2
MAX_SHARED_WORDS = 7

Pair = tuple[Email, Email, float, int]
"""Two emails, the similarity of their shingles (0.0 to 1.0) and the longest run of words that both have."""


def near_duplicates(emails: Iterable[Email]) -> Iterator[Pair]:
    """Pairs at or above MAX_SIMILARITY (Jaccard over runs of SHINGLE_WORDS words) or MAX_SHARED_WORDS."""
    for first, second, similarity, shared_words in similar_pairs(emails):
        if similarity >= MAX_SIMILARITY or shared_words >= MAX_SHARED_WORDS:
            yield first, second, similarity, shared_words


def similar_pairs(emails: Iterable[Email]) -> Iterator[Pair]:
    """Every pair that has at least one shingle in common."""
    by_id = {email.id: email for email in emails}
    words = {email.id: _words(email.text) for email in by_id.values()}
    shingles = {key: _shingles(found) for key, found in words.items()}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, found in shingles.items():
        for shingle in found:
            holders[shingle].append(key)
    for first, second in sorted({pair for keys in holders.values() for pair in combinations(keys, 2)}):
        common = len(shingles[first] & shingles[second])
        similarity = common / (len(shingles[first]) + len(shingles[second]) - common)
        yield by_id[first], by_id[second], similarity, _longest_run(words[first], words[second])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def _shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)}


def _longest_run(first: list[str], second: list[str]) -> int:
    longest = 0
    before = [0] * (len(second) + 1)
    for word in first:
        now = [0] * (len(second) + 1)
        for at, other in enumerate(second):
            if word == other:
                now[at + 1] = before[at] + 1
                longest = max(longest, now[at + 1])
        before = now
    return longest


def main() -> int:
    found = list(near_duplicates(read_emails()))
    for first, second, similarity, shared_words in found:
        sys.stdout.write(f"{first.id} ({first.split}) {second.id} ({second.split}): ")
        sys.stdout.write(f"similarity {similarity:.2f}, {shared_words} words in a row\n")
    sys.stdout.write(f"{len(found)} near-duplicates\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
