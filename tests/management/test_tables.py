"""Sizes are told in the units that they are in."""

from __future__ import annotations

import pytest

from modelhub.management.tables import in_units


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (13 * 2**20 + 300 * 2**10, "13.3 MiB"),
        (210 * 2**20, "210 MiB"),
        (5 * 2**29, "2.5 GiB"),
        (3000 * 2**40, "3000 TiB"),
        (-(2**20), "-1 MiB"),
    ],
)
def test_units_are_binary(size_bytes: int, told: str) -> None:
    assert in_units(size_bytes) == told
