"""Ways of asking a server for the same items: few or many a request, as JSON or as binary tensors; and whether it
answers them rightly in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from benchmarks.binary_tensors import by_binary_tensors, is_binary, outputs_of
from benchmarks.driving import Call, ask
from benchmarks.models import MODELS, expected_of, items_of
from benchmarks.peers.base import Peer

TOLERANCE = 1e-5  # between two calls with the same items
Outputs = dict[str, np.ndarray]
Some = TypeVar("Some")


@dataclass(frozen=True, slots=True)
class Way:
    """items: of each request. labels: what an ordinary program answers to each request's items."""

    items: int
    calls: tuple[Call, ...]
    labels: tuple[list[str], ...]
    binary: bool = False

    def by_binary_tensors(self) -> Way:
        """The same requests; of the Open Inference Protocol only."""
        return replace(self, calls=tuple(by_binary_tensors(call) for call in self.calls), binary=True)


def as_json(peer: Peer, model: str, items: int) -> Way:
    """For a started peer that takes several items a request."""
    path = peer.path(model)
    calls = tuple(Call.of(path, peer.body(MODELS[model], some)) for some in batches(items_of(model), items))
    return Way(items, calls, tuple(batches(expected_of(model), items)))


def batches(many: Sequence[Some], size: int) -> list[list[Some]]:
    """Whole ones, of one round through them or of as many as one batch takes."""
    repeated = (list(many) * math.ceil(size / len(many)))[: max(size, len(many))]
    return [repeated[start : start + size] for start in range(0, len(repeated) - size + 1, size)]


def answers(address: str, headers: Mapping[str, str], way: Way) -> list[Outputs]:
    """What is answered to each of its requests, sent one by one. Raises AssertionError when one is refused, or answered
    in another form than it asks for; OSError, HTTPException."""
    found = []
    for call in way.calls:
        answer = ask(address, call, headers)
        assert answer.status == 200, f"{answer.status} {answer.body[:300]!r}"
        assert is_binary(answer) == way.binary, f"the answer has {'no ' if way.binary else ''}binary data"
        found.append(outputs_of(answer))
    return found


def check_labels(way: Way, found: Sequence[Mapping[str, Any]]) -> None:
    """Raises AssertionError when a label is another one than an ordinary program's."""
    for wanted, outputs in zip(way.labels, found, strict=True):
        labels = [str(label) for label in outputs["label"]]
        assert labels == wanted, f"it answers {labels} instead of {wanted}"


def check_same(one: Sequence[Outputs], other: Sequence[Outputs]) -> None:
    """Raises AssertionError when the outputs differ."""
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys(), f"outputs {sorted(left)} and {sorted(right)}"
        for name, values in left.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, right[name], TOLERANCE, TOLERANCE, err_msg=f'output "{name}"')
            else:
                np.testing.assert_array_equal(values, right[name], err_msg=f'output "{name}"')
