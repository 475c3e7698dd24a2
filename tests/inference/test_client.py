"""Predictions through the private door: what is sent, what comes back, and what is said when the door is away."""

from __future__ import annotations

import json
import os
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from loaderd.errors import InvalidInput, LoaderUnreachable, ModelNotLoaded, ModelTimeout
from modelhub.inference import client

ANSWER = {"model_id": "a b", "version": "1.0.0", "predictions": [{"label": "x", "score": 0.9}], "latency_ms": 1.5}


class Door(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The gateway's private socket."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.connections = 0
        self.headers: list[dict[str, str]] = []
        self.status, self.answer = 200, ANSWER
        self.others_ms = ""
        self.hold = threading.Event()
        self.hold.set()
        super().__init__(str(path), Handler)

    def handle_error(self, *args: Any) -> None:
        """A client that gave up is part of a test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.headers.append(dict(self.headers))
        self.server.requests.append((self.path, self.headers["X-Modelhub-User"], body))
        self.server.hold.wait(20)
        content = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        if self.server.others_ms:
            self.send_header("X-Modelhub-Others-Ms", self.server.others_ms)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def socket_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mh-door-") as folder:
        path = Path(folder) / "gateway.sock"
        monkeypatch.setattr(type(client.config()), "gateway_socket", property(lambda _: path))
        yield path
        own = client._client_of.pop((os.getpid(), path), None)
        if own is not None:
            own.close()


@pytest.fixture
def door(socket_path: Path) -> Iterator[Door]:
    with Door(socket_path) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield door
        door.hold.set()
        door.shutdown()


def predict(inputs: list[Any], timeout_seconds: float = 10.0) -> dict[str, Any]:
    return client.predict("a b", inputs, user="ada", timeout_seconds=timeout_seconds)


def test_it_sends_inputs_and_user_and_returns_the_answer(door: Door) -> None:
    assert predict(["I love it"]) == ANSWER
    assert door.requests == [("/internal/models/a%20b/predict", "ada", {"inputs": ["I love it"]})]


def test_the_trace_of_the_caller_is_passed_on(door: Door) -> None:
    trace = client.trace_of(
        {"traceparent": "00-a-b-01", "tracestate": "vendor=1", "authorization": "Token x", "cookie": "sessionid=y"}
    )
    client.predict("m", ["x"], user="ada", timeout_seconds=10.0, trace=trace)
    sent = door.headers[0]
    assert (sent["traceparent"], sent["tracestate"]) == ("00-a-b-01", "vendor=1")
    assert {"authorization", "cookie"}.isdisjoint(sent)


@pytest.mark.parametrize("value", ["", "ü", "a\nx: y", "\x7f"])
def test_what_cannot_be_a_header_is_left_out(value: str) -> None:
    assert client.trace_of({"traceparent": value}) == {}


def test_bulk_work_goes_last_and_is_told_how_others_are_answered(door: Door) -> None:
    assert client.predict("m", ["x"], user="ada", timeout_seconds=10.0, is_bulk=True) == ANSWER
    assert door.headers[0]["X-Modelhub-Priority"] == "bulk"
    door.others_ms = "2.500"
    answer = client.predict("m", ["x"], user="ada", timeout_seconds=10.0, is_bulk=True)
    assert answer == {**ANSWER, "others_seconds": 0.0025}
    assert predict(["x"]) == ANSWER
    assert "X-Modelhub-Priority" not in door.headers[-1]


def test_connections_are_used_again(door: Door) -> None:
    for _ in range(5):
        predict([[1.0, 2.0]])
    assert door.connections == 1


def test_an_error_of_the_gateway_is_raised_as_itself(door: Door) -> None:
    error = ModelNotLoaded("a b is not loaded; load it first.", model_id="a b")
    door.status, door.answer = 409, {"error": error.to_message()}
    with pytest.raises(ModelNotLoaded, match="load it first") as raised:
        predict(["x"])
    assert raised.value.facts == {"model_id": "a b"}


@pytest.mark.parametrize(
    ("advice", "here"),
    [
        (
            "load it with POST /v2/repository/models/a-v1/load",
            "load it with POST /api/models/a-v1/load or `manage.py load a-v1`",
        ),
        ("POST /v2/repository/index lists them", "GET /api/models/ lists them"),
    ],
    ids=["load", "index"],
)
def test_an_errors_advice_names_the_way_from_here(door: Door, advice: str, here: str) -> None:
    door.status, door.answer = 409, {"error": ModelNotLoaded(f"a-v1 is not loaded; {advice}.").to_message()}
    with pytest.raises(ModelNotLoaded) as raised:
        predict(["x"])
    assert raised.value.message == f"a-v1 is not loaded; {here}."


# httpcore does not close a unix socket that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_door_that_is_away_is_said_plainly(socket_path: Path) -> None:
    with pytest.raises(LoaderUnreachable, match="a b was not asked; start loaderd"):
        predict(["x"])


def test_a_prediction_has_its_time(door: Door) -> None:
    door.hold.clear()
    with pytest.raises(ModelTimeout, match=r"did not answer within 0.2 s"):
        predict(["x"], timeout_seconds=0.2)


def test_what_json_cannot_say_is_refused_before_it_is_sent(door: Door) -> None:
    with pytest.raises(InvalidInput):
        predict([[float("nan")]])
    assert door.requests == []
