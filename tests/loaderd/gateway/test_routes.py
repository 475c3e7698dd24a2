"""Names find the version that they mean."""

from __future__ import annotations

from typing import Any

import pytest

from loaderd.errors import ModelNotLoaded, UnknownModel
from loaderd.gateway.routes import Routes


def line(lineage: str, version: str, state: str = "loaded", **more: Any) -> dict[str, Any]:
    socket = "/s" if state == "loaded" else None
    return {"lineage": lineage, "version": version, "state": state, "socket": socket, "signature": None, **more}


ROUTES = Routes.from_message(
    {
        "spam-v2": line("spam", "2"),
        "spam-v10": line("spam", "10"),
        "spam-v11": line("spam", "11", "error", reason="ran out of memory"),
        "topic-v1": line("topic", "1", "unloaded"),
        "topic-v2": line("topic", "2", "loading", unknown="keys are for newer gateways"),
    }
)


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("spam-v2", None, "spam-v2"),
        ("spam-v2", "2", "spam-v2"),
        ("spam", None, "spam-v10"),
        ("spam", "2", "spam-v2"),
        ("spam", "11", "spam-v11"),
        ("topic", None, "topic-v2"),
    ],
)
def test_a_name_finds_its_version(name: str, version: str | None, found: str) -> None:
    assert ROUTES.resolve(name, version).model_id == found


@pytest.mark.parametrize(("name", "version"), [("ham", None), ("spam", "3"), ("spam-v2", "10")])
def test_what_is_not_there_is_unknown(name: str, version: str | None) -> None:
    with pytest.raises(UnknownModel, match=f'No model named "{name}" is known here'):
        ROUTES.resolve(name, version)


def test_a_model_id_may_be_asked_for_exactly() -> None:
    assert ROUTES.exactly("spam-v2").model_id == "spam-v2"
    with pytest.raises(UnknownModel, match='No model named "spam" is known here'):
        ROUTES.exactly("spam")


def test_what_is_not_loaded_says_its_state_and_what_to_do() -> None:
    with pytest.raises(ModelNotLoaded, match=r"topic-v2 is loading; try again when it is ready\."):
        ROUTES.resolve("topic").require_ready()
    with pytest.raises(ModelNotLoaded, match=r"spam-v11 is error \(ran out of memory\); load it with POST /v2/rep"):
        ROUTES.resolve("spam", "11").require_ready()


def test_a_lineage_lists_its_loaded_versions_in_order() -> None:
    assert ROUTES.versions_of("spam") == ["2", "10"]
    assert ROUTES.versions_of("spam-v2") == ["2"]
    assert ROUTES.versions_of("topic") == []
