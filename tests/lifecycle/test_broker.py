"""Tasks reach a waiting worker at once, in order, once; and after Postgres was away."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from django_q.models import OrmQ

from modelhub.lifecycle.broker import WAIT_SECONDS, NotifyBroker
from tests.deadline import wait_until
from tests.lifecycle.conftest import in_thread, terminate_backends

pytestmark = pytest.mark.django_db(transaction=True)


class Consumer:
    """A pusher: dequeues until it has `count` payloads."""

    def __init__(self, count: int) -> None:
        self.payloads: list[str] = []
        self.times: list[float] = []
        self.pid = 0
        self._count = count
        self.thread = in_thread(self._run)

    def _run(self) -> None:
        broker = NotifyBroker()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            self.pid = cursor.fetchone()[0]
        while len(self.payloads) < self._count:
            for _, payload in broker.dequeue() or ():
                self.payloads.append(payload)
                self.times.append(time.monotonic())

    def wait_until_listening(self) -> None:
        wait_until(self._is_waiting, what="the consumer waits")

    def _is_waiting(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT state = 'idle' AND query LIKE '%%SKIP LOCKED%%' FROM pg_stat_activity WHERE pid = %s",
                [self.pid],
            )
            row = cursor.fetchone()
            return bool(row and row[0])


def test_a_waiting_worker_gets_a_task_without_waiting_for_a_poll() -> None:
    consumer = Consumer(1)
    consumer.wait_until_listening()
    enqueued_at = time.monotonic()
    NotifyBroker().enqueue("a task")
    consumer.thread.join(10)
    assert consumer.payloads == ["a task"]
    assert consumer.times[0] - enqueued_at < WAIT_SECONDS / 2


def test_tasks_come_oldest_first() -> None:
    broker = NotifyBroker()
    for number in range(5):
        broker.enqueue(str(number))
    assert [payload for _ in range(5) for _, payload in broker.dequeue()] == ["0", "1", "2", "3", "4"]


def test_a_task_appears_with_the_transaction_that_made_it() -> None:
    consumer = Consumer(1)
    consumer.wait_until_listening()
    with transaction.atomic():
        NotifyBroker().enqueue("a task")
        assert consumer.payloads == []
    consumer.thread.join(10)
    assert consumer.payloads == ["a task"]


def test_a_transaction_that_is_rolled_back_leaves_no_task() -> None:
    with transaction.atomic():
        NotifyBroker().enqueue("a task")
        transaction.set_rollback(True)
    assert NotifyBroker().dequeue() is None
    assert not OrmQ.objects.exists()


def test_a_claimed_task_is_not_given_again_until_its_lock_has_passed() -> None:
    broker = NotifyBroker()
    broker.enqueue("a task")
    [(task_id, _)] = broker.dequeue()
    assert NotifyBroker().dequeue() is None
    OrmQ.objects.update(lock=timezone.now() - timedelta(seconds=1))
    assert broker.dequeue() == [(task_id, "a task")]
    broker.acknowledge(task_id)
    assert not OrmQ.objects.exists()


def test_two_workers_share_the_tasks_and_take_none_twice() -> None:
    consumers = [Consumer(20), Consumer(20)]
    for number in range(40):
        NotifyBroker().enqueue(str(number))
    for consumer in consumers:
        consumer.thread.join(20)
    assert sorted(consumers[0].payloads + consumers[1].payloads, key=int) == [str(number) for number in range(40)]


def test_it_fetches_again_after_its_connection_was_lost() -> None:
    consumer = Consumer(2)
    NotifyBroker().enqueue("before")
    wait_until(lambda: consumer.payloads == ["before"])
    consumer.wait_until_listening()
    assert terminate_backends() >= 1
    NotifyBroker().enqueue("after")
    consumer.thread.join(20)
    assert consumer.payloads == ["before", "after"]
