"""A real daemon in a process of its own, with a reporter that keeps everything in memory and streams it to the test."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loaderd.client import LoaderClient
from loaderd.errors import LoaderUnreachable
from loaderd.protocol import ArtifactFile, ModelSpec

HERE = Path(__file__).parent
DEADLINE_SECONDS = 30.0
PROCESS_MIB = 30  # what a toy's process holds beside its ballast, and some more


class RunningDaemon:
    """The daemon under test and all that it reported so far."""

    def __init__(
        self,
        folder: Path,
        *,
        wanted: list[ModelSpec] | None = None,
        registered: list[ModelSpec] | None = None,
        rules: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """wanted: loaded at the start. registered: can be loaded by a prediction. options: of DaemonConfig."""
        self.folder = folder
        (folder / "rules.json").write_text(json.dumps({"min_residency_seconds": 0.0, **(rules or {})}))
        messages = {spec.model_id: spec.to_message() for spec in registered or []}
        (folder / "registered.json").write_text(json.dumps(messages))
        self.set_unwished()
        self.reports: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        (folder / "options.json").write_text(
            json.dumps({"wanted": [spec.to_message() for spec in wanted or []], **options})
        )
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}:{HERE / 'toy'}", "SECRET_OF_THE_DAEMON": "hush"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "run_daemon.py"), str(folder)],
            stdout=subprocess.PIPE,
            env=environment,
            cwd=HERE.parents[2],
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.client = LoaderClient(folder / "run" / "control.sock")
        self.wait(lambda: self.process.poll() is not None or self.answers())
        self.pid = self.process.pid

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return bool(self.client.ping())
        except LoaderUnreachable:
            return False

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                with self._changed:
                    self.reports.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
        """Waits for a condition that reports, or the passing of time, may make true."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (value := condition()):
                if time.monotonic() > deadline:
                    told = [report for report in self.reports if report["kind"] not in ("Heartbeat", "Sample")]
                    raise AssertionError(f"not within {seconds} s; reported: {told[-10:]}")
                self._changed.wait(0.02)
            return value

    def of_kind(self, kind: str, **facts: Any) -> list[dict[str, Any]]:
        return [r for r in list(self.reports) if r["kind"] == kind and all(r[k] == v for k, v in facts.items())]

    def begin_load(self, spec: ModelSpec) -> str:
        """The id of the operation."""
        operation_id = str(uuid.uuid4())
        self.client.load(spec, operation_id, "ada")
        return operation_id

    def begin_unload(self, model_id: str) -> str:
        operation_id = str(uuid.uuid4())
        self.client.unload(model_id, operation_id, "ada")
        return operation_id

    def load(self, spec: ModelSpec) -> dict[str, Any]:
        """Loads and returns the end of the operation."""
        return self.end_of(self.begin_load(spec))

    def unload(self, model_id: str) -> dict[str, Any]:
        return self.end_of(self.begin_unload(model_id))

    def optimize(self) -> dict[str, Any]:
        operation_id = str(uuid.uuid4())
        self.client.optimize(operation_id, "ada")
        return self.end_of(operation_id)

    def set_rules(self, **rules: Any) -> None:
        """Changes rules as a person would in the registry, and waits until the daemon works by them."""
        path = self.folder / "rules.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **rules}))
        self.process.send_signal(signal.SIGUSR1)
        limits = {name: value for name, value in rules.items() if name not in ("models", "lineages")}
        self.wait(lambda: limits.items() <= self.client.status()["facts"]["limits"].items())

    def set_unwished(self, *model_ids: str, away: bool = False) -> None:
        """What the registry answers when it is asked what is wished: all but these; nothing while it is away."""
        (self.folder / "unwished.json").write_text("" if away else json.dumps(model_ids))

    def model(self, model_id: str) -> dict[str, Any]:
        return self.client.status()["models"][model_id]

    def kill(self, model_id: str, number: int = signal.SIGKILL) -> None:
        """Sends the model's process a signal and waits until the daemon has noticed its end."""
        deaths = len(self.of_kind("StateReport", model_id=model_id, state="error"))
        os.kill(self.pid_of(model_id), number)
        self.wait(lambda: len(self.of_kind("StateReport", model_id=model_id, state="error")) > deaths)

    def end_of(self, operation_id: str) -> dict[str, Any]:
        return self.wait(lambda: self.of_kind("OperationEnded", operation_id=operation_id))[0]

    def states(self, model_id: str) -> list[str]:
        """Its moves; a report of what it waits for in the same state is none."""
        return [state for state, _ in itertools.groupby(r["state"] for r in self.of_state(model_id))]

    def of_state(self, model_id: str, **facts: Any) -> list[dict[str, Any]]:
        return self.of_kind("StateReport", model_id=model_id, **facts)

    def predict(self, model_id: str, *texts: str) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.folder / "run" / "gateway.sock"))
        with httpx.Client(transport=transport, base_url="http://loaderd", timeout=20) as client:
            return client.post(f"/internal/models/{model_id}/predict", json={"inputs": list(texts)})

    def predict_later(self, model_id: str, *texts: str) -> Future[httpx.Response]:
        """A prediction on a thread of its own."""
        answer: Future[httpx.Response] = Future()

        def ask() -> None:
            try:
                answer.set_result(self.predict(model_id, *texts))
            except Exception as error:
                answer.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return answer

    def wait_in_flight(self, model_id: str) -> None:
        self.wait(lambda: (self.model(model_id)["counters"] or {}).get("in_flight"))

    def pid_of(self, model_id: str) -> int:
        return self.client.status()["models"][model_id]["pid"]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def close(self) -> None:
        """Ends the daemon however it stands, and what the test holds of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._thread.join(DEADLINE_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(DEADLINE_SECONDS)


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningDaemon]]:
    started: list[RunningDaemon] = []

    def start(folder: Path | None = None, **options: Any) -> RunningDaemon:
        daemon = RunningDaemon(folder or tmp_path_factory.mktemp("d"), **options)
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.close()


@pytest.fixture
def daemon(start_daemon: Callable[..., RunningDaemon]) -> RunningDaemon:
    return start_daemon()


@pytest.fixture
def serving(daemon: RunningDaemon) -> RunningDaemon:
    """A daemon whose gateway listens."""
    daemon.wait(lambda: daemon.client.ping()["inference"])
    return daemon


@pytest.fixture
def start_serving(start_daemon: Callable[..., RunningDaemon]) -> Callable[..., RunningDaemon]:
    """Starts a daemon with options and waits until its gateway listens."""

    def start(**options: Any) -> RunningDaemon:
        daemon = start_daemon(**options)
        daemon.wait(lambda: daemon.client.ping()["inference"])
        return daemon

    return start


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., ModelSpec]:
    """Makes a toy model on disk and its spec."""

    def make(
        model_id: str = "toy-v1",
        *,
        framework: str = "toy",
        timeout_seconds: float = 20.0,
        peak_mib: int | None = None,
        version: str = "1",
        **config: Any,
    ):
        """config: what the toy does; "megabytes" is what it holds. peak_mib: as measured at its last load; by default
        what it holds and some for its process."""
        peak_mib = PROCESS_MIB + int(config.get("megabytes", 0)) if peak_mib is None else peak_mib
        directory = tmp_path / model_id
        directory.mkdir()
        weights = directory / "model.toy"
        weights.write_bytes(b"toy")
        stat = weights.stat()
        sha256 = "5f1b8a4f2b0d0f4c6d3f1c0d3f7a0c6f0f1e2d3c4b5a69788796a5b4c3d2e1f0"
        return ModelSpec(
            model_id=model_id,
            lineage="toy",
            version=version,
            peak_bytes=peak_mib * 2**20,
            framework=framework,
            format="toy",
            directory=str(directory),
            digest="d" * 64,
            files=(ArtifactFile("model.toy", stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, sha256),),
            timeout_seconds=timeout_seconds,
            config=config,
        )

    return make
