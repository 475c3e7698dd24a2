"""Postgres' NOTIFY: telling that something happened, and threads that sleep until it did."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import psycopg
from django.db import InterfaceError, OperationalError, connection, connections
from psycopg import sql

from modelhub.lifecycle.models import Operation

OPERATION_CHANNEL = "modelhub_operation"  # payload: the id of an operation that ended

# A waiting thread looks at the row this often, so a lost notification costs a second and no more.
REREAD_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
_WAKE_SECONDS = 1.0  # how soon a listening thread sees that it shall stop

logger = logging.getLogger(__name__)


def notify(channel: str, payload: str = "", *, using: str = "default") -> None:
    """Tells all who listen, when the transaction commits; at once without one."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [channel, payload])


class Listener:
    """A connection of its own that listens on its own daemon thread, and connects again when it is lost.

    handlers: channel -> called with the payload, on that thread; it must be quick and run no query.
    on_connected: called after each connect, because what was notified before it was missed.
    """

    def __init__(self, handlers: Mapping[str, Callable[[str], None]], on_connected: Callable[[], None]) -> None:
        self.is_listening = threading.Event()
        self._handlers = handlers
        self._on_connected = on_connected
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postgres-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the connection is closed, after a second at most."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(3 * _WAKE_SECONDS)

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            try:
                self._listen()
            except psycopg.Error as error:
                if self.is_listening.is_set():
                    logger.warning("the listening connection was lost and is made again: %s", str(error).strip())
                self.is_listening.clear()
                self._is_stopping.wait(RECONNECT_SECONDS)

    def _listen(self) -> None:
        with psycopg.connect(**connection.get_connection_params(), autocommit=True) as own:
            for channel in self._handlers:
                own.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self.is_listening.set()
            self._on_connected()
            while not self._is_stopping.is_set():
                for notification in own.notifies(timeout=_WAKE_SECONDS):
                    self._handlers[notification.channel](notification.payload)


class _Waiting:
    """The threads of this process that wait for operations, and the one connection that wakes them."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._events: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self._listener = Listener({OPERATION_CHANNEL: self._wake}, on_connected=self._wake_all)
        self._listener.start()

    @contextlib.contextmanager
    def event_of(self, operation_id: str) -> Iterator[threading.Event]:
        """An event that is set at each notification of this operation, from now on."""
        event = threading.Event()
        with self._lock:
            self._events[operation_id].add(event)
        try:
            self._listener.is_listening.wait(REREAD_SECONDS)
            yield event
        finally:
            with self._lock:
                self._events[operation_id].discard(event)
                if not self._events[operation_id]:
                    del self._events[operation_id]

    def stop(self) -> None:
        self._listener.stop()

    def _wake(self, operation_id: str) -> None:
        with self._lock:
            for event in self._events.get(operation_id, ()):
                event.set()

    def _wake_all(self) -> None:
        with self._lock:
            for events in self._events.values():
                for event in events:
                    event.set()


_waiting: _Waiting | None = None
_waiting_lock = threading.Lock()


def _waiting_here() -> _Waiting:
    """This process' own: threads and connections do not survive a fork."""
    global _waiting
    with _waiting_lock:
        if _waiting is None or _waiting.pid != os.getpid():
            _waiting = _Waiting()
        return _waiting


def stop_listening() -> None:
    """Closes this process' listening connection; the next wait_for opens it again."""
    global _waiting
    with _waiting_lock:
        if _waiting is not None and _waiting.pid == os.getpid():
            _waiting.stop()
        _waiting = None


def wait_for(operation_id: uuid.UUID | str, timeout_seconds: float) -> Operation:
    """The operation as it stands when it has ended, or when `timeout_seconds` have passed.

    Sleeps without a query a second long at a time. While Postgres is away it waits on; raises
    OperationalError when it is still away at the end, Operation.DoesNotExist for an unknown id.
    """
    deadline = time.monotonic() + timeout_seconds
    with _waiting_here().event_of(str(operation_id)) as ended:
        while True:
            # Cleared before the look: what ends after it sets the event again.
            ended.clear()
            operation = _read(operation_id, deadline)
            remaining_seconds = deadline - time.monotonic()
            if operation is not None and (operation.is_ended or remaining_seconds <= 0):
                return operation
            ended.wait(min(REREAD_SECONDS, max(remaining_seconds, 0.0)))


def _read(operation_id: uuid.UUID | str, deadline: float) -> Operation | None:
    """The row, or None while Postgres is away."""
    try:
        return Operation.objects.get(pk=operation_id)
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block or time.monotonic() >= deadline:
            raise
        connection.close()
        return None
