"""What an upgrade makes of a registry that has no aliases yet."""

from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps
from django.utils import timezone

from modelhub.lifecycle.models import LineageChange
from modelhub.registry.models import Alias, Model
from tests.lifecycle.conftest import MakeVersion

pytestmark = pytest.mark.django_db

set_live = import_module("modelhub.lifecycle.migrations.0003_live_versions").set_live


def test_a_lineage_of_before_gets_its_highest_version_in_use_as_live(make_version: MakeVersion) -> None:
    make_version("topic-v9", lineage="topic", version="1.9.0", status="loaded")
    make_version("topic-v10", lineage="topic", version="1.10.0", desired_state="loaded")
    make_version("topic-v11", lineage="topic", version="1.11.0")
    make_version("topic-v12", lineage="topic", version="1.12.0", desired_state="loaded", missing_since=timezone.now())
    make_version("unused-v1", lineage="unused")
    make_version("mood-v1", lineage="mood", version="1")
    make_version("mood-v2", lineage="mood", version="2", status="loaded")
    mood = Model.objects.get(name="mood")
    Alias.objects.create(lineage=mood, name="live", version=mood.versions.get(version="1"), set_by="ada")
    for _ in range(2):
        set_live(apps, None)
    assert sorted(str(alias.version) for alias in Alias.objects.filter(name="live")) == ["mood-v1", "topic-v10"]
    change = LineageChange.objects.get()
    assert (change.lineage.name, change.alias, change.kind, change.actor) == ("topic", "live", "first", "upgrade")
    assert change.version is not None
    assert (change.version.model_id, change.details["version_id"]) == ("topic-v10", "topic-v10")
    assert Alias.objects.get(lineage__name="topic").set_by == "upgrade"
