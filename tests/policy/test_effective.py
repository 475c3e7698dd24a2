"""One record overrides the environment, checked and with a trace of who changed what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from modelhub.conf import Config, config
from modelhub.policy import effective as effective_policy
from modelhub.policy.effective import LATELY_SECONDS, RULES_CHANNEL, change, effective, effective_lately, problems
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange

pytestmark = pytest.mark.django_db


def test_without_a_record_the_environment_is_in_force() -> None:
    assert effective() is config()


def test_the_record_counts_with_the_settings_own_types() -> None:
    change({"MAX_MEMORY_USAGE_MB": 600, "SAMPLING_RATE": 0, "PERFORMANCE_LOG_LEVEL": "DEBUG"}, user=None)
    in_force = effective()
    assert (in_force.MAX_MEMORY_USAGE_MB, in_force.SAMPLING_RATE, in_force.PERFORMANCE_LOG_LEVEL) == (600, 0.0, "DEBUG")
    assert isinstance(in_force.SAMPLING_RATE, float)
    assert in_force.GPU_MEMORY_LIMIT_MB == config().GPU_MEMORY_LIMIT_MB
    assert in_force.MODELS_DIR == config().MODELS_DIR


@pytest.mark.parametrize(
    "name", ["MAX_MEMORY_USAGE_MB", "GPU_MEMORY_LIMIT_MB", "MIN_RESIDENCY_SECONDS", "LOAD_WAIT_SECONDS"]
)
def test_zero_is_a_value_and_not_empty(name: str) -> None:
    change({name: 0}, user=None)
    assert getattr(effective(), name) == 0


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_goes_back_to_the_environment(empty: Any) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600, "PERFORMANCE_LOG_LEVEL": "DEBUG"}, user=None)
    change({"MAX_MEMORY_USAGE_MB": empty, "PERFORMANCE_LOG_LEVEL": empty}, user=None)
    assert effective() is config()


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes in os.environ later, or is wrong there, does not reach a check."""
    monkeypatch.setenv("WEB_PORT", "eighty")
    monkeypatch.setenv("MAX_CONCURRENT_LOADS", "99")
    change({"MAX_MEMORY_USAGE_MB": 600}, user=None)
    assert effective().MAX_MEMORY_USAGE_MB == 600
    assert effective().MAX_CONCURRENT_LOADS == config().MAX_CONCURRENT_LOADS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Call it: so many seconds pass for effective_lately(), which has not been asked yet."""
    now = [1000.0]
    monkeypatch.setattr(effective_policy, "_lately", (float("-inf"), {}))
    monkeypatch.setattr(effective_policy, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_what_is_asked_often_costs_one_query_a_second(clock: Callable[[float], None]) -> None:
    with CaptureQueriesContext(connection) as captured:
        for _ in range(100):
            assert effective_lately() is config()
    assert len(captured) == 1
    change({"LOAD_WAIT_SECONDS": 77}, user=None)
    assert effective_lately().LOAD_WAIT_SECONDS == config().LOAD_WAIT_SECONDS
    clock(LATELY_SECONDS + 0.01)
    assert effective_lately().LOAD_WAIT_SECONDS == 77


def test_while_the_database_is_away_what_was_in_force_last_counts(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change({"LOAD_WAIT_SECONDS": 77}, user=None)
    assert effective_lately().LOAD_WAIT_SECONDS == 77

    def away(**_: Any) -> None:
        raise OperationalError("the connection was refused")

    monkeypatch.setattr(Policy.objects, "filter", away)
    clock(LATELY_SECONDS + 0.01)
    assert effective_lately().LOAD_WAIT_SECONDS == 77


@pytest.mark.parametrize(("source", "actor"), [("command", "operator"), ("python", "system")])
def test_who_is_no_user_is_the_operator_or_the_system(source: str, actor: str) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600}, user=None, source=source)
    assert PolicyChange.objects.get().actor == actor


def test_it_costs_one_query_and_is_never_old() -> None:
    for value in (600, 700):
        Policy.objects.update_or_create(pk=1, defaults={"max_memory_usage_mb": value})
        with CaptureQueriesContext(connection) as captured:
            assert value == effective().MAX_MEMORY_USAGE_MB
        assert len(captured) == 1


def test_a_value_that_is_refused_by_now_leaves_the_environment_in_force() -> None:
    Policy.objects.create(pk=1, sampling_rate=7.0, max_concurrent_loads=3)
    assert effective().SAMPLING_RATE == config().SAMPLING_RATE
    assert effective().MAX_CONCURRENT_LOADS == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_MEMORY_USAGE_MB", -1),
        ("MAX_MEMORY_USAGE_MB", 12.5),
        ("MAX_MEMORY_USAGE_MB", 2**40),
        ("MAX_MEMORY_USAGE_PERCENT", 0),
        ("MAX_MEMORY_USAGE_PERCENT", 101),
        ("SAMPLING_RATE", 1.1),
        ("LOAD_WAIT_SECONDS", float("inf")),
        ("LOAD_WAIT_SECONDS", float("nan")),
        ("MAX_LOAD_ATTEMPTS", 0),
        ("HANG_SECONDS", "soon"),
        ("PERFORMANCE_LOG_LEVEL", "LOUD"),
    ],
)
def test_what_the_setting_refuses_changes_nothing(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        change({name: value, "MAX_CONCURRENT_LOADS": 5}, user=None)
    assert list(refused.value.message_dict) == [name.lower()]
    assert effective() is config()
    assert not PolicyChange.objects.exists()


@pytest.mark.parametrize("name", ["WEB_PORT", "SECRET_KEY", "PK"])
def test_only_what_may_change_at_run_time_changes(name: str) -> None:
    assert name in problems({name: 1})
    with pytest.raises(ValidationError, match="cannot be changed while Modelhub runs"):
        change({name: None}, user=None)


@pytest.mark.parametrize("name", OVERRIDABLE)
def test_the_record_takes_each_setting_at_its_present_value(name: str) -> None:
    change({name: getattr(config(), name)}, user=None)
    assert getattr(effective(), name) == getattr(config(), name)


def test_each_change_leaves_who_when_from_and_to() -> None:
    ada = User.objects.create_user("ada")
    change({"MAX_MEMORY_USAGE_MB": 600, "HANG_SECONDS": 5}, user=ada)
    change({"MAX_MEMORY_USAGE_MB": 0, "HANG_SECONDS": 5}, user=None)
    found = PolicyChange.objects.order_by("id").values_list("setting", "before", "after", "actor", "user")
    assert list(found) == [
        ("MAX_MEMORY_USAGE_MB", "", "600", "ada", ada.pk),
        ("HANG_SECONDS", "", "5.0", "ada", ada.pk),
        ("MAX_MEMORY_USAGE_MB", "600", "0", "operator", None),
    ]


def test_overridable_settings_exist() -> None:
    assert set(OVERRIDABLE) <= set(Config.model_fields)


class TestNotification:
    @pytest.fixture
    def heard(self, transactional_db: None) -> Iterator[Callable[[], int]]:
        """How many notifications came since the last call; asks the server, so all that were sent have come."""
        settings = connection.get_connection_params()
        wanted = {name: settings[name] for name in ("dbname", "user", "password", "host", "port") if settings.get(name)}
        with psycopg.connect(**wanted, autocommit=True) as listener:
            listener.execute(f"LISTEN {RULES_CHANNEL}")

            def count() -> int:
                listener.execute("SELECT 1")
                return len(list(listener.notifies(timeout=0)))

            yield count

    def test_loaderd_hears_of_a_change_when_it_is_committed(self, heard: Callable[[], int]) -> None:
        with transaction.atomic():
            change({"MAX_MEMORY_USAGE_MB": 600}, user=None)
            assert heard() == 0
        assert heard() == 1

    def test_nothing_is_told_when_nothing_changed(self, heard: Callable[[], int]) -> None:
        change({"MAX_MEMORY_USAGE_MB": None}, user=None)
        with pytest.raises(ValidationError):
            change({"MAX_MEMORY_USAGE_MB": -1}, user=None)
        assert heard() == 0

    def test_two_changes_at_once_both_count(self, heard: Callable[[], int]) -> None:
        def set_one(name: str, value: int) -> None:
            change({name: value}, user=None)
            connection.close()

        values = {"MAX_MEMORY_USAGE_MB": 600, "MAX_CONCURRENT_LOADS": 4}
        threads = [threading.Thread(target=set_one, args=item) for item in values.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert Policy.objects.get().overrides() == values
