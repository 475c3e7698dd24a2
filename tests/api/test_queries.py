"""Query parameters that an address does not know are refused by name; a wrong choice is told which there are."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from modelhub.registry.models import Model

pytestmark = pytest.mark.usefixtures("lineage", "loaderd_is_heard")

ADDRESSES = [
    ("/api/", []),
    (
        "/api/models/",
        ["include_loaded", "type", "framework", "status", "search", "ordering", "limit", "offset"],
    ),
    ("/api/models/health", []),
    ("/api/models/metrics", []),
    ("/api/models/unused", ["hours"]),
    ("/api/models/discover", []),
    ("/api/models/sentiment-v1", []),
    ("/api/models/sentiment-v1/performance", ["window"]),
    ("/api/models/sentiment-v1/samples", ["window"]),
    ("/api/models/sentiment-v1/state-changes", ["limit", "offset"]),
    ("/api/lineages/", ["limit", "offset"]),
    ("/api/lineages/sentiment", []),
    ("/api/lineages/sentiment/history", ["limit", "offset"]),
    ("/api/lineages/sentiment/aliases", []),
    ("/api/lineages/sentiment/traffic", []),
    ("/api/lineages/sentiment/comparison", []),
    ("/api/operations/", ["kind", "status", "model", "limit", "offset"]),
    ("/api/alerts/", ["state", "kind", "model", "limit", "offset"]),
    ("/api/policy", []),
    ("/api/policy/changes", ["limit", "offset"]),
    ("/api/samples", ["window"]),
]


@pytest.mark.parametrize(("address", "known"), ADDRESSES, ids=[address for address, _ in ADDRESSES])
def test_an_unknown_one_is_refused_and_the_known_are_named(api: APIClient, address: str, known: list[str]) -> None:
    answer = api.get(f"{address}?hour=1&format=json")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], list(error["details"])) == (400, "invalid_input", ["hour"])
    told = f"hour is no query parameter of this address; known are {', '.join([*known, 'format'])}."
    assert error["details"]["hour"] == [told]


@pytest.mark.parametrize(
    ("method", "address", "known"),
    [
        ("post", "/api/models/sentiment-v1/load", "dry_run, format"),
        ("post", "/api/models/optimize-memory", "dry_run, format"),
        ("post", "/api/models/sentiment-v1/predict", "format"),
        ("patch", "/api/policy", "format"),
        ("put", "/api/lineages/sentiment/traffic", "format"),
        ("delete", "/api/lineages/sentiment/aliases/candidate", "format"),
    ],
)
def test_neither_is_it_passed_over_by_what_changes_something(
    api: APIClient, lineage: Model, method: str, address: str, known: str
) -> None:
    answer = getattr(api, method)(f"{address}?dryrun=true")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["dryrun"][0].endswith(f"known are {known}.")
    assert lineage.aliases.filter(name="candidate").exists()


@pytest.mark.parametrize(
    "address",
    ["/api/?format=json", "/api/models/?format=json&limit=1&offset=0&include_loaded=true", "/api/policy?format=json"],
)
def test_those_of_pages_and_formats_stay(api: APIClient, address: str) -> None:
    answer = api.get(address)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")


def test_a_method_that_is_not_served_is_told_first(api: APIClient) -> None:
    assert api.post("/api/models/?hour=1", {}).status_code == 405


@pytest.mark.parametrize(
    ("address", "name", "choices"),
    [
        ("/api/samples?window=2h", "window", "1h, 24h, 7d"),
        ("/api/models/?type=x", "type", "sentiment"),
        ("/api/models/?status=foo", "status", "loaded"),
        ("/api/operations/?kind=x", "kind", "load, unload, activate, rollback, optimize"),
        ("/api/operations/?status=x", "status", "queued, running, succeeded, failed, cancelled"),
        ("/api/alerts/?state=x", "state", "open, acknowledged, resolved, unresolved"),
    ],
)
def test_a_wrong_choice_is_told_which_there_are(api: APIClient, address: str, name: str, choices: str) -> None:
    answer = api.get(address)
    (told,) = answer.json()["error"]["details"][name]
    assert answer.status_code == 400
    assert told.startswith(f'"{address.rpartition("=")[2]}" is none of ')
    assert choices in told


def test_a_wrong_choice_in_a_body_too(api: APIClient) -> None:
    answer = api.patch("/api/policy", {"PERFORMANCE_LOG_LEVEL": "LOUD"})
    told = '"LOUD" is none of DEBUG, INFO, WARNING, ERROR.'
    assert answer.json()["error"]["details"] == {"PERFORMANCE_LOG_LEVEL": [told]}
