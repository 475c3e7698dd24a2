"""How loaderd speaks with the registry: `manage.py loaderd` hands it this implementation of its reporter."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, connection

from loaderd.errors import LoaderdError, ModelTimeout, PermissionDenied, ShuttingDown, StateForbids, UnknownModel
from loaderd.protocol import ModelSpec
from loaderd.reporter import Access, Report
from loaderd.rules import Rules
from modelhub.accounts.signals import ACCESS_CHANNEL
from modelhub.lifecycle.access import access_table
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.notifications import Listener, stop_listening, wait_for
from modelhub.lifecycle.observed import effective_status, loader_view
from modelhub.lifecycle.outbox import Outbox, Stopped
from modelhub.lifecycle.rules import present_rules
from modelhub.lifecycle.takeover import take_over
from modelhub.policy.effective import RULES_CHANNEL
from modelhub.registry.artifacts import load_limit_seconds
from modelhub.registry.choices import DesiredState
from modelhub.registry.models import ModelVersion

# Changes that no signal tells (SQL by hand, bulk updates) reach loaderd after this time.
REFRESH_SECONDS = 60.0
AWAY_SECONDS = 1.0  # between two tries while Postgres is away
# A command of the inference door waits a load's limit and this much longer: for its turn and for its end.
TURN_SECONDS = 60.0
MAX_COMMANDS = 32  # threads; each command of the inference door holds one while it waits

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)

_REQUESTS = {"load": request_load, "unload": request_unload}
DEMAND = "demand"


class DatabaseReporter:
    """Implements `loaderd.reporter.Reporter`. Nothing here makes loaderd's event loop wait.

    Reports go through the outbox and its thread; questions are answered by short-lived connections on threads.
    """

    def __init__(self) -> None:
        self._outbox = Outbox()
        self._commands = ThreadPoolExecutor(MAX_COMMANDS, thread_name_prefix="registry-command")
        # Apart, so that commands that wait never delay the revocation of a token; one thread keeps tables in order.
        self._tables = ThreadPoolExecutor(1, thread_name_prefix="registry-access")
        self._indexes = ThreadPoolExecutor(1, thread_name_prefix="registry-index")
        # Apart, because it waits for what was reported; one thread keeps rules in order.
        self._rules = ThreadPoolExecutor(1, thread_name_prefix="registry-rules")
        self._is_closing = threading.Event()
        self._listeners: list[Listener] = []
        self._demands: dict[str, Future[Any]] = {}

    def start(self, facts: Mapping[str, Any]) -> Future[Sequence[ModelSpec]]:
        self._outbox.start()
        return self._ask(self._commands, partial(self._patiently, partial(take_over, facts)))

    def report(self, report: Report) -> None:
        self._outbox.put(report)

    def access(self) -> Future[Mapping[str, Access]]:
        return self._ask(self._tables, access_table)

    def on_access_changed(self, callback: Callable[[], Any]) -> None:
        self._on_changed(ACCESS_CHANNEL, callback)

    def rules(self) -> Future[Rules]:
        written = self._outbox.written()

        def read() -> Rules:
            written.result()
            return self._patiently(present_rules)

        return self._ask(self._rules, read)

    def on_rules_changed(self, callback: Callable[[], Any]) -> None:
        self._on_changed(RULES_CHANNEL, callback)

    def submit(self, kind: str, model_id: str, user: str) -> Future[Mapping[str, Any]]:
        if kind != DEMAND:
            return self._ask(self._commands, partial(self._run_command, kind, model_id, user))
        # Many predictions may wait for one model: one thread waits for all of them.
        demand = self._demands.get(model_id)
        if demand is None or demand.done():
            demand = self._ask(self._commands, partial(self._run_demand, model_id, user))
            self._demands = {key: other for key, other in self._demands.items() if not other.done()}
            self._demands[model_id] = demand
        return _shared(demand)

    def index(self) -> Future[Sequence[Mapping[str, Any]]]:
        return self._ask(self._indexes, _index)

    def close(self, timeout_seconds: float) -> bool:
        self._is_closing.set()
        closes_at = time.monotonic() + timeout_seconds
        for threads in (self._commands, self._tables, self._indexes, self._rules):
            threads.shutdown(wait=False, cancel_futures=True)
        self._outbox.put(Stopped(time.time()))
        is_written = self._outbox.close(max(closes_at - time.monotonic(), 0.0))
        for listener in self._listeners:
            listener.stop()
        stop_listening()
        return is_written

    def _on_changed(self, channel: str, callback: Callable[[], Any]) -> None:
        """callback() at each notification, after each connect (what came before was missed), and now and then."""
        listener = Listener({channel: lambda _: callback()}, on_connected=callback)
        self._listeners.append(listener)
        listener.start()

        def refresh() -> None:
            while not self._is_closing.wait(REFRESH_SECONDS):
                callback()

        threading.Thread(target=refresh, name=f"{channel}-refresh", daemon=True).start()

    def _ask(self, threads: ThreadPoolExecutor, question: Callable[[], Answer]) -> Future[Any]:
        def answer() -> Answer:
            try:
                return question()
            finally:
                connection.close()

        return threads.submit(answer)

    def _patiently(self, question: Callable[[], Answer]) -> Answer:
        """Asks again until Postgres answers."""
        is_away = False
        while True:
            try:
                return question()
            except (OperationalError, InterfaceError) as error:
                if not is_away:
                    is_away = True
                    logger.warning("loaderd waits for Postgres: %s", str(error).strip())
                connection.close()
                if self._is_closing.wait(AWAY_SECONDS):
                    raise

    def _run_command(self, kind: str, model_id: str, username: str) -> dict[str, Any]:
        user = get_user_model().objects.filter(username=username, is_active=True).first()
        if user is None:
            raise PermissionDenied(f"No active user is named {username!r}.")
        version = _registered(model_id)
        return self._followed(version, _REQUESTS[kind](version, user=user, source="inference"))

    def _run_demand(self, model_id: str, username: str) -> dict[str, Any]:
        version = _registered(model_id)
        if not version.autoload:
            raise StateForbids(
                f"{model_id} is not loaded, and its policy does not have it loaded when a prediction asks; load it, or "
                "set its `autoload`.",
                model_id=model_id,
            )
        reason = f"asked for by {username}" if username else "asked for by a prediction"
        return self._followed(version, request_load(version, user=None, source=DEMAND, reason=reason))

    def _followed(self, version: ModelVersion, operation: Operation) -> dict[str, Any]:
        """How the operation ended, or stands when its time is over."""
        limit_seconds = load_limit_seconds(version) + TURN_SECONDS
        deadline = time.monotonic() + limit_seconds
        error: LoaderdError | None = None
        while not operation.is_ended and error is None:
            if self._is_closing.is_set():
                error = ShuttingDown("loaderd is stopping; repeat the command when it runs again.")
            elif time.monotonic() > deadline:
                error = ModelTimeout(
                    f"The {operation.kind} of {version.model_id} is {operation.status} after {limit_seconds:g} s, and "
                    "goes on.",
                    model_id=version.model_id,
                    operation=str(operation.pk),
                )
            else:
                operation = wait_for(operation.pk, 1.0)
        version.refresh_from_db(fields=["status"])
        return {
            "state": version.status,
            "result": operation.result,
            "error": error.to_message() if error else operation.error,
        }


def _shared(future: Future[Any]) -> Future[Any]:
    """One that ends as `future` does; who cancels it cancels nobody else's."""
    own: Future[Any] = Future()

    def copy(ended: Future[Any]) -> None:
        if not own.set_running_or_notify_cancel():
            return
        if ended.cancelled():
            own.set_exception(ShuttingDown("loaderd is stopping; repeat the request when it runs again."))
        elif error := ended.exception():
            own.set_exception(error)
        else:
            own.set_result(ended.result())

    future.add_done_callback(copy)
    return own


def _registered(model_id: str) -> ModelVersion:
    version = ModelVersion.objects.filter(model_id=model_id).first()
    if version is None:
        raise UnknownModel(f"No model has the id {model_id!r}; the repository index lists them.", model_id=model_id)
    return version


def _index() -> list[dict[str, Any]]:
    loader = loader_view()
    versions = ModelVersion.objects.select_related("lineage").only(
        "model_id", "version", "status", "status_reason", "desired_state", "lineage__name"
    )
    return [
        {
            "model_id": version.model_id,
            "name": version.lineage.name,
            "version": version.version,
            "state": effective_status(version, loader),
            "reason": version.status_reason,
            "wished": version.desired_state == DesiredState.LOADED,
        }
        for version in versions
    ]
