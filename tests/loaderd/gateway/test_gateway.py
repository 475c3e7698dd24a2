"""The door under load, with models that die and clients that leave."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from loaderd import protocol
from loaderd.gateway.body import MAX_BODY_BYTES
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import SECONDS, TOKEN, Door, grant, row
from tests.loaderd.worker.process import ModelProcess, spec


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def infer(served: Served, text: str, model: str = "echo-v1") -> httpx.Response:
    entry = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
    return served.http.post(f"/v2/models/{model}/infer", json={"inputs": [entry]})


def output(response: httpx.Response, name: str) -> Any:
    assert response.status_code == 200, response.text
    (found,) = [entry["data"] for entry in response.json()["outputs"] if entry["name"] == name]
    return found[0]


class TestBatching:
    def test_requests_that_meet_share_a_call_and_counters_add_up(
        self, fresh: Served, gate: Path, pool: ThreadPoolExecutor
    ) -> None:
        model = fresh.models["echo-v1"]
        busy = pool.submit(infer, fresh, f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        waiting = [pool.submit(infer, fresh, f"text {index}") for index in range(20)]
        model.wait_for(queued=20)
        gate.write_bytes(b"open")
        assert [output(one.result(), "echo") for one in waiting] == [f"text {index}" for index in range(20)]
        assert [output(one.result(), "batch") for one in waiting] == [20] * 20
        assert output(busy.result(), "batch") == 1
        more = [pool.submit(infer, fresh, "boom" if index % 10 == 0 else "fine") for index in range(200)]
        statuses = [one.result().status_code for one in more]
        assert (statuses.count(200), statuses.count(500)) == (180, 20)
        counters = model.stats()
        assert (counters["requests"], counters["items"], counters["errors"]) == (221, 221, 20)
        assert (counters["in_flight"], counters["queued"]) == (0, 0)
        assert fresh.models["classifier-v1"].stats()["requests"] == 0


class TestFailing:
    def test_a_killed_model_fails_its_requests_only(self, fresh: Served, gate: Path, pool: ThreadPoolExecutor) -> None:
        model = fresh.models["echo-v1"]
        doomed = [pool.submit(infer, fresh, f"gate:{gate}")]
        model.wait_for(in_flight=1)
        doomed.append(pool.submit(infer, fresh, "waits"))
        model.wait_for(in_flight=2)
        os.kill(model.process.pid, signal.SIGKILL)
        for one in doomed:
            assert one.result().status_code == 503
            assert one.result().json()["error"].startswith("The process of echo-v1 ended before it answered")
        assert infer(fresh, "again").status_code == 503
        other = fresh.http.post(
            "/v2/models/classifier-v1/infer",
            json={"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["!"]}]},
        )
        assert output(other, "label") == "positive"

    def test_the_supervisor_is_told_of_the_requests_that_a_process_lost_and_of_a_door_that_takes_none(
        self, fresh: Served, gate: Path, pool: ThreadPoolExecutor
    ) -> None:
        model = fresh.models["echo-v1"]
        socket_path = fresh.table["echo-v1"]["sockets"][0]
        held = pool.submit(infer, fresh, f"gate:{gate}")
        model.wait_for(in_flight=1)
        os.kill(model.process.pid, signal.SIGKILL)
        assert held.result().status_code == 503
        silent = {"event": "silent", "model_id": "echo-v1", "socket": socket_path}
        assert fresh.door.silent.get(timeout=SECONDS) == silent
        (lost,) = fresh.door.seen.get(timeout=SECONDS)["lost"]
        assert (lost["model_id"], lost["requests"], sum(lost["histogram"])) == ("echo-v1", 1, 1)
        assert lost["error"].startswith("The process of echo-v1 ended before it answered")
        model.data_socket.unlink()
        assert infer(fresh, "nobody listens").status_code == 503
        assert fresh.door.silent.get(timeout=SECONDS) == silent
        (lost,) = fresh.door.seen.get(timeout=SECONDS)["lost"]
        assert (lost["requests"], lost["latency_seconds"] > 0) == (1, True)

    def test_a_model_that_is_loaded_again_answers_again(self, fresh: Served, tmp_path: Path) -> None:
        os.kill(fresh.models["echo-v1"].process.pid, signal.SIGKILL)
        assert infer(fresh, "dead").status_code == 503
        with ModelProcess(spec(), tmp_path / "again.sock") as again:
            again.ready()
            fresh.table["echo-v1"] = row(again, again.signature)
            fresh.door.route(fresh.table)
            assert output(infer(fresh, "alive"), "echo") == "alive"

    def test_unloading_finishes_what_is_in_flight(self, fresh: Served, gate: Path, pool: ThreadPoolExecutor) -> None:
        model = fresh.models["echo-v1"]
        busy = pool.submit(infer, fresh, f"gate:{gate}")
        model.wait_for(in_flight=1)
        queued = pool.submit(infer, fresh, "queued")
        model.wait_for(in_flight=2)
        fresh.change("echo-v1", state="unloading", sockets=[])
        assert infer(fresh, "too late").status_code == 409
        protocol.send(model.channel, {"command": "drain"})
        gate.write_bytes(b"open")
        assert model.receive()["event"] == "drained"
        model.process.kill()
        assert output(busy.result(), "echo").startswith("gate:")
        assert output(queued.result(), "echo") == "queued"

    def test_a_prediction_that_takes_too_long_is_504_and_counted(self, tmp_path: Path, gate: Path) -> None:
        with Door(tmp_path, predict_timeout_seconds=0.3) as door, ModelProcess(spec(), tmp_path / "m.sock") as model:
            door.listening()
            door.allow({TOKEN: grant("ada", "predict")})
            model.ready()
            door.route({"echo-v1": row(model, model.signature)})
            served = Served(door, door.http(), {}, {})
            late = infer(served, f"gate:{gate}")
            assert late.status_code == 504
            assert late.json()["error"].startswith("echo-v1 gave no answer within 0.3 s")
            gate.write_bytes(b"open")
            model.wait_for(in_flight=0, requests=1, errors=1)

    def test_a_full_queue_is_429_with_a_hint(
        self, door: Door, tmp_path: Path, gate: Path, pool: ThreadPoolExecutor
    ) -> None:
        with ModelProcess(spec(max_queue=2), tmp_path / "m.sock") as model:
            model.ready()
            door.route({"echo-v1": row(model, model.signature)})
            served = Served(door, door.http(), {}, {})
            busy = pool.submit(infer, served, f"gate:{gate}")
            model.wait_for(in_flight=1, queued=0)
            waiting = [pool.submit(infer, served, "waits") for _ in range(2)]
            model.wait_for(queued=2)
            refused = infer(served, "one too many")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            gate.write_bytes(b"open")
            for one in (busy, *waiting):
                assert one.result().status_code == 200

    def test_the_gateway_itself_refuses_what_a_busy_model_could_not_queue(
        self, fresh: Served, gate: Path, pool: ThreadPoolExecutor
    ) -> None:
        model = fresh.models["echo-v1"]
        fresh.change("echo-v1", max_queue=1, max_batch_size=2)
        waiting = [pool.submit(infer, fresh, f"gate:{gate}")]
        model.wait_for(in_flight=1, queued=0)
        waiting += [pool.submit(infer, fresh, "waits") for _ in range(2)]
        model.wait_for(queued=2)
        refused = infer(fresh, "one too many")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"].startswith("echo-v1 has 3 requests waiting, which is its limit")
        gate.write_bytes(b"open")
        assert [one.result().status_code for one in waiting] == [200] * 3
        assert infer(fresh, "after").status_code == 200

    def test_the_work_of_a_client_that_left_is_dropped(
        self, fresh: Served, gate: Path, pool: ThreadPoolExecutor
    ) -> None:
        model = fresh.models["echo-v1"]
        busy = pool.submit(infer, fresh, f"gate:{gate}")
        model.wait_for(in_flight=1, queued=0)
        body = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["left"]}]})
        with socket.create_connection(("127.0.0.1", fresh.door.port)) as leaving:
            leaving.sendall(
                f"POST /v2/models/echo-v1/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Token {TOKEN}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            model.wait_for(queued=1)
        model.wait_for(in_flight=1)
        gate.write_bytes(b"open")
        assert busy.result().status_code == 200
        assert output(infer(fresh, "after"), "batch") == 1
        model.wait_for(requests=2, batches=2)


class TestLargeBodies:
    def test_64_mb_pass_both_ways_within_bounded_memory(self, served: Served) -> None:
        x = np.random.default_rng(2).random((63, 1024 * 256), dtype=np.float32)  # 63 MiB and a little JSON
        with InferenceServerClient(f"127.0.0.1:{served.door.port}", network_timeout=60) as triton:
            given = InferInput("x", list(x.shape), "FP32")
            given.set_data_from_numpy(x)
            result = triton.infer("double-v1", [given], headers={"Authorization": f"Token {TOKEN}"})
            np.testing.assert_array_equal(result.as_numpy("y"), x * 2)
        assert _peak_bytes(served.door.process.pid) < 64 * 1024 * 1024 * 4

    def test_small_requests_pass_while_many_large_ones_are_sent(self, served: Served, pool: ThreadPoolExecutor) -> None:
        x = np.zeros((16, 1024 * 256), dtype=np.float32)
        head = json.dumps(
            {
                "inputs": [
                    {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
                ],
                "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
            }
        ).encode()
        body, headers = head + x.tobytes(), {"Inference-Header-Content-Length": str(len(head))}

        def send() -> int:
            answer = served.http.post("/v2/models/double-v1/infer", content=body, headers=headers)
            return answer.status_code if len(answer.content) > x.nbytes else 0

        large: list[Future[int]] = [pool.submit(send) for _ in range(24)]  # 384 MiB: more than the budget
        while not all(one.done() for one in large):
            assert infer(served, "small").status_code == 200
        assert [one.result() for one in large] == [200] * 24
        assert _peak_bytes(served.door.process.pid) < 900 * 1024 * 1024

    def test_a_body_that_does_not_come_is_408_and_frees_its_memory(self, tmp_path: Path) -> None:
        with Door(tmp_path, predict_timeout_seconds=0.5) as door, ModelProcess(spec(), tmp_path / "m.sock") as model:
            door.listening()
            door.allow({TOKEN: grant("ada", "predict")})
            model.ready()
            door.route({"echo-v1": row(model, model.signature)})
            stalled = [socket.create_connection(("127.0.0.1", door.port), timeout=SECONDS) for _ in range(4)]
            for one in stalled:  # without a length each counts as the largest: these take the whole budget
                one.sendall(
                    f"POST /v2/models/echo-v1/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Token {TOKEN}\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n20000\r\n".encode()
                    + bytes(0x20000)
                    + b"\r\n"
                )
            for one in stalled:
                answer = b""
                with one:
                    while piece := one.recv(65536):  # to the end: the gateway closes
                        answer += piece
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert b"The request's body was not complete within 0.5 s" in answer
            assert output(infer(Served(door, door.http(), {}, {}), "x" * 100_000), "length") == 100_000

    def test_a_body_beyond_the_limit_is_413(self, served: Served) -> None:
        too_large = bytes(MAX_BODY_BYTES + 1)
        for content in (too_large, iter([too_large[: 1 << 20]] * 65)):
            response = served.http.post("/v2/models/echo-v1/infer", content=content)
            assert response.status_code == 413
            assert "send fewer items at once" in response.json()["error"]
        bomb = gzip.compress(too_large)
        packed = served.http.post("/v2/models/echo-v1/infer", content=bomb, headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 413
        assert infer(served, "after").status_code == 200


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class TestLife:
    def test_it_is_live_but_not_ready_before_it_knows_the_models(self, tmp_path: Path) -> None:
        with Door(tmp_path) as door:
            door.listening()
            client = door.http(token=None)
            assert client.get("/v2/health/live").status_code == 200
            assert client.get("/v2/health/ready").status_code == 503
            door.route({})
            assert client.get("/v2/health/ready").status_code == 200

    def test_it_ends_with_its_supervisor(self, tmp_path: Path) -> None:
        with Door(tmp_path) as door:
            door.listening()
            door.channel.shutdown(socket.SHUT_RDWR)
            assert door.process.wait(timeout=SECONDS) == 0

    def test_sigterm_answers_what_is_in_flight_and_ends(
        self, fresh: Served, gate: Path, pool: ThreadPoolExecutor
    ) -> None:
        busy = pool.submit(infer, fresh, f"gate:{gate}")
        fresh.models["echo-v1"].wait_for(in_flight=1)
        fresh.door.process.send_signal(signal.SIGTERM)
        gate.write_bytes(b"open")
        assert busy.result().status_code == 200
        assert fresh.door.process.wait(timeout=SECONDS) == 0

    def test_ctrl_c_does_not_end_it(self, door: Door) -> None:
        door.process.send_signal(signal.SIGINT)
        assert door.http().get("/v2").status_code == 200

    def test_a_port_in_use_is_one_clear_line(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with Door(tmp_path, "--port", str(port)) as door:
                message = door.event()
                assert message["event"] == "failed"
                assert message["error"]["message"].startswith(f"The inference door cannot listen on 127.0.0.1:{port}")
                assert door.process.wait(timeout=SECONDS) == 3

    def test_it_imports_neither_numpy_nor_a_framework(self) -> None:
        code = (
            "import sys, loaderd.gateway.__main__;"
            "print([m for m in ('numpy', 'loaderd.oip', 'loaderd.frameworks', 'django') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout == "[]\n"

    def test_pipelined_and_parallel_connections_keep_their_answers_apart(self, served: Served) -> None:
        wrong: list[str] = []

        def ask(number: int) -> None:
            with served.door.http() as client:
                for turn in range(20):
                    text = f"{number}-{turn}"
                    entry = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
                    answer = client.post("/v2/models/echo-v1/infer", json={"inputs": [entry]})
                    if output(answer, "echo") != text:
                        wrong.append(text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
