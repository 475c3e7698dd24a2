"""The whole product as a newcomer starts it: `manage.py up` in a process, its URLs, its tokens, its end.

Used by the integration tests and the benchmarks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil

from loaderd.client import LoaderClient
from modelhub import postgres
from modelhub.conf import Config
from tests import environment
from tests.deadline import wait_until
from tests.ports import free_port

PROJECT_DIR = Path(__file__).resolve().parent.parent
START_SECONDS = 240.0
STOP_SECONDS = 60.0
PASSWORD = "correct horse battery staple"


@contextlib.contextmanager
def fresh_stack(mode: int = 0o755) -> Iterator[Stack]:
    """A stack with an empty store in a folder of its own; neither a process nor a file of it is left afterwards."""
    folder = environment.fresh_folder(mode)
    (folder / "models").mkdir()
    stack = Stack(folder / "state", folder / "models")
    try:
        yield stack
    finally:
        stack.end()
        environment.remove_folder(folder)


class Stack:
    """`manage.py up` with a state folder, a store and ports of its own."""

    def __init__(self, state_dir: Path, models_dir: Path, **settings: str) -> None:
        self.state_dir = state_dir
        self.models_dir = models_dir
        self.web_port, self.inference_port, self.grpc_port = free_port(), free_port(), free_port()
        self.config = Config(MODELHUB_STATE_DIR=state_dir, DATABASE_URL="")  # for what lies in the state folder
        self.output: list[str] = []
        self._changed = threading.Condition()
        values = {
            "MODELHUB_STATE_DIR": str(state_dir),
            "MODELS_DIR": str(models_dir),
            "WEB_PORT": str(self.web_port),
            "INFERENCE_PORT": str(self.inference_port),
            "GRPC_PORT": str(self.grpc_port),
            "DJANGO_SUPERUSER_USERNAME": "ada",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "DJANGO_SUPERUSER_EMAIL": "ada@example.org",
            "SAMPLE_MODELS": "false",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(state_dir.parent),  # also reaches the processes that get a clean environment
        }
        self.environment = environment.for_child(**(values | settings))
        self.process: subprocess.Popen[str] | None = None
        self._token = ""

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def inference(self) -> str:
        return f"127.0.0.1:{self.inference_port}"

    def start(self) -> Stack:
        """Starts and returns when the product says that it is ready. Raises AssertionError with its output.

        It dies with the thread that calls this, so a test run that is killed leaves no product behind.
        """
        self.output.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loaderd.lifeline", str(os.getpid()), sys.executable, "manage.py", "up"],
            cwd=PROJECT_DIR,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for_output("modelhub is ready", START_SECONDS)
        return self

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output.append(line)
                self._changed.notify_all()

    def wait_for_output(self, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            while not any(text in line for line in self.output):
                assert self.process is not None
                ended = self.process.poll()
                if ended is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no {text!r} (status {ended}) in:\n" + "".join(self.output[-80:]))
                self._changed.wait(0.1)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Stops as Ctrl-C or SIGTERM does; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signum)
        status = self.process.wait(STOP_SECONDS)
        self._let_go()
        return status

    def kill(self) -> None:
        """Ends `up` without a chance to clean up, as the kernel does when memory is short."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self._let_go()

    def end(self) -> None:
        """Leaves no process behind, however far it came."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, STOP_SECONDS)
        if self.process is not None:
            self.process.wait(STOP_SECONDS)
            self._let_go()

    def _let_go(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self._reader.join(STOP_SECONDS)  # ends with the last part that writes
        self.process.stdout.close()

    def family(self) -> list[psutil.Process]:
        """Every process of this installation: by its environment, its command line, or as one of Postgres."""
        ours = {("MODELHUB_STATE_DIR", str(self.state_dir)), ("TMPDIR", str(self.state_dir.parent))}
        named = [
            process
            for process in psutil.process_iter(["environ", "cmdline"])
            if ours & (process.info["environ"] or {}).items()
            or str(self.state_dir) in " ".join(process.info["cmdline"] or [])
        ]
        return [process for process in {*named, *self.postgres_processes()} if process.pid != os.getpid()]

    def postgres_processes(self) -> list[psutil.Process]:
        """Those of the embedded server, wherever it lives: each works in its data folder."""
        data_dir = str(postgres.home_of(self.config).data_dir)
        return [process for process in psutil.process_iter(["cwd", "cmdline"]) if process.info["cwd"] == data_dir]

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a manage.py command of this installation."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT_DIR,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"manage.py {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    @property
    def token(self) -> str:
        if not self._token:
            self._token = self.manage("create_token", "ada").stdout.strip().splitlines()[-1]
        return self._token

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Token {self.token}"}

    def api(self) -> httpx.Client:
        return httpx.Client(base_url=self.web, headers=dict(self.headers), timeout=120)

    def loader_client(self) -> LoaderClient:
        return LoaderClient(self.config.control_socket)

    def wait_for_zygotes(self) -> None:
        """Returns when every framework of the store is imported: until then memory and times are not at rest."""
        client = self.loader_client()
        with self.api() as api:
            wanted = {version["framework"] for version in api.get("/api/models/").json()}

        def are_ready() -> bool:
            zygotes = client.status()["facts"]["zygotes"]
            return wanted <= {name for name, zygote in zygotes.items() if zygote["ready"]}

        wait_until(are_ready, 120, "every zygote has imported its framework")

    def loaderd(self) -> psutil.Process:
        """The supervisor's process, as the health endpoint names it."""
        with self.api() as api:
            return psutil.Process(api.get("/api/models/health").json()["loaderd"]["pid"])
