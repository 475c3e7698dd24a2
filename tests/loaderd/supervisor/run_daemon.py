"""Runs a daemon whose reporter prints each report as JSON: `run_daemon.py FOLDER`, with FOLDER/options.json.

FOLDER/rules.json holds the rules; after SIGUSR1 they are read again, as after a change in the registry. Models of
FOLDER/registered.json can be asked for at the inference door.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import signal
import sys
import threading
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from loaderd.client import LoaderClient
from loaderd.protocol import ModelSpec
from loaderd.reporter import Access, AliasMoved, OperationEnded, StateReport
from loaderd.rules import LineageTraffic, ModelPolicy, Rules
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.daemon import AlreadyRunning, Daemon
from tests.ports import free_port


def resolved(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def read_rules(folder: Path) -> Rules:
    values = json.loads((folder / "rules.json").read_text())
    models = {name: ModelPolicy(**policy) for name, policy in values.pop("models", {}).items()}
    lineages = {name: LineageTraffic(**traffic) for name, traffic in values.pop("lineages", {}).items()}
    return Rules(**values, models=models, lineages=lineages)


class PrintingReporter:
    """rules_are_away: asked for the rules it never answers, like a registry whose Postgres is away."""

    def __init__(self, wanted: list[ModelSpec], folder: Path, rules_are_away: bool) -> None:
        self.wanted = wanted
        self._folder = folder
        self._rules_are_away = rules_are_away
        self._ends: dict[str, Future[Any]] = {}
        self._known: set[str] = set()

    def start(self, facts: Any) -> Future[Any]:
        return resolved(self.wanted)

    def report(self, report: Any) -> None:
        print(json.dumps({**dataclasses.asdict(report), "kind": type(report).__name__}), flush=True)
        if isinstance(report, StateReport):
            self._known.add(report.model_id)
        if isinstance(report, AliasMoved):
            self._write_alias(report)
        if isinstance(report, OperationEnded) and report.operation_id in self._ends:
            self._ends.pop(report.operation_id).set_result(report)

    def _write_alias(self, move: AliasMoved) -> None:
        """As the registry does: rules that are read from now on know of the move."""
        path = self._folder / "rules.json"
        rules = json.loads(path.read_text())
        lineage = rules.setdefault("lineages", {}).setdefault(move.lineage, {})
        lineage.setdefault("aliases", {})[move.alias] = move.model_id
        path.write_text(json.dumps(rules))

    def access(self) -> Future[Any]:
        """One token, "everything"."""
        digest = hashlib.sha512(b"everything").hexdigest()
        return resolved({digest: Access("ada", frozenset({"predict", "load", "unload"}))})

    def on_access_changed(self, callback: Any) -> None:
        pass

    def rules(self) -> Future[Any]:
        return Future() if self._rules_are_away else resolved(read_rules(self._folder))

    def on_rules_changed(self, callback: Any) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: callback())

    def submit(self, kind: str, model_id: str, user: str) -> Future[Any]:
        """Hands the command to the control socket, as the queue does, and answers with its end."""
        print(json.dumps({"kind": "Submitted", "command": kind, "model_id": model_id, "user": user}), flush=True)
        operation_id, answer = str(uuid.uuid4()), Future()
        ended: Future[Any] = self._ends.setdefault(operation_id, Future())

        def answered(future: Future[Any]) -> None:
            end = future.result()
            state = "loaded" if end.error is None else "unloaded"
            answer.set_result({"state": state, "result": end.result, "error": end.error})

        ended.add_done_callback(answered)
        registered = json.loads((self._folder / "registered.json").read_text())
        spec = ModelSpec.from_message(registered[model_id])
        client = LoaderClient(self._folder / "run" / "control.sock")
        threading.Thread(target=client.load, args=(spec, operation_id, user), daemon=True).start()
        return answer

    def index(self) -> Future[Any]:
        """All that were heard of are wished, but those of FOLDER/unwished.json; none while that file cannot be read."""
        print(json.dumps({"kind": "IndexAsked"}), flush=True)
        try:
            unwished = json.loads((self._folder / "unwished.json").read_text())
        except ValueError as error:
            away: Future[Any] = Future()
            away.set_exception(error)
            return away
        return resolved([{"model_id": name, "wished": name not in unwished} for name in sorted(self._known)])

    def close(self, timeout_seconds: float) -> bool:
        print(json.dumps({"kind": "Closed"}), flush=True)
        return True


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    folder = Path(sys.argv[1])
    options = json.loads((folder / "options.json").read_text())
    wanted = [ModelSpec.from_message(message) for message in options.pop("wanted")]
    rules_are_away = options.pop("rules_are_away", False)
    options["prewarm"] = tuple(options.get("prewarm", ()))
    config = DaemonConfig(
        run_dir=folder / "run",
        logs_dir=folder / "logs",
        control_socket=folder / "run" / "control.sock",
        gateway_socket=folder / "run" / "gateway.sock",
        **{
            "inference_port": free_port(),
            "heartbeat_seconds": 0.1,
            "usage_interval_seconds": 0.1,
            "memory_interval_seconds": 0.2,
            "idle_interval_seconds": 0.1,
            "door_interval_seconds": 0.2,
            "restart_pause_seconds": 0.3,
            **options,
        },
    )
    try:
        asyncio.run(Daemon(config, PrintingReporter(wanted, folder, rules_are_away)).run())
    except AlreadyRunning as error:
        sys.exit(str(error))


main()
