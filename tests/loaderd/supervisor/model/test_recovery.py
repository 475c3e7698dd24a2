"""Models whose process dies or hangs come back by themselves, for as long as that makes sense."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from loaderd.protocol import ModelSpec
from tests.loaderd.supervisor.conftest import RunningDaemon

pytestmark = pytest.mark.timeout(120)
Toy = Callable[..., ModelSpec]
Start = Callable[..., RunningDaemon]


def loads(daemon: RunningDaemon, model_id: str = "toy-v1") -> int:
    return len(daemon.of_state(model_id, state="loaded"))


def wait_loaded(daemon: RunningDaemon, times: int, model_id: str = "toy-v1") -> None:
    daemon.wait(lambda: loads(daemon, model_id) == times)


# Death


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_model_whose_process_dies_is_started_again_at_once(
    serving: RunningDaemon, toy: Toy, number: signal.Signals
) -> None:
    serving.load(toy())
    pid = serving.pid_of("toy-v1")
    serving.kill("toy-v1", number)
    wait_loaded(serving, 2)
    died = serving.of_state("toy-v1", state="error")[0]
    assert number.name in died["reason"]
    assert "it is started again in 0.0 s, attempt 1 of 3" in died["reason"]
    assert died["cause"] == "crashed"
    assert serving.states("toy-v1") == ["loading", "loaded", "error", "loading", "loaded"]
    assert serving.of_state("toy-v1", state="loading")[-1]["cause"] == "restarting"
    assert int(serving.predict("toy-v1", "hello").json()["predictions"][0]["output"]) != pid


def test_a_kill_by_somebody_else_is_told_from_one_of_the_kernel(daemon: RunningDaemon, toy: Toy) -> None:
    daemon.load(toy())
    daemon.kill("toy-v1")
    died = daemon.of_state("toy-v1", state="error")[0]
    assert "SIGKILL, which loaderd did not send" in died["reason"]
    assert died["error"]["facts"]["out_of_memory"] is False


def test_a_model_that_keeps_dying_is_started_later_each_time_and_given_up(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(restart_pause_seconds=0.2, rules={"max_load_attempts": 3})
    daemon.load(toy())
    for restart in range(3):
        daemon.kill("toy-v1")
        wait_loaded(daemon, restart + 2)
    daemon.kill("toy-v1")
    daemon.wait(lambda: not daemon.model("toy-v1")["recovering"])
    reasons = [report["reason"] for report in daemon.of_state("toy-v1", state="error")]
    assert [f"attempt {n} of 3" in reason for n, reason in enumerate(reasons, 1)] == [True, True, True, False]
    assert ["0.0 s" in reasons[0], "0.2 s" in reasons[1], "0.4 s" in reasons[2]] == [True, True, True]
    assert "3 times in a row, so it is left alone now" in reasons[3]
    last = daemon.of_state("toy-v1", state="error")[-1]
    assert "answers; phases in seconds" in last["error"]["facts"]["log_tail"]
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="gave_up:toy-v1", is_open=True))
    assert daemon.model("toy-v1")["state"] == "error"


def test_a_process_that_lived_long_enough_is_started_at_once_again(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(stable_seconds=0.0, rules={"max_load_attempts": 1})
    daemon.load(toy())
    for restart in range(3):
        daemon.kill("toy-v1")
        wait_loaded(daemon, restart + 2)


def test_a_restart_that_fails_for_a_reason_that_stays_is_not_repeated(
    daemon: RunningDaemon, toy: Toy, tmp_path: Path
) -> None:
    daemon.load(toy())
    (tmp_path / "toy-v1" / "model.toy").unlink()
    daemon.kill("toy-v1")
    daemon.wait(lambda: len(daemon.of_state("toy-v1", state="error")) == 2)
    assert "model.toy" in daemon.of_state("toy-v1", state="error")[1]["reason"]
    assert daemon.model("toy-v1")["recovering"] is False
    alert = daemon.wait(lambda: daemon.of_kind("AlertReport", key="gave_up:toy-v1", is_open=True))[0]
    assert alert["message"].startswith("The process of toy-v1 died, and it could not be started again: ")
    assert "model.toy" in alert["message"]
    assert not any(counted in alert["message"] for counted in ("again and again", "times", "attempt"))


def test_the_end_of_a_process_that_lost_its_gpu_says_so_and_it_is_started_again(
    serving: RunningDaemon, toy: Toy
) -> None:
    serving.load(toy())
    assert serving.predict("toy-v1", "lose the GPU").status_code == 503
    wait_loaded(serving, 2)
    died = serving.of_state("toy-v1", state="error")[0]
    assert "exited with status 4: its GPU reported an error" in died["reason"]


@pytest.mark.parametrize("limit_mib", [None, 4096], ids=["unlimited", "limited"])
def test_an_abort_under_a_memory_limit_names_the_limit(serving: RunningDaemon, toy: Toy, limit_mib: int | None) -> None:
    limit_bytes = None if limit_mib is None else limit_mib * 2**20
    serving.load(replace(toy(), memory_limit_bytes=limit_bytes))
    assert serving.predict("toy-v1", "abort").status_code == 503
    wait_loaded(serving, 2)
    died = serving.of_state("toy-v1", state="error")[0]
    assert "was ended by SIGABRT" in died["reason"]
    assert ("its own memory limit of 4096 MiB (memory_limit_mb)" in died["reason"]) is (limit_mib is not None)


def test_a_load_whose_process_is_killed_is_tried_again_within_its_operation(
    daemon: RunningDaemon, toy: Toy, tmp_path: Path
) -> None:
    spec = toy()
    (tmp_path / "toy-v1" / "crashes").write_text("2")
    assert daemon.load(spec)["result"]["status"] == "loaded"
    assert daemon.states("toy-v1") == ["loading", "loaded"]
    reasons = [report["reason"] for report in daemon.of_state("toy-v1", state="loading")]
    waits = [reason for reason in reasons if "attempt" in reason]
    assert ["attempt 2 of 3" in waits[0], "attempt 3 of 3" in waits[1]] == [True, True]


def test_a_load_whose_process_always_dies_fails_with_the_end_of_its_log(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(restart_pause_seconds=0.05, rules={"max_load_attempts": 2})
    error = daemon.load(toy(behaviour="crash"))["error"]
    assert "SIGSEGV" in error["message"]
    assert "tried 2 times in a row" in error["message"]
    assert error["facts"]["log_tail"].count("the toy is about to crash") == 2


def test_the_canary_that_the_first_load_recorded_is_what_a_restart_must_answer(daemon: RunningDaemon, toy: Toy) -> None:
    daemon.load(toy())
    recorded = daemon.of_state("toy-v1", state="loaded")[0]["canary"]
    assert recorded is not None
    daemon.kill("toy-v1")
    wait_loaded(daemon, 2)
    assert daemon.of_state("toy-v1", state="loaded")[1]["canary"] is None


def test_a_load_whose_spec_has_no_canary_records_a_new_one(daemon: RunningDaemon, toy: Toy) -> None:
    """The registry forgot it, so this daemon must not go on by the one that it has seen."""
    spec = toy()
    daemon.load(spec)
    daemon.unload("toy-v1")
    daemon.load(spec)
    first, second = (state["canary"] for state in daemon.of_state("toy-v1", state="loaded"))
    assert first is not None
    assert second == first


# Hangs


@pytest.mark.parametrize("how", ["hang holding the interpreter", "hang in C"])
def test_a_model_that_hangs_is_ended_and_started_again_while_others_answer(
    start_serving: Start, toy: Toy, how: str
) -> None:
    serving = start_serving(rules={"hang_seconds": 1.5})
    serving.load(toy())
    serving.load(toy("steady"))
    answer = serving.predict_later("toy-v1", how)
    while not serving.of_state("toy-v1", state="error"):
        assert serving.predict("steady", "hello").status_code == 200
    wait_loaded(serving, 2)
    died = serving.of_state("toy-v1", state="error")[0]
    assert died["cause"] == "hung"
    assert "hung" in died["reason"]
    assert answer.result(20).status_code == 503
    assert serving.predict("toy-v1", "hello").status_code == 200
    assert loads(serving, "steady") == 1


def end_gateway(daemon: RunningDaemon) -> None:
    """Another one takes its place, with no connection to any model."""
    gateway = next(each for each in daemon.descendants() if "loaderd.gateway" in each.cmdline())
    gateway.kill()
    daemon.wait(lambda: not gateway.is_running())
    daemon.wait(lambda: daemon.client.ping()["inference"])


def test_a_process_whose_door_is_gone_is_ended_and_started_again(start_serving: Start, toy: Toy) -> None:
    serving = start_serving()
    serving.load(toy())
    pid = serving.pid_of("toy-v1")
    assert serving.predict("toy-v1", "close the door").status_code == 200
    wait_loaded(serving, 2)
    died = serving.of_state("toy-v1", state="error")[0]
    assert died["cause"] == "hung"
    assert "its door does not answer" in died["reason"]
    assert serving.pid_of("toy-v1") != pid
    assert serving.predict("toy-v1", "hello").status_code == 200


def test_a_request_that_finds_the_door_gone_has_the_process_ended_and_is_answered_by_the_next(
    start_serving: Start, toy: Toy
) -> None:
    serving = start_serving(door_interval_seconds=600.0)
    serving.load(toy())
    pid = serving.pid_of("toy-v1")
    assert serving.predict("toy-v1", "close the door").status_code == 200
    end_gateway(serving)
    assert serving.predict("toy-v1", "hello").status_code == 200
    assert serving.pid_of("toy-v1") != pid
    assert [report["cause"] for report in serving.of_state("toy-v1", state="error")] == ["hung"]


def test_requests_that_a_dying_process_held_are_counted_as_errors_of_its_model(
    serving: RunningDaemon, toy: Toy
) -> None:
    serving.load(toy())
    assert serving.predict("toy-v1", "die").status_code == 503
    (lost,) = serving.wait(lambda: [usage for usage in serving.of_kind("Usage") if usage["errors"]])
    assert (lost["model_id"], lost["requests"], lost["errors"]) == ("toy-v1", 1, 1)
    assert "was ended by SIGSEGV" in lost["last_error"], "it is put down to what ended the process"


# Commands meanwhile


@pytest.fixture
def spec(toy: Toy) -> ModelSpec:
    return toy()


@pytest.fixture
def pausing(start_daemon: Start, spec: ModelSpec) -> RunningDaemon:
    """A daemon whose toy-v1 died twice and waits long for its next start."""
    daemon = start_daemon(restart_pause_seconds=600.0, max_restart_pause_seconds=600.0)
    daemon.load(spec)
    daemon.kill("toy-v1")
    wait_loaded(daemon, 2)
    daemon.kill("toy-v1")
    assert daemon.model("toy-v1")["recovering"] is True
    return daemon


def test_a_load_during_the_pause_takes_over_at_once(pausing: RunningDaemon, spec: ModelSpec) -> None:
    assert pausing.load(spec)["result"]["status"] == "loaded"
    assert pausing.model("toy-v1")["recovering"] is False


def begin_endless_load(daemon: RunningDaemon, spec: ModelSpec) -> str:
    operation_id = daemon.begin_load(replace(spec, config={"behaviour": "hang"}))
    daemon.wait(lambda: daemon.model("toy-v1")["phase"] == "loading")
    return operation_id


def test_a_load_that_took_over_and_is_cancelled_leaves_the_restart_as_it_was(
    pausing: RunningDaemon, spec: ModelSpec
) -> None:
    operation_id = begin_endless_load(pausing, spec)
    pausing.client.cancel(operation_id)
    assert pausing.end_of(operation_id)["error"]["code"] == "cancelled"
    model = pausing.model("toy-v1")
    assert (model["state"], model["recovering"]) == ("unloaded", True)
    assert model["reason"] == "the load was cancelled; it is started again in 600.0 s, attempt 2 of 3"
    assert pausing.load(spec)["result"]["status"] == "loaded"


def test_the_restart_is_made_after_the_load_that_took_over_was_cancelled(start_daemon: Start, spec: ModelSpec) -> None:
    daemon = start_daemon(restart_pause_seconds=3.0, max_restart_pause_seconds=3.0)
    daemon.load(spec)
    daemon.kill("toy-v1")
    wait_loaded(daemon, 2)
    daemon.kill("toy-v1")
    daemon.client.cancel(begin_endless_load(daemon, spec))
    wait_loaded(daemon, 3)
    assert daemon.states("toy-v1")[-4:] == ["loading", "unloaded", "loading", "loaded"]


def test_a_load_that_waits_for_the_attempt_and_is_cancelled_does_not_make_it_the_last(
    daemon: RunningDaemon, toy: Toy
) -> None:
    spec = toy(load_seconds=2.0)
    daemon.load(spec)
    daemon.kill("toy-v1")
    daemon.wait(lambda: daemon.model("toy-v1")["phase"] == "loading")
    pid = daemon.pid_of("toy-v1")
    operation_id = daemon.begin_load(spec)
    daemon.client.cancel(operation_id)
    assert daemon.end_of(operation_id)["error"]["code"] == "cancelled"
    os.kill(pid, signal.SIGKILL)
    wait_loaded(daemon, 2)


def test_an_unload_that_waits_for_a_load_which_is_cancelled_ends_the_restarts(
    pausing: RunningDaemon, spec: ModelSpec
) -> None:
    load = begin_endless_load(pausing, spec)
    unload = pausing.begin_unload("toy-v1")
    pausing.client.cancel(load)
    assert pausing.end_of(unload)["result"]["status"] == "not_loaded"
    assert (pausing.model("toy-v1")["state"], pausing.model("toy-v1")["recovering"]) == ("unloaded", False)


def test_a_load_that_took_over_and_does_not_fit_is_made_when_there_is_room(start_daemon: Start, toy: Toy) -> None:
    mib = 2**20
    daemon = start_daemon(
        restart_pause_seconds=600.0,
        max_restart_pause_seconds=600.0,
        rules={"max_memory_bytes": 300 * mib, "max_memory_percent": 100.0},
    )
    spec = toy(megabytes=1, peak_mib=220)
    daemon.load(spec)
    daemon.kill("toy-v1")
    wait_loaded(daemon, 2)
    daemon.kill("toy-v1")
    daemon.set_rules(max_memory_bytes=200 * mib)
    assert daemon.load(spec)["error"]["code"] == "insufficient_memory"
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:toy-v1", is_open=True))
    daemon.set_rules(max_memory_bytes=1000 * mib)
    wait_loaded(daemon, 3)


def test_an_unload_during_the_pause_ends_the_restarts(pausing: RunningDaemon) -> None:
    assert pausing.unload("toy-v1")["result"]["status"] == "not_loaded"
    assert pausing.states("toy-v1")[-1] == "unloaded"
    assert pausing.model("toy-v1")["recovering"] is False


def test_a_stop_during_the_pause_does_not_wait_for_it(pausing: RunningDaemon) -> None:
    family = pausing.descendants()
    assert pausing.stop() == 0
    assert not any(process.is_running() for process in family)
    assert pausing.states("toy-v1")[-1] == "unloaded"


def test_an_unload_during_the_attempt_ends_its_process(daemon: RunningDaemon, toy: Toy) -> None:
    spec = toy(load_seconds=2.0)
    daemon.load(spec)
    daemon.kill("toy-v1")
    daemon.wait(lambda: daemon.model("toy-v1")["phase"] == "loading")
    pid = daemon.pid_of("toy-v1")
    assert daemon.unload("toy-v1")["result"]["status"] == "not_loaded"
    assert not psutil.pid_exists(pid)
    assert daemon.states("toy-v1") == ["loading", "loaded", "error", "loading", "unloaded"]


def test_a_load_during_the_attempt_joins_it(daemon: RunningDaemon, toy: Toy) -> None:
    spec = toy(load_seconds=1.0)
    daemon.load(spec)
    daemon.kill("toy-v1")
    daemon.wait(lambda: daemon.model("toy-v1")["phase"] == "loading")
    pid = daemon.pid_of("toy-v1")
    assert daemon.load(spec)["result"]["status"] == "loaded"
    assert daemon.pid_of("toy-v1") == pid
    assert loads(daemon) == 2


def test_a_stop_during_the_attempt_leaves_nothing(daemon: RunningDaemon, toy: Toy) -> None:
    daemon.load(toy(load_seconds=2.0))
    daemon.kill("toy-v1")
    daemon.wait(lambda: daemon.model("toy-v1")["phase"] == "loading")
    family = daemon.descendants()
    assert daemon.stop() == 0
    assert not any(process.is_running() for process in family)


def test_a_process_that_dies_while_it_is_unloaded_is_not_started_again(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy())
    serving.predict_later("toy-v1", "slow 600")
    serving.wait_in_flight("toy-v1")
    pid = serving.pid_of("toy-v1")
    operation_id = serving.begin_unload("toy-v1")
    serving.wait(lambda: serving.of_state("toy-v1", state="unloading"))
    psutil.Process(pid).kill()
    assert serving.end_of(operation_id)["result"]["status"] == "unloaded"
    assert serving.states("toy-v1") == ["loading", "loaded", "unloading", "unloaded"]


def test_a_prediction_waits_for_the_restart(serving: RunningDaemon, toy: Toy) -> None:
    serving.load(toy(load_seconds=0.5))
    serving.kill("toy-v1")
    began = time.monotonic()
    assert serving.predict("toy-v1", "hello").status_code == 200
    assert time.monotonic() - began < 10
    assert not serving.of_kind("Submitted"), "the restart is waited for; no operation is needed"


def test_a_restart_does_not_queue_behind_a_load_that_waits_for_memory(start_serving: Start, toy: Toy) -> None:
    mib = 2**20
    serving = start_serving(rules={"max_memory_bytes": 170 * mib, "max_memory_percent": 100.0})
    serving.load(toy("small", megabytes=1))
    serving.load(toy("busy", megabytes=80))
    serving.predict_later("busy", "slow 20")
    serving.wait_in_flight("busy")
    serving.begin_load(toy("large", megabytes=80))
    serving.wait(lambda: "waits for memory" in serving.model("large")["reason"])
    serving.kill("small")
    wait_loaded(serving, 2, "small")
    assert serving.model("large")["state"] == "loading"


def test_a_recovery_that_does_not_fit_is_made_when_there_is_room(start_daemon: Start, toy: Toy) -> None:
    mib = 2**20
    daemon = start_daemon(rules={"max_memory_bytes": 300 * mib, "max_memory_percent": 100.0})
    daemon.load(toy(megabytes=1, peak_mib=220))
    daemon.load(toy("other", megabytes=60))
    daemon.set_rules(max_memory_bytes=200 * mib)
    daemon.kill("toy-v1")
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:toy-v1", is_open=True))
    daemon.set_rules(max_memory_bytes=1000 * mib)
    wait_loaded(daemon, 2)
    assert daemon.states("other") == ["loading", "loaded"]
