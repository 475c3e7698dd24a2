"""A real model process: it loads, says how, answers, counts, and ends when it should."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferResult

from loaderd import protocol, wire
from loaderd.errors import InvalidInput, ModelNotLoaded, ModelTimeout, Overloaded, PredictionFailed
from loaderd.protocol import ArtifactFile
from tests.deadline import wait_until
from tests.loaderd.worker.process import ANSWER_SECONDS, Client, ModelProcess, answer_of, spec


@pytest.fixture
def model(tmp_path: Path) -> Iterator[ModelProcess]:
    with ModelProcess(spec(max_batch_size=4, max_queue=8), tmp_path / "data.sock") as process:
        process.ready()
        yield process


@pytest.fixture
def client(model: ModelProcess) -> Iterator[Client]:
    with Client(model.data_socket) as connected:
        yield connected


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A fifo: a text `gate:<it>` keeps the model busy until `open_gate`."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def open_gate(gate: Path) -> None:
    gate.write_bytes(b"open")


_INFER_HEAD = b'{"name":"m","header_bytes":null}'


def _infer(text: str, **parameters: int) -> bytes:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}]
    return json.dumps({"inputs": inputs, "parameters": parameters}).encode()


class TestLoading:
    def test_it_tells_its_phases_and_its_signature(self, tmp_path: Path) -> None:
        with ModelProcess(spec("classifier"), tmp_path / "data.sock") as process:
            phases, ready = process.ended_load()
            assert list(dict.fromkeys(phase["phase"] for phase in phases)) == [
                "verifying",
                "loading",
                "warming_up",
                "checking",
            ]
            loading = [phase["progress"] for phase in phases if phase["phase"] == "loading"]
            assert loading == sorted(loading)
            assert 50 <= len(loading) <= 102, "progress is told in steps, not in every call of the framework"
            assert ready["signature"] == {
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [
                    {"name": "label", "datatype": "BYTES", "shape": [-1]},
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
                ],
                "labels": ["negative", "positive"],
                "sample_input": {"inputs": ["good!"]},
            }
            assert set(ready["phase_seconds"]) == {"verifying", "loading", "warming_up", "checking"}
            assert process.data_socket.stat().st_mode & 0o777 == 0o600
            with Client(process.data_socket) as client:
                assert client.predict(*ready["signature"]["sample_input"]["inputs"])["predictions"][0]["label"]

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("explode", "KeyError: 'weights.bin'; see the end of its log"),
            ("memory", "MemoryError; its process ran out of memory"),
            ("exit", "SystemExit: 9; see the end of its log"),
        ],
    )
    def test_a_failed_load_is_told_with_its_reason_and_status_3(self, tmp_path: Path, kind: str, reason: str) -> None:
        with ModelProcess(spec(kind), tmp_path / "data.sock") as process:
            _, failed = process.ended_load()
            assert failed["event"] == "failed"
            assert failed["error"]["code"] == "load_failed"
            assert failed["error"]["message"].startswith(f"{kind}-v1 could not be loaded: {reason}")
            assert process.process.wait() == 3
            assert process.process.stderr is not None
            assert b"Traceback" in process.process.stderr.read()

    def test_a_model_that_fails_at_its_own_sample_is_not_loaded(self, tmp_path: Path) -> None:
        bad = {"source": "metadata", "inputs": ["boom"], "predictions": []}
        with ModelProcess(spec(canary=bad), tmp_path / "data.sock") as process:
            phases, failed = process.ended_load()
            assert phases[-1]["phase"] == "checking"
            assert failed["error"]["code"] == "load_failed"
            assert failed["error"]["message"].startswith(
                "echo-v1 could not be checked: ValueError: the model is broken;"
            )

    def test_changed_files_end_the_load_before_the_framework_sees_them(self, tmp_path: Path) -> None:
        (tmp_path / "weights").write_bytes(b"other")
        file = ArtifactFile("weights", 5, 1, 1, hashlib.sha256(b"right").hexdigest())
        with ModelProcess(spec(directory=str(tmp_path), files=(file,)), tmp_path / "data.sock") as process:
            phases, failed = process.ended_load()
            assert {phase["phase"] for phase in phases} == {"verifying"}
            assert failed["error"]["code"] == "artifact_changed"

    def test_it_ends_when_the_supervisor_goes_during_the_load(self, tmp_path: Path, gate: Path) -> None:
        hanging = spec("never", config={"kind": "never", "fifo": str(gate)})
        with ModelProcess(hanging, tmp_path / "data.sock") as process:
            while process.receive()["phase"] != "loading":
                pass
            process.channel.close()
            assert process.process.wait(timeout=5) == 0


class TestAnswering:
    def test_a_plain_prediction(self, client: Client) -> None:
        answer = client.predict("one", "three")
        assert answer.pop("latency_ms") > 0
        assert answer == {
            "model_id": "echo-v1",
            "version": "1",
            "predictions": [
                {"outputs": {"echo": "one", "length": 3, "batch": 2}},
                {"outputs": {"echo": "three", "length": 5, "batch": 2}},
            ],
        }

    def test_an_open_inference_request_in_json(self, client: Client) -> None:
        text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["ä"]}
        message = client.infer({"id": "1", "inputs": [text], "outputs": [{"name": "length"}]}, name="asked")
        assert message.head == b""
        assert json.loads(message.body) == {
            "model_name": "asked",
            "model_version": "1",
            "id": "1",
            "outputs": [{"name": "length", "datatype": "INT64", "shape": [1], "data": [1]}],
        }

    def test_an_open_inference_request_in_binary(self, tmp_path: Path) -> None:
        with ModelProcess(spec("double"), tmp_path / "data.sock") as process:
            process.ready()
            with Client(process.data_socket) as client:
                x = np.random.default_rng(0).random((3, 200_000), dtype=np.float32)  # many frames
                size = {"binary_data_size": x.nbytes}
                entry = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": size}
                request = {"inputs": [entry], "parameters": {"binary_data_output": True}}
                message = client.infer(request, binary=x.tobytes())
                result = InferResult.from_response_body(bytes(message.body), header_length=int(message.head))
                np.testing.assert_array_equal(result.as_numpy("y"), x * 2)

    def test_a_request_larger_than_a_batch_is_cut_and_joined_again(self, client: Client) -> None:
        texts = [f"text {index}" for index in range(11)]
        answer = client.predict(*texts)
        assert [row["outputs"]["echo"] for row in answer["predictions"]] == texts
        assert [row["outputs"]["batch"] for row in answer["predictions"]] == [4] * 8 + [3] * 3

    def test_what_queued_while_the_model_was_busy_goes_into_one_call(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        first = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        rest = [client.submit(f"text {index}") for index in range(4)]
        model.wait_for(in_flight=5, queued=4)
        open_gate(gate)
        answer_of(first)
        assert [answer_of(one)["predictions"][0]["outputs"]["batch"] for one in rest] == [4] * 4
        assert model.stats()["batches"] == 2

    def test_several_connections_are_served(self, model: ModelProcess, client: Client) -> None:
        with Client(model.data_socket) as other:
            assert other.predict("a")["predictions"] == client.predict("a")["predictions"]


class TestFailing:
    def test_a_malformed_request_fails_alone_and_is_not_counted(self, model: ModelProcess, client: Client) -> None:
        with pytest.raises(InvalidInput, match="Item 0 must be a text, not 1"):
            client.predict(1)
        with pytest.raises(InvalidInput, match=r"The request's JSON cannot be read"):
            answer_of(client.send(wire.Kind.PREDICT, b"", b"{")[1])
        counters = model.stats()
        assert (counters["requests"], counters["errors"], counters["in_flight"]) == (0, 0, 0)

    def test_only_the_culprits_of_a_batch_fail(self, model: ModelProcess, client: Client, gate: Path) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        good, broken, refused, fine = (client.submit(text) for text in ("good", "boom", "refuse", "fine"))
        model.wait_for(queued=4)
        open_gate(gate)
        answer_of(busy)
        assert answer_of(good)["predictions"][0]["outputs"]["echo"] == "good"
        assert answer_of(fine)["predictions"][0]["outputs"]["echo"] == "fine"
        with pytest.raises(InvalidInput, match="this text is refused"):
            answer_of(refused)
        with pytest.raises(PredictionFailed) as failed:
            answer_of(broken)
        assert failed.value.message.startswith("echo-v1 failed to predict: ValueError: the model is broken")
        assert "Traceback" not in failed.value.message
        counters = model.stats()
        assert (counters["requests"], counters["errors"]) == (4, 1)
        assert counters["last_error"] == failed.value.message

    def test_an_error_that_is_no_unicode_is_told_and_the_others_are_answered(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        broken, good, fine = (client.submit(text) for text in ("surrogate", "good", "fine"))
        model.wait_for(queued=3)
        open_gate(gate)
        with pytest.raises(PredictionFailed, match=r"cannot open 'weights-\?.bin'"):
            answer_of(broken)
        for one in (busy, good, fine):
            answer_of(one)
        assert model.stats()["in_flight"] == 0

    def test_a_large_request_that_fails_in_one_part_fails_once(self, model: ModelProcess, client: Client) -> None:
        with pytest.raises(PredictionFailed):
            client.predict("a", "b", "c", "d", "boom", "e", "f", "g", "h", "i")
        assert client.predict("after")["predictions"]
        counters = model.stats()
        assert (counters["requests"], counters["errors"], counters["in_flight"], counters["queued"]) == (2, 1, 0, 0)

    def test_an_output_that_breaks_the_signature_is_the_models_failure(self, tmp_path: Path) -> None:
        with ModelProcess(spec("careless"), tmp_path / "data.sock") as process:
            process.ready()
            with (
                Client(process.data_socket) as client,
                pytest.raises(PredictionFailed, match='gave 1 rows of "y" for 2'),
            ):
                client.predict([1.0], [2.0])

    def test_a_full_queue_refuses_at_once(self, model: ModelProcess, client: Client, gate: Path) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        waiting = [client.submit(f"text {index}") for index in range(8)]
        model.wait_for(queued=8)
        with pytest.raises(Overloaded, match="echo-v1 has 8 requests waiting, which is its limit"):
            client.predict("one too many")
        open_gate(gate)
        for one in (busy, *waiting):
            answer_of(one)
        assert model.stats()["requests"] == 9

    def test_abandoned_requests_count_until_the_model_is_free_again(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        for _ in range(8):
            gone, _ = client.send(wire.Kind.PREDICT, b"", b'{"inputs":["gone"]}')
            client.cancel(gone, b"gone")
        with pytest.raises(Overloaded, match=r"8 requests waiting \(8 of them abandoned since\)"):
            client.predict("one too many")
        assert model.stats()["in_flight"] == 1
        open_gate(gate)
        answer_of(busy)
        client.predict("room again")
        waiting = [client.submit(f"text {index}") for index in range(8)]
        for one in waiting:
            answer_of(one)

    def test_requests_that_nobody_waits_for_are_not_computed(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        gone, _ = client.send(wire.Kind.PREDICT, b"", b'{"inputs":["gone"]}')
        late, _ = client.send(wire.Kind.PREDICT, b"", b'{"inputs":["late"]}')
        with Client(model.data_socket) as leaving:
            leaving.submit("left").add_done_callback(lambda done: done.exception())
            model.wait_for(queued=3)
        client.cancel(gone, b"gone")
        client.cancel(late, b"timeout")
        model.wait_for(in_flight=1)
        last = client.submit("last")
        model.wait_for(in_flight=2)
        open_gate(gate)
        answer_of(busy)
        answer_of(last)
        counters = model.stats()
        assert counters["batches"] == 2
        assert (counters["requests"], counters["items"], counters["errors"]) == (3, 3, 1), "the late one is an error"
        assert counters["last_error"] == "no answer in time"
        assert (counters["in_flight"], counters["queued"]) == (0, 0)

    def test_a_request_that_may_not_wait_any_longer_is_not_computed(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        late = client.send(wire.Kind.INFER, _INFER_HEAD, _infer("late", timeout=1))[1]
        patient = client.send(wire.Kind.INFER, _INFER_HEAD, _infer("patient", timeout=60_000_000))[1]
        model.wait_for(queued=2)
        open_gate(gate)
        answer_of(busy)
        with pytest.raises(ModelTimeout, match=r"did not begin with the request within the 1e-06 s that it allowed"):
            answer_of(late)
        assert answer_of(patient)["outputs"][0]["data"] == ["patient"]
        counters = model.stats()
        assert (counters["batches"], counters["requests"], counters["errors"]) == (2, 3, 1)

    def test_bulk_work_goes_behind_everybody_else(self, model: ModelProcess, client: Client, gate: Path) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        over: list[str] = []
        asked = {
            "bulk": (_INFER_HEAD[:-1] + b',"bulk":true}', _infer("bulk")),
            "low": (_INFER_HEAD, _infer("low", priority=2)),
            "plain": (_INFER_HEAD, _infer("plain")),
            "urgent": (_INFER_HEAD, _infer("urgent", priority=1)),
        }
        for name, (head, body) in asked.items():
            answer = client.send(wire.Kind.INFER, head, body)[1]
            answer.add_done_callback(lambda _, name=name: over.append(name))
        model.wait_for(queued=4)
        open_gate(gate)
        answer_of(busy)
        model.wait_for(in_flight=0)
        assert [*over[:2], *sorted(over[2:])] == ["urgent", "plain", "bulk", "low"]

    def test_what_can_be_prepared_is_prepared_while_the_model_computes(self, tmp_path: Path, gate: Path) -> None:
        with ModelProcess(spec("prepared"), tmp_path / "data.sock") as process:
            process.ready()
            with Client(process.data_socket) as client:
                busy = client.submit(f"gate:{gate}")
                process.wait_for(in_flight=1, queued=0)
                ahead, refused = client.submit("one", "two"), client.submit("unprepared")
                with pytest.raises(InvalidInput, match="cannot be prepared"):
                    answer_of(refused)  # while the model is still busy
                open_gate(gate)
                answer_of(busy)
                answers = [prediction["outputs"]["echo"] for prediction in answer_of(ahead)["predictions"]]
                assert answers == ["ONE by preparing", "TWO by preparing"]

    def test_tokens_are_told_to_who_asks_for_them(self, tmp_path: Path) -> None:
        with ModelProcess(spec("prepared"), tmp_path / "data.sock") as process:
            process.ready()
            with Client(process.data_socket) as client:
                head = _INFER_HEAD[:-1] + b',"usage":true}'
                message = client.send(wire.Kind.INFER, head, _infer("three words here"))[1].result(5)
                assert json.loads(message.head) == {"header_bytes": None, "usage": {"tokens": 3}}
                assert [output["name"] for output in json.loads(message.body)["outputs"]] == ["echo", "length", "batch"]
                untold = client.send(wire.Kind.INFER, _INFER_HEAD, _infer("three words here"))[1].result(5)
                assert untold.head == b""


class TestServing:
    def test_its_door_stays_open_when_garbage_is_collected(self, model: ModelProcess, gate: Path) -> None:
        with Client(model.data_socket) as leaving:  # a connection would hold the listener while it lasts
            leaving.submit(f"gate:{gate}", "collect").add_done_callback(lambda left: left.exception())
            model.wait_for(in_flight=1, queued=0)  # it is in the model: one that waits would not be computed
        model.wait_for(in_flight=0)
        open_gate(gate)
        wait_until(lambda: model.stats()["busy_seconds"] == 0.0, what="the end of the collection")
        with Client(model.data_socket) as client:
            assert client.predict("one")["predictions"] == [{"outputs": {"echo": "one", "length": 3, "batch": 1}}]

    def test_a_knock_is_answered_at_once_and_counts_as_no_request(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1)
        answer = client.send(wire.Kind.PING, b"")[1].result(ANSWER_SECONDS)
        assert (answer.kind, answer.head, bytes(answer.body)) == (wire.Kind.ANSWER, b"", b"")
        open_gate(gate)
        answer_of(busy)
        assert model.stats()["requests"] == 1

    def test_counters_add_up(self, model: ModelProcess, client: Client) -> None:
        before = time.time()
        for request in (["a"], ["b", "c"], ["d"] * 9):
            client.predict(*request)
        counters = model.stats()
        assert (counters["requests"], counters["items"], counters["errors"]) == (3, 12, 0)
        assert counters["batches"] == 1 + 1 + 3
        assert before <= counters["last_at"] <= time.time()
        assert counters["started_at"] <= before
        assert sum(counters["histogram"]) == 3
        assert 0 <= counters["queue_seconds"] < counters["latency_seconds"]
        assert 0 < counters["compute_seconds"] <= counters["latency_seconds"] < 5

    def test_it_answers_stats_while_the_model_computes_in_python(
        self, model: ModelProcess, client: Client, tmp_path: Path
    ) -> None:
        spinning = client.submit(f"spin:{tmp_path / 'enough'}")
        model.wait_for(in_flight=1, queued=0)
        took = []
        for _ in range(20):
            asked_at = time.perf_counter()
            model.stats()
            took.append(time.perf_counter() - asked_at)
        (tmp_path / "enough").touch()
        answer_of(spinning)
        # Between 1 ms and 5 ms on an idle machine; without turns for the event loop it would be the whole computation.
        assert min(took) < 0.5

    def test_the_highest_queue_between_two_looks_is_kept(self, model: ModelProcess, client: Client, gate: Path) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        rest = [client.submit(f"text {index}") for index in range(3)]
        model.wait_for(queued=3)
        open_gate(gate)
        for one in (busy, *rest):
            answer_of(one)
        after, later = model.stats(), model.stats()
        assert (after["max_in_flight"], after["max_queued"]) == (4, 3)
        assert (later["max_in_flight"], later["max_queued"]) == (0, 0)

    def test_a_call_that_does_not_end_shows_its_age(self, model: ModelProcess, client: Client, gate: Path) -> None:
        assert model.stats()["busy_seconds"] == 0.0
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        first = model.stats()["busy_seconds"]
        assert 0.0 < first < model.stats()["busy_seconds"]
        open_gate(gate)
        answer_of(busy)
        assert model.stats()["busy_seconds"] == 0.0

    def test_drain_answers_what_is_in_flight_and_refuses_what_comes(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy, queued = client.submit(f"gate:{gate}"), client.submit("queued")
        model.wait_for(in_flight=2)
        protocol.send(model.channel, {"command": "drain"})
        model.stats()  # the drain was taken before
        with pytest.raises(ModelNotLoaded, match="echo-v1 is being unloaded"):
            client.predict("too late")
        open_gate(gate)
        drained = model.receive()
        assert drained["event"] == "drained"
        assert (drained["counters"]["requests"], drained["counters"]["in_flight"]) == (2, 0)
        model.process.kill()
        assert answer_of(busy)["predictions"]
        assert answer_of(queued)["predictions"]

    @pytest.mark.parametrize("unloads", ["well", "badly", "never"])
    def test_drain_lets_the_model_give_back_what_it_holds(self, tmp_path: Path, unloads: str) -> None:
        holding = spec("holding", directory=str(tmp_path), config={"kind": "holding", "unloads": unloads})
        with ModelProcess(holding, tmp_path / "data.sock") as process:
            process.ready()
            assert (tmp_path / "held").exists()
            protocol.send(process.channel, {"command": "drain"})
            assert process.receive()["event"] == "drained"
            assert (tmp_path / "held").exists() == (unloads != "well")

    def test_it_ends_at_once_when_the_supervisor_goes_though_it_computes(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        client.submit(f"gate:{gate}").add_done_callback(lambda done: done.exception())
        model.wait_for(in_flight=1)
        model.channel.close()
        assert model.process.wait(timeout=5) == 0
        assert client.lost.wait(5)

    def test_ctrl_c_does_not_end_it(self, model: ModelProcess, client: Client) -> None:
        model.process.send_signal(signal.SIGINT)
        assert client.predict("still here")["predictions"]

    def test_a_prediction_that_kills_the_process_ends_the_connection(self, model: ModelProcess, client: Client) -> None:
        future: Any = client.submit("die")
        with pytest.raises(ConnectionError):
            future.result(5)
        assert model.process.wait() == -signal.SIGKILL


class TestCanary:
    def test_it_is_recorded_at_the_first_load_and_holds_at_the_second(self, tmp_path: Path) -> None:
        with ModelProcess(spec("classifier"), tmp_path / "data.sock") as process:
            canary = process.ready()["canary"]
        recorded = canary["recorded"]
        assert (canary["ok"], canary["seconds"] >= 0) == (True, True)
        assert (recorded["source"], recorded["inputs"], recorded["reproducible"]) == ("recorded", ["good!"], True)
        assert recorded["outputs"] == {"label": ["negative"], "probabilities": pytest.approx([0.8, 0.2])}
        with ModelProcess(spec("classifier", canary=recorded), tmp_path / "data.sock") as process:
            again = process.ready()["canary"]
            assert (again["ok"], again["recorded"]) == (True, None)
            assert process.ask_canary()["ok"] is True

    def test_another_answer_than_recorded_fails_the_load(self, tmp_path: Path) -> None:
        recorded = {
            "source": "recorded",
            "inputs": ["good!"],
            "outputs": {"label": ["positive"], "probabilities": [0.8, 0.2]},
            "tolerance": {"rtol": 1e-3, "atol": 1e-4},
            "reproducible": True,
        }
        with ModelProcess(spec("classifier", canary=recorded), tmp_path / "data.sock") as process:
            _, failed = process.ended_load()
            assert failed["error"]["code"] == "canary_failed"
            assert failed["error"]["message"].startswith(
                "classifier-v1 is not loaded: it answers its canary wrongly: "
                'label[0] is "negative", recorded "positive"; its files are those that answered otherwise before'
            )
            assert process.process.wait() == 3

    def test_it_is_asked_again_while_the_model_serves(self, model: ModelProcess, client: Client) -> None:
        assert model.ask_canary()["ok"] is True
        client.predict("mute")
        wrong = model.ask_canary()
        assert wrong["ok"] is False
        assert wrong["reason"] == 'it answers its canary wrongly: echo[0] is "", recorded "a sample"'
        client.predict("loud")
        assert model.ask_canary() | {"seconds": 0} == {"ok": True, "seconds": 0, "reason": ""}
        assert model.stats()["requests"] == 2, "a canary is no request"

    def test_it_is_asked_between_two_calls_however_many_wait(
        self, model: ModelProcess, client: Client, gate: Path, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "second")
        first = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        second = client.submit(f"gate:{tmp_path / 'second'}")
        model.wait_for(queued=1)
        protocol.send(model.channel, {"command": "canary", "id": 1})
        model.stats()  # taken, and not answered: the first call runs
        open_gate(gate)
        assert model.receive()["event"] == "canary"
        assert not second.done()
        open_gate(tmp_path / "second")
        answer_of(first)
        answer_of(second)

    def test_a_model_that_is_not_reproducible_only_has_to_answer(self, tmp_path: Path) -> None:
        with ModelProcess(spec("drifting"), tmp_path / "data.sock") as process:
            recorded = process.ready()["canary"]["recorded"]
            assert recorded["reproducible"] is False
            assert process.ask_canary()["ok"] is True
        with ModelProcess(spec("drifting", canary=recorded), tmp_path / "data.sock") as process:
            assert process.ready()["canary"]["ok"] is True


class TestTraces:
    def test_an_untraced_answer_has_no_timings(self, client: Client) -> None:
        assert client.submit("plain").result(5).head == b""

    def test_a_traced_prediction_tells_where_its_time_went(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        traced = client.send(wire.Kind.PREDICT, b'{"trace": true}', b'{"inputs":["a","b"]}')[1]
        beside = client.submit("c")
        model.wait_for(in_flight=3, queued=2)
        waited_from = model.stats()["busy_seconds"]
        open_gate(gate)
        head = json.loads(traced.result(5).head)
        answer_of(busy)
        answer_of(beside)
        assert head["header_bytes"] is None
        trace = head["trace"]
        assert set(trace) == {"queue_seconds", "compute_seconds", "items", "batch_items"}
        assert (trace["items"], trace["batch_items"]) == (2, 3)
        assert 0 < trace["queue_seconds"] < 5
        assert 0 < trace["compute_seconds"] < 1
        assert waited_from > 0

    def test_a_traced_binary_answer_keeps_the_length_of_its_header(self, client: Client) -> None:
        request = {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}],
            "parameters": {"binary_data_output": True},
        }
        asked = json.dumps({"name": "m", "header_bytes": None, "trace": True}).encode()
        message = client.send(wire.Kind.INFER, asked, json.dumps(request).encode())[1].result(5)
        head = json.loads(message.head)
        result = InferResult.from_response_body(bytes(message.body), header_length=head["header_bytes"])
        assert result.as_numpy("length").tolist() == [1]
        assert head["trace"]["batch_items"] == 1

    def test_a_failed_prediction_is_traced_too(self, client: Client) -> None:
        message = client.send(wire.Kind.PREDICT, b'{"trace": true}', b'{"inputs":["boom"]}')[1].result(5)
        assert message.kind == wire.Kind.ERROR
        assert json.loads(message.head)["trace"]["items"] == 1


class TestLimits:
    def test_an_allocation_past_the_models_limit_fails_alone(self, tmp_path: Path) -> None:
        limited = spec(memory_limit_bytes=64 * 2**20)
        with ModelProcess(limited, tmp_path / "data.sock") as process:
            process.ready()
            with Client(process.data_socket) as client:
                with pytest.raises(PredictionFailed, match=r"ran out of memory .* raise its memory_limit_mb \(64\)"):
                    client.predict("hog:512")
                assert client.predict("hog:8")["predictions"]

    def test_a_load_past_the_models_limit_names_it(self, tmp_path: Path) -> None:
        with ModelProcess(spec("large", memory_limit_bytes=64 * 2**20), tmp_path / "data.sock") as process:
            _, failed = process.ended_load()
            assert failed["error"]["code"] == "load_failed"
            assert failed["error"]["message"].endswith(
                "; it needs more memory than its limit; raise its memory_limit_mb (64)."
            )

    def test_code_that_does_not_expect_the_limit_aborts_and_its_log_says_why(self, tmp_path: Path) -> None:
        with ModelProcess(spec(memory_limit_bytes=64 * 2**20), tmp_path / "data.sock") as process:
            process.ready()
            with Client(process.data_socket) as client:
                client.submit("new:512").add_done_callback(lambda done: done.exception())
                assert process.process.wait(5) == -signal.SIGABRT
                assert "std::bad_alloc" in process.log()

    def test_a_lost_gpu_ends_the_process_once_it_has_answered(self, model: ModelProcess, client: Client) -> None:
        with pytest.raises(PredictionFailed, match="device-side assert"):
            client.predict("lose the gpu")
        assert model.process.wait(5) == 4
        assert client.lost.wait(5)
        assert "the GPU of echo-v1 is lost to its process" in model.log()

    def test_a_process_that_cannot_compute_any_more_ends(self, tmp_path: Path) -> None:
        with ModelProcess(spec("broken"), tmp_path / "data.sock") as process:
            process.ready()
            with Client(process.data_socket) as client:
                assert client.predict("first")["predictions"]
                never = client.send(wire.Kind.GENERATE, b"", b"{}")[1]
                assert process.process.wait(5) == 1
                with pytest.raises(ConnectionError):
                    answer_of(never)
            assert "the generator lost its mind" in process.log()

    def test_a_lost_gpu_fails_the_whole_batch_without_another_try(
        self, model: ModelProcess, client: Client, gate: Path
    ) -> None:
        busy = client.submit(f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        batch = [client.submit(text) for text in ("good", "lose the gpu")]
        model.wait_for(queued=2)
        open_gate(gate)
        answer_of(busy)
        for one in batch:
            with pytest.raises(PredictionFailed, match="CUDA error"):
                answer_of(one)
        assert model.process.wait(5) == 4
