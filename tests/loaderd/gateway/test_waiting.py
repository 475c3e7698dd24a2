"""Predictions wait for a model that comes back or is loaded for them; what was not computed is routed again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from loaderd import protocol
from loaderd.errors import InsufficientMemory, ModelNotLoaded, ModelRestarting, Overloaded
from loaderd.gateway import waiting
from loaderd.gateway.access import Access
from loaderd.gateway.links import Links
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.supervisor import Supervisor
from loaderd.gateway.waiting import MAX_WAITING, MAX_WAITING_BYTES, Waiting
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served
from tests.loaderd.gateway.door import LATER, SECONDS, TOKEN, row
from tests.loaderd.worker.process import ModelProcess, spec

TEXT = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
GONE: dict[str, Any] = {"sockets": [], "signature": None}
RESTARTING = {**GONE, "state": "error", "reason": "was ended by SIGKILL", "recovering": True}
ON_DEMAND = {**GONE, "state": "unloaded", "autoload": True}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def infer(served: Served, model: str = "echo-v1") -> httpx.Response:
    return served.http.post(f"/v2/models/{model}/infer", json=TEXT)


def wait_for_waiters(served: Served, count: int) -> None:
    wait_until(lambda: served.door.in_flight() == count, what=f"{count} requests at the door")


class TestRestart:
    def test_requests_wait_until_the_model_is_back(self, served: Served, pool: ThreadPoolExecutor) -> None:
        loaded = dict(served.table["echo-v1"])
        served.change("echo-v1", **RESTARTING)
        answers = [pool.submit(infer, served, name) for name in ["echo-v1", "echo"] * 5]
        wait_for_waiters(served, 10)
        served.change("echo-v1", state="loading")
        served.change("echo-v1", **loaded, recovering=False)
        assert [answer.result().status_code for answer in answers] == [200] * 10
        assert [message["command"] for message in served.door.commands.queue if message["command"] != "metrics"] == []

    def test_the_private_door_waits_as_well(self, served: Served, pool: ThreadPoolExecutor) -> None:
        loaded = dict(served.table["classifier-v1"])
        served.change("classifier-v1", **RESTARTING)
        private = served.door.private()
        answer = pool.submit(private.post, "/internal/models/classifier/predict", json={"inputs": ["!"]})
        served.change("classifier-v1", **loaded, recovering=False)
        assert answer.result().status_code == 200

    def test_when_it_takes_too_long_the_answer_says_to_come_again(self, served: Served) -> None:
        served.change("echo-v1", **RESTARTING)
        served.door.route(served.table, load_wait_seconds=0.05)
        answer = infer(served)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_restarting")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"].startswith("echo-v1 is being restarted and was not ready within 0.05 s")

    def test_when_it_is_given_up_those_who_wait_are_told(self, served: Served, pool: ThreadPoolExecutor) -> None:
        served.change("echo-v1", **RESTARTING)
        answer = pool.submit(infer, served)
        wait_for_waiters(served, 1)
        served.change("echo-v1", recovering=False, reason="gave up")
        assert (answer.result().status_code, answer.result().json()["code"]) == (409, "model_not_loaded")
        assert "echo-v1 is error (gave up)" in answer.result().json()["error"]

    def test_a_client_that_leaves_waits_no_longer(self, served: Served) -> None:
        served.change("echo-v1", **RESTARTING)
        body = json.dumps(TEXT)
        with socket.create_connection(("127.0.0.1", served.door.port)) as leaving:
            leaving.sendall(
                f"POST /v2/models/echo-v1/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Token {TOKEN}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            wait_for_waiters(served, 1)
        wait_for_waiters(served, 0)

    def test_other_models_answer_meanwhile(self, served: Served, pool: ThreadPoolExecutor) -> None:
        served.change("echo-v1", **RESTARTING)
        waiting = pool.submit(infer, served)
        wait_for_waiters(served, 1)
        assert infer(served, "classifier-v1").status_code == 200
        served.change("echo-v1", recovering=False)
        assert waiting.result().status_code == 409


class TestDemand:
    def test_one_load_is_asked_for_however_many_wait(self, served: Served, pool: ThreadPoolExecutor) -> None:
        served.door.answer = lambda message: LATER if message["command"] == "demand" else ""
        loaded = dict(served.table["echo-v1"])
        served.change("echo-v1", **ON_DEMAND)
        answers = [pool.submit(infer, served) for _ in range(10)]
        wait_for_waiters(served, 10)
        demands = [message for message in served.door.commands.queue if message["command"] == "demand"]
        assert [(demand["model_id"], demand["user"]) for demand in demands] == [("echo-v1", "ada")]
        served.change("echo-v1", **loaded)
        served.door.reply(demands[0], {"state": "loaded"})
        assert [answer.result().status_code for answer in answers] == [200] * 10

    def test_a_registered_model_that_was_never_loaded_is_demanded_too(
        self, served: Served, pool: ThreadPoolExecutor
    ) -> None:
        row = {"model_id": "new-v1", "name": "new", "version": "1", "state": "unloaded", "reason": "", "autoload": True}
        served.door.answer = lambda message: {"demand": LATER, "index": [row]}.get(message["command"], "")
        answer = pool.submit(infer, served, "new-v1")
        wait_until(lambda: any(message["command"] == "demand" for message in served.door.commands.queue))
        served.table["new-v1"] = {**served.table["echo-v1"], "lineage": "new"}
        served.door.route(served.table)
        assert answer.result().status_code == 200

    def test_a_load_that_fails_is_told_to_all_and_not_tried_again_at_once(
        self, served: Served, pool: ThreadPoolExecutor
    ) -> None:
        def answer(message: dict[str, Any]) -> Any:
            if message["command"] == "demand":
                raise InsufficientMemory("echo-v1 needs 812 MB and 401 MB are free.")
            return ""

        served.door.answer = answer
        served.change("echo-v1", **ON_DEMAND)
        answers = [pool.submit(infer, served).result() for _ in range(5)]
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(507, "insufficient_memory")}
        demands = [message for message in served.door.commands.queue if message["command"] == "demand"]
        assert len(demands) == 1


class TestRoutingAgain:
    def test_what_a_draining_process_refused_goes_to_the_next(
        self, fresh: Served, tmp_path: Path, pool: ThreadPoolExecutor
    ) -> None:
        model = fresh.models["echo-v1"]
        protocol.send(model.channel, {"command": "drain"})
        assert model.receive()["event"] == "drained"
        with ModelProcess(spec(model_id="echo-v2", version="2"), tmp_path / "next.sock") as following:
            following.ready()
            refused = pool.submit(infer, fresh, "echo")
            fresh.door.in_flight()  # it has been refused, or is about to be: the table follows either way
            fresh.table["echo-v1"] |= {**GONE, "state": "unloading"}
            fresh.table["echo-v2"] = row(following, following.signature)
            lineages = {"echo": {"aliases": {"live": "echo-v2"}}}
            fresh.door.route(fresh.table, lineages)
            assert refused.result().status_code == 200
            assert refused.result().json()["model_version"] == "2"
            assert following.stats()["requests"] == 1

    def test_once_only(self, fresh: Served) -> None:
        model = fresh.models["echo-v1"]
        protocol.send(model.channel, {"command": "drain"})
        assert model.receive()["event"] == "drained"
        answer = infer(fresh)
        assert (answer.status_code, answer.json()["code"]) == (409, "model_not_loaded")

    def test_a_request_that_finds_no_process_waits_for_the_restart(
        self, fresh: Served, tmp_path: Path, pool: ThreadPoolExecutor
    ) -> None:
        model = fresh.models["echo-v1"]
        os.kill(model.process.pid, signal.SIGKILL)
        model.process.wait(SECONDS)
        answer = pool.submit(infer, fresh)
        wait_for_waiters(fresh, 1)
        fresh.change("echo-v1", **RESTARTING)
        with ModelProcess(spec(), tmp_path / "again.sock") as again:
            again.ready()
            fresh.table["echo-v1"] = row(again, again.signature)
            fresh.door.route(fresh.table)
            assert answer.result().status_code == 200


class Told(Supervisor):
    """A table that the test pushes; demands are never answered."""

    def __init__(self, **row: Any) -> None:
        super().__init__(Access(), Links())
        self.load_wait_seconds = 5.0
        self.row = {"lineage": "spam", "version": "1", "state": "error", **row}
        self.push()

    def push(self, **changes: Any) -> None:
        self.row |= changes
        self._take({"event": "routes", "models": {"spam-v1": self.row}, "settings": {"load_wait_seconds": 5.0}})

    def send(self, message: dict[str, Any]) -> None:
        pass


def test_a_bounded_number_waits_and_its_places_come_free() -> None:
    async def crowd() -> None:
        told = Told(recovering=True)
        waits = Waiting(told, Lookup(told))
        crowd = [asyncio.create_task(waits.until_ready("spam", None, "ada", 0)) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=f"{MAX_WAITING} requests wait for it already"):
            await waits.until_ready("spam", None, "ada", 0)
        with pytest.raises(Overloaded):
            waits.require_hope(told.routes.require_target("spam").route)
        crowd[0].cancel()
        await asyncio.sleep(0)
        crowd[0] = asyncio.create_task(waits.until_ready("spam", None, "ada", 0))
        await asyncio.sleep(0)
        told.push(state="loaded", sockets=["/s"], recovering=False)
        targets = await asyncio.gather(*crowd)
        assert {target.route.model_id for target in targets} == {"spam-v1"}

    asyncio.run(crowd())


def test_all_who_wait_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bodies are in no budget: so many models times so many requests would hold gigabytes."""
    monkeypatch.setattr(waiting, "MAX_WAITING_TOGETHER", 3)

    async def crowd() -> None:
        told = Told(recovering=True)
        other = {**told.row, "lineage": "ham"}
        models = {"spam-v1": told.row, "ham-v1": other}
        told._take({"event": "routes", "models": models, "settings": {"load_wait_seconds": 5.0}})
        waits = Waiting(told, Lookup(told))
        crowd = [asyncio.create_task(waits.until_ready("spam", None, "ada", 0)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="ham-v1 is error and 3 requests wait for models already"):
            await waits.until_ready("ham", None, "ada", 0)
        gone = crowd.pop()
        gone.cancel()
        await asyncio.wait({gone})
        crowd.append(asyncio.create_task(waits.until_ready("ham", None, "ada", 0)))  # the place that came free
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="spam-v1 is error and 3 requests wait for models already"):
            await waits.until_ready("spam", None, "ada", 0)
        lost = {name: {**row, "recovering": False} for name, row in models.items()}
        told._take({"event": "routes", "models": lost, "settings": {"load_wait_seconds": 5.0}})
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert [type(result) for result in results] == [ModelNotLoaded] * 3

    asyncio.run(asyncio.wait_for(crowd(), 3))


def test_large_bodies_that_wait_are_bounded_together() -> None:
    async def crowd() -> None:
        told = Told(recovering=True)
        waits = Waiting(told, Lookup(told))
        first = asyncio.create_task(waits.until_ready("spam", None, "ada", MAX_WAITING_BYTES))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await waits.until_ready("spam", None, "ada", 1)
        second = asyncio.create_task(waits.until_ready("spam", None, "ada", 0))
        await asyncio.sleep(0)
        told.push(recovering=False)
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [ModelNotLoaded] * 2

    asyncio.run(crowd())


def test_without_a_wait_the_load_is_asked_for_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[str]:
        told = Told(autoload=True, state="unloaded")
        told.load_wait_seconds = 0.0
        asked: list[str] = []

        async def demand(command: str, **facts: Any) -> Any:
            asked.append(facts["model_id"])
            raise InsufficientMemory("no room")

        monkeypatch.setattr(told, "ask", demand)
        monkeypatch.setattr(waiting, "REFUSED_SECONDS", 0.0)
        waits = Waiting(told, Lookup(told))
        with pytest.raises(ModelRestarting, match="spam-v1 is being loaded and was not ready within 0 s"):
            await waits.until_ready("spam", None, "ada", 0)
        return asked

    assert asyncio.run(ask()) == ["spam-v1"]
