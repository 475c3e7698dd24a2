"""Two answers are compared item by item, whatever form they have."""

from __future__ import annotations

import struct
import time
from typing import Any

import orjson
import pytest

from loaderd.gateway.comparing import MAX_ANSWER_BYTES, Answer, NotComparable, compare


def plain(*predictions: Any) -> Answer:
    return b"", orjson.dumps({"model_id": "m", "version": "1", "predictions": predictions, "latency_ms": 1.0})


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def infer(*outputs: dict[str, Any]) -> Answer:
    return b"", orjson.dumps({"model_name": "m", "model_version": "1", "outputs": outputs})


def binary(*outputs: tuple[str, str, list[int], bytes]) -> Answer:
    described = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        for name, datatype, shape, raw in outputs
    ]
    head = orjson.dumps({"model_name": "m", "model_version": "1", "outputs": described})
    return b"%d" % len(head), bytearray(head + b"".join(raw for *_, raw in outputs))


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value.encode() for value in values)


LABELLED = infer(
    tensor("label", "BYTES", [2], ["spam", "ham"]), tensor("probabilities", "FP32", [2, 2], [0.9, 0.1, 0.2, 0.8])
)


@pytest.mark.parametrize(
    ("live", "candidate", "counts"),
    [
        (plain({"label": "a", "score": 0.9}), plain({"label": "a", "score": 0.5}), (1, 0)),
        (plain({"label": "a"}, {"label": "b"}), plain({"label": "a"}, {"label": "a"}), (2, 1)),
        (plain(1.0, 2.0, 3.0), plain(1.0005, 2.0, 3.1), (3, 1)),
        (plain([0.0, 1.0]), plain([0.00005, 1.0]), (1, 0)),
        (plain([{"word": "Ada"}]), plain([{"word": "Bob"}]), (1, 1)),
        (plain(1, 2), plain(1, 3), (2, 1)),
        (plain(1, 2), plain(1), (2, 2)),
        (plain(), plain(), (0, 0)),
        (plain(float("nan")), plain(None), (1, 0)),
        (LABELLED, infer(tensor("label", "BYTES", [2], ["spam", "spam"])), (2, 1)),
        (infer(tensor("y", "FP32", [2, 2], [1, 2, 3, 4])), infer(tensor("y", "FP32", [2, 2], [1, 2, 3, 5])), (2, 1)),
        (infer(tensor("n", "INT64", [2], [1000, 1])), infer(tensor("n", "INT64", [2], [1001, 1])), (2, 1)),
        (
            binary(("y", "FP32", [2, 1], struct.pack("<2f", 1.0, 2.0))),
            binary(("y", "FP32", [2, 1], struct.pack("<2f", 1.0005, 2.5))),
            (2, 1),
        ),
        (
            binary(("p", "FP64", [1, 1], struct.pack("<d", 0.5)), ("label", "BYTES", [1], texts("spam"))),
            binary(("p", "FP64", [1, 1], struct.pack("<d", 0.9)), ("label", "BYTES", [1], texts("spam"))),
            (1, 0),
        ),
        (binary(("label", "BYTES", [2], texts("spam", "ham"))), LABELLED, (2, 0)),
        (binary(("y", "BF16", [1], b"\x80\x3f")), infer(tensor("y", "FP32", [1], [1.0])), (1, 0)),
        (binary(("y", "BOOL", [2], b"\x01\x00")), binary(("y", "BOOL", [2], b"\x01\x01")), (2, 1)),
    ],
    ids=[
        "label-decides",
        "another-label",
        "numbers-within-tolerance",
        "near-zero",
        "structures",
        "integers-as-they-are",
        "fewer-items",
        "nothing",
        "no-number",
        "label-tensor",
        "rows",
        "integers-are-exact",
        "binary-floats",
        "binary-label-decides",
        "binary-and-json",
        "bf16",
        "booleans",
    ],
)
def test_items_that_differ_are_counted(live: Answer, candidate: Answer, counts: tuple[int, int]) -> None:
    assert compare(live, candidate) == counts


@pytest.mark.parametrize(
    "answer",
    [
        (b"", b"no json"),
        (b"", b"[]"),
        (b"", b'{"outputs": [{"name": "y"}]}'),
        binary(("y", "FP32", [4], b"\0\0")),
        binary(("y", "COMPLEX", [1], b"\0\0\0\0")),
        plain("x" * MAX_ANSWER_BYTES),
    ],
    ids=["text", "a-list", "no-shape", "cut-off", "unknown-type", "too-large"],
)
def test_what_is_no_answer_or_too_large_is_not_compared(answer: Answer) -> None:
    with pytest.raises(NotComparable):
        compare(answer, answer)


def test_many_values_are_compared_in_part_so_that_it_stays_cheap() -> None:
    rows = plain(*[[0.5] * 400 for _ in range(30)])
    assert compare(rows, rows) == (5, 0)
    wide = binary(("y", "FP32", [1, 10_000], bytes(40_000)))
    began = time.process_time()
    assert compare(wide, wide) == (1, 0)
    assert time.process_time() - began < 0.1
