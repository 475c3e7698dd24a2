"""What the queue's workers do: hand a command to loaderd, and be free for the next. Nobody waits here for a load."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce
from django.utils import timezone

from loaderd.client import LoaderClient
from loaderd.errors import LoaderdError, LoaderUnreachable
from modelhub.conf import config
from modelhub.lifecycle.actions import take_wish_back
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind, OperationStatus
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify
from modelhub.registry.artifacts import spec_of
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion

# django-q2 counts no attempt whose worker was killed, so we count deliveries ourselves.
MAX_ATTEMPTS = 5

logger = logging.getLogger(__name__)


def dispatch(operation_id: str, version_id: int, desired_before: str) -> None:
    """Hands an operation to loaderd, after those of the same model that were asked for earlier.

    Safe to repeat: loaderd knows the operations that it took. desired_before: what a command that cannot be
    delivered puts back. Errors of loaderd end the operation; those of Postgres, and a loaderd that took the
    command perhaps and did not answer in time, are raised, and the queue delivers again.
    """
    with _one_at_a_time(version_id):
        active = Operation.objects.filter(version_id=version_id, status__in=ACTIVE).order_by("requested_at")
        in_order = list(active.select_related("version__lineage"))
        position = next((n for n, operation in enumerate(in_order) if str(operation.pk) == operation_id), None)
        if position is None:
            return  # ended meanwhile
        # An earlier one may have been claimed by a worker that died before it reached loaderd.
        for operation in in_order[: position + 1]:
            try:
                _hand_over(operation)
            except LoaderdError as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise
                # The failure of an earlier one is told by its own task.
                if operation is in_order[position] or isinstance(error, LoaderUnreachable):
                    _fail(in_order[position], error, desired_before)
                    return


@contextlib.contextmanager
def _one_at_a_time(version_id: int) -> Iterator[None]:
    """Other workers that have a command for this version wait; Postgres lets go when this one is killed."""
    key = f"modelhub.dispatch:{version_id}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])


def _hand_over(operation: Operation) -> None:
    if operation.attempts >= MAX_ATTEMPTS:
        raise LoaderdError(
            f"The {operation.kind} of {operation.version} was begun {operation.attempts} times: its queue worker ended "
            "or loaderd did not answer, each time; see the logs of both.",
            model_id=operation.version.model_id,
        )
    # The attempt is counted before anything can go wrong in it.
    claimed = Operation.objects.filter(pk=operation.pk, status__in=ACTIVE, attempts=operation.attempts).update(
        status=OperationStatus.RUNNING,
        attempts=F("attempts") + 1,
        started_at=Coalesce("started_at", timezone.now()),
    )
    if not claimed:
        return  # it ended or was cancelled meanwhile
    client = LoaderClient(config().control_socket)
    user = operation.requested_by_name or operation.source
    if operation.kind == OperationKind.LOAD:
        client.load(spec_of(operation.version), str(operation.pk), user)
    else:
        client.unload(operation.version.model_id, str(operation.pk), user)


def _fail(operation: Operation, error: LoaderdError, desired_before: str) -> None:
    """Ends an operation that loaderd did not take, as if it had not been asked for.

    An unload whose model is unloaded meanwhile, because its loaderd stopped, has what it asked for: it succeeds.
    """
    values: dict[str, Any] = {"status": OperationStatus.FAILED, "error": error.to_message()}
    with transaction.atomic():
        version = ModelVersion.objects.select_for_update(no_key=True).only("model_id", "status")
        present = version.get(pk=operation.version_id)
        if operation.kind == OperationKind.UNLOAD and present.status == Status.UNLOADED:
            result = {"model_id": present.model_id, "status": "not_loaded"}
            values = {"status": OperationStatus.SUCCEEDED, "progress": 1.0, "result": result}
        else:
            take_wish_back(operation, desired_before)
        active = Operation.objects.filter(pk=operation.pk, status__in=ACTIVE)
        if active.update(finished_at=timezone.now(), **values):
            notify(OPERATION_CHANNEL, str(operation.pk))
        else:
            transaction.set_rollback(True)
    logger.warning("%s was not taken: %s", operation, error.message)
