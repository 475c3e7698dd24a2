"""Dry runs ask loaderd with what the command itself would send, and change nothing."""

from __future__ import annotations

import pytest

from loaderd.errors import ArtifactRefused, LoaderUnreachable
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.planning import plan_activate, plan_load, plan_optimize, plan_unload
from modelhub.registry.models import ModelVersion
from tests.lifecycle.fake_loaderd import FakeLoaderd

pytestmark = pytest.mark.django_db


def test_loaderd_answers_a_dry_run(version: ModelVersion, silent_loaderd: FakeLoaderd) -> None:
    ModelVersion.objects.update(measured_digest="a" * 64, measured_device="cpu", measured_peak_bytes=7)
    version.refresh_from_db()
    silent_loaderd.plan = {"decision": "fits", "sentence": "It fits."}
    for ask, action in ((plan_load, "load"), (plan_activate, "activate")):
        assert ask(version) == silent_loaderd.plan
        sent = silent_loaderd.received[-1]
        assert (sent["command"], sent["action"], sent["spec"]["model_id"]) == ("plan", action, "topic-v1")
        assert sent["spec"]["peak_bytes"] == 7
    plan_unload(version)
    assert (silent_loaderd.received[-1]["action"], silent_loaderd.received[-1]["model_id"]) == ("unload", "topic-v1")
    plan_optimize()
    assert silent_loaderd.received[-1]["action"] == "optimize"
    version.refresh_from_db()
    assert (version.desired_state, Operation.objects.count()) == ("unloaded", 0)


def test_a_dry_run_is_refused_as_the_command_would_be(version: ModelVersion) -> None:
    with pytest.raises(LoaderUnreachable):
        plan_load(version)
    version.artifact_format = "pickle"
    with pytest.raises(ArtifactRefused, match="manage.py approve topic-v1"):
        plan_load(version)
