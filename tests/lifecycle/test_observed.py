"""A silent loaderd is unreachable, and so is what it held."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from modelhub.lifecycle.models import LoaderStatus
from modelhub.lifecycle.observed import SILENCE_SECONDS, LoaderView, effective_status, loader_view
from modelhub.registry.models import ModelVersion


@pytest.mark.parametrize(
    ("status", "is_reachable"),
    [
        (None, False),
        ({"observed_at": None}, False),
        ({"observed_at": timedelta(seconds=1)}, True),
        ({"observed_at": timedelta(seconds=SILENCE_SECONDS + 1)}, False),
        ({"observed_at": timedelta(seconds=1), "stopped_at": timedelta(seconds=1)}, False),
    ],
)
def test_it_is_reachable_when_it_was_heard_just_now(
    db: None, django_assert_num_queries: Any, status: dict[str, timedelta | None] | None, is_reachable: bool
) -> None:
    if status is not None:
        times = {name: age if age is None else timezone.now() - age for name, age in status.items()}
        LoaderStatus.objects.create(pk=1, pid=7, **times)
    with django_assert_num_queries(1):
        assert loader_view().reachable is is_reachable


@pytest.mark.parametrize(
    ("status", "heard", "silent"),
    [
        ("unloaded", "unloaded", "unloaded"),
        ("loading", "loading", "unreachable"),
        ("loaded", "loaded", "unreachable"),
        ("unloading", "unloading", "unreachable"),
        ("error", "error", "error"),
    ],
)
def test_what_a_silent_loaderd_held_is_unreachable(status: str, heard: str, silent: str) -> None:
    version = ModelVersion(status=status)
    assert effective_status(version, LoaderView(reachable=True)) == heard
    assert effective_status(version, LoaderView(reachable=False)) == silent
