from __future__ import annotations

import shutil
import subprocess

import pytest

from benchmarks import layouts
from benchmarks.models import MODELS
from benchmarks.peers import KINDS, USUAL, UnknownPeer, named
from benchmarks.places import REQUIREMENTS_DIR


def test_every_peer_and_variant_has_a_name_of_its_own() -> None:
    names = [f"{kind}-{variant}".rstrip("-") for kind, peer in KINDS.items() for variant in peer.settings]
    assert [named(name).name for name in names] == names
    assert set(USUAL) <= set(names)


@pytest.mark.parametrize("name", ["torch", "fastapi-batch", ""])
def test_a_peer_that_is_not_there_is_answered_with_those_that_are(name: str) -> None:
    with pytest.raises(UnknownPeer, match="triton-batch"):
        named(name)


def test_every_environment_is_described() -> None:
    wanted = {peer.environment for peer in KINDS.values()} - {None}
    assert all((REQUIREMENTS_DIR / f"{name}.txt").exists() for name in wanted)


def test_torchserve_says_what_it_needs_where_java_is_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "Java 17" in (named("torchserve").why_not() or "")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
    said = {"1.8.0_442": False, "17.0.15": True, "21": True}
    for version, is_enough in said.items():
        answer = subprocess.CompletedProcess([], 0, "", f'openjdk version "{version}" 2025-04-15')
        monkeypatch.setattr(subprocess, "run", lambda *a, answer=answer, **k: answer)
        assert (named("torchserve").why_not() is None) is is_enough, version


def test_bodies_have_the_form_that_each_protocol_wants() -> None:
    text, digits = MODELS["text"], MODELS["digits"]
    row = [0.0] * 64
    assert named("fastapi").body(text, ["hello"]) == {"input": "hello"}
    assert named("bentoml-batch").body(text, ["hello"]) == {"input": ["hello"]}
    assert named("triton").body(digits, [row])["inputs"][0]["shape"] == [1, 64]
    assert named("triton").body(text, ["hello"])["inputs"][0]["shape"] == [1, 1]
    assert named("mlserver").body(text, ["hello"])["inputs"][0]["parameters"] == {"content_type": "str"}


def test_triton_is_told_the_types_of_its_tensors() -> None:
    assert "data_type: TYPE_STRING dims: [ 1 ]" in layouts.triton_config(MODELS["text"])
    assert "data_type: TYPE_FP32 dims: [ 64 ]" in layouts.triton_config(MODELS["keras"])
