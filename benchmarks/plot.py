"""Pictures of docs/performance.md. matplotlib lives in an environment of its own: `drawing.py` runs there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments, places
from benchmarks.models import MODELS
from benchmarks.results import LoadRow
from benchmarks.summary import CEILING, figures

ENVIRONMENT = "plot"


def peers(document: Path, rows: Sequence[LoadRow]) -> list[Path]:
    """Requests per second and p99 over the concurrency: one panel for each model."""
    found = [figure for figure in figures(rows) if figure.peer != CEILING]
    pictures = []
    for name, label, get in (
        ("throughput", "requests/s", "requests_per_second"),
        ("p99", "p99 in ms", "p99_ms"),
    ):
        panels = []
        for model in MODELS:
            lines: dict[str, list[tuple[float, float]]] = {}
            for figure in found:
                if figure.model == model:
                    lines.setdefault(figure.peer, []).append((figure.connections, getattr(figure, get)))
            if lines:
                panels.append(panel(model, "connections", label, {k: sorted(v) for k, v in lines.items()}))
        pictures.append(draw(document, name, panels))
    return pictures


def panel(
    title: str, x: str, y: str, lines: dict[str, list[tuple[float, float]]], *, log_x: bool = True, log_y: bool = True
) -> dict[str, Any]:
    """lines: label -> points. One set of axes of a picture."""
    return {"title": title, "x": x, "y": y, "lines": lines, "log_x": log_x, "log_y": log_y}


def draw(document: Path, name: str, panels: Sequence[dict[str, Any]]) -> Path:
    """Writes <document without suffix>/<name>.svg. The plot environment must be installed."""
    out = document.with_suffix("") / f"{name}.svg"
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [str(environments.python_of(ENVIRONMENT)), str(places.ROOM / "drawing.py"), str(out)],
        input=json.dumps(list(panels)), text=True, check=True,
    )  # fmt: skip
    return out
