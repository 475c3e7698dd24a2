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
from loaderd.protocol import ModelSpec
from modelhub.actors import named
from modelhub.conf import config
from modelhub.lifecycle.models import ACTIVE, Operation, OperationKind, OperationStatus
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify
from modelhub.lifecycle.observed import loader_view
from modelhub.lifecycle.wishes import take_wish_back, wished_before
from modelhub.policy.effective import effective
from modelhub.registry.artifacts import spec_of
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion

# django-q2 counts no attempt whose worker was killed, so we count deliveries ourselves.
MAX_ATTEMPTS = 5

logger = logging.getLogger(__name__)


def dispatch(operation_id: str, *_from_before: Any) -> None:
    """Hands an operation to loaderd, after those of the same model that were asked for earlier.

    Safe to repeat: loaderd knows the operations that it took. Errors of loaderd end the operation, and what it wished
    is put back; those of Postgres, and a loaderd that took the command perhaps and did not answer in time, are raised,
    and the queue delivers again. _from_before: what tasks of an earlier release carry.
    """
    version_ids = Operation.objects.filter(pk=operation_id).values_list("version", flat=True)
    if not version_ids:
        return  # its model was deleted
    with _one_at_a_time(version_ids[0]):
        active = Operation.objects.filter(version=version_ids[0], status__in=ACTIVE).order_by("requested_at")
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
                    _fail(in_order[position], error)
                    return


@contextlib.contextmanager
def _one_at_a_time(version_id: int | None) -> Iterator[None]:
    """Other workers that have a command for this version wait; Postgres lets go when this one is killed.

    None stands for all models: an optimisation.
    """
    key = f"modelhub.dispatch:{'all' if version_id is None else version_id}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [key])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [key])


def _hand_over(operation: Operation) -> None:
    if operation.attempts >= MAX_ATTEMPTS:
        raise LoaderdError(
            f"The {operation.what} was begun {operation.attempts} times: its queue worker ended or loaderd did not "
            "answer, each time; see the logs of both.",
            **({} if operation.version is None else {"model_id": operation.version.model_id}),
        )
    # The attempt is counted before anything can go wrong in it.
    claimed = Operation.objects.filter(pk=operation.pk, status__in=ACTIVE, attempts=operation.attempts).update(
        status=OperationStatus.RUNNING,
        attempts=F("attempts") + 1,
        started_at=Coalesce("started_at", timezone.now()),
    )
    if not claimed:
        return  # it ended or was cancelled meanwhile
    _tell(LoaderClient(config().control_socket), operation)


def _tell(client: LoaderClient, operation: Operation) -> None:
    operation_id, version = str(operation.pk), operation.version
    user = named(operation.requested_by_name, operation.source)
    if version is None:
        client.optimize(operation_id, user)
    elif operation.kind == OperationKind.UNLOAD:
        client.unload(version.model_id, operation_id, user)
    elif operation.kind == OperationKind.LOAD:
        client.load(_spec_of(version), operation_id, user)
    else:
        client.activate(
            _spec_of(version),
            operation_id,
            user,
            str(operation.kind),
            operation.reason,
            bool(operation.parameters.get("allow_gap")),
        )


def _spec_of(version: ModelVersion) -> ModelSpec:
    return spec_of(version, settings=effective(), device=loader_view().device)


def _fail(operation: Operation, error: LoaderdError) -> None:
    """Ends an operation that loaderd did not take, as if it had not been asked for.

    An unload whose model is unloaded meanwhile, because its loaderd stopped, has what it asked for: it succeeds.
    """
    values: dict[str, Any] = {"status": OperationStatus.FAILED, "error": error.to_message()}
    with transaction.atomic():
        rows = ModelVersion.objects.select_for_update(no_key=True).only("model_id", "status")
        present = rows.filter(pk=operation.version_id).first()  # None for what concerns all models
        if present is not None and operation.kind == OperationKind.UNLOAD and present.status == Status.UNLOADED:
            result = {"model_id": present.model_id, "status": "not_loaded"}
            values = {"status": OperationStatus.SUCCEEDED, "progress": 1.0, "result": result}
        else:
            take_wish_back(operation, wished_before(operation))
        active = Operation.objects.filter(pk=operation.pk, status__in=ACTIVE)
        if active.update(finished_at=timezone.now(), **values):
            notify(OPERATION_CHANNEL, str(operation.pk))
        else:
            transaction.set_rollback(True)
    logger.warning("%s was not taken: %s", operation, error.message)
