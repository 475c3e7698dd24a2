"""A registered model that was never loaded has no route, and is known all the same."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loaderd.errors import LoaderUnreachable, UnknownModel
from loaderd.gateway import lookup
from loaderd.gateway.access import Access
from loaderd.gateway.links import Links
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.supervisor import Supervisor
from tests.loaderd.gateway.conftest import Served

ROWS = [
    {"model_id": "spam-v1", "name": "spam", "version": "1", "state": "unloaded", "reason": ""},
    {"model_id": "echo", "name": "words", "version": "1", "state": "unloaded", "reason": ""},
]
TEXT = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}


@pytest.fixture
def registered(served: Served) -> Served:
    served.door.answer = lambda message: ROWS
    return served


@pytest.mark.parametrize("path", ["spam-v1", "spam", "spam/versions/1"])
def test_it_is_not_ready_and_not_loaded(registered: Served, path: str) -> None:
    assert registered.http.get(f"/v2/models/{path}/ready").status_code == 503
    for response in (
        registered.http.get(f"/v2/models/{path}"),
        registered.http.post(f"/v2/models/{path}/infer", json=TEXT),
    ):
        assert (response.status_code, response.json()["code"]) == (409, "model_not_loaded")
        assert "load it with POST /v2/repository/models/spam-v1/load" in response.json()["error"]


def test_what_is_not_registered_is_unknown(registered: Served) -> None:
    assert registered.http.get("/v2/models/ham/ready").status_code == 404
    assert registered.http.get("/v2/models/spam/versions/2/ready").status_code == 404


def test_the_private_prediction_resolves_names_as_the_public_one_does(registered: Served) -> None:
    private = registered.door.private()

    def code(name: str) -> str:
        answer = private.post(f"/internal/models/{name}/predict", json={"inputs": ["!"]}).json()
        return answer["error"]["code"] if "error" in answer else answer["model_id"]

    assert code("echo-v1") == "echo-v1"
    assert code("spam-v1") == "model_not_loaded"
    assert code("echo") == "echo-v1", "a lineage first, though a model has this id"
    assert code("ham") == "model_not_found"


def test_a_flood_of_unknown_names_asks_the_registry_once_a_while(registered: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        paths = [f"/v2/models/unknown-{number}/ready" for number in range(200)]
        assert {response.status_code for response in pool.map(registered.http.get, paths)} == {404}
    assert registered.door.commands.qsize() < 50, "one question a second"


class Registry(Supervisor):
    """Answers with `rows`, or never."""

    def __init__(self, rows: list[dict[str, Any]] | None) -> None:
        super().__init__(Access(), Links())
        self.asked = 0
        self._rows = rows

    async def ask(self, command: str, **facts: Any) -> Any:
        self.asked += 1
        await asyncio.sleep(0)
        if self._rows is None:
            await asyncio.Event().wait()
        return self._rows


def test_concurrent_questions_are_one_and_later_ones_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        registry = Registry(ROWS)
        found = Lookup(registry)
        results = await asyncio.gather(*(found.find("ham") for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, UnknownModel) for result in results)
        assert (await found.find("spam")).route.model_id == "spam-v1"
        assert registry.asked == 1
        monkeypatch.setattr(lookup, "FRESH_SECONDS", 0.0)
        found = Lookup(registry)
        await found.find("spam")
        await found.find("spam")
        assert registry.asked == 3

    asyncio.run(ask())


def test_a_registry_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "INDEX_SECONDS", 0.01)

    async def ask() -> None:
        await Lookup(Registry(None)).find("spam")

    with pytest.raises(LoaderUnreachable, match="The registry did not say within"):
        asyncio.run(ask())
