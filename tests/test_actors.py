"""Histories name a user, the operator or the system, each in one way."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from modelhub.actors import actor_of, named


@pytest.mark.parametrize(
    ("source", "actor"),
    [("command", "operator"), ("demand", "system"), ("python", "system"), ("inference", "system")],
)
def test_who_is_no_user_is_named_by_the_door(source: str, actor: str) -> None:
    assert actor_of(None, source) == named("", source) == actor


@pytest.mark.parametrize("source", ["command", "api", "python"])
def test_a_user_is_named_whatever_the_door(source: str) -> None:
    ada = SimpleNamespace(get_username=lambda: "ada")
    assert actor_of(ada, source) == named("ada", source) == "ada"
