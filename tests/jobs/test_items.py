"""Which columns hold the input, what is made of their values, and what is said of those that do not fit."""

from __future__ import annotations

from typing import Any

import pytest

from modelhub.jobs.formats.rows import FileRefused, Place, Row
from modelhub.jobs.items import BadRow, Items
from tests.jobs.conftest import ROWS_SIGNATURE, SIGNATURE

TWO: dict[str, Any] = {
    "inputs": [
        {"name": "title", "datatype": "BYTES", "shape": [-1]},
        {"name": "size", "datatype": "INT64", "shape": [-1]},
    ]
}


def item(signature: dict[str, Any], row: dict[str, Any], *named: str, columns: bool = True) -> Any:
    at = Place(0, 7)
    return Items(signature, tuple(row) if columns else None, named).item(Row(at, at, row))


@pytest.mark.parametrize(
    ("row", "named", "wanted"),
    [
        ({"id": "1", "text": "a"}, [], "a"),
        ({"id": "1", "body": "a"}, ["body"], "a"),
        ({"body": "a", "id": "1"}, [], "a"),  # the first column
        ({"input": "a", "id": "1"}, [], "a"),
    ],
)
def test_texts(row: dict[str, Any], named: list[str], wanted: str) -> None:
    assert item(SIGNATURE, row, *named) == wanted


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"a": "1", "b": "2.5", "c": "-3e0"}, []),
        ({"id": "x", "c": "-3", "b": "2.5", "a": "1"}, ["a", "b", "c"]),
        ({"id": "x", "features": "[1, 2.5, -3]"}, []),
        ({"features": [1, 2.5, -3]}, []),
        ({"v": "[1, 2.5, -3]"}, []),
    ],
)
def test_rows_of_numbers(row: dict[str, Any], named: list[str]) -> None:
    assert item(ROWS_SIGNATURE, row, *named) == [1, 2.5, -3]


@pytest.mark.parametrize("row", [{"title": "t", "size": "3"}, {"input": {"title": "t", "size": 3}}])
@pytest.mark.parametrize("columns", [True, False])
def test_several_inputs(row: dict[str, Any], columns: bool) -> None:
    assert item(TWO, row, columns=columns) == {"title": "t", "size": 3}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [({"text": "a", "x": 1}, "a"), ({"input": "a"}, "a"), ({"anything": "a"}, "a")],
)
def test_json_objects_have_shapes_of_their_own(row: dict[str, Any], wanted: str) -> None:
    assert item(SIGNATURE, row, columns=False) == wanted


@pytest.mark.parametrize(
    ("signature", "row", "named", "told"),
    [
        (SIGNATURE, {"a": "x"}, ["b"], 'The file has no column "b"; it has "a".'),
        (ROWS_SIGNATURE, {"a": "1", "b": "2"}, [], "The model takes 3 values a row and the file has 2 columns"),
        (TWO, {"title": "t"}, [], 'the file has no column "size"'),
        (TWO, {"title": "t", "size": "1"}, ["title"], 'The model takes "title", "size"'),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused(
    signature: dict[str, Any], row: dict[str, Any], named: list[str], told: str
) -> None:
    with pytest.raises(FileRefused) as refused:
        item(signature, row, *named)
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("signature", "row", "told"),
    [
        (ROWS_SIGNATURE, {"a": "1", "b": "two", "c": "3"}, '"b" must be a number, not "two".'),
        (ROWS_SIGNATURE, {"a": "1", "b": "nan", "c": "3"}, '"b" must be a finite number, not "nan".'),
        (ROWS_SIGNATURE, {"a": "1", "b": "", "c": "3"}, '"b" has no value.'),
        (ROWS_SIGNATURE, {"features": "[1, 2]"}, '"features" has 2 values and the model takes 3.'),
        (ROWS_SIGNATURE, {"features": "1 2 3"}, '"features" is no JSON'),
        (ROWS_SIGNATURE, {"features": 7}, '"features" must be an array, not 7.'),
        (SIGNATURE, {"text": 7}, '"text" must be a text, not 7.'),
        (SIGNATURE, {"text": None}, '"text" must be a text, not null.'),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_line(
    signature: dict[str, Any], row: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadRow) as bad:
        item(signature, row)
    assert str(bad.value).startswith("Line 7: ")
    assert told in str(bad.value)


def test_an_object_without_the_input_is_a_bad_row() -> None:
    with pytest.raises(BadRow, match='it has neither "text" nor "input"'):
        item(SIGNATURE, {"a": "x", "b": "y"}, columns=False)
