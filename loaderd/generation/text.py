"""Text out of tokens as they come: whole characters only, and up to a stop sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_CUT_CHARACTER = "\N{REPLACEMENT CHARACTER}"
# Some tokenizers show spaces only behind another token, so that the first text needs some of the prompt before it.
_CONTEXT_TOKENS = 6
# A character has at most four tokens, of a byte each: if what is held has more, it is no character that is on its way.
_MAX_HELD_TOKENS = 8
_MAX_CUT_CHARACTERS = 3


class Detokenizer:
    """The text of tokens that follow a prompt, as far as no further token can change it."""

    def __init__(self, text_of: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._text_of = text_of
        self._tokens = list(prompt[-_CONTEXT_TOKENS:])  # the last ones that were told, then those that were not
        self._told_tokens = len(self._tokens)
        self._told_characters = len(text_of(self._tokens)) if self._tokens else 0

    def add(self, token: int) -> str:
        """What there is to tell with one more token: "" while it ends within a character."""
        self._tokens.append(token)
        text = self._text_of(self._tokens)
        if not text.endswith(_CUT_CHARACTER):
            told = text[self._told_characters :]
            if told:
                self._tokens = self._tokens[self._told_tokens :]
                self._told_tokens = len(self._tokens)
                self._told_characters = len(self._text_of(self._tokens))
            return told
        if len(self._tokens) - self._told_tokens <= _MAX_HELD_TOKENS:
            return ""
        cut = len(text) - len(text.rstrip(_CUT_CHARACTER))
        sure = len(text) - min(cut, _MAX_CUT_CHARACTERS)
        told = text[self._told_characters : sure]
        self._told_characters = max(sure, self._told_characters)
        return told

    def rest(self) -> str:
        """What was held back, at the end."""
        return self._text_of(self._tokens)[self._told_characters :] if self._tokens else ""


class Cutter:
    """Ends a text before the first stop sequence in it. is_cut: it has found one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_cut = False

    def add(self, text: str) -> str:
        """What may be told of the text so far; the beginning of what may become a stop sequence is held back."""
        if not self._stops or self.is_cut:
            return "" if self.is_cut else text
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.is_cut, self._held = True, ""
            return held[: min(found)]
        kept = max(_begun(held, stop) for stop in self._stops)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]

    def rest(self) -> str:
        """What was held back, at the end."""
        return self._held


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
