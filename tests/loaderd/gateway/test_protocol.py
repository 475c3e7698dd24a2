"""The Open Inference Protocol, spoken by the real client and by hand."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from loaderd.errors import LoadFailed, StateForbids
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import TOKEN, Door

HEADERS = {"Authorization": f"Token {TOKEN}"}


@pytest.fixture
def triton(served: Served) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{served.door.port}", network_timeout=20) as client:
        yield client


def text_input(*texts: str, binary: bool = True) -> InferInput:
    given = InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array(texts, dtype=object), binary_data=binary)
    return given


def echo_request(*texts: str) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}


class TestWithTheRealClient:
    def test_live_ready_and_model_ready(self, triton: InferenceServerClient, served: Served) -> None:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("echo-v1", headers=HEADERS)
        assert triton.is_model_ready("echo", "1", headers=HEADERS)
        assert not triton.is_model_ready("echo", "2", headers=HEADERS)
        served.change("echo-v1", state="loading", sockets=[])
        assert not triton.is_model_ready("echo-v1", headers=HEADERS)
        assert triton.is_server_ready()

    def test_metadata(self, triton: InferenceServerClient) -> None:
        assert triton.get_server_metadata(headers=HEADERS)["name"] == "modelhub"
        assert triton.get_model_metadata("double", headers=HEADERS) == {
            "name": "double",
            "versions": ["1"],
            "platform": "in-test",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}],
        }

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_numbers_in_and_out(self, triton: InferenceServerClient, binary_in: bool, binary_out: bool) -> None:
        x = np.random.default_rng(1).random((5, 7), dtype=np.float32)
        given = InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x, binary_data=binary_in)
        result = triton.infer(
            "double-v1",
            [given],
            outputs=[InferRequestedOutput("y", binary_data=binary_out)],
            request_id="42",
            headers=dict(HEADERS),
        )
        np.testing.assert_array_equal(result.as_numpy("y"), x * 2)
        assert result.get_response()["id"] == "42"
        assert result.get_response()["model_name"] == "double-v1"
        assert result.get_response()["model_version"] == "1"

    @pytest.mark.parametrize("binary", [True, False])
    def test_texts_in_and_out(self, triton: InferenceServerClient, binary: bool) -> None:
        result = triton.infer("echo", [text_input("ä", "two", "", binary=binary)], headers=dict(HEADERS))
        assert [text.decode() for text in result.as_numpy("echo")] == ["ä", "two", ""]
        assert result.as_numpy("length").tolist() == [1, 3, 0]

    @pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
    def test_compressed_requests(self, triton: InferenceServerClient, algorithm: str) -> None:
        result = triton.infer(
            "echo-v1", [text_input("packed")], headers=dict(HEADERS), request_compression_algorithm=algorithm
        )
        assert result.as_numpy("echo").tolist() == [b"packed"]

    def test_an_error_is_a_sentence(self, triton: InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match="The model has no input") as refused:
            triton.infer("double-v1", [text_input("no number")], headers=dict(HEADERS))
        assert refused.value.status() == "400"

    def test_index_load_and_unload(self, triton: InferenceServerClient, served: Served) -> None:
        rows = [
            {"model_id": "echo-v1", "name": "echo", "version": "1", "state": "loaded", "reason": ""},
            {"model_id": "spam-v1", "name": "spam", "version": "1", "state": "error", "reason": "no memory"},
        ]
        outcome = {"state": "succeeded", "result": {}, "error": None}
        served.door.answer = lambda message: rows if message["command"] == "index" else outcome
        index = triton.get_model_repository_index(headers=HEADERS)
        assert [(entry["name"], entry["version"], entry["state"], entry["reason"]) for entry in index] == [
            ("echo-v1", "1", "READY", ""),
            ("spam-v1", "1", "UNAVAILABLE", "no memory"),
        ]
        triton.unload_model("echo-v1", headers=HEADERS)
        triton.load_model("spam", headers=HEADERS)
        asked = [served.door.commands.get(timeout=5) for _ in range(4)]
        assert [(m["command"], m.get("model_id"), m.get("user")) for m in asked] == [
            ("index", None, None),
            ("unload", "echo-v1", "ada"),
            ("index", None, None),
            ("load", "spam-v1", "ada"),
        ]
        for refused in ({"config": "{}"}, {"files": {"file:1/model.pkl": b"bytes"}, "config": "{}"}):
            with pytest.raises(InferenceServerException, match="is refused: models are loaded as they are registered"):
                triton.load_model("echo-v1", headers=HEADERS, **refused)


class TestByHand:
    def test_a_json_request(self, served: Served) -> None:
        response = served.http.post("/v2/models/echo/versions/1/infer", json=echo_request("a"))
        assert response.headers["content-type"] == "application/json"
        assert response.json()["model_name"] == "echo"
        assert response.json()["outputs"][0] == {"name": "echo", "datatype": "BYTES", "shape": [1], "data": ["a"]}

    def test_a_request_sent_in_pieces(self, served: Served) -> None:
        text = json.dumps(echo_request("x" * 300_000)).encode()
        pieces = (text[at : at + 10_000] for at in range(0, len(text), 10_000))
        response = served.http.post("/v2/models/echo-v1/infer", content=pieces)
        assert response.json()["outputs"][1]["data"] == [300_000]

    @pytest.mark.parametrize(
        ("content", "headers", "sentence"),
        [
            (b"", {}, "The request's JSON cannot be read"),
            (
                b"{}",
                {"Inference-Header-Content-Length": "3"},
                "Inference-Header-Content-Length is 3 and the body has 2",
            ),
            (b"{}", {"Inference-Header-Content-Length": "-1"}, "must be a whole number"),
            (b"{}", {"Content-Encoding": "gzip"}, "The body is not what its Content-Encoding says"),
            (gzip.compress(b"{}", mtime=0)[:-1], {"Content-Encoding": "gzip"}, "The compressed body is cut off"),
            (
                zlib.compress(b"{}") + b"x",
                {"Content-Encoding": "deflate"},
                "The compressed body is cut off or has more",
            ),
            (b"{}", {"Content-Encoding": "br"}, 'The Content-Encoding "br" is not known'),
        ],
    )
    def test_malformed_requests(self, served: Served, content: bytes, headers: dict[str, str], sentence: str) -> None:
        response = served.http.post("/v2/models/echo-v1/infer", content=content, headers=headers)
        assert response.status_code == 400
        assert sentence in response.json()["error"]
        assert served.http.post("/v2/models/echo-v1/infer", json=echo_request("after")).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/", 404),
            ("POST", "/v2/models", 405),
            ("GET", "/v2/other", 404),
            ("GET", "/v2/models/nothing", 404),
            ("GET", "/v2/models/nothing/ready", 404),
            ("POST", "/v2/models/nothing/infer", 404),
            ("GET", "/v2/models/echo-v1/other", 404),
            ("GET", "/v2/models/echo-v1/infer", 405),
            ("POST", "/v2/models/echo-v1", 405),
            ("POST", "/v2/health/live", 405),
            ("GET", "/v2/repository/index", 405),
            ("GET", "/v2/repository/models/echo-v1/load", 405),
            ("POST", "/internal/models/echo-v1/predict", 404),
        ],
    )
    def test_what_is_not_there(self, served: Served, method: str, path: str, status: int) -> None:
        response = served.http.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]

    def test_a_model_that_is_not_loaded_says_what_to_do(self, served: Served) -> None:
        served.change("echo-v1", state="unloaded", sockets=[], signature=None)
        ready = served.http.get("/v2/models/echo-v1/ready")
        assert (ready.status_code, ready.json()["error"]) == (503, "echo-v1 is unloaded.")
        for answer in (
            served.http.post("/v2/models/echo-v1/infer", json=echo_request("a")),
            served.http.get("/v2/models/echo-v1"),
        ):
            assert answer.status_code == 409
            assert "load it with POST /v2/repository/models/echo-v1/load" in answer.json()["error"]

    def test_a_failed_command_answers_with_its_own_error(self, door: Door) -> None:
        def answer(message: dict[str, Any]) -> Any:
            if message["command"] == "index":
                return [
                    {"model_id": f"m-v{n}", "name": "m", "version": n, "state": "unloaded", "reason": ""} for n in "12"
                ]
            if message["command"] == "unload":
                raise StateForbids("m-v1 is not loaded.")
            return {"state": "failed", "result": None, "error": LoadFailed("m-v1 could not be loaded.").to_message()}

        door.answer = answer
        client = door.http()
        load = client.post("/v2/repository/models/m-v1/load")
        assert (load.status_code, load.json()["error"]) == (500, "m-v1 could not be loaded.")
        unload = client.post("/v2/repository/models/m-v1/unload")
        assert (unload.status_code, unload.json()["error"]) == (409, "m-v1 is not loaded.")
        several = client.post("/v2/repository/models/m/load")
        assert (several.status_code, several.json()["error"]) == (
            409,
            '"m" has several versions; say which to load: m-v1, m-v2.',
        )
        assert client.post("/v2/repository/models/q/load").status_code == 404
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []


class TestThePlainPrediction:
    def test_it_answers_on_the_private_door(self, served: Served) -> None:
        response = served.door.private().post("/internal/models/classifier-v1/predict", json={"inputs": ["good!!!!!"]})
        answer = response.json()
        assert answer.pop("latency_ms") > 0
        assert answer == {
            "model_id": "classifier-v1",
            "version": "1",
            "predictions": [
                {"label": "positive", "score": 0.5555556, "scores": {"negative": 0.44444442, "positive": 0.5555556}}
            ],
        }

    def test_its_errors_carry_code_message_and_facts(self, served: Served) -> None:
        client = served.door.private()
        bad = client.post("/internal/models/echo-v1/predict", json={"inputs": []})
        assert bad.status_code == 400
        assert bad.json()["error"]["code"] == "invalid_input"
        unknown = client.post("/internal/models/nothing/predict", json={"inputs": ["a"]})
        assert unknown.status_code == 404
        assert unknown.json()["error"]["facts"] == {"model": "nothing"}
