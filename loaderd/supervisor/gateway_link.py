"""The gateway as the supervisor sees it: its process, the tables pushed to it, and the commands that come from it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loaderd import protocol
from loaderd.errors import LoaderdError, LoaderUnreachable
from loaderd.protocol import KeptAnswers, Lost
from loaderd.reporter import Access, Comparison, Report, Trace
from loaderd.supervisor.children import Child, Exit, spawn
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.environment import gateway_environment

log = logging.getLogger(__name__)

ROUTED_SECONDS = 2.0
GRACE_SECONDS = 8.0  # more than the gateway takes: its listeners, then what it exports
STABLE_SECONDS = 10.0
MAX_PAUSE_SECONDS = 10.0

Answer = Callable[[dict[str, Any]], Awaitable[Any]]
"""Called with a gateway's request; returns the result or raises LoaderdError.

Its "command" is load, unload (model_id, user), index, demand (model_id, user: returns when the model is loaded) or
metrics (the supervisor's part of the Prometheus text)."""

Table = Callable[[], dict[str, Any]]
"""What the gateway works by: {"models": {model_id: ManagedModel.route() with "autoload" and "recovering"},
"lineages": Lineages.table(), "settings": {"load_wait_seconds", "sampling_rate", "slow_request_seconds",
"cache_max_bytes"}}."""


class GatewayLink:
    """Keeps a gateway running: started again when it dies, while the models stay loaded.

    report: called with what the gateway saw of lineages' two versions (Comparison) and of single requests (Trace).
    on_silent(model_id, data_socket): a model's process took no connection, or lost one with requests in it. on_lost:
    called with the requests that ended so. on_kept: called with what the cache did for a model; None: the gateway
    ended, and what it kept with it. counts_of_others: what other gateways behind the same port counted, for the
    metrics. is_shared: None: no other gateway uses the port; else whether one listens there already.
    """

    def __init__(
        self,
        config: DaemonConfig,
        table: Table,
        answer: Answer,
        report: Callable[[Report], None],
        *,
        on_silent: Callable[[str, str], None],
        on_lost: Callable[[Lost], None],
        on_kept: Callable[[KeptAnswers | None], None],
        counts_of_others: Callable[[], list[dict[str, Any]]] = list,
        is_shared: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self.counts: dict[str, Any] = {}  # of its doors, as it told them last
        self.inference_port = config.inference_port
        self.listened_port = config.inference_port  # where it listened last
        self.has_listened = asyncio.Event()
        self._counts_of_others = counts_of_others
        self._is_shared = is_shared
        self._listening: dict[str, Any] | None = None
        self._config = config
        self._table = table
        self._answer = answer
        self._report = report
        self._on_silent = on_silent
        self._on_lost = on_lost
        self._on_kept = on_kept
        self._access: Mapping[str, Access] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._child: Child | None = None
        self._serials = itertools.count(1)
        self._routed: dict[int, asyncio.Future[None]] = {}
        self._forgetting: dict[int, asyncio.Future[int]] = {}
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Runs until cancelled; then the gateway ends with its channel."""
        pause = 0.1
        while True:
            began = time.monotonic()
            end = "could not be started"
            try:
                await self._run_once()
            except Exception:
                log.exception("the link to the gateway failed")
            finally:
                writer = self._writer
                self._let_go()
                if self._child is not None:
                    end = (await self._end(self._child)).prose
                if writer is not None:
                    writer.close()  # after its end: a gateway whose channel closes stops at once
            lived = time.monotonic() - began
            pause = 0.1 if lived > STABLE_SECONDS else min(pause * 2, MAX_PAUSE_SECONDS)
            log.error("the gateway %s after %.1f s; it is started again in %.1f s", end, lived, pause)
            await asyncio.sleep(pause)

    def _let_go(self) -> None:
        """Forgets all that belonged to the gateway that is gone: the next one begins with the present table."""
        self._listening, self._writer = None, None
        self.counts = {}
        self._on_kept(None)
        for waiting in self._routed.values():
            if not waiting.done():
                waiting.set_result(None)
        for forgetting in self._forgetting.values():
            if not forgetting.done():
                forgetting.set_result(0)  # they ended with it
        for request in self._requests:  # their numbers mean others at the next gateway
            request.cancel()

    async def _end(self, child: Child) -> Exit:
        """Lets the gateway finish the answers that it is writing, within a bound."""
        child.signal(signal.SIGTERM)
        await asyncio.wait({child.exited}, timeout=GRACE_SECONDS)
        return await child.kill()

    @property
    def listening(self) -> dict[str, Any] | None:
        """{"host", "port"} while a gateway that lives has said that it listens, else None. With "grpc": {"host",
        "port", "error"} when it speaks gRPC too, or why it does not."""
        return self._listening if self._child is not None and self._child.is_alive else None

    async def publish_routes(self) -> None:
        """Pushes the whole table and returns when the gateway works by it (or is not there)."""
        if self._writer is None:
            return
        serial = next(self._serials)  # 0 is for tables that nobody waits for
        routed = self._routed[serial] = asyncio.get_running_loop().create_future()
        try:
            self._send({"event": "routes", "serial": serial, **self._table()})
            async with asyncio.timeout(ROUTED_SECONDS):
                await routed
        except TimeoutError:
            log.error("the gateway did not take new routes within %g s", ROUTED_SECONDS)
        finally:
            del self._routed[serial]

    def push_routes(self) -> None:
        """Pushes the whole table and does not wait."""
        self._send({"event": "routes", "serial": 0, **self._table()})

    async def forget_answers(self, model_id: str | None) -> int:
        """Has the gateway drop the kept answers of this model, or of all; returns how many they were."""
        if self._writer is None:
            return 0
        serial = next(self._serials)
        forgotten = self._forgetting[serial] = asyncio.get_running_loop().create_future()
        try:
            self._send({"event": "forget_answers", "serial": serial, "model_id": model_id})
            async with asyncio.timeout(ROUTED_SECONDS):
                return await forgotten
        except TimeoutError:
            raise LoaderUnreachable(
                f"The inference door did not forget its answers within {ROUTED_SECONDS:g} s; repeat the command."
            ) from None
        finally:
            del self._forgetting[serial]

    def set_access(self, access: Mapping[str, Access]) -> None:
        self._access = access
        self._send_access()

    async def _run_once(self) -> None:
        self._child = None
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            config = self._config
            self._child = spawn(
                [
                    *(sys.executable, "-m", "loaderd.gateway", "--channel-fd", str(theirs.fileno())),
                    *("--host", config.inference_host, "--port", str(self.inference_port)),
                    *_sharing(self._is_shared()),
                    *(() if config.grpc_port is None else ("--grpc-port", str(config.grpc_port))),
                    *("--grpc-host", config.grpc_host),
                    *("--unix-socket", str(config.gateway_socket)),
                    *("--predict-timeout", str(config.predict_timeout_seconds)),
                    *("--supervisor-pid", str(os.getpid())),
                ],
                pass_fds=[theirs.fileno()],
                environment=gateway_environment(),
            )
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._send_access()
        self.push_routes()
        while (message := await protocol.receive_async(reader)) is not None:
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "request" in message:
            task = asyncio.ensure_future(self._reply(message))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
        elif message.get("event") == "listening":
            self._listening = {"host": self._config.inference_host, "port": message["port"]}
            self.listened_port = message["port"]
            self.has_listened.set()
            log.info("inference on http://%s:%d", self._config.inference_host, message["port"])
        elif message.get("event") == "grpc":
            self._take_grpc(message)
        elif message.get("event") == "failed":
            log.error("%s", message["error"]["message"])
        elif message.get("event") == "routed":
            routed = self._routed.get(message["serial"])
            if routed is not None and not routed.done():
                routed.set_result(None)
        elif message.get("event") == "forgot_answers":
            forgetting = self._forgetting.get(message["serial"])
            if forgetting is not None and not forgetting.done():
                forgetting.set_result(message["forgotten"])
        elif message.get("event") == "kept":
            for kept in message["models"]:
                self._on_kept(KeptAnswers(at=time.time(), **kept))
        elif message.get("event") == "seen":
            for comparison in message["comparisons"]:
                self._report(Comparison(**comparison))
            for trace in message["traces"]:
                self._report(Trace(**trace))
            for lost in message["lost"]:
                self._on_lost(Lost(**lost))
        elif message.get("event") == "doors":
            self.counts = message["counts"]
        elif message.get("event") == "silent":
            self._on_silent(message["model_id"], message["socket"])

    def _take_grpc(self, message: dict[str, Any]) -> None:
        """Notes whether gRPC is spoken; why not, the gateway has logged."""
        host = self._config.grpc_host or self._config.inference_host
        error = message["error"]
        if self._listening is not None:
            self._listening["grpc"] = {
                "host": host,
                "port": message["port"],
                "error": None if error is None else error["message"],
            }
        if error is None:
            log.info("inference in gRPC on %s:%d", host, message["port"])

    async def _reply(self, message: dict[str, Any]) -> None:
        try:
            result = await self._answer(message)
            if message.get("command") == "metrics":
                result = {"text": result, "doors": self._counts_of_others()}
            self._send({"reply": message["request"], "result": result})
        except LoaderdError as error:
            self._send({"reply": message["request"], "error": error.to_message()})
        except Exception:
            log.exception("a request of the gateway failed: %s", message)
            failure = LoaderdError("loaderd could not answer; its log says why.")
            self._send({"reply": message["request"], "error": failure.to_message()})

    def _send_access(self) -> None:
        tokens = {
            digest: {
                "user": access.user,
                "permissions": sorted(access.permissions),
                "expires_at": access.expires_at,
            }
            for digest, access in self._access.items()
        }
        self._send({"event": "access", "tokens": tokens})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(protocol.encode(message))


def _sharing(is_shared: bool | None) -> list[str]:
    """The arguments of a gateway that shares its port."""
    if is_shared is None:
        return []
    return ["--share-port", "--join"] if is_shared else ["--share-port"]
