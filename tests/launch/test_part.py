"""How a part's end is told."""

from __future__ import annotations

import pytest

from modelhub.launch.part import ending


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exit status 0"),
        (-15, "SIGTERM"),
        (-9, "SIGKILL; perhaps out of memory"),
        (-40, "signal 40"),  # a real-time signal, which has no name
    ],
)
def test_every_ending_has_words(returncode: int, words: str) -> None:
    assert ending(returncode) == words
