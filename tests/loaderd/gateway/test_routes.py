"""Names find the version that they mean."""

from __future__ import annotations

from typing import Any

import pytest

from loaderd.errors import ModelNotLoaded, UnknownModel
from loaderd.gateway.routes import Routes


def line(lineage: str, version: str, state: str = "loaded", **more: Any) -> dict[str, Any]:
    socket = "/s" if state == "loaded" else None
    return {
        "lineage": lineage,
        "version": version,
        "state": state,
        "sockets": [socket] if socket else [],
        "signature": None,
        **more,
    }


def traffic(live: str | None = None, percent: float = 0.0, shadow: bool = False, **aliases: str) -> dict[str, Any]:
    named = aliases if live is None else {"live": live, **aliases}
    return {"aliases": named, "candidate_percent": percent, "shadow": shadow}


MODELS = {
    "spam-v2": line("spam", "2"),
    "spam-v10": line("spam", "10"),
    "spam-v11": line("spam", "11", "error", reason="ran out of memory"),
    "topic-v1": line("topic", "1", "unloaded"),
    "topic-v2": line("topic", "2", "loading", unknown="keys are for newer gateways"),
    "ham": line("ham", "1"),
    "ham-v2": line("ham", "2"),
    "words": line("texts", "1"),
}
ROUTES = Routes.from_message(MODELS)


def found(routes: Routes, name: str, version: str | None = None) -> str:
    return routes.require_target(name, version).route.model_id


@pytest.mark.parametrize(
    ("name", "version", "model_id"),
    [
        ("spam-v2", None, "spam-v2"),
        ("spam-v2", "2", "spam-v2"),
        ("spam", None, "spam-v10"),
        ("spam", "2", "spam-v2"),
        ("spam", "11", "spam-v11"),
        ("topic", None, "topic-v2"),
        ("ham", None, "ham-v2"),
        ("ham", "1", "ham"),
        ("words", None, "words"),
    ],
)
def test_a_name_finds_its_version(name: str, version: str | None, model_id: str) -> None:
    assert found(ROUTES, name, version) == model_id


@pytest.mark.parametrize(("name", "version"), [("eggs", None), ("spam", "3"), ("spam-v2", "10"), ("spam", "live")])
def test_what_is_not_there_is_unknown(name: str, version: str | None) -> None:
    assert ROUTES.target(name, version) is None
    with pytest.raises(UnknownModel, match=f'No model named "{name}" is known here'):
        ROUTES.require_target(name, version)


@pytest.mark.parametrize(
    ("lineages", "name", "version", "model_id"),
    [
        ({"spam": traffic("spam-v2")}, "spam", None, "spam-v2"),
        ({"spam": traffic("spam-v2")}, "spam", "live", "spam-v2"),
        ({"spam": traffic("spam-v2")}, "spam", "10", "spam-v10"),
        ({"spam": traffic("spam-v2", stable="spam-v10")}, "spam", "stable", "spam-v10"),
        ({"spam": traffic("spam-v11")}, "spam", None, "spam-v11"),
        ({"ham": traffic("ham")}, "ham", None, "ham"),
        ({"words": traffic("spam-v2")}, "words", None, "spam-v2"),
    ],
    ids=["live", "live-by-alias", "a-version", "an-alias", "live-and-not-loaded", "live-has-the-name", "lineage-first"],
)
def test_aliases_decide_what_a_lineage_means(
    lineages: dict[str, Any], name: str, version: str | None, model_id: str
) -> None:
    assert found(Routes.from_message(MODELS, lineages), name, version) == model_id


def test_a_live_version_that_is_not_loaded_is_named_and_never_replaced() -> None:
    routes = Routes.from_message(MODELS, {"spam": traffic("spam-v11")})
    with pytest.raises(ModelNotLoaded, match="spam-v11 is error"):
        routes.require_target("spam").route.require_ready()


def test_a_live_version_that_the_table_does_not_name_is_asked_of_the_registry() -> None:
    routes = Routes.from_message(MODELS, {"ham": traffic("ham-v3"), "new": traffic("new-v1")})
    assert routes.target("ham") is None, "neither the loaded version nor the model of this name stands in"
    assert routes.target("new") is None
    rows = [{"model_id": "ham-v3", "name": "ham", "version": "3", "state": "unloaded", "autoload": True}]
    registered = routes.registered(rows).require_target("ham")
    assert (registered.route.model_id, registered.route.autoload) == ("ham-v3", True)


@pytest.mark.parametrize(("live", "is_awaited"), [("spam-v11", True), ("spam-v10", False)])
def test_in_a_gap_requests_wait_for_the_version_that_takes_over(live: str, is_awaited: bool) -> None:
    routes = Routes.from_message(MODELS, {"spam": {**traffic(live), "in_gap": True}})
    assert routes.require_target("spam").route.is_awaited is is_awaited


class TestSplit:
    @pytest.mark.parametrize(
        ("lineage", "is_split"),
        [
            (traffic("spam-v2", 5, candidate="spam-v10"), True),
            (traffic("spam-v2", shadow=True, candidate="spam-v10"), True),
            (traffic("spam-v2", candidate="spam-v10"), False),
            (traffic("spam-v2", 5), False),
            (traffic("spam-v2", 5, candidate="spam-v2"), False),
            (traffic("spam-v2", 5, candidate="spam-v11"), False),
            (traffic(None, 5, candidate="spam-v10"), False),
        ],
        ids=["percent", "shadow", "no-share", "no-candidate", "candidate-is-live", "candidate-not-ready", "no-live"],
    )
    def test_it_needs_a_live_version_and_a_ready_candidate_with_a_share(
        self, lineage: dict[str, Any], is_split: bool
    ) -> None:
        routes = Routes.from_message(MODELS, {"spam": lineage})
        assert (routes.require_target("spam").split is not None) is is_split

    def test_only_the_bare_name_is_split(self) -> None:
        routes = Routes.from_message(MODELS, {"spam": traffic("spam-v2", 50, True, candidate="spam-v10")})
        split = routes.require_target("spam").split
        assert split is not None
        assert (split.live.model_id, split.candidate.model_id) == ("spam-v2", "spam-v10")
        for name, version in (("spam-v2", None), ("spam", "2"), ("spam", "live"), ("spam", "candidate")):
            assert routes.require_target(name, version).split is None


def test_what_is_not_loaded_says_its_state_and_what_to_do() -> None:
    with pytest.raises(ModelNotLoaded, match=r"topic-v2 is loading; try again when it is ready\."):
        ROUTES.require_target("topic").route.require_ready()
    with pytest.raises(ModelNotLoaded, match=r"spam-v11 is error \(ran out of memory\); load it with POST /v2/rep"):
        ROUTES.require_target("spam", "11").route.require_ready()


def test_a_name_lists_its_loaded_versions_in_order() -> None:
    assert ROUTES.versions_of("spam") == ["2", "10"]
    assert ROUTES.versions_of("spam-v2") == ["2"]
    assert ROUTES.versions_of("topic") == []
    assert ROUTES.versions_of("ham") == ["1", "2"], "a lineage first"
