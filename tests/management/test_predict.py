"""manage.py predict: texts, JSON by option or standard input; a table or JSON."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from loaderd.errors import ModelNotLoaded
from modelhub.inference import client

pytestmark = pytest.mark.django_db  # the policy says how long to wait


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def predict(model_id: str, inputs: list[Any], *, user: str, timeout_seconds: float) -> dict[str, Any]:
        calls.append((model_id, inputs, user))
        labelled = {"label": "positive", "score": 0.98765, "scores": {"positive": 0.98765, "negative": 0.01235}}
        predictions = [labelled if isinstance(item, str) else {"output": [1, 2]} for item in inputs]
        return {"model_id": model_id, "version": "1", "predictions": predictions, "latency_ms": 1.5}

    monkeypatch.setattr(client, "predict", predict)
    return calls


def test_texts_make_a_table(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    call_command("predict", "m", "I love it", "so do I")
    out = capsys.readouterr().out
    assert asked == [("m", ["I love it", "so do I"], "operator")]
    assert "m, 1.5 ms" in out
    assert "I love it" in out
    assert "positive" in out
    assert "0.988" in out


@pytest.mark.parametrize("text", ["[[5.1, 3.5]]", '{"inputs": [[5.1, 3.5]]}'])
def test_json_comes_by_option_or_standard_input(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    call_command("predict", "m", "--input", text, "--json")
    answer = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    call_command("predict", "m")
    assert "[1, 2]" in capsys.readouterr().out
    assert asked == [("m", [[5.1, 3.5]], "operator")] * 2
    assert answer["predictions"] == [{"output": [1, 2]}]


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["text", "--input", "[1]"], ""),
        (["--input", "{"], ""),
        (["--input", "7"], ""),
        (["--input", "[]"], ""),
        ([], ""),
    ],
)
def test_wrong_usage_ends_with_2(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], stdin: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    with pytest.raises(CommandError) as refused:
        call_command("predict", "m", *arguments)
    assert refused.value.returncode == 2
    assert not asked


def test_an_error_of_the_model_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ModelNotLoaded("m is not loaded; load it first.")

    monkeypatch.setattr(client, "predict", fail)
    with pytest.raises(CommandError, match=r"m is not loaded; load it first\.") as refused:
        call_command("predict", "m", "x")
    assert refused.value.returncode == 1


@pytest.mark.django_db
def test_a_user_needs_the_permission(asked: list[Any]) -> None:
    User.objects.create_user("ada")
    with pytest.raises(CommandError, match=r"registry\.predict_modelversion"):
        call_command("predict", "m", "x", "--user", "ada")
    User.objects.create_superuser("boss")
    call_command("predict", "m", "x", "--user", "boss")
    assert asked == [("m", ["x"], "boss")]
