from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import kept, setting
from benchmarks.kept import Kept, Round

ROUNDS = (Round(100, 96, 99, 100, 0.0), Round(200, 150, 190, 196, 0.02), Round(50, 49, 50, 49, 0.01))


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    made = Kept("minilm", "fp32", "our model", 8, ((1, 32), (8, 4), (32, 8)), ROUNDS)
    assert made.single_ratio == pytest.approx(0.96)
    assert made.batched_ratio == pytest.approx(0.99)
    assert made.binary_ratio == pytest.approx(0.98)


def test_the_table_tells_what_is_kept_and_what_was_refused() -> None:
    text = kept.part(
        [
            Kept("minilm", "fp32", "our model", 8, ((1, 32), (8, 4), (32, 8)), ROUNDS),
            Kept("minilm", "int8", failed="answers otherwise in int8"),
            Kept("keras", "fp32", "our model", 64, ((1, 64), (64, 4), (256, 8)), ROUNDS[1:2]),
        ]
    )
    assert (
        "| minilm | fp32 | 100 (our model, batch 8) | 96 (c = 32) | 96% | 75% to 98% | met | 99 (8 items, c = 4) |"
        in text
    )
    assert "| 99 (8 items, c = 4) | 99% | 100 (32 items, c = 8) | 98% | 1% |" in text
    assert "| minilm | int8 | not measured: answers otherwise in int8 |" in text
    assert "| 75% | 75% to 75% | **not met** |" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_only_what_was_measured_of_this_code_in_all_ways_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    assert kept.read(file) == {}
    made = Kept("keras", "fp32", "our model", 64, ((1, 64), (64, 4), (256, 8)), ROUNDS, version=setting.version())
    other = asdict(Kept("minilm", "fp32", version="old"))
    lacking = asdict(
        Kept("minilm", "bf16", "our model", 8, ((1, 32), (8, 4), (32, 8)), ROUNDS, version=setting.version())
    )
    lacking["settings"] = lacking["settings"][:2]
    for each in lacking["rounds"]:
        del each["binary"]
    file.write_text(json.dumps([asdict(made), other, lacking]))
    assert kept.read(file) == {("keras", "fp32"): made}
