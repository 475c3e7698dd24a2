"""Who waits for an operation wakes when it ends."""

from __future__ import annotations

import time
import uuid

import pytest

from modelhub.lifecycle import notifications
from modelhub.lifecycle.models import Operation, OperationStatus
from modelhub.lifecycle.notifications import OPERATION_CHANNEL, notify, wait_for
from modelhub.registry.models import ModelVersion
from tests.lifecycle.conftest import in_thread, terminate_backends

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def operation(version: ModelVersion) -> Operation:
    return Operation.objects.create(kind="load", version=version)


def end(operation: Operation) -> None:
    Operation.objects.filter(pk=operation.pk).update(status=OperationStatus.SUCCEEDED)
    notify(OPERATION_CHANNEL, str(operation.pk))


class Waiter:
    def __init__(self, operation: Operation, timeout_seconds: float = 20.0) -> None:
        self.result: Operation | None = None
        self.woken_at = 0.0
        self._operation = operation
        self._timeout_seconds = timeout_seconds
        self.thread = in_thread(self._run)

    def _run(self) -> None:
        self.result = wait_for(self._operation.pk, self._timeout_seconds)
        self.woken_at = time.monotonic()


def test_it_wakes_at_the_end_and_not_at_the_next_look(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "REREAD_SECONDS", 60.0)
    wait_for(operation.pk, 0.0)  # the listening connection is made
    waiters = [Waiter(operation) for _ in range(3)]
    end(operation)
    for waiter in waiters:
        waiter.thread.join(10)
        assert waiter.result is not None
        assert waiter.result.status == "succeeded"


def test_an_operation_that_has_ended_is_not_waited_for(operation: Operation) -> None:
    end(operation)
    assert wait_for(operation.pk, 60.0).is_ended


def test_after_its_time_it_says_how_the_operation_stands(operation: Operation) -> None:
    began = time.monotonic()
    assert wait_for(operation.pk, 0.2).status == "queued"
    assert time.monotonic() - began < 2.0


def test_an_unknown_operation_is_an_error(transactional_db: None) -> None:
    with pytest.raises(Operation.DoesNotExist):
        wait_for(uuid.uuid4(), 1.0)


def test_it_survives_the_loss_of_every_connection(operation: Operation) -> None:
    waiter = Waiter(operation)
    wait_for(operation.pk, 0.0)
    assert terminate_backends() >= 1
    end(operation)
    waiter.thread.join(20)
    assert waiter.result is not None
    assert waiter.result.is_ended
    notifications._waiting_here()._listener.is_listening.wait(10)
    assert notifications._waiting_here()._listener.is_listening.is_set()


def test_a_forked_process_listens_for_itself(operation: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for(operation.pk, 0.0)
    ours = notifications._waiting_here()
    monkeypatch.setattr(ours, "pid", ours.pid + 1)
    assert notifications._waiting_here() is not ours
    ours.stop()
