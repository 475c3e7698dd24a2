"""Admission, eviction and thrift with real processes that hold real memory."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from loaderd import estimate
from loaderd.errors import from_message
from loaderd.protocol import ModelSpec

from .conftest import PROCESS_MIB, RunningDaemon

pytestmark = pytest.mark.timeout(120)
MIB = 2**20
Toy = Callable[..., ModelSpec]
Start = Callable[..., RunningDaemon]

ONE = PROCESS_MIB + 60
"""What a toy with 60 MiB is admitted with."""


def rules(*models: int, **more: Any) -> dict[str, Any]:
    """A budget for toys that hold so many MiB each, with something to spare, and no residency."""
    budget = sum(PROCESS_MIB + held for held in models) + 10
    return {"max_memory_bytes": budget * MIB, "max_memory_percent": 100.0, "min_residency_seconds": 0.0, **more}


def measured_bytes(daemon: RunningDaemon) -> int:
    return sum(model["private_bytes"] or 0 for model in daemon.client.status()["models"].values())


def loaded(daemon: RunningDaemon) -> set[str]:
    return {name for name, model in daemon.client.status()["models"].items() if model["state"] == "loaded"}


# Admission


def test_a_load_that_cannot_fit_is_refused_with_the_sum_and_touches_nothing(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60))
    daemon.load(toy("small", megabytes=60))
    error = daemon.load(toy("large", megabytes=400))["error"]
    assert error["code"] == "insufficient_memory"
    assert from_message(error).http_status == 507
    assert error["facts"]["needed_bytes"] == (PROCESS_MIB + 400) * MIB
    assert error["facts"]["budget_bytes"] == rules(60)["max_memory_bytes"]
    assert "MAX_MEMORY_USAGE_MB" in error["message"]
    assert loaded(daemon) == {"small"}
    assert daemon.model("large")["state"] == "unloaded"
    assert daemon.model("large")["reason"] == error["message"]


def test_what_has_to_go_for_a_load_goes_and_says_why(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60, 60))
    for name in ("first", "second"):
        daemon.load(toy(name, megabytes=60))
    assert daemon.load(toy("third", megabytes=60))["result"]["status"] == "loaded"
    assert len(loaded(daemon)) == 2
    gone = daemon.wait(lambda: daemon.of_kind("StateReport", cause="evicted", state="unloaded"))[0]
    assert gone["ends_wish"] is True
    assert gone["reason"].startswith("evicted to make room for third: idle ")
    waits = [report["reason"] for report in daemon.of_state("third", state="loading")]
    assert any(f"waits for memory: {gone['model_id']} is being unloaded" in reason for reason in waits)


def test_two_loads_at_once_never_get_the_same_bytes(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60, 60, max_concurrent_loads=4))
    budget = rules(60, 60)["max_memory_bytes"]
    specs = [toy(f"toy-{number}", megabytes=60, load_seconds=0.2) for number in range(6)]
    operations = [daemon.begin_load(spec) for spec in specs]
    highest = 0
    while not all(daemon.of_kind("OperationEnded", operation_id=operation) for operation in operations):
        highest = max(highest, measured_bytes(daemon))
    assert highest <= budget
    assert all(daemon.end_of(operation)["result"] for operation in operations)
    assert len(loaded(daemon)) == 2


def test_a_pinned_model_never_goes(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60, models={"pinned": {"pinned": True, "keep_alive_seconds": 0.0}}))
    daemon.load(toy("pinned", megabytes=60))
    error = daemon.load(toy("other", megabytes=60))["error"]
    assert "pinned" in error["message"]
    assert daemon.optimize()["result"]["unloaded"] == []
    assert loaded(daemon) == {"pinned"}


def test_a_busy_model_is_waited_for_and_its_request_is_answered(start_serving: Start, toy: Toy) -> None:
    serving = start_serving(rules=rules(60))
    serving.load(toy("busy", megabytes=60))
    answer = serving.predict_later("busy", "slow 1.5")
    serving.wait_in_flight("busy")
    assert serving.load(toy("other", megabytes=60))["result"]["status"] == "loaded"
    assert answer.result(20).status_code == 200
    assert serving.states("busy") == ["loading", "loaded", "unloading", "unloaded"]


def test_a_load_that_waits_too_long_for_memory_is_refused(start_serving: Start, toy: Toy) -> None:
    serving = start_serving(rules=rules(60))
    serving.load(toy("busy", megabytes=60))
    serving.predict_later("busy", "slow 20")
    serving.wait_in_flight("busy")
    error = serving.load(toy("other", megabytes=60, timeout_seconds=0.5))["error"]
    assert error["code"] == "insufficient_memory"
    assert "waited 0.5 s for memory" in error["message"]


def test_a_cancelled_wait_gives_its_place_to_the_next(start_serving: Start, toy: Toy) -> None:
    serving = start_serving(rules=rules(60))
    serving.load(toy("busy", megabytes=60))
    serving.predict_later("busy", "slow 20")
    serving.wait_in_flight("busy")
    waiting = serving.begin_load(toy("large", megabytes=60))
    serving.wait(lambda: "waits for memory" in serving.model("large")["reason"])
    small = serving.begin_load(toy("small", megabytes=1, peak_mib=5))
    serving.wait(lambda: "waits for its turn: large is before it" in serving.model("small")["reason"])
    serving.client.cancel(waiting)
    assert serving.end_of(waiting)["error"]["code"] == "cancelled"
    assert serving.end_of(small)["result"]["status"] == "loaded"


def test_a_stop_while_loads_wait_for_memory_ends_them(start_serving: Start, toy: Toy) -> None:
    serving = start_serving(rules=rules(60), drain_seconds=0.5)
    serving.load(toy("busy", megabytes=60))
    serving.predict_later("busy", "slow 600")
    serving.wait_in_flight("busy")
    waiting = serving.begin_load(toy("other", megabytes=60))
    serving.wait(lambda: "waits for memory" in serving.model("other")["reason"])
    family = serving.descendants()
    assert serving.stop() == 0
    assert serving.end_of(waiting)["error"]["code"] == "shutting_down"
    assert not any(process.is_running() for process in family)


def test_a_model_that_was_measured_once_is_admitted_by_that(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon()
    spec = replace(toy("toy-v1", megabytes=20, peak_megabytes=120), peak_bytes=None)
    plan = daemon.client.plan("load", spec)
    assert plan["measured"] is False
    daemon.load(spec)
    peak = daemon.of_state("toy-v1", state="loaded")[0]["peak_bytes"]
    assert 120 * MIB < peak < (120 + PROCESS_MIB) * MIB
    daemon.unload("toy-v1")
    plan = daemon.client.plan("load", spec)
    assert plan["measured"] is True
    assert plan["needed_bytes"] == peak
    assert daemon.of_state("toy-v1", state="loaded")[0]["measured_as"] == "1 process"
    plan = daemon.client.plan("load", replace(spec, precision="bf16"))
    assert plan["measured"] is False, "in another precision it takes something else"


def test_a_start_that_cannot_be_forked_is_admitted_by_what_a_cold_one_takes(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"max_memory_bytes": 300 * MIB, "max_memory_percent": 100.0})
    spec = toy(framework="toy-threaded", peak_mib=40)  # measured when its zygote could fork it
    error = daemon.load(spec)["error"]
    assert error["code"] == "insufficient_memory"
    assert error["facts"]["needed_bytes"] >= estimate.OTHER_COLD_BYTES
    assert error["facts"]["measured"] is False
    assert daemon.states("toy-v1") == ["loading", "unloaded"]
    waits = [report["reason"] for report in daemon.of_state("toy-v1", state="loading")]
    assert any("is started cold, which takes more memory: " in reason for reason in waits)
    plan = daemon.client.plan("load", spec)
    assert (plan["decision"], plan["needed_bytes"]) == ("refused", error["facts"]["needed_bytes"])


def test_a_cold_start_is_admitted_by_what_the_last_cold_one_took(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"max_memory_bytes": 2000 * MIB, "max_memory_percent": 100.0})
    spec = toy(framework="toy-threaded", peak_mib=40)
    assert daemon.load(spec)["result"]["status"] == "loaded"
    assert daemon.model("toy-v1")["forked"] is False
    assert daemon.unload("toy-v1")["result"]["status"] == "unloaded"
    daemon.set_rules(max_memory_bytes=300 * MIB)
    assert daemon.load(spec)["result"]["status"] == "loaded"


# The queue


def test_loads_wait_for_their_turn_in_order_of_priority_and_arrival(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"max_concurrent_loads": 1, "models": {"urgent": {"priority": 90}}})
    running = daemon.begin_load(toy("running", behaviour="hang"))
    daemon.wait(lambda: daemon.model("running")["phase"] == "loading")
    operations = [daemon.begin_load(toy(name)) for name in ("first", "second", "urgent")]
    for name in ("first", "second", "urgent"):
        daemon.wait(lambda name=name: "waits for its turn: 1 load is under way" in daemon.model(name)["reason"])
    daemon.client.cancel(running)
    for operation in operations:
        daemon.end_of(operation)
    order = [report["model_id"] for report in daemon.of_kind("StateReport", state="loaded")]
    assert order == ["urgent", "first", "second"]


def test_the_number_of_loads_at_once_is_changed_while_they_wait(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"max_concurrent_loads": 1})
    daemon.begin_load(toy("running", behaviour="hang"))
    daemon.wait(lambda: daemon.model("running")["phase"] == "loading")
    waiting = daemon.begin_load(toy("waiting"))
    daemon.wait(lambda: "waits for its turn" in daemon.model("waiting")["reason"])
    began = time.monotonic()
    daemon.set_rules(max_concurrent_loads=2)
    assert daemon.end_of(waiting)["result"]["status"] == "loaded"
    assert time.monotonic() - began < 10


def test_wanted_models_are_loaded_in_order_of_priority_and_do_not_evict_one_another(
    start_daemon: Start, toy: Toy
) -> None:
    names = ("low", "middle", "high")
    priorities = {name: {"priority": 10 * (place + 1)} for place, name in enumerate(names)}
    daemon = start_daemon(
        wanted=[toy(name, megabytes=60) for name in names],
        rules=rules(60, 60, max_concurrent_loads=1, models=priorities),
    )
    daemon.wait(
        lambda: daemon.of_state("low", state="unloaded") and len(daemon.of_kind("StateReport", state="loaded")) > 1
    )
    order = [report["model_id"] for report in daemon.of_kind("StateReport", state="loaded")]
    assert order == ["high", "middle"]
    assert loaded(daemon) == {"high", "middle"}
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:low", is_open=True))


def test_a_wanted_model_that_does_not_fit_is_loaded_when_there_is_room(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(wanted=[toy("a", megabytes=60), toy("b", megabytes=60)], rules=rules(60))
    (first,) = daemon.wait(lambda: len(loaded(daemon)) == 1 and loaded(daemon))
    second = "b" if first == "a" else "a"
    daemon.wait(lambda: daemon.of_kind("AlertReport", key=f"no_memory:{second}", is_open=True))
    daemon.set_rules(max_memory_bytes=1000 * MIB)
    daemon.wait(lambda: loaded(daemon) == {"a", "b"})
    daemon.wait(lambda: daemon.of_kind("AlertReport", key=f"no_memory:{second}", is_open=False))
    assert daemon.states(first) == ["loading", "loaded"]


def test_a_refused_model_that_a_person_unloads_is_not_tried_again(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(
        wanted=[toy("a", megabytes=60), toy("b", megabytes=60), toy("c", megabytes=60)],
        rules=rules(60, models={"a": {"priority": 90}, "b": {"priority": 80}, "c": {"priority": 70}}),
    )
    for model_id in ("b", "c"):
        daemon.wait(lambda name=model_id: daemon.of_kind("AlertReport", key=f"no_memory:{name}", is_open=True))
    daemon.unload("b")
    daemon.set_rules(max_memory_bytes=1000 * MIB)
    daemon.wait(lambda: loaded(daemon) == {"a", "c"})  # b was before it, had it still been wished
    assert daemon.states("b") == ["loading", "unloaded"]


@pytest.fixture
def refusing(start_daemon: Start, toy: Toy) -> RunningDaemon:
    """A daemon that should have loaded b, too, for which there is no room."""
    policies = {"a": {"priority": 90}, "b": {"priority": 80}}
    daemon = start_daemon(
        wanted=[toy("a", megabytes=60), toy("b", megabytes=60)], rules=rules(60, models=policies), rules_seconds=1.0
    )
    daemon.wait(lambda: daemon.of_kind("AlertReport", key="no_memory:b", is_open=True))
    return daemon


def test_a_refused_model_that_the_registry_does_not_wish_any_more_is_forgotten(refusing: RunningDaemon) -> None:
    refusing.set_unwished("b")  # by a way of which loaderd does not hear
    assert not refusing.of_kind("IndexAsked"), "it is not asked as long as nothing fits"
    refusing.set_rules(max_memory_bytes=1000 * MIB)
    refusing.wait(lambda: refusing.of_kind("AlertReport", key="no_memory:b", is_open=False))
    assert refusing.states("b") == ["loading", "unloaded"]


def test_while_the_registry_is_away_a_refused_model_is_left_and_tried_later(refusing: RunningDaemon) -> None:
    refusing.set_unwished(away=True)
    refusing.set_rules(max_memory_bytes=1000 * MIB)
    refusing.wait(lambda: len(refusing.of_kind("IndexAsked")) >= 2)
    assert refusing.states("b") == ["loading", "unloaded"]
    refusing.set_unwished()
    refusing.wait(lambda: loaded(refusing) == {"a", "b"})


def test_a_prediction_waits_for_a_model_that_is_loaded_at_the_start(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(wanted=[toy("a", load_seconds=1)])
    daemon.wait(lambda: daemon.client.ping()["inference"] and daemon.model("a")["state"] == "loading")
    assert daemon.predict("a", "hello").status_code == 200


# Rules


def test_without_the_registrys_rules_the_defaults_hold(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules_are_away=True, rules_seconds=0.2)
    assert daemon.load(toy())["result"]["status"] == "loaded"
    assert daemon.client.status()["facts"]["limits"]["max_load_attempts"] == 3


def test_the_heartbeat_tells_the_sum_and_the_rules_that_hold(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60))
    daemon.load(toy("toy-v1", megabytes=60))
    facts = daemon.wait(lambda: [r for r in daemon.of_kind("Heartbeat") if r["runtimes"]])[-1]["facts"]
    assert facts["budget"]["budget_bytes"] == rules(60)["max_memory_bytes"]
    assert 60 * MIB < facts["budget"]["used_bytes"] < ONE * MIB
    assert facts["budget"]["reserved_bytes"] == 0
    assert facts["memory"]["available_bytes"] > 0
    assert facts["limits"]["max_memory_bytes"] == rules(60)["max_memory_bytes"]


def test_models_that_grew_past_the_budget_are_brought_back_within_it(start_serving: Start, toy: Toy) -> None:
    serving = start_serving(rules=rules(60, 60))
    serving.load(toy("idle", megabytes=60))
    serving.load(toy("growing", megabytes=60))
    serving.predict("growing", "grow 60")
    gone = serving.wait(lambda: serving.of_state("idle", state="unloaded"))[0]
    assert "hold more than the budget" in gone["reason"]
    serving.wait(lambda: measured_bytes(serving) <= rules(60, 60)["max_memory_bytes"])


def test_nobody_is_evicted_for_what_is_only_promised_to_a_recovery(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(
        memory_interval_seconds=0.1,
        rules=rules(60, 60, max_concurrent_loads=1, models={"other": {"priority": 90}}),
    )
    # Its last load was measured at more than it holds now, so that both together are past the budget.
    daemon.load(toy("recovering", megabytes=1, peak_mib=150))
    daemon.load(toy("other", megabytes=60))
    slow = daemon.begin_load(toy("slow", megabytes=1, peak_mib=5, load_seconds=1.5))
    daemon.wait(lambda: daemon.model("slow")["phase"] == "loading")
    daemon.kill("recovering")
    assert daemon.end_of(slow)["result"]["status"] == "loaded"
    assert daemon.states("other") == ["loading", "loaded"]


def test_a_lowered_budget_is_kept_at_once(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60, 60))
    daemon.load(toy("first", megabytes=60))
    daemon.load(toy("second", megabytes=60))
    daemon.set_rules(max_memory_bytes=rules(60)["max_memory_bytes"])
    daemon.wait(lambda: len(loaded(daemon)) == 1)


# Thrift


def test_a_model_is_unloaded_when_it_was_idle_for_its_keep_alive(start_serving: Start, toy: Toy) -> None:
    serving = start_serving(rules={"models": {"brief": {"keep_alive_seconds": 1.0}}})
    serving.load(toy("lasting"))
    serving.load(toy("brief"))
    for _ in range(4):  # while it is asked it stays
        assert serving.predict("brief", "slow 0.4").status_code == 200
    gone = serving.wait(lambda: serving.of_state("brief", state="unloaded"))[0]
    assert gone["cause"] == "idle"
    assert gone["ends_wish"] is True
    assert "kept alive for 1 s" in gone["reason"]
    assert loaded(serving) == {"lasting"}


def test_an_optimisation_gives_back_what_it_promised(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"unused_timeout_seconds": 0.0, "models": {"kept": {"pinned": True}}})
    for name, megabytes in (("kept", 10), ("small", 40), ("large", 120)):
        daemon.load(toy(name, megabytes=megabytes))
    available = daemon.client.status()["facts"]["memory"]["available_bytes"]
    plan = daemon.client.plan("optimize")
    assert loaded(daemon) == {"kept", "small", "large"}
    result = daemon.optimize()["result"]
    assert {entry["model_id"] for entry in result["unloaded"]} == {"small", "large"}
    assert {entry["model_id"] for entry in plan["victims"]} == {"small", "large"}
    assert abs(result["freed_bytes"] - plan["frees_bytes"]) < 0.1 * plan["frees_bytes"]
    assert result["freed_bytes"] > 160 * MIB
    assert available > 0
    for entry in result["unloaded"]:
        gone = daemon.of_state(entry["model_id"], state="unloaded")[0]
        assert (gone["cause"], gone["ends_wish"]) == ("unused", True)


def test_the_optimisation_by_schedule_takes_what_is_unused(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"unused_timeout_seconds": 0.5, "optimization_interval_seconds": 0.3})
    daemon.load(toy())
    daemon.wait(lambda: daemon.of_state("toy-v1", state="unloaded", cause="unused"))


# Plans


def test_plans_tell_what_would_happen_and_change_nothing(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60))
    daemon.load(toy("here", megabytes=60))
    other = toy("other", megabytes=60)
    reports = len(daemon.of_kind("StateReport"))
    plan = daemon.client.plan("load", other)
    assert plan["decision"] == "evicts"
    assert [victim["model_id"] for victim in plan["evict"]] == ["here"]
    assert plan["sentence"].startswith("Loading other needs")
    assert daemon.client.plan("load", toy("huge", megabytes=900))["decision"] == "refused"
    unload = daemon.client.plan("unload", model_id="here")
    assert unload["in_flight"] == 0
    assert 60 * MIB < unload["frees_bytes"] < ONE * MIB
    assert daemon.client.plan("unload", model_id="other")["frees_bytes"] == 0
    assert len(daemon.of_kind("StateReport")) == reports
    assert loaded(daemon) == {"here"}
    freed = daemon.unload("here")["result"]["freed_bytes"]
    assert abs(freed - unload["frees_bytes"]) < 0.1 * freed


def test_a_plan_for_a_loaded_model_counts_what_it_holds(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules=rules(60))
    spec = toy("here", megabytes=60)
    daemon.load(spec)
    plan = daemon.client.plan("load", spec)
    assert (plan["decision"], plan["sentence"]) == ("fits", "here is loaded; nothing would change.")
    held = daemon.client.status()["facts"]["budget"]["used_bytes"]
    assert abs(plan["used_bytes"] - held) < 0.1 * held
    total = plan["used_bytes"] + plan["reserved_bytes"] + plan["headroom_bytes"] + plan["free_bytes"]
    assert total == plan["budget_bytes"]


def test_what_a_model_takes_for_its_own_clean_up_is_not_told_as_freed(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon()
    daemon.load(toy("untidy", megabytes=60, unload_megabytes=40))
    promised = daemon.client.plan("unload", model_id="untidy")["frees_bytes"]
    freed = daemon.unload("untidy")["result"]["freed_bytes"]
    assert abs(freed - promised) < 0.1 * promised


def test_a_plan_for_an_activation_says_whether_a_gap_is_needed(start_daemon: Start, toy: Toy) -> None:
    lineages = {"toy": {"aliases": {"live": "old"}}}
    daemon = start_daemon(rules=rules(60, lineages=lineages))
    daemon.load(toy("old", megabytes=60))
    new = toy("new", megabytes=60, version="2")
    plan = daemon.client.plan("activate", new)
    assert (plan["replaces"], plan["needs_gap"], plan["decision"]) == ("old", True, "refused")
    assert plan["used_bytes"] > 60 * MIB
    plan = daemon.client.plan("activate", new, allow_gap=True)
    assert (plan["replaces"], plan["needs_gap"], plan["decision"]) == ("old", True, "fits")
    assert "once old is unloaded" in plan["sentence"]
    daemon.set_rules(max_memory_bytes=rules(60, 60)["max_memory_bytes"])
    plan = daemon.client.plan("activate", new)
    assert (plan["replaces"], plan["needs_gap"], plan["decision"]) == ("old", False, "fits")


def test_an_activation_moves_live_and_unloads_the_old_version(start_daemon: Start, toy: Toy) -> None:
    daemon = start_daemon(rules={"lineages": {"toy": {"aliases": {"live": "old"}}}})
    daemon.load(toy("old"))
    operation_id = str(uuid.uuid4())
    daemon.client.activate(toy("new", version="2"), operation_id, "ada", "activate", "", False)
    assert daemon.end_of(operation_id)["result"]["previous"] == "old"
    assert loaded(daemon) == {"new"}
    assert daemon.of_state("old", state="unloaded")[0]["cause"] == "replaced"
    assert daemon.of_kind("AliasMoved", alias="live", model_id="new")


# On demand


def test_a_prediction_loads_a_model_that_may_be_and_all_that_wait_share_one_load(
    start_serving: Start, toy: Toy
) -> None:
    spec = toy(load_seconds=0.5)
    serving = start_serving(registered=[spec], rules={"models": {"toy-v1": {"autoload": True}}})
    serving.load(spec)
    serving.unload("toy-v1")
    answers = [serving.predict_later("toy-v1", "hello") for _ in range(5)]
    assert {answer.result(30).status_code for answer in answers} == {200}
    assert len(serving.of_kind("Submitted", command="demand", model_id="toy-v1")) == 1


def test_an_evicted_model_comes_back_when_it_is_asked_for(start_serving: Start, toy: Toy) -> None:
    specs = [toy(name, megabytes=60) for name in ("first", "second")]
    policy = {spec.model_id: {"autoload": True} for spec in specs}
    serving = start_serving(registered=specs, rules=rules(60, models=policy))
    for spec in specs:
        serving.load(spec)
    for name in ("first", "second", "first"):
        assert serving.predict(name, "hello").status_code == 200
    assert loaded(serving) == {"first"}
    moves = [report["state"] for report in serving.of_state("first") if report["state"] in ("loaded", "unloaded")]
    assert all(before != after for before, after in pairwise(moves))


def test_a_refused_load_on_demand_tells_the_client_why(start_serving: Start, toy: Toy) -> None:
    spec = toy("large", megabytes=400)
    serving = start_serving(registered=[spec], rules=rules(10, models={"large": {"autoload": True}}))
    assert serving.load(spec)["error"]
    answer = serving.predict("large", "hello")
    assert answer.status_code == 507
    assert "MiB" in answer.text
