"""Which figures a name means, and what is told when there are few or none."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from loaderd.errors import LoaderUnreachable
from loaderd.gateway import statistics
from loaderd.gateway.access import Access
from loaderd.gateway.links import Links
from loaderd.gateway.lookup import Lookup
from loaderd.gateway.routes import Routes
from loaderd.gateway.supervisor import Supervisor
from tests.loaderd.gateway.door import Door


def line(version: str, **changes: Any) -> dict[str, Any]:
    return {"lineage": "m", "version": version, "state": "loaded", "sockets": [f"/{version}"], **changes}


@pytest.fixture
def versions(door: Door) -> Door:
    """Three versions of m, of which m-v2 is not loaded; none has counted anything yet, but for m-v3's memory."""
    door.route({"m-v1": line("1"), "m-v2": line("2", state="unloaded", sockets=[]), "m-v3": line("3")})
    door.answer = lambda message: (
        {
            name: {"counters": {}, "private_bytes": None, "gpu_bytes": 7 if name == "m-v3" else None}
            for name in message.get("model_ids", ())
        }
        or []
    )
    return door


def told(door: Door, path: str) -> list[tuple[str, str]]:
    answer = door.http().get(f"/v2/models/{path}").raise_for_status()
    return [(entry["name"], entry["version"]) for entry in answer.json()["model_stats"]]


def test_a_lineage_means_its_loaded_versions_and_an_id_one(versions: Door) -> None:
    assert told(versions, "m/stats") == [("m", "1"), ("m", "3")]
    assert told(versions, "m/versions/3/stats") == [("m", "3")]
    assert told(versions, "m-v1/stats") == [("m-v1", "1")]
    assert told(versions, "stats") == [("m-v1", "1"), ("m-v3", "3")]
    assert versions.http().get("/v2/models/m-v2/stats").status_code == 409
    assert versions.http().get("/v2/models/m/versions/9/stats").status_code == 404
    assert versions.http().post("/v2/models/m/stats").status_code == 405


def test_before_anything_is_counted_there_are_zeros(versions: Door) -> None:
    (entry,) = versions.http().get("/v2/models/m-v3/stats").json()["model_stats"]
    assert (entry["inference_count"], entry["execution_count"], entry["last_inference"]) == (0, 0, 0)
    assert set(map(str, entry["inference_stats"].values())) == {"{'count': 0, 'ns': 0}"}
    assert entry["batch_stats"] == []
    assert entry["memory_usage"] == [{"type": "GPU", "id": 0, "byte_size": 7}]


def test_without_loaded_models_nobody_is_asked(door: Door) -> None:
    assert told(door, "stats") == []
    assert door.commands.empty()


def test_a_supervisor_that_does_not_answer_is_waited_for_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ANSWER_SECONDS", 0.05)

    async def ask() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            supervisor = Supervisor(Access(), Links())
            await supervisor.connect(ours)
            supervisor.routes = Routes.from_message({"m-v1": line("1")})
            await statistics.statistics(supervisor, Lookup(supervisor))

    with pytest.raises(LoaderUnreachable, match=r"within 0.05 s"):
        asyncio.run(ask())
