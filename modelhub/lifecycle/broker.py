"""The task queue's broker: django-q2's table, without its polling. A task starts milliseconds after its commit."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from django.db import InterfaceError, OperationalError, connections, transaction
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ

from modelhub.lifecycle.notifications import notify

QUEUE_CHANNEL = "modelhub_queue"

# How long a dequeue waits for a notification. It bounds the wait for a task whose worker died (its lock
# passes silently), and for the end of the cluster.
WAIT_SECONDS = 1.0
AWAY_SECONDS = 1.0  # between two tries while Postgres is away

_CLAIM = f"""
    UPDATE {OrmQ._meta.db_table} SET lock = %(locked_until)s
    WHERE id IN (
        SELECT id FROM {OrmQ._meta.db_table} WHERE key = %(key)s AND lock < %(now)s
        ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    RETURNING id, payload
"""  # noqa: S608 (the only name in it is the table's)

logger = logging.getLogger(__name__)


class NotifyBroker(ORM):
    """Tasks and their order are the ORM broker's: rows, oldest first, locked until `retry` seconds have passed."""

    _listening_on: Any = None  # the psycopg connection that has LISTENed; a new one has to do so again
    _is_away = False

    def enqueue(self, task: str) -> Any:
        """Writes the task and its notification; inside a transaction both appear when that commits."""
        with transaction.atomic(using=Conf.ORM, savepoint=False):
            task_id = super().enqueue(task)
            notify(QUEUE_CHANNEL, using=Conf.ORM)
        return task_id

    def dequeue(self) -> list[tuple[int, str]] | None:
        """[(id, payload)] of claimed tasks; None when none came within a second, or Postgres is away."""
        try:
            tasks = self._listen_and_claim()
        except (OperationalError, InterfaceError) as error:
            self._drop_connection(error)
            return None
        if self._is_away:
            self._is_away = False
            logger.info("Postgres is back; tasks are fetched again")
        return tasks

    def _listen_and_claim(self) -> list[tuple[int, str]] | None:
        self.get_connection()  # closes a connection that no longer works
        connection = connections[Conf.ORM]
        with connection.cursor() as cursor:
            # LISTEN comes before the look into the table, or a task between the two would wait a second.
            if self._listening_on is not connection.connection:
                cursor.execute(f"LISTEN {QUEUE_CHANNEL}")
                self._listening_on = connection.connection
            tasks = self._claim(cursor)
        if tasks:
            return tasks
        with connection.wrap_database_errors:
            # Ended before the next query: notifies() holds the connection's lock while it runs.
            notified = list(self._listening_on.notifies(timeout=WAIT_SECONDS, stop_after=1))
        if not notified:
            return None
        with connection.cursor() as cursor:
            return self._claim(cursor)

    def _claim(self, cursor: Any) -> list[tuple[int, str]]:
        now = timezone.now()
        locked_until = now + timedelta(seconds=Conf.RETRY)
        cursor.execute(_CLAIM, {"locked_until": locked_until, "key": self.list_key, "now": now, "limit": Conf.BULK})
        return list(cursor.fetchall())

    def _drop_connection(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            logger.warning("no tasks are fetched until Postgres is back: %s", str(error).strip())
        self._listening_on = None
        connections[Conf.ORM].close()
        time.sleep(AWAY_SECONDS)
