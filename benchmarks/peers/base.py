"""One way of serving: how it is started, addressed, asked and ended. A subclass says what is special about it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import environments, layouts, places, processes
from benchmarks.models import MODELS, BenchModel, Item, expected_of, items_of
from tests.ports import free_port

READY_SECONDS = 120.0
CHECKED_AT_ONCE = 32  # so that the batching variants form batches while their answers are looked at


class PeerFailed(Exception):
    """A server did not start, or answered wrongly; the message has the end of its log."""


class Peer(ABC):
    """kind: its name. environment: of requirements/, None for Modelhub itself. packages: whose versions are reported.

    variants: further settings of the same server, "" is the plain one; what is asked for as `triton-batch` is the
    variant "batch" of "triton". models: what it can serve.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    environment: ClassVar[str | None]
    packages: ClassVar[tuple[str, ...]]
    settings: ClassVar[Mapping[str, str]]
    models: ClassVar[tuple[str, ...]] = tuple(MODELS)

    def __init__(self, variant: str = "") -> None:
        if variant not in self.settings:
            raise ValueError(f"{self.kind} has no variant {variant!r}; it has {sorted(self.settings)}.")
        self.variant = variant
        self.mark = ""
        self.folder = Path()

    @property
    def name(self) -> str:
        return self.kind + (f"-{self.variant}" if self.variant else "")

    @property
    @abstractmethod
    def address(self) -> str:
        """Host and port of its inference."""

    # What a peer says about itself.

    def layouts(self) -> tuple[str, ...]:
        """What `layouts.write` has to make once."""
        return ()

    def why_not(self) -> str | None:
        """A sentence on what this machine lacks for it; None when it can be measured."""
        return None

    def ready_path(self, name: str) -> str:
        del name
        return "/health"

    def path(self, name: str) -> str:
        return f"/{name}"

    def headers(self) -> dict[str, str]:
        return {}

    def body(self, model: BenchModel, items: list[Item]) -> Any:
        (item,) = items
        return {"input": item}

    def prediction(self, answer: Any) -> Any:
        """The label of the first item."""
        return answer["prediction"]

    # The same for all.

    def layout(self, name: str) -> Path:
        return places.bench_dir() / "layouts" / name

    def prepare(self) -> None:
        """Installs it and writes its folders, once. Raises InstallFailed, LayoutFailed."""
        if self.environment is not None:
            environments.install(self.environment)
        for layout in self.layouts():
            layouts.write(layout)

    @abstractmethod
    def start(self, names: list[str]) -> None:
        """Returns when it answers every model of `names` rightly. Raises PeerFailed."""

    @abstractmethod
    def end(self) -> None:
        """Leaves neither a process nor a file; nothing to do for one that was not started."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Of all its processes."""

    @abstractmethod
    def log_tail(self) -> str:
        """The end of what it wrote."""

    def ask(self, name: str, item: Item) -> tuple[int, Any]:
        """The status and the label; status 0 when no answer came, and then or on an error what was said instead."""
        status, answer = self.request("POST", self.path(name), self.body(MODELS[name], [item]))
        return status, self.prediction(json.loads(answer)) if status == 200 else answer[:300]

    def request(self, method: str, path: str, body: Any = None, timeout_seconds: float = 60.0) -> tuple[int, bytes]:
        """On a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout_seconds)
        headers = {"Content-Type": "application/json", **self.headers()}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    def check(self, name: str) -> None:
        """Asks for all 64 items, 32 at once. Raises PeerFailed when one is answered otherwise than in-process."""
        items, expected = items_of(name), expected_of(name)
        with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
            for number, (status, got) in enumerate(pool.map(lambda item: self.ask(name, item), items)):
                if status != 200 or str(got) != expected[number]:
                    raise PeerFailed(
                        f"{self.name} {name}, item {number}: {status} {got!r} instead of {expected[number]!r}\n"
                        + self.log_tail()
                    )


class OpenInferencePeer(Peer):
    """One that speaks the Open Inference Protocol."""

    def ready_path(self, name: str) -> str:
        return f"/v2/models/{name}/ready"

    def path(self, name: str) -> str:
        return f"/v2/models/{name}/infer"

    def prediction(self, answer: Any) -> Any:
        return answer["outputs"][0]["data"][0]


class CommandPeer(Peer):
    """One that a command starts, in an environment of its own."""

    environment: ClassVar[str]

    def __init__(self, variant: str = "") -> None:
        super().__init__(variant)
        self.ports = [free_port() for _ in range(5)]
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    @abstractmethod
    def command(self, names: list[str]) -> list[str]:
        """Starts the server with these models, in `self.folder`."""

    def variables(self) -> dict[str, str]:
        """Environment variables of its own."""
        return {}

    def program(self, name: str) -> str:
        return str(environments.program_of(self.environment, name))

    def start(self, names: list[str]) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        self.started_at = time.perf_counter()
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                self.command(names), env=self._environment(names), cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        for name in names:
            self._wait_until_ready(name)

    def end(self) -> None:
        if self.process is None:
            return
        processes.end(self.mark)
        self.process.wait(10)
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self) -> list[int]:
        return processes.of(self.mark)

    def log_tail(self) -> str:
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    def _wait_until_ready(self, name: str) -> None:
        assert self.process is not None
        is_ready = False
        while time.perf_counter() - self.started_at < READY_SECONDS:
            is_ready = is_ready or self.request("GET", self.ready_path(name), timeout_seconds=5)[0] == 200
            if is_ready and self.ask(name, items_of(name)[0])[0] == 200:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise PeerFailed(f"{self.name} did not become ready with {name}:\n{self.log_tail()}")

    def _environment(self, names: list[str]) -> dict[str, str]:
        """One thread for each process that computes, no telemetry, nothing fetched."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MODELHUB_"))},
            processes.MARK: self.mark,
            "BENCH_MODELS": str(places.models_dir()),
            "BENCH_SERVE": ",".join(names),
            "BENCH_VARIANT": self.variant,
            "PYTHONPATH": str(places.SERVERS_DIR),
            "PATH": f"{environments.program_of(self.environment, '')}:{os.environ['PATH']}",
            "TMPDIR": str(self.folder),
            "TEMP": str(self.folder),  # TorchServe keeps its pid and its sockets there, one server for each folder
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "USE_TF": "0",  # transformers looks for an old keras otherwise
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "DO_NOT_TRACK": "1",
            "BENTOML_DO_NOT_TRACK": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
            "UVICORN_ACCESS_LOG": "false",
            **self.variables(),
        }
