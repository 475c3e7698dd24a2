from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import results, rounds, setting
from benchmarks.peers import named
from benchmarks.peers.base import Peer, PeerFailed
from benchmarks.rounds import Plan, contenders, leave_out, measured, missing
from tests.benchmarks.rows import row, run

PEERS = [named("modelhub"), named("fastapi")]


def plan(folder: Path, *, wanted: int = 2, until: float | None = None) -> Plan:
    return Plan(["text"], [1, 8], wanted, 1, 1, folder / "peers.jsonl", "v", until)


def test_every_round_takes_each_concurrency_in_turn(tmp_path: Path) -> None:
    assert list(missing([], "text", plan(tmp_path), PEERS)) == [(1, 1), (1, 8), (2, 1), (2, 8)]


def test_what_was_made_before_counts_and_a_broken_turn_is_made_again_under_another_number(tmp_path: Path) -> None:
    rows = [
        row("modelhub", run(1), connections=1, number=1),
        row("fastapi", run(1), connections=1, number=1),
        row("modelhub", run(1), connections=8, number=1),
    ]
    assert list(missing(rows, "text", plan(tmp_path), PEERS)) == [(2, 8), (2, 1), (3, 8)]
    assert list(missing(rows, "digits", plan(tmp_path, wanted=1), PEERS)) == [(1, 1), (1, 8)]


def test_a_peer_that_failed_twice_with_a_model_is_left_out_of_it() -> None:
    rows = [row("fastapi", None, connections=0, failed="no") for _ in range(2)]
    assert contenders(rows, "text", PEERS) == PEERS[:1]
    assert contenders(rows[:1], "text", PEERS) == PEERS
    assert contenders(rows, "digits", PEERS) == PEERS
    assert contenders([], "digits", [named("null")]) == []


def test_rows_of_other_code_are_not_counted(tmp_path: Path) -> None:
    here = plan(tmp_path)
    for version in ("v", "w"):
        results.append(here.file, row("fastapi", run(1), machine=setting.machine(), version=version))
    assert [each.version for each in measured(here)] == ["v"]


def test_a_peer_that_cannot_be_measured_is_noted_once(tmp_path: Path) -> None:
    for _ in range(2):
        leave_out(PEERS[1], "no Java", plan(tmp_path))
    (noted,) = results.read(tmp_path / "peers.jsonl")
    assert (noted.peer, noted.failed) == ("fastapi", "no Java")


def test_time_that_does_not_suffice_for_a_turn_begins_none(tmp_path: Path) -> None:
    assert plan(tmp_path).has_time_for(100)
    soon = plan(tmp_path, until=time.monotonic() + 10)
    assert soon.has_time_for(2)
    assert not soon.has_time_for(20)
    assert not soon.has_time_to_start(2)
    assert rounds.measure(soon, PEERS) is False
    assert not soon.file.exists()


class _Broken(type(named("fastapi"))):  # type: ignore[misc]
    def start(self, names: list[str]) -> None:
        raise PeerFailed("it does not start")


def test_a_server_that_does_not_start_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    here, broken = plan(tmp_path), _Broken()
    peers: list[Peer] = [broken]
    assert rounds.measure(here, peers) is False
    assert rounds.measure(here, peers) is True  # twice is enough
    assert [each.failed for each in results.read(here.file)] == ["it does not start"] * 2


def test_a_digest_of_the_code_is_the_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in setting.CODE:
        (tmp_path / folder).mkdir()
    (tmp_path / "loaderd" / "a.py").write_text("a = 1")
    monkeypatch.setattr(setting.places, "PROJECT_DIR", tmp_path)
    first = setting.version.__wrapped__()
    assert setting.version.__wrapped__() == first
    (tmp_path / "loaderd" / "a.py").write_text("a = 2")
    assert setting.version.__wrapped__() != first
