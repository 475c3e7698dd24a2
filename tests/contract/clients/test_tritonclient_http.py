"""`tritonclient[http]`, synchronous and asynchronous, works here as it does against Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult, aio
from tritonclient.utils import InferenceServerException

from tests.contract.clients.conftest import HEADERS
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.worker.framework import Mirror

VALUES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255], [1, 2]], dtype="u1"),
    "UINT16": np.array([[0, 65535], [1, 2]], dtype="u2"),
    "UINT32": np.array([[0, 2**32 - 1], [1, 2]], dtype="u4"),
    "UINT64": np.array([[0, 2**64 - 1], [2**63, 2**53 + 1]], dtype="u8"),
    "INT8": np.array([[-128, 127], [1, 2]], dtype="i1"),
    "INT16": np.array([[-(2**15), 2**15 - 1], [1, 2]], dtype="i2"),
    "INT32": np.array([[-(2**31), 2**31 - 1], [1, 2]], dtype="i4"),
    "INT64": np.array([[-(2**63), 2**63 - 1], [2**53 + 1, 0]], dtype="i8"),
    "FP16": np.array([[0.5, -65504.0], [6e-8, 0.1]], dtype="f2"),
    "BF16": np.array([[0.5, -3e38], [1e-38, 0.1]], dtype=ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, -3.4e38], [1e-45, 2.5]], dtype="f4"),
    "FP64": np.array([[0.1, -1.7e308], [5e-324, 2.5]], dtype="f8"),
    "BYTES": np.array([["ä", ""], ["two words", "\n\x00"]], dtype=object),
}
LOADED = {"mirror-v1", "classifier-v1", "double-v1", "echo-v1"}
ONLY_BINARY = {"FP16", "BF16"}  # in JSON the client takes them in no direction


@pytest.fixture
def triton(address: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(address, network_timeout=20, connection_timeout=20, concurrency=8) as client:
        yield client


def mirrored(*, binary: bool = True) -> list[InferInput]:
    """An input of each datatype."""
    inputs = []
    for datatype, value in VALUES.items():
        given = InferInput(datatype.lower(), list(value.shape), datatype)
        given.set_data_from_numpy(value, binary_data=binary or datatype in ONLY_BINARY)
        inputs.append(given)
    return inputs


def text_input(*texts: str) -> InferInput:
    given = InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array(texts, dtype=object))
    return given


def again(result: InferResult, datatype: str) -> np.ndarray:
    array: np.ndarray = result.as_numpy(f"{datatype.lower()}_again")
    return np.vectorize(bytes.decode, otypes=[object])(array) if array.dtype == object and binary_of(array) else array


def binary_of(array: np.ndarray) -> bool:
    return isinstance(array.flat[0], bytes)


class TestDatatypes:
    def test_the_fixture_has_them_all(self) -> None:
        assert set(VALUES) == set(Mirror.DATATYPES)

    @pytest.mark.parametrize("binary_in", [True, False], ids=["binary-in", "json-in"])
    @pytest.mark.parametrize("binary_out", [True, False], ids=["binary-out", "json-out"])
    def test_all_come_back_as_they_went(self, triton: InferenceServerClient, binary_in: bool, binary_out: bool) -> None:
        wanted = [
            InferRequestedOutput(f"{datatype.lower()}_again", binary_data=binary_out or datatype in ONLY_BINARY)
            for datatype in VALUES
        ]
        result = triton.infer("mirror", mirrored(binary=binary_in), outputs=wanted, headers=dict(HEADERS))
        for datatype, value in VALUES.items():
            np.testing.assert_array_equal(again(result, datatype), value, err_msg=datatype)

    @pytest.mark.parametrize("datatype", sorted(VALUES))
    def test_each_in_json_by_hand_flat_and_nested(self, served: Served, datatype: str) -> None:
        value = VALUES[datatype]
        entries = [
            {"name": name.lower(), "datatype": name, "shape": [1, 1], "data": [[plain(array)[0][0]]]}
            for name, array in VALUES.items()
        ]
        for data in (plain(value), [element for row in plain(value) for element in row]):
            one = {"name": datatype.lower(), "datatype": datatype, "shape": [2, 2], "data": data}
            others = [
                {**entry, "shape": [2, 1], "data": entry["data"] * 2}
                for entry in entries
                if entry["datatype"] != datatype
            ]
            answer = served.http.post(
                "/v2/models/mirror/infer",
                json={"inputs": [one, *others], "outputs": [{"name": f"{datatype.lower()}_again"}]},
            )
            assert answer.status_code == 200, answer.text
            (output,) = answer.json()["outputs"]
            assert (output["datatype"], output["shape"]) == (datatype, [2, 2])
            np.testing.assert_array_equal(np.array(output["data"], dtype=value.dtype), value.ravel())

    def test_what_is_no_number_survives_binary_and_is_null_in_json(self, served: Served) -> None:
        odd = np.array([[np.nan, np.inf], [-np.inf, 0.0]])
        floats = ("FP16", "BF16", "FP32", "FP64")
        with InferenceServerClient(f"127.0.0.1:{served.door.port}") as client:
            inputs = mirrored()
            for given in inputs:
                if given.datatype() in floats:
                    given.set_data_from_numpy(odd.astype(VALUES[given.datatype()].dtype))
            result = client.infer("mirror", inputs, headers=dict(HEADERS))
            for datatype in floats:
                np.testing.assert_array_equal(again(result, datatype).astype("f8"), odd)
            outputs = [InferRequestedOutput(f"{name.lower()}_again", binary_data=False) for name in floats]
            told = client.infer("mirror", inputs, outputs=outputs, headers=dict(HEADERS)).get_response()
        assert [output["data"] for output in told["outputs"]] == [[None, None, None, 0.0]] * 4

    def test_a_tensor_without_elements(self, triton: InferenceServerClient) -> None:
        given = InferInput("x", [3, 0], "FP32")
        given.set_data_from_numpy(np.empty((3, 0), dtype=np.float32))
        for binary in (True, False):
            wanted = [InferRequestedOutput("y", binary_data=binary)]
            result = triton.infer("double", [given], outputs=wanted, headers=dict(HEADERS))
            assert result.get_output("y")["shape"] == [3, 0]
            assert result.as_numpy("y").size == 0


def plain(array: np.ndarray) -> list[Any]:
    return array.astype("f8").tolist() if array.dtype == ml_dtypes.bfloat16 else array.tolist()


class TestRequests:
    def test_several_at_once_are_answered_each(self, triton: InferenceServerClient) -> None:
        asked = [triton.async_infer("echo", [text_input(f"text {n}")], headers=dict(HEADERS)) for n in range(16)]
        assert [one.get_result().as_numpy("echo")[0].decode() for one in asked] == [f"text {n}" for n in range(16)]

    def test_the_asynchronous_client(self, address: str) -> None:
        async def ask() -> list[InferResult]:
            async with aio.InferenceServerClient(address) as client:
                assert await client.is_server_live()
                assert await client.is_model_ready("echo", headers=HEADERS)
                metadata = await client.get_model_metadata("echo", headers=HEADERS)
                assert metadata["outputs"][0]["name"] == "echo"
                inputs = [[text_input(f"text {n}")] for n in range(16)]
                return await asyncio.gather(
                    *(
                        client.infer("echo", one, headers=dict(HEADERS), request_id=str(n))
                        for n, one in enumerate(inputs)
                    )
                )

        results = asyncio.run(ask())
        assert [one.as_numpy("echo")[0].decode() for one in results] == [f"text {n}" for n in range(16)]
        assert [one.get_response()["id"] for one in results] == [str(n) for n in range(16)]

    def test_priority_timeout_and_parameters_of_ones_own(self, triton: InferenceServerClient) -> None:
        result = triton.infer(
            "echo",
            [text_input("first")],
            priority=1,
            timeout=5_000_000,
            parameters={"tenant": "blue"},
            headers=dict(HEADERS),
        )
        assert result.as_numpy("echo").tolist() == [b"first"]

    def test_who_allows_no_time_to_wait_is_not_kept_waiting(
        self, triton: InferenceServerClient, served: Served, gate: Path
    ) -> None:
        model = served.models["echo-v1"]
        busy = triton.async_infer("echo", [text_input(f"gate:{gate}")], headers=dict(HEADERS))
        model.wait_for(in_flight=1, queued=0)
        hasty = triton.async_infer("echo", [text_input("now")], timeout=1000, headers=dict(HEADERS))
        patient = triton.async_infer("echo", [text_input("later")], headers=dict(HEADERS))
        model.wait_for(in_flight=3)
        gate.write_bytes(b"open")
        with pytest.raises(InferenceServerException, match="within the 0.001 s") as refused:
            hasty.get_result()
        assert refused.value.status() == "504"
        assert patient.get_result().as_numpy("echo").tolist() == [b"later"]
        assert busy.get_result().as_numpy("length").tolist() == [len(f"gate:{gate}")]

    def test_sequences_are_refused(self, triton: InferenceServerClient) -> None:
        for sequence_id in (7, "seven"):
            with pytest.raises(InferenceServerException, match='The parameter "sequence_id" is refused') as refused:
                triton.infer("echo", [text_input("a")], sequence_id=sequence_id, headers=dict(HEADERS))
            assert refused.value.status() == "400"

    @pytest.mark.parametrize("binary", [True, False])
    def test_the_best_classes(self, triton: InferenceServerClient, binary: bool) -> None:
        wanted = InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
        best = triton.infer("classifier", [text_input("so so!!!", "no")], outputs=[wanted], headers=dict(HEADERS))
        told = best.as_numpy("probabilities")
        assert told.shape == (2, 2)
        if binary:
            told = np.vectorize(bytes.decode, otypes=[object])(told)
        assert told.tolist() == [["0.625:0:negative", "0.375:1:positive"], ["1.0:0:negative", "0.0:1:positive"]]
        assert best.get_output("probabilities")["datatype"] == "BYTES"

    def test_classes_of_what_has_no_labels_are_refused(self, triton: InferenceServerClient) -> None:
        wanted = [InferRequestedOutput("echo", class_count=2)]
        with pytest.raises(InferenceServerException, match="this model has none") as refused:
            triton.infer("echo", [text_input("a")], outputs=wanted, headers=dict(HEADERS))
        assert refused.value.status() == "400"
        wanted = [InferRequestedOutput("label", class_count=2)]
        with pytest.raises(InferenceServerException, match='"probabilities" has them'):
            triton.infer("classifier", [text_input("a")], outputs=wanted, headers=dict(HEADERS))


class TestCompression:
    @pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
    @pytest.mark.parametrize("response_algorithm", ["gzip", "deflate"])
    @pytest.mark.parametrize("binary", [True, False])
    def test_both_ways(
        self, triton: InferenceServerClient, request_algorithm: str, response_algorithm: str, binary: bool
    ) -> None:
        x = np.arange(30_000, dtype=np.float32).reshape(100, 300)
        given = InferInput("x", list(x.shape), "FP32")
        given.set_data_from_numpy(x, binary_data=binary)
        result = triton.infer(
            "double",
            [given],
            outputs=[InferRequestedOutput("y", binary_data=binary)],
            headers=dict(HEADERS),
            request_compression_algorithm=request_algorithm,
            response_compression_algorithm=response_algorithm,
        )
        np.testing.assert_array_equal(result.as_numpy("y"), x * 2)

    def test_the_asynchronous_client(self, address: str) -> None:
        text = "long " * 20_000

        async def ask() -> InferResult:
            async with aio.InferenceServerClient(address) as client:
                return await client.infer(
                    "echo",
                    [text_input(text)],
                    headers=dict(HEADERS),
                    request_compression_algorithm="gzip",
                    response_compression_algorithm="gzip",
                )

        assert asyncio.run(ask()).as_numpy("echo")[0].decode() == text

    @pytest.mark.parametrize(
        ("accepted", "encoding"),
        [("gzip", "gzip"), ("deflate", "deflate"), ("gzip;q=0, *", "deflate"), ("identity", None), ("br", None)],
    )
    def test_what_the_answer_says_it_is(self, served: Served, accepted: str, encoding: str | None) -> None:
        def ask(text: str) -> httpx.Response:
            entry = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
            return served.http.post(
                "/v2/models/echo/infer", json={"inputs": [entry]}, headers={"Accept-Encoding": accepted}
            )

        large, small = ask("long " * 20_000), ask("short")
        assert large.headers.get("content-encoding") == encoding
        assert "content-encoding" not in small.headers
        assert large.json()["outputs"][0]["data"] == ["long " * 20_000]
        if encoding is not None:
            assert int(large.headers["content-length"]) < 10_000


class TestStatistics:
    def test_what_was_done_is_counted(self, triton: InferenceServerClient) -> None:
        def entry() -> dict[str, Any]:
            told = triton.get_inference_statistics("classifier", headers=HEADERS)
            (only,) = told["model_stats"]
            return only

        def stats(name: str, key: str = "count") -> int:
            return now["inference_stats"][name][key] - before["inference_stats"][name][key]

        before = entry()
        for texts in (["a", "b", "c"], ["d!"]):
            triton.infer("classifier", [text_input(*texts)], headers=dict(HEADERS))
        now = entry()
        assert (now["name"], now["version"]) == ("classifier", "1")
        assert now["inference_count"] - before["inference_count"] == 4
        assert now["execution_count"] - before["execution_count"] == 2
        assert now["last_inference"] > before["last_inference"]
        assert {name: stats(name) for name in now["inference_stats"]} == {
            "success": 2,
            "fail": 0,
            "queue": 2,
            "compute_input": 2,
            "compute_infer": 2,
            "compute_output": 2,
            "cache_hit": 0,
            "cache_miss": 0,
        }
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        assert all(stats(name, "ns") > 0 for name in parts)
        assert sum(stats(name, "ns") for name in parts) <= stats("success", "ns")
        sizes = {batch["batch_size"]: batch["compute_infer"] for batch in now["batch_stats"]}
        assert {1, 3} <= sizes.keys()
        assert sizes[3]["ns"] > 0
        assert now["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 30_000_000}]

    def test_failures_have_a_count_of_their_own(self, triton: InferenceServerClient) -> None:
        def entry() -> dict[str, Any]:
            return triton.get_inference_statistics("echo", "1", headers=HEADERS)["model_stats"][0]

        before = entry()
        with pytest.raises(InferenceServerException, match="the model is broken"):
            triton.infer("echo", [text_input("boom")], headers=dict(HEADERS))
        now = entry()
        assert now["inference_stats"]["fail"]["count"] == before["inference_stats"]["fail"]["count"] + 1
        assert now["inference_stats"]["fail"]["ns"] > before["inference_stats"]["fail"]["ns"]
        assert now["inference_stats"]["success"] == before["inference_stats"]["success"]
        assert now["inference_count"] == before["inference_count"]

    def test_kept_answers_are_hits(self, triton: InferenceServerClient, served: Served) -> None:
        served.change("classifier-v1", cache_ttl_seconds=60.0, cacheable=True, load="digest-1")
        for _ in range(3):
            triton.infer("classifier", [text_input("kept!")], headers=dict(HEADERS))
        (now,) = triton.get_inference_statistics("classifier-v1", headers=HEADERS)["model_stats"]
        stats = now["inference_stats"]
        assert (stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (2, 1)
        assert stats["success"]["count"] == stats["compute_infer"]["count"] + 2

    def test_of_all_models(self, triton: InferenceServerClient, served: Served) -> None:
        told = triton.get_inference_statistics(headers=HEADERS)
        assert {entry["name"] for entry in told["model_stats"]} == {
            "mirror-v1",
            "classifier-v1",
            "double-v1",
            "echo-v1",
        }
        served.change("echo-v1", state="unloaded", sockets=[])
        told = triton.get_inference_statistics(headers=HEADERS)
        assert "echo-v1" not in {entry["name"] for entry in told["model_stats"]}
        with pytest.raises(InferenceServerException, match="echo-v1 is unloaded"):
            triton.get_inference_statistics("echo", headers=HEADERS)

    def test_of_what_is_not_there(self, triton: InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match='No model named "nothing"') as refused:
            triton.get_inference_statistics("nothing", headers=HEADERS)
        assert refused.value.status() == "404"


class TestDescriptions:
    def test_the_server(self, triton: InferenceServerClient) -> None:
        assert triton.get_server_metadata(headers=HEADERS)["extensions"] == [
            "classification",
            "model_repository",
            "model_repository(unload_dependents)",
            "schedule_policy",
            "model_configuration",
            "binary_tensor_data",
            "parameters",
            "statistics",
        ]

    def test_a_model(self, triton: InferenceServerClient) -> None:
        for version in ("", "1"):
            assert triton.get_model_metadata("classifier", version, headers=HEADERS) == {
                "name": "classifier",
                "versions": ["1"],
                "platform": "in-test",
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
                ],
            }

    def test_its_configuration(self, triton: InferenceServerClient) -> None:
        config = triton.get_model_config("classifier", headers=HEADERS)
        assert (config["name"], config["backend"], config["max_batch_size"]) == ("classifier", "in-test", 64)
        assert [(one["name"], one["data_type"], one["dims"]) for one in config["input"]] == [
            ("text", "TYPE_STRING", [])
        ]
        assert [(one["name"], one["data_type"], one["dims"]) for one in config["output"]] == [
            ("label", "TYPE_STRING", []),
            ("probabilities", "TYPE_FP32", [2]),
        ]
        assert config["instance_group"][0]["count"] == 1
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 0
        assert triton.get_model_config("classifier", "1", headers=HEADERS) == config

    def test_a_configuration_of_all_datatypes_is_one_of_tritons(self, triton: InferenceServerClient) -> None:
        from google.protobuf import json_format
        from tritonclient.grpc import model_config_pb2

        config = triton.get_model_config("mirror-v1", headers=HEADERS)
        read = json_format.ParseDict(config, model_config_pb2.ModelConfig())
        assert len(read.input) == len(VALUES)
        assert read.instance_group[0].count == 1
        assert read.parameters["model_id"].string_value == "mirror-v1"

    def test_what_is_not_loaded_has_none(self, triton: InferenceServerClient, served: Served) -> None:
        served.change("classifier-v1", state="unloaded", sockets=[], signature=None)
        for ask in (triton.get_model_config, triton.get_model_metadata):
            with pytest.raises(InferenceServerException, match="classifier-v1 is unloaded") as refused:
                ask("classifier", headers=HEADERS)
            assert refused.value.status() == "409"


class TestRepository:
    def test_the_index(self, triton: InferenceServerClient, served: Served) -> None:
        index = triton.get_model_repository_index(headers=HEADERS)
        assert {entry["name"]: entry["state"] for entry in index} == {
            **dict.fromkeys(LOADED, "READY"),
            "spam-v1": "UNAVAILABLE",
        }
        ready = served.http.post("/v2/repository/index", json={"ready": True}).json()
        assert {entry["name"] for entry in ready} == LOADED

    def test_loading_and_unloading(self, triton: InferenceServerClient, served: Served) -> None:
        triton.load_model("echo-v1", headers=HEADERS)
        triton.unload_model("echo-v1", headers=HEADERS, unload_dependents=True)
        triton.unload_model("echo", headers=HEADERS)
        answer = served.http.post("/v2/repository/models/echo-v1/load", json={"parameters": {}})
        assert answer.status_code == 200
        assert served.door.answer.ended == [  # type: ignore[attr-defined]
            ("load", "echo-v1", "ada"),
            ("unload", "echo-v1", "ada"),
            ("unload", "echo-v1", "ada"),
            ("load", "echo-v1", "ada"),
        ]
        with pytest.raises(InferenceServerException, match="spam-v1 could not be loaded: no memory"):
            triton.load_model("spam", headers=HEADERS)

    def test_a_body_that_is_none_of_a_command_is_refused(self, served: Served) -> None:
        for body in ([], {"parameters": []}, {"parameters": {"unload_dependents": "yes"}}):
            answer = served.http.post("/v2/repository/models/echo-v1/unload", json=body)
            assert answer.status_code == 400, body
            assert answer.json()["error"]
        assert served.http.post("/v2/repository/index", json=[]).status_code == 400


class TestWhatIsNotOffered:
    def test_the_client_is_told(self, triton: InferenceServerClient) -> None:
        asked = [
            lambda: triton.get_trace_settings(headers=HEADERS),
            lambda: triton.get_trace_settings("echo", headers=HEADERS),
            lambda: triton.update_trace_settings("echo", {"trace_rate": "1"}, headers=HEADERS),
            lambda: triton.get_log_settings(headers=HEADERS),
            lambda: triton.update_log_settings({"log_info": True}, headers=HEADERS),
            lambda: triton.get_system_shared_memory_status(headers=HEADERS),
            lambda: triton.register_system_shared_memory("r", "/r", 8, headers=HEADERS),
            lambda: triton.unregister_system_shared_memory(headers=HEADERS),
            lambda: triton.get_cuda_shared_memory_status(headers=HEADERS),
            lambda: triton.register_cuda_shared_memory("r", b"handle", 0, 8, headers=HEADERS),
            lambda: triton.unregister_cuda_shared_memory("r", headers=HEADERS),
        ]
        for ask in asked:
            with pytest.raises(InferenceServerException, match=r"(is not offered|is not set by clients)") as refused:
                ask()
            assert refused.value.status() == "404"

    def test_shared_memory_of_a_tensor(self, triton: InferenceServerClient, served: Served) -> None:
        given = InferInput("text", [1], "BYTES")
        given.set_shared_memory("region", 8)
        with pytest.raises(InferenceServerException, match="asks for shared memory, which is not offered"):
            triton.infer("echo", [given], headers=dict(HEADERS))
        wanted = InferRequestedOutput("echo")
        wanted.set_shared_memory("region", 8)
        with pytest.raises(InferenceServerException, match="asks for shared memory, which is not offered"):
            triton.infer("echo", [text_input("a")], outputs=[wanted], headers=dict(HEADERS))


def test_the_list_of_models_that_kserve_has(served: Served) -> None:
    assert set(served.http.get("/v2/models").json()["models"]) == LOADED
