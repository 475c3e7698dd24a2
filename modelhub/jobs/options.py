"""How a file is to be read and its result written: what a job's form and the command's options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCORES = ("json", "columns", "none")
MAX_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """columns: those that hold the input, in order; none: found by name. delimiter, header: of CSV. scores: those of a
    classifier as JSON in one column, as a column each, or not at all. prefix: before the names of the added columns.
    strict: the first row that cannot be predicted ends it. batch_rows: rows in one request at most; None: as many as
    the model computes in a short while. guard_formulas: texts that a spreadsheet would run get a ' in a CSV result.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ","
    header: bool = True
    scores: str = "json"
    prefix: str = ""
    strict: bool = False
    batch_rows: int | None = None
    guard_formulas: bool = True

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "columns": list(self.columns)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Options:
        return cls(**{**values, "columns": tuple(values.get("columns", ()))})
