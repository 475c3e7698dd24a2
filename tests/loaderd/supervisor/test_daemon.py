"""The supervisor with real processes: loads, unloads, deaths, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from loaderd.errors import LoaderUnreachable
from loaderd.protocol import ModelSpec

from .conftest import HERE, RunningDaemon

pytestmark = pytest.mark.timeout(120)
Toy = Callable[..., ModelSpec]


def test_a_loaded_model_answers_from_a_process_of_its_own_and_unload_ends_that_process(
    serving: RunningDaemon, toy: Toy
) -> None:
    loaded = serving.load(toy())
    assert loaded["result"]["status"] == "loaded"
    assert loaded["result"]["private_bytes"] > 0
    pid = serving.pid_of("toy-v1")
    answer = serving.predict("toy-v1", "hello")
    assert answer.json()["predictions"] == [{"output": str(pid)}] or str(pid) in answer.text

    unloaded = serving.unload("toy-v1")

    assert unloaded["result"]["status"] == "unloaded"
    assert not psutil.pid_exists(pid), "unloaded is reported only after the process is gone"
    assert serving.predict("toy-v1", "hello").status_code == 409
    assert serving.states("toy-v1") == ["loading", "loaded", "unloading", "unloaded"]


def test_the_phases_of_a_load_are_reported_in_order(daemon: RunningDaemon, toy: Toy) -> None:
    daemon.load(toy())
    phases = [r["phase"] for r in daemon.of_kind("OperationProgress")]
    assert list(dict.fromkeys(phases)) == ["queued", "starting", "verifying", "loading", "warming_up", "checking"]
    report = daemon.of_kind("StateReport", state="loaded")[0]
    assert set(report["phase_seconds"]) == {"starting", "verifying", "loading", "warming_up", "checking"}
    assert sum(report["phase_seconds"].values()) <= report["load_seconds"]
    assert report["signature"]["inputs"][0]["datatype"] == "BYTES"


def test_memory_is_what_comes_back_with_the_process(daemon: RunningDaemon, toy: Toy) -> None:
    small, large = daemon.load(toy("small")), daemon.load(toy("large", megabytes=200))
    difference = large["result"]["private_bytes"] - small["result"]["private_bytes"]
    assert abs(difference - 200 * 2**20) < 10 * 2**20
    freed = daemon.unload("large")["result"]["freed_bytes"]
    assert abs(freed - large["result"]["private_bytes"]) < 5 * 2**20


def test_models_are_forked_from_one_zygote_and_belong_to_the_supervisor(daemon: RunningDaemon, toy: Toy) -> None:
    for number in range(3):
        daemon.load(toy(f"toy-{number}"))
    models = daemon.client.status()["models"]
    assert all(model["forked"] for model in models.values())
    assert {psutil.Process(model["pid"]).ppid() for model in models.values()} == {daemon.pid}
    assert len(daemon.client.status()["facts"]["zygotes"]) == 1


def test_a_zygote_with_more_than_one_thread_is_not_forked_but_spawned_around(daemon: RunningDaemon, toy: Toy) -> None:
    assert daemon.load(toy(framework="toy-threaded"))["result"]["status"] == "loaded"
    assert daemon.client.status()["models"]["toy-v1"]["forked"] is False
    assert "threads" in (daemon.folder / "logs" / "models" / "toy-v1.log").read_text()


def test_a_dead_zygote_is_started_again_and_harms_no_load(daemon: RunningDaemon, toy: Toy) -> None:
    def zygote() -> int | None:
        found = daemon.client.status()["facts"]["zygotes"].get("toy")
        return found["pid"] if found else None

    daemon.load(toy("first"))
    old = zygote()
    assert old is not None
    os.kill(old, signal.SIGKILL)
    assert daemon.load(toy("second"))["result"]["status"] == "loaded"
    daemon.wait(lambda: zygote() not in (None, old))
    assert daemon.client.status()["models"]["first"]["state"] == "loaded"


@pytest.mark.parametrize(
    ("behaviour", "code", "says"),
    [
        ("crash", "load_failed", "SIGSEGV"),
        ("exit", "load_failed", "status 9"),
        ("raise", "load_failed", "does not want to"),
    ],
)
def test_a_failed_load_says_why_and_leaves_no_process(
    daemon: RunningDaemon, toy: Toy, behaviour: str, code: str, says: str
) -> None:
    error = daemon.load(toy(behaviour=behaviour))["error"]
    assert error["code"] == code
    assert says in error["message"]
    assert daemon.states("toy-v1") == ["loading", "error"]
    assert daemon.of_state("toy-v1")[-1]["reason"] == error["message"]
    if behaviour == "crash":
        assert "the toy is about to crash" in error["facts"]["log_tail"]
    assert daemon.client.status()["models"]["toy-v1"]["pid"] is None


def test_a_load_past_its_limit_is_ended_and_reported_as_timeout(daemon: RunningDaemon, toy: Toy) -> None:
    error = daemon.load(toy(behaviour="hang", timeout_seconds=1.0))["error"]
    assert error["code"] == "model_timeout"
    assert "load_timeout_seconds" in error["message"]
    assert daemon.states("toy-v1") == ["loading", "error"]
    assert len(daemon.descendants()) <= 2, "its process is gone; the zygote and the gateway are left"
    assert daemon.load(toy("other"))["result"]["status"] == "loaded"


def test_a_model_that_crashes_takes_nobody_with_it(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy("fragile"))
    serving.load(toy("steady"))
    answer = serving.predict("fragile", "die")
    assert answer.status_code == 503
    report = serving.wait(lambda: serving.of_kind("StateReport", model_id="fragile", state="error"))[0]
    assert report["error"]["facts"]["exit_signal"] == signal.SIGSEGV
    assert "SIGSEGV" in report["reason"]
    assert serving.predict("steady", "hello").status_code == 200


def test_a_model_in_error_can_be_loaded_again(serving: RunningDaemon, toy: Toy) -> None:
    spec = toy()
    assert serving.load(replace(spec, config={"behaviour": "raise"}))["error"]
    assert serving.load(spec)["result"]["status"] == "loaded"
    assert serving.predict("toy-v1", "hello").status_code == 200


def test_a_redelivered_command_is_run_once(daemon: RunningDaemon, toy: Toy) -> None:
    spec, operation_id = toy(), str(uuid.uuid4())
    assert daemon.client.load(spec, operation_id, "ada")["known"] is False
    assert daemon.client.load(spec, operation_id, "ada")["known"] is True
    daemon.end_of(operation_id)
    assert daemon.client.load(spec, operation_id, "ada")["known"] is True
    assert daemon.states("toy-v1") == ["loading", "loaded"]


def test_commands_for_one_model_run_one_after_the_other(daemon: RunningDaemon, toy: Toy) -> None:
    spec = toy()
    first, second, third = (str(uuid.uuid4()) for _ in range(3))
    daemon.client.load(spec, first, "ada")
    daemon.client.unload(spec.model_id, second, "bob")
    daemon.client.load(spec, third, "ada")
    daemon.end_of(third)
    assert daemon.states("toy-v1") == ["loading", "loaded", "unloading", "unloaded", "loading", "loaded"]


def test_a_cancelled_load_leaves_the_model_unloaded_and_no_process(daemon: RunningDaemon, toy: Toy) -> None:
    operation_id = str(uuid.uuid4())
    daemon.client.load(toy(behaviour="hang"), operation_id, "ada")
    daemon.wait(lambda: daemon.of_kind("OperationProgress", phase="loading"))
    pid = daemon.pid_of("toy-v1")
    assert daemon.client.cancel(operation_id) == {"cancelled": True}
    assert daemon.end_of(operation_id)["error"]["code"] == "cancelled"
    assert not psutil.pid_exists(pid)
    assert daemon.states("toy-v1") == ["loading", "unloaded"]
    assert daemon.client.cancel(operation_id) == {"cancelled": False}


def test_an_unload_is_not_cancelled_but_finished(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    answer = serving.predict_later("toy-v1", "slow 1.0")
    serving.wait_in_flight("toy-v1")
    operation_id = serving.begin_unload("toy-v1")
    assert serving.client.cancel(operation_id) == {"cancelled": False}
    assert serving.end_of(operation_id)["result"]["status"] == "unloaded"
    assert answer.result(20).status_code == 200


def test_a_second_cancel_does_not_disturb_the_first(daemon: RunningDaemon, toy: Toy) -> None:
    operation_id = str(uuid.uuid4())
    daemon.client.load(toy(behaviour="hang"), operation_id, "ada")
    daemon.wait(lambda: daemon.of_kind("OperationProgress", phase="loading"))
    for _ in range(5):
        daemon.client.cancel(operation_id)
    assert daemon.end_of(operation_id)["error"]["code"] == "cancelled"
    assert daemon.client.status()["models"]["toy-v1"]["state"] == "unloaded"


def test_loads_beyond_the_limit_wait_for_their_turn(start_daemon: Callable[..., RunningDaemon], toy: Toy) -> None:
    daemon = start_daemon(rules={"max_concurrent_loads": 1})
    hanging, waiting = str(uuid.uuid4()), str(uuid.uuid4())
    daemon.client.load(toy("hanging", behaviour="hang"), hanging, "ada")
    daemon.wait(lambda: daemon.of_kind("OperationProgress", model_id="hanging", phase="loading"))
    daemon.client.load(toy("waiting"), waiting, "ada")
    daemon.wait(lambda: daemon.of_kind("OperationProgress", model_id="waiting", phase="queued"))
    assert daemon.client.status()["models"]["waiting"]["pid"] is None
    daemon.client.cancel(hanging)
    assert daemon.end_of(waiting)["result"]["status"] == "loaded"


def test_a_load_whose_framework_is_being_imported_takes_no_turn_from_those_that_can_begin(
    start_daemon: Callable[..., RunningDaemon], toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    importing = tmp_path / "slow-import"
    importing.touch()
    policies = {"slow": {"priority": 90}, "small": {"priority": 10}}
    daemon = start_daemon(
        wanted=[toy("slow", framework="toy-slow"), toy("small")], rules={"max_concurrent_loads": 1, "models": policies}
    )
    daemon.wait(lambda: daemon.of_state("small", state="loaded"))
    slow = daemon.model("slow")
    assert (slow["state"], slow["phase"]) == ("loading", "queued")
    assert slow["reason"] == "wanted when loaderd started; waits for its turn: toy-slow is being imported"
    assert daemon.client.status()["facts"]["budget"]["reserved_bytes"] == 0
    importing.unlink()
    daemon.wait(lambda: daemon.of_state("slow", state="loaded"))


def test_usage_is_reported_as_increments_and_none_is_lost_on_a_clean_stop(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    for _ in range(7):
        assert serving.predict("toy-v1", "a", "b").status_code == 200
    assert serving.stop() == 0
    usage = serving.of_kind("Usage", model_id="toy-v1")
    assert sum(u["requests"] for u in usage) == 7
    assert sum(u["items"] for u in usage) == 14
    assert serving.states("toy-v1")[-1] == "unloaded"


def test_requests_in_flight_are_finished_before_an_unload(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    answer = serving.predict_later("toy-v1", "slow 1.0")
    serving.wait_in_flight("toy-v1")
    assert serving.unload("toy-v1")["result"]["status"] == "unloaded"
    assert answer.result(20).status_code == 200


def test_a_stop_while_an_unload_drains_finishes_it_and_counts_what_it_answered(
    serving: RunningDaemon, toy: Toy
) -> None:
    serving.load(toy())
    answer = serving.predict_later("toy-v1", "slow 1.0")
    serving.wait_in_flight("toy-v1")
    operation_id = str(uuid.uuid4())
    serving.client.unload("toy-v1", operation_id, "ada")
    serving.wait(lambda: serving.of_kind("StateReport", state="unloading"))
    assert serving.stop() == 0
    answer.exception(20)  # its answer may be lost with the gateway; that it was counted is not
    assert serving.states("toy-v1") == ["loading", "loaded", "unloading", "unloaded"]
    assert serving.end_of(operation_id)["result"]["status"] == "unloaded"
    assert sum(u["requests"] for u in serving.of_kind("Usage")) == 1


def test_the_door_knows_the_state_after_each_move(serving: RunningDaemon, toy: Toy) -> None:
    assert serving.load(toy("broken", behaviour="raise"))["error"]
    assert "is error" in serving.predict("broken", "hello").text
    serving.load(toy())
    serving.unload("toy-v1")
    assert "is unloaded" in serving.predict("toy-v1", "hello").text


def test_a_stuck_model_does_not_stop_the_counting_of_others(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy("stuck"))
    serving.load(toy("steady"))
    psutil.Process(serving.pid_of("stuck")).suspend()
    assert serving.predict("steady", "hello").status_code == 200
    serving.wait(lambda: serving.of_kind("Usage", model_id="steady"))
    psutil.Process(serving.pid_of("stuck")).resume()


def test_what_a_dead_model_started_ends_with_it(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    helper = int(serving.predict("toy-v1", "spawn").json()["predictions"][0]["output"])
    assert psutil.pid_exists(helper)
    os.kill(serving.pid_of("toy-v1"), signal.SIGKILL)
    serving.wait(lambda: not psutil.pid_exists(helper))


def test_wanted_models_are_loaded_at_the_start(start_daemon: Callable[..., RunningDaemon], toy: Toy) -> None:
    daemon = start_daemon(wanted=[toy("a"), toy("b")])
    daemon.wait(lambda: len(daemon.of_kind("StateReport", state="loaded")) == 2)


def test_model_processes_get_no_credential(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    environment = serving.predict("toy-v1", "env").text
    assert "PATH=" in environment
    assert "SECRET_OF_THE_DAEMON" not in environment
    assert "DATABASE_URL" not in environment


def test_a_model_process_holds_no_descriptor_of_its_siblings(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy("first"))
    serving.load(toy("second"))
    pid = serving.pid_of("second")
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert sum("first.log" in link for link in links) == 0
    assert sum("second.log" in link for link in links) == 2


def test_kill_9_of_the_supervisor_leaves_no_process(serving: RunningDaemon, toy: Toy) -> None:
    for number in range(3):
        serving.load(toy(f"toy-{number}"))
    family = serving.descendants()
    assert len(family) >= 5, "three models, a zygote and the gateway"
    serving.process.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_after_kill_9_a_new_daemon_serves_again_in_the_same_folder(
    serving: RunningDaemon, start_daemon: Callable[..., RunningDaemon], toy: Toy
) -> None:
    spec = toy()
    serving.load(spec)
    serving.process.kill()
    serving.process.wait()
    with pytest.raises(LoaderUnreachable):
        serving.client.ping()
    again = start_daemon(serving.folder, wanted=[spec])
    again.wait(lambda: again.of_kind("StateReport", state="loaded"))
    again.wait(lambda: again.client.ping()["inference"])
    assert again.predict("toy-v1", "hello").status_code == 200


def test_a_dead_gateway_is_started_again_while_the_models_stay(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    pid = serving.pid_of("toy-v1")
    gateway = next(p for p in serving.descendants() if "loaderd.gateway" in p.cmdline())
    gateway.kill()
    serving.wait(lambda: not gateway.is_running())

    serving.wait(lambda: serving.client.ping()["inference"])
    assert serving.predict("toy-v1", "hello").status_code == 200
    assert serving.pid_of("toy-v1") == pid


def test_sigterm_ends_everything(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    family = serving.descendants()
    assert serving.stop() == 0
    assert not any(p.is_running() for p in family)
    assert serving.of_kind("Closed")


def test_a_second_daemon_in_the_same_folder_is_refused(daemon: RunningDaemon) -> None:
    second = subprocess.run(
        [sys.executable, str(HERE / "run_daemon.py"), str(daemon.folder)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(HERE).parents[2],
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[2]}:{HERE / 'toy'}"},
    )
    assert second.returncode == 1
    assert "Another loaderd runs" in second.stderr
    assert daemon.client.ping()["pid"] == daemon.pid


def test_the_sockets_are_private(daemon: RunningDaemon) -> None:
    run = daemon.folder / "run"
    assert run.stat().st_mode & 0o077 == 0
    assert (run / "control.sock").stat().st_mode & 0o077 == 0


def test_a_malformed_command_is_answered_and_harms_nothing(daemon: RunningDaemon) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.folder / "run" / "control.sock"))
        sock.sendall(b"\xff\xff\xff\xffgarbage")
        assert sock.recv(1) == b""
    assert daemon.client.ping()["pid"] == daemon.pid
