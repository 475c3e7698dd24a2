from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.generation.text import Cutter, Detokenizer


def of_bytes(tokens: Sequence[int]) -> str:
    """A vocabulary of the 256 bytes."""
    return bytes(tokens).decode("utf-8", "replace")


def of_words(tokens: Sequence[int]) -> str:
    """A vocabulary whose words get a space before them unless they come first, as sentencepiece has it."""
    return " ".join(["zero", "one", "two", "three"][token] for token in tokens)


@given(st.text(), st.text())
def test_any_text_comes_whole_whatever_was_before_it(before: str, text: str) -> None:
    detokenizer = Detokenizer(of_bytes, list(before.encode()))
    told = [detokenizer.add(token) for token in text.encode()]
    assert "".join(told) + detokenizer.rest() == text


@given(st.text(st.characters(exclude_characters="\N{REPLACEMENT CHARACTER}", exclude_categories=["Cs"])))
def test_no_part_ends_within_a_character(text: str) -> None:
    detokenizer = Detokenizer(of_bytes, [])
    for token in text.encode():
        assert "\N{REPLACEMENT CHARACTER}" not in detokenizer.add(token)
    assert detokenizer.rest() == ""


@given(st.binary())
def test_bytes_that_are_no_text_are_told_at_last(data: bytes) -> None:
    detokenizer = Detokenizer(of_bytes, [])
    told = "".join(detokenizer.add(token) for token in data)
    assert told + detokenizer.rest() == of_bytes(data)


def test_bytes_that_are_no_text_are_not_held_for_ever() -> None:
    detokenizer = Detokenizer(of_bytes, [])
    assert "".join(detokenizer.add(0xFF) for _ in range(40))


def test_a_word_gets_the_space_that_its_prompt_gives_it() -> None:
    detokenizer = Detokenizer(of_words, [1])
    assert [detokenizer.add(token) for token in (2, 3)] == [" two", " three"]
    detokenizer = Detokenizer(of_words, [])
    assert [detokenizer.add(token) for token in (2, 3)] == ["two", " three"]


@given(
    st.text("ab\n", max_size=20),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4),
    st.integers(1, 4),
)
def test_a_text_ends_before_the_first_stop_sequence_however_it_comes(text: str, stops: list[str], size: int) -> None:
    cutter = Cutter(stops)
    told = "".join(cutter.add(text[at : at + size]) for at in range(0, len(text), size))
    told += "" if cutter.is_cut else cutter.rest()
    assert cutter.is_cut == any(stop in text for stop in stops)
    assert not any(stop in told for stop in stops)
    if cutter.is_cut:
        assert text.startswith(told)
        assert any(text.startswith(stop, len(told)) for stop in stops)
    else:
        assert told == text


def test_what_may_become_a_stop_sequence_is_held_back_and_told_when_it_does_not() -> None:
    cutter = Cutter(["\n\n", "END"])
    assert [cutter.add(part) for part in ("one\n", "two E", "N", "F", "ine E")] == ["one", "\ntwo ", "", "ENF", "ine "]
    assert cutter.rest() == "E"


@pytest.mark.parametrize("parts", [["say END now"], ["say E", "ND now"], [*"say END now"]])
def test_a_stop_sequence_across_parts_is_cut_exactly(parts: list[str]) -> None:
    cutter = Cutter(["END"])
    assert "".join(map(cutter.add, parts)) == "say "
    assert cutter.is_cut
