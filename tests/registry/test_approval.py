"""Who may approve which bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.core.exceptions import PermissionDenied

from modelhub.registry.approval import ApprovalRefused, approve, needs_approval, revoke
from modelhub.registry.models import ModelVersion
from tests.registry.conftest import Store


@pytest.fixture
def reviewer(django_user_model: Any) -> Any:
    user = django_user_model.objects.create_user("reviewer")
    user.user_permissions.add(Permission.objects.get(codename="approve_modelversion"))
    return user


@pytest.fixture
def pickled(store: Store, discovered: Callable[..., Any]) -> ModelVersion:
    store.add("topic/mail-v1", {"model.pkl": b"1"})
    discovered()
    return ModelVersion.objects.get()


def test_it_records_which_bytes_who_and_when(pickled: ModelVersion, reviewer: Any) -> None:
    assert needs_approval(pickled)
    approve(pickled, reviewer, pickled.digest)
    for version in (pickled, ModelVersion.objects.get()):
        assert version.approved_digest == version.digest
        assert version.approved_by == reviewer
        assert version.approved_at is not None
        assert not needs_approval(version)


def test_it_can_be_taken_back(pickled: ModelVersion, reviewer: Any) -> None:
    approve(pickled, reviewer)
    revoke(pickled, reviewer)
    for version in (pickled, ModelVersion.objects.get()):
        assert (version.is_approved, version.approved_by, version.approved_at) == (False, None, None)


def test_formats_that_run_no_code_need_none(store: Store, discovered: Callable[..., Any]) -> None:
    store.add("topic/mail-v1")
    discovered()
    assert not needs_approval(ModelVersion.objects.get())


def test_a_format_of_a_framework_that_is_not_installed_needs_one() -> None:
    assert needs_approval(ModelVersion(framework="gone", artifact_format="x", digest="d"))


def test_others_may_not(pickled: ModelVersion, reviewer: Any, django_user_model: Any) -> None:
    inactive = django_user_model.objects.create_superuser("left", is_active=False)
    for user in (AnonymousUser(), django_user_model.objects.create_user("reader"), inactive):
        for act in (approve, revoke):
            with pytest.raises(PermissionDenied, match=r"registry\.approve_modelversion"):
                act(pickled, user)
    assert not ModelVersion.objects.get().is_approved


def test_bytes_that_changed_since_somebody_looked_are_not_approved(
    pickled: ModelVersion, reviewer: Any, store: Store, discovered: Callable[..., Any]
) -> None:
    store.add("topic/mail-v1", {"model.pkl": b"2"})
    discovered()
    with pytest.raises(ApprovalRefused, match="files changed meanwhile"):
        approve(pickled, reviewer)
    assert ModelVersion.objects.get().approved_digest == ""


def test_what_is_gone_or_refused_is_not_approved(
    pickled: ModelVersion, reviewer: Any, store: Store, discovered: Callable[..., Any]
) -> None:
    directory = store.add("topic/mail-v1", metadata="{")
    discovered()
    with pytest.raises(ApprovalRefused, match="discovery refuses it"):
        approve(pickled, reviewer)
    directory.rename(store.root / ".away")
    discovered()
    with pytest.raises(ApprovalRefused, match="directory is gone"):
        approve(pickled, reviewer)
