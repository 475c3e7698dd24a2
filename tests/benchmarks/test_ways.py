from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks import ways
from benchmarks.binary_tensors import LENGTH
from benchmarks.driving import Call
from benchmarks.peers.modelhub import Modelhub
from benchmarks.ways import Way
from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.oip import request, response

SIGNATURE = Signature(
    (TensorSpec("pixels", "FP64", (-1, 64)),), (TensorSpec("label", "BYTES", (-1,)), TensorSpec("sum", "FP64", (-1,)))
)
ITEMS = [[float(number)] * 64 for number in range(5)]
LABELS = ["even", "odd", "even", "odd", "even"]
HEADERS = {"Authorization": "Token t"}


class _Handler(BaseHTTPRequestHandler):
    """Answers as Modelhub's inference does, with its reader and writer: whether an image's first number is even."""

    def do_GET(self) -> None:
        known = self.path == "/v2/models/digits"
        self._send(200 if known else 404, json.dumps({"inputs": [{"name": "pixels"}]}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = self.headers[LENGTH]
        try:
            asked = request.parse(body, None if length is None else int(length), SIGNATURE)
        except InvalidInput as error:
            self._send(400, str(error).encode())
            return
        pixels = asked.inputs["pixels"]
        labels = np.array([("even", "odd")[int(row[0]) % 2] for row in pixels], dtype=object)
        size, pieces = response.build(asked, {"label": labels, "sum": pixels.sum(1)}, SIGNATURE, "digits", "1.0")
        self._send(200 if self.headers["Authorization"] else 401, b"".join(pieces), size)

    def _send(self, status: int, body: bytes, json_bytes: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if json_bytes is not None:
            self.send_header(LENGTH, str(json_bytes))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class _Peer(Modelhub):
    address = ""

    def headers(self) -> dict[str, str]:
        return dict(HEADERS)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Peer]:
    monkeypatch.setattr(ways, "items_of", lambda name: ITEMS)
    monkeypatch.setattr(ways, "expected_of", lambda name: LABELS)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = _Peer()
    made.address = f"127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


def test_batches_are_whole_and_repeat_what_is_too_little() -> None:
    assert ways.batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4]]
    assert ways.batches([1, 2], 5) == [[1, 2, 1, 2, 1]]
    assert ways.batches([1, 2], 1) == [[1], [2]]


@pytest.mark.parametrize("items", [1, 2, 8])
def test_each_request_is_answered_alike_in_both_forms_and_as_in_process(peer: _Peer, items: int) -> None:
    way = ways.as_json(peer, "digits", items)
    raw = way.by_binary_tensors()
    assert [len(labels) for labels in way.labels] == [items] * len(way.calls)
    assert (raw.items, raw.labels) == (way.items, way.labels)
    found, other = (ways.answers(peer.address, HEADERS, each) for each in (way, raw))
    for outputs in (found, other):
        ways.check_labels(way, outputs)
    ways.check_same(found, other)
    np.testing.assert_array_equal(found[0]["sum"][:1], [0.0])


def test_a_wrong_label_or_number_is_told(peer: _Peer) -> None:
    way = ways.as_json(peer, "digits", 2)
    found = ways.answers(peer.address, HEADERS, way)
    with pytest.raises(AssertionError, match="instead of"):
        ways.check_labels(Way(2, way.calls, (["even", "odd"], ["even", "even"])), found)
    changed = [dict(outputs) for outputs in found]
    changed[1]["sum"] = changed[1]["sum"] * 1.001
    with pytest.raises(AssertionError, match='output "sum"'):
        ways.check_same(found, changed)
    changed[1] = {**found[1], "label": found[0]["label"][::-1]}
    with pytest.raises(AssertionError, match='output "label"'):
        ways.check_same(found, changed)
    del changed[1]["sum"]
    with pytest.raises(AssertionError, match="outputs"):
        ways.check_same(found, changed)


def test_a_refusal_or_an_answer_in_the_other_form_is_told(peer: _Peer) -> None:
    way = ways.as_json(peer, "digits", 1)
    with pytest.raises(AssertionError, match="401"):
        ways.answers(peer.address, {}, way)
    with pytest.raises(AssertionError, match="400"):
        ways.answers(peer.address, HEADERS, Way(1, (Call.of(way.calls[0].path, {"inputs": []}),), (["even"],)))
    with pytest.raises(AssertionError, match="no binary data"):
        ways.answers(peer.address, HEADERS, Way(1, way.calls, way.labels, binary=True))
