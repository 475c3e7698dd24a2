"""Which of two versions is the higher one: semantic versioning, and a sensible order for what is none.

Shared by the registry and the gateway, so that both mean the same by a lineage's highest version.
"""

from __future__ import annotations

import re
from typing import Any

_PARTS = re.compile(r"(?P<numbers>\d+(?:[._]\d+)*)?[._-]?(?P<rest>.*)", re.DOTALL)
_IDENTIFIERS = re.compile(r"\d+|[^\d._-]+")


def version_key(version: str) -> tuple[Any, ...]:
    """A key to sort versions by, from lowest to highest.

    1.9 comes before 1.10, 1.2.0-rc.1 (also 1.2.0rc1) before 1.2.0, rc.2 before rc.10, words without a number before
    all numbers. 1, 1.0 and 1.0.0 are the same version and come in this order; what follows a "+" orders such equals.
    """
    precedence, _, build = version.partition("+")
    found = _PARTS.fullmatch(precedence)
    assert found is not None  # the pattern matches every text
    numbers = [int(number) for number in re.findall(r"\d+", found["numbers"] or "")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    rest = found["rest"]
    # As semver.org has it: among pre-releases, numbers come before words.
    before_release = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _IDENTIFIERS.findall(rest)]
    return (found["numbers"] is not None, numbers, not rest, before_release, len(precedence), build)
