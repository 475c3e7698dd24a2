"""A recorded canary is forgotten: who may, what is left, and what the next load does."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from loaderd.errors import PermissionDenied, StateForbids, UnknownModel
from loaderd.reporter import ModelRuntime, StateReport
from loaderd.states import ModelState
from modelhub.lifecycle.canaries import forget_canary, plan_forget_canary
from modelhub.lifecycle.models import StateChange
from modelhub.registry.artifacts import spec_of
from modelhub.registry.models import ModelVersion
from tests.lifecycle.conftest import MakeVersion, Tell

pytestmark = pytest.mark.django_db

DIGEST = "a" * 64
RECORDED: dict[str, Any] = {"source": "recorded", "inputs": ["x"], "outputs": {"label": [1]}, "reproducible": True}
NEW = {**RECORDED, "outputs": {"label": [2]}}


@pytest.fixture
def version(make_version: MakeVersion) -> ModelVersion:
    return make_version(status="error", canary=RECORDED, canary_digest=DIGEST)


def spec(version: ModelVersion) -> Any:
    return spec_of(ModelVersion.objects.select_related("lineage").get(pk=version.pk))


def test_it_is_told_and_the_next_load_has_nothing_to_answer_up_to(version: ModelVersion, admin: User) -> None:
    assert spec(version).canary == RECORDED
    forgotten = forget_canary(version, user=admin, reason="sklearn 2")
    assert forgotten == {"model_id": "topic-v1", "digest": DIGEST, "canary": RECORDED}
    assert spec(version).canary is None
    version.refresh_from_db()
    assert (version.canary, version.canary_digest) == (None, "")


@pytest.mark.django_db(transaction=True)
def test_the_next_load_records_a_new_one(version: ModelVersion, tell: Tell) -> None:
    forget_canary(version, user=None)
    ModelVersion.objects.update(status="loading")
    at, runtime = timezone.now().timestamp(), ModelRuntime(pid=1)
    tell(StateReport("topic-v1", ModelState.LOADED, "answers", at, digest=DIGEST, runtime=runtime, canary=NEW))
    assert spec(version).canary == NEW


@pytest.mark.parametrize(("username", "actor"), [("ada", "ada"), (None, "operator")])
def test_the_history_says_who_and_why(version: ModelVersion, admin: User, username: str | None, actor: str) -> None:
    forget_canary(version, user=admin if username else None, reason="new \0 library")
    change = StateChange.objects.get()
    assert (change.from_state, change.to_state, change.actor) == ("error", "error", actor)
    assert change.reason.startswith("the recorded canary was forgotten: new ")


def test_a_declared_one_is_left_and_the_message_says_what_to_do(version: ModelVersion) -> None:
    ModelVersion.objects.update(metadata={"canary": {"inputs": ["x"], "predictions": ["y"]}})
    version.refresh_from_db()
    for ask in (lambda: forget_canary(version, user=None), lambda: plan_forget_canary(version)):
        with pytest.raises(
            StateForbids, match=r'correct "canary" there, or take it out, then run `manage.py discover`'
        ):
            ask()
    version.refresh_from_db()
    assert version.canary == RECORDED
    assert not StateChange.objects.exists()


def test_where_none_is_recorded_there_is_none_to_forget(version: ModelVersion) -> None:
    forget_canary(version, user=None)
    with pytest.raises(StateForbids, match="its next load records one"):
        forget_canary(version, user=None)
    assert StateChange.objects.count() == 1


def test_it_needs_the_permission_to_change_models(version: ModelVersion) -> None:
    grace = User.objects.create_user("grace")
    with pytest.raises(PermissionDenied, match="grace may not change models"):
        forget_canary(version, user=grace)
    grace.user_permissions.add(Permission.objects.get(codename="change_modelversion"))
    assert forget_canary(version, user=User.objects.get(pk=grace.pk))["canary"] == RECORDED


def test_a_model_that_was_deleted_is_unknown(version: ModelVersion) -> None:
    ModelVersion.objects.all().delete()
    with pytest.raises(UnknownModel):
        forget_canary(version, user=None)


@pytest.mark.parametrize(("status", "runs"), [("error", False), ("loaded", True)])
def test_the_plan_says_what_a_running_process_is_checked_by(version: ModelVersion, status: str, runs: bool) -> None:
    version.status = status
    sentence = plan_forget_canary(version)["sentence"]
    assert ("checked by the old one" in sentence) is runs
    assert not StateChange.objects.exists()
