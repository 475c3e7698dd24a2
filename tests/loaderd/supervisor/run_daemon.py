"""Runs a daemon whose reporter prints each report as JSON: `run_daemon.py FOLDER`, with FOLDER/options.json."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import socket
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from loaderd.protocol import ModelSpec
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.daemon import AlreadyRunning, Daemon


def resolved(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


class PrintingReporter:
    def __init__(self, wanted: list[ModelSpec]) -> None:
        self.wanted = wanted

    def start(self, facts: Any) -> Future[Any]:
        return resolved(self.wanted)

    def report(self, report: Any) -> None:
        print(json.dumps({"kind": type(report).__name__, **dataclasses.asdict(report)}), flush=True)

    def access(self) -> Future[Any]:
        return resolved({})

    def on_access_changed(self, callback: Any) -> None:
        pass

    def submit(self, kind: str, model_id: str, user: str) -> Future[Any]:
        return resolved({})

    def index(self) -> Future[Any]:
        return resolved([])

    def close(self, timeout_seconds: float) -> bool:
        print(json.dumps({"kind": "Closed"}), flush=True)
        return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    folder = Path(sys.argv[1])
    options = json.loads((folder / "options.json").read_text())
    wanted = [ModelSpec.from_message(message) for message in options.pop("wanted")]
    options["prewarm"] = tuple(options.get("prewarm", ()))
    config = DaemonConfig(
        run_dir=folder / "run",
        logs_dir=folder / "logs",
        control_socket=folder / "run" / "control.sock",
        gateway_socket=folder / "run" / "gateway.sock",
        **{"inference_port": free_port(), "heartbeat_seconds": 0.1, "usage_interval_seconds": 0.1, **options},
    )
    try:
        asyncio.run(Daemon(config, PrintingReporter(wanted)).run())
    except AlreadyRunning as error:
        sys.exit(str(error))


main()
