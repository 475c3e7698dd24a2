"""What is in force is told by what runs: loaderd's environment and rules, not those of whoever asks."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from loaderd.reporter import Heartbeat
from loaderd.supervisor.budget import limits
from modelhub.conf import config
from modelhub.lifecycle import settings
from modelhub.lifecycle.models import LoaderStatus
from modelhub.lifecycle.observations import record_heartbeat
from modelhub.lifecycle.observed import LoaderView, loader_view
from modelhub.lifecycle.rules import present_rules, settings_of
from modelhub.policy.effective import change, effective
from modelhub.policy.models import OVERRIDABLE, Policy

pytestmark = pytest.mark.django_db

# Read by web and queue when they need them; loaderd has no rule of them.
NOT_LOADERDS = {"MODEL_TIMEOUT_SECONDS", "METRICS_RETENTION_DAYS"}


@pytest.mark.parametrize("hours", [24, 0.1, 0.7, 1 / 3, 87_600])
def test_each_rule_leads_back_to_the_setting_that_it_is_made_of(hours: float) -> None:
    change({"MAX_MEMORY_USAGE_MB": 0, "GPU_MEMORY_LIMIT_MB": 700, "SAMPLING_RATE": 0}, user=None)
    Policy.objects.update(unused_model_timeout_hours=hours)
    told = settings_of(limits(present_rules()))
    assert set(told) == set(OVERRIDABLE) - NOT_LOADERDS
    assert told == {name: pytest.approx(getattr(effective(), name), abs=1e-9) for name in told} | {
        "PERFORMANCE_LOG_LEVEL": effective().PERFORMANCE_LOG_LEVEL
    }


def one(name: str, loader: LoaderView) -> dict[str, object]:
    return next(setting for setting in settings.settings_in_force(loader) if setting["name"] == name)


def test_the_heartbeat_brings_the_environment_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    daemons = config().model_copy(update={"HANG_SECONDS": 7.0, "WEB_PORT": 9000})
    with monkeypatch.context() as patch:
        patch.setattr(settings, "config", lambda: daemons)
        record_heartbeat(Heartbeat(timezone.now().timestamp(), {"pid": 1}, {}))
    environment = LoaderStatus.objects.get().facts["environment"]
    assert environment["HANG_SECONDS"] == 7.0
    assert "WEB_PORT" not in environment  # cannot be changed while it runs
    assert (one("HANG_SECONDS", loader_view())["value"], config().HANG_SECONDS) == (7.0, 30)


def test_the_source_is_told() -> None:
    loader = LoaderView(reachable=True, facts={"environment": {"HANG_SECONDS": 7.0, "SLOW_SECONDS": 2.0}})
    change({"SLOW_SECONDS": 3}, user=None)
    told = {name: one(name, loader) for name in ("HANG_SECONDS", "SLOW_SECONDS", "SAMPLING_RATE")}
    assert {name: (setting["value"], setting["source"]) for name, setting in told.items()} == {
        "HANG_SECONDS": (7.0, "environment"),
        "SLOW_SECONDS": (3.0, "policy"),
        "SAMPLING_RATE": (0.1, "default"),
    }
    assert told["SLOW_SECONDS"]["environment"] == 2.0


def test_an_override_that_is_refused_by_now_does_not_count() -> None:
    Policy.objects.create(pk=1, sampling_rate=7.0)
    setting = one("SAMPLING_RATE", LoaderView(reachable=True, facts={"environment": {}}))
    assert (setting["value"], setting["source"], setting["override"]) == (0.1, "default", 7.0)


def test_what_loaderd_worked_by_comes_with_its_time() -> None:
    heard_at = timezone.now() - timedelta(seconds=1)
    facts = {"environment": {}, "limits": {"max_memory_bytes": 600 * 2**20, "hang_seconds": 30.0}}
    loader = LoaderView(reachable=True, observed_at=heard_at, facts=facts)
    change({"MAX_MEMORY_USAGE_MB": 700}, user=None)
    setting = one("MAX_MEMORY_USAGE_MB", loader)
    assert (setting["value"], setting["observed"], setting["observed_at"]) == (700, 600, heard_at)
    assert (one("SAMPLING_RATE", loader)["observed"], one("SAMPLING_RATE", loader)["observed_at"]) == (None, None)
