"""Dry runs ask loaderd with what the command itself would send, and change nothing."""

from __future__ import annotations

import pytest

from loaderd.errors import ArtifactRefused, LoaderUnreachable, StateForbids
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.planning import plan_activate, plan_load, plan_optimize, plan_rollback, plan_unload
from modelhub.lifecycle.versions import request_activate, request_rollback
from modelhub.registry.models import Alias, ModelVersion
from tests.lifecycle.conftest import MakeVersion
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


@pytest.mark.parametrize("kind", ["activate", "rollback"])
def test_another_switch_of_the_lineage_that_is_under_way_refuses_as_the_command_would(
    make_version: MakeVersion, silent_loaderd: FakeLoaderd, kind: str
) -> None:
    one, two, three = (make_version(f"topic-v{n}", lineage="topic", version=str(n)) for n in (1, 2, 3))
    Alias.objects.create(lineage=one.lineage, name="live", version=three, set_by="ada")
    switching = Operation.objects.create(kind="activate", version=two, status="running")
    ask = {"activate": lambda: plan_activate(one), "rollback": lambda: plan_rollback(one.lineage, one)}[kind]
    with pytest.raises(StateForbids, match="The activation of topic-v2 is under way; cancel it or") as planned:
        ask()
    command = {
        "activate": lambda: request_activate(one, user=None, source="command"),
        "rollback": lambda: request_rollback(one.lineage, to=one, user=None, source="command"),
    }[kind]
    with pytest.raises(StateForbids) as commanded:
        command()
    assert planned.value.to_message() == commanded.value.to_message()
    assert not silent_loaderd.received
    switching.delete()
    assert ask() == silent_loaderd.plan


def test_the_same_switch_under_way_is_joined_so_its_dry_run_is_answered(
    make_version: MakeVersion, silent_loaderd: FakeLoaderd
) -> None:
    one, two = (make_version(f"topic-v{n}", lineage="topic", version=str(n)) for n in (1, 2))
    Alias.objects.create(lineage=one.lineage, name="live", version=two, set_by="ada")
    Operation.objects.create(kind="rollback", version=one, status="queued")
    assert plan_rollback(one.lineage, one) == silent_loaderd.plan
    with pytest.raises(StateForbids, match="The rollback to topic-v1 is under way"):
        plan_activate(one)
