"""How far a file was predicted, as it is kept: what lies before is whole and synced, what lies behind is done again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from modelhub.jobs.formats.rows import Place


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """offset, line: of the input, where the next row begins; None before the first one. written: bytes of the part file
    that count. rows, failed: in it. own, prefix: the columns of the result, chosen at the first row. model_id: the
    version that answers. is_complete: every row is in it, and the result is being put in place.
    """

    model_id: str
    offset: int | None = None
    line: int = 1
    written: int = 0
    rows: int = 0
    failed: int = 0
    own: list[str] = field(default_factory=list)
    prefix: str = ""
    is_complete: bool = False
    of: dict[str, Any] = field(default_factory=dict)  # what it is a checkpoint of; see `manage.py predict`

    @property
    def place(self) -> Place | None:
        return None if self.offset is None else Place(self.offset, self.line)

    def moved(self, place: Place, **values: Any) -> Checkpoint:
        return replace(self, offset=place.offset, line=place.line, **values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Checkpoint:
        return cls(**values)


class CheckpointFile:
    """A checkpoint beside the part file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Checkpoint | None:
        """None where there is none. Raises ValueError for a file that is none of ours."""
        try:
            return Checkpoint.from_json(json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def save(self, checkpoint: Checkpoint) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("w") as written:
            json.dump(checkpoint.to_json(), written)
            written.flush()
            os.fsync(written.fileno())
        os.replace(fresh, self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
