"""What metadata.json and config.json may say, and how a wrong one is told."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.registry.artifacts import Refused
from modelhub.registry.metadata import Description, describe, parse_json


def described(model_id: str = "mood", config: dict[str, Any] | None = None, **metadata: Any) -> Description:
    return describe(model_id, ["model.skops"], metadata, config or {})


@pytest.mark.parametrize(
    ("model_id", "lineage", "version"),
    [
        ("sentiment-model-v1", "sentiment-model", "1"),
        ("sentiment-model-v1.0", "sentiment-model", "1.0"),
        ("topic_model_v2.0.1", "topic_model", "2.0.1"),
        ("mood", "mood", "1.0.0"),
        ("v1", "v1", "1.0.0"),
        ("mood-version", "mood-version", "1.0.0"),
        ("mood-v1-large", "mood-v1-large", "1.0.0"),
        ("a-v1-v2", "a-v1", "2"),
        ("stimmung-übung-V3", "stimmung-übung", "3"),
    ],
)
def test_lineage_and_version_come_from_the_name(model_id: str, lineage: str, version: str) -> None:
    said = described(model_id)
    assert (said.lineage, said.version, said.name) == (lineage, version, model_id)


def test_what_metadata_states_comes_first() -> None:
    said = described("x-v1", lineage="mood", version="1.2.0-rc.1", name="Mood", description="Of e-mails.\nNew 👩‍🔬")
    assert (said.lineage, said.version, said.name) == ("mood", "1.2.0-rc.1", "Mood")
    assert said.description.endswith("👩‍🔬")


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T14:00:00+02:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31 12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        (1638360000.0, datetime.fromtimestamp(1638360000, UTC)),
        (None, None),
    ],
)
def test_created_at_is_a_date_or_unix_seconds(stated: Any, meant: datetime | None) -> None:
    assert described(created_at=stated).created_at == meant


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("version", 1.0, "a string"),
        ("version", "1/2", "letters, digits"),
        ("version", "..", "letters, digits"),
        ("name", ["x"], "a string"),
        ("name", "x" * 201, "at most 200"),
        ("name", "a\x1b[2Jb", "control"),
        ("lineage", "a/b", 'without "/"'),
        ("lineage", "..", 'without "/"'),
        ("description", "a\x1b[2Jb", "control"),
        ("framework", "scikit", "one of sklearn, tensorflow, transformers"),
        ("labels", [1, 2], "class names"),
        ("labels", "positive", "class names"),
        ("performance_metrics", [0.9], "an object"),
        ("created_at", "yesterday", "ISO 8601"),
        ("created_at", True, "ISO 8601"),
        ("created_at", 1e300, "ISO 8601"),
    ],
)
def test_a_wrong_value_is_told_with_file_key_and_expectation(key: str, value: Any, expected: str) -> None:
    with pytest.raises(Refused, match=f'metadata.json: "{key}" must be .*{expected}'):
        described(**{key: value})


@pytest.mark.parametrize("accuracy", [1.1, -0.1, "0.9", True])
def test_accuracy_is_a_share(accuracy: Any) -> None:
    with pytest.raises(Refused, match=r"performance_metrics\.accuracy.*from 0 to 1"):
        described(performance_metrics={"accuracy": accuracy})


def test_a_stated_framework_must_know_the_files() -> None:
    with pytest.raises(Refused, match="none of its formats"):
        described(framework="tensorflow")
    assert described(framework="sklearn").artifact_format == "skops"


def test_files_that_no_framework_knows_are_refused() -> None:
    with pytest.raises(Refused, match="No framework knows its files"):
        describe("mood", ["notes.txt"], {}, {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON: Expecting value in line 1"),
        (b'{"a": 1,\n "b"}', "not JSON: .* in line 2, column 5"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "must hold a JSON object"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": "x\\u0000"}', "NUL"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"a": ' * 80 + b"1" + b"}" * 80, "deeper than 64"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "deeper than 64"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_content_that_postgres_could_not_keep_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=f"^metadata.json .*{reason}"):
        parse_json("metadata.json", content)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_content_raises_anything_but_refused(content: bytes) -> None:
    with suppress(Refused):
        parse_json("config.json", content)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["name", "version", "lineage", "labels", "performance_metrics", "created_at", "framework"])


@given(st.dictionaries(keys, json_values))
def test_no_metadata_raises_anything_but_refused(metadata: dict[str, Any]) -> None:
    with suppress(Refused):
        assert described(**metadata).version


CANARY = {"inputs": ["fine", "bad"], "predictions": ["good", {"label": "bad"}]}


@pytest.mark.parametrize("tolerance", [{}, {"tolerance": 0}, {"tolerance": 0.01}])
def test_a_canary_is_taken(tolerance: dict[str, Any]) -> None:
    assert described(canary={**CANARY, **tolerance}).version == "1.0.0"


@pytest.mark.parametrize(
    ("canary", "says"),
    [
        (["fine"], '"canary" must be an object'),
        ({"predictions": ["good"]}, '"canary.inputs" must be a list of 1 to 64 items, not null'),
        ({"inputs": [], "predictions": []}, '"canary.inputs" must be a list of 1 to 64 items'),
        ({"inputs": ["fine"], "predictions": "good"}, '"canary.predictions" must be a list'),
        ({"inputs": ["x"] * 65, "predictions": ["y"] * 65}, '"canary.inputs" must be a list of 1 to 64 items'),
        ({"inputs": ["fine"], "predictions": ["good", "bad"]}, "a prediction for each of its 1 inputs, and has 2"),
        ({**CANARY, "tolerance": -1}, '"canary.tolerance" must be a number, 0 or more, not -1'),
        ({**CANARY, "tolerance": True}, '"canary.tolerance" must be a number'),
        ({**CANARY, "outputs": []}, 'and not "outputs"'),
    ],
)
def test_a_canary_that_nothing_could_be_compared_with_is_refused(canary: Any, says: str) -> None:
    with pytest.raises(Refused, match=re.escape(says)):
        described(canary=canary)
