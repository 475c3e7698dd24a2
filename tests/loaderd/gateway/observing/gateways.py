"""Gateways for the tests of what is told of requests: with OpenTelemetry's variables, and with their log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from loaderd.gateway.observing.slow import PREFIX
from tests.deadline import wait_until
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import Door


@contextmanager
def serving_with(folder: Path, variables: dict[str, str], *kinds: str, grpc: bool = False) -> Iterator[Served]:
    """As `serving`, the gateway's environment with these variables."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            served = stack.enter_context(serving(folder, *kinds, grpc=grpc))
        yield served


def figures(served: Served, beginning: str) -> dict[str, float]:
    """What /metrics says of the gateway itself, by series."""
    lines = served.door.http().get("/metrics").raise_for_status().text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(beginning)}


def spans(served: Served) -> dict[str, float]:
    """By outcome; {} as long as none are exported."""
    told = figures(served, "modelhub_gateway_spans_total")
    return {series.partition('"')[2].rstrip('"}'): count for series, count in told.items()}


def wait_for_exporter(served: Served) -> None:
    """Returns when spans are exported: the libraries come in while the door is open."""
    wait_until(lambda: spans(served), 60, "spans are exported")


class Log:
    """What a gateway writes to its log. To be made once for a door."""

    def __init__(self, door: Door) -> None:
        self.lines: list[str] = []
        self._door = door
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._door.process.stderr is not None
        for line in self._door.process.stderr:
            self.lines.append(line.decode())

    def slow(self) -> list[dict[str, Any]]:
        return [orjson.loads(line.partition(PREFIX)[2]) for line in list(self.lines) if PREFIX in line]
