"""The thread that uses the model: it loads it, warms it up, predicts, and unloads it.

One thread, because libraries keep state per thread (torch's grad mode and thread count), and because a model need not
be safe for two. A model that says that any thread may call it (`LoadedModel.any_thread`) is called by another one while
this one waits, where the call is short: see `compute_here`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from loaderd.errors import LoaderdError, ModelTimeout, PredictionFailed
from loaderd.frameworks.base import LoadedModel
from loaderd.protocol import ModelSpec
from loaderd.worker.batching import Arrays, Job, Line, Rank, Return, Slice, handed_out, items_of, joined
from loaderd.worker.call import call, describe
from loaderd.worker.failures import FailureLog
from loaderd.worker.faults import is_device_lost, is_out_of_memory

if TYPE_CHECKING:
    from loaderd.generation.contract import Event, Generation

log = logging.getLogger(__name__)

HERE_SECONDS = 0.002
"""A call that takes no longer may be made on the thread that reads the requests: it reads none meanwhile."""

OnDone = Callable[[list[Job], int, float, int], None]
"""Takes jobs that are over, how many calls they were in, and the seconds and items of those."""

Ask = Callable[[], BaseException | None]
"""Uses the model between two calls; returns what the model raised, if it did."""


class ComputeThread:
    """Runs `load()` once, then the jobs that are submitted until `end()`. Between two calls of the model a text
    generator takes a step.

    on_loaded(model, None) or on_loaded(None, error), on_done(jobs, batches, compute_seconds, batch_items),
    on_events(events of a generator, steps, seconds) and, once and at the very end, on_lost(error) are called on this
    thread; the caller hands them over to its own. on_done gets every job that was submitted once, abandoned ones as
    well. After on_lost nothing is computed any more and the process must end: its GPU is lost, or this thread failed
    where nobody expected it.
    """

    def __init__(
        self,
        spec: ModelSpec,
        load: Callable[[], LoadedModel],
        on_loaded: Callable[[LoadedModel | None, BaseException | None], None],
        on_done: OnDone,
        on_lost: Callable[[BaseException], None],
        on_events: Callable[[list[Event], int, float], None] = lambda events, steps, seconds: None,
    ) -> None:
        self._model_id = spec.model_id
        self._memory_limit_bytes = spec.memory_limit_bytes
        self._max_batch_items = max(1, spec.max_batch_size)
        self._load = load
        self._on_loaded = on_loaded
        self._on_done = on_done
        self._on_lost = on_lost
        self._on_events = on_events
        self._arrived: SimpleQueue[Job | list[Job] | Ask | None] = SimpleQueue()  # None: the end
        self._waiting = Line(self._max_batch_items)
        self._return = Return(self._max_batch_items)
        self._asked: deque[Ask] = deque()
        self._generation: Generation | None = None
        self._batches = 0
        self._steps, self._step_seconds = 0, 0.0  # of the generator, that nobody was told of yet
        self._busy_since: float | None = None  # read by another thread: one assignment, no lock
        self._in_call = 0  # likewise
        self._given = 0  # to the thread; counted by who gives
        self._taken = 0  # by the thread
        self._parked_at = -1  # how much it had taken when it last began to wait for more
        self._model: LoadedModel | None = None  # that another thread may call
        self._has_leavers = False  # written by another thread: some jobs that wait are abandoned
        self._has_deadlines = False
        self._is_over = False  # nothing comes any more
        self._device_lost: BaseException | None = None
        self._failures = FailureLog()
        self._on_ended: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, jobs: Job | list[Job]) -> None:
        """Queues jobs; from any thread."""
        self._given += 1
        self._arrived.put(jobs)

    def compute_here(self, jobs: list[Job], on_done: OnDone) -> bool:
        """Computes jobs at once, on the caller's thread, where that is sound and short; False: nothing was done.

        A request of a fast model costs less than to wake another thread, twice. To be called by the one thread that
        submits, asks and wakes, for a model whose jobs no other thread submits. The thread of the model must have done
        all that it was given, and wait: then its state is the caller's as long as that gives it nothing more.
        """
        model = self._model
        if (
            model is None
            or not self.is_parked
            or self._waiting.expected_seconds(sum(job.items for job in jobs)) > HERE_SECONDS
        ):
            return False
        if any(job.rank is Rank.BULK or job.deadline != float("inf") for job in jobs):
            return False
        for job in jobs:
            self._waiting.add(job)
        try:
            while slices := self._waiting.take(time.perf_counter()):
                self._compute(model, slices, on_done)
        except BaseException as error:
            self._broke(error)
        if self._device_lost is not None:
            self.wake()  # the thread of the model tells of it
        return True

    def ask(self, ask: Ask) -> None:
        """Has it run between two calls, before the jobs that wait: that many wait is no sign of sickness."""
        self._given += 1
        self._arrived.put(ask)

    def wake(self) -> None:
        """Has it look at the generator, which got work."""
        self._given += 1
        self._arrived.put([])

    def abandoned(self) -> None:
        """Some job was abandoned: it is not computed if it has not begun."""
        self._has_leavers = True

    def end(self, on_ended: Callable[[], object]) -> None:
        """Has the model unloaded, once all jobs are answered or abandoned; on_ended is called on this thread."""
        self._on_ended = on_ended
        self._given += 1
        self._arrived.put(None)

    @property
    def in_call(self) -> int:
        """Jobs in the model call that runs now; a snapshot."""
        return self._in_call

    @property
    def is_parked(self) -> bool:
        """Whether the thread has done all that it was given, and waits; true until it is given more."""
        return self._parked_at == self._given

    @property
    def busy_seconds(self) -> float:
        """The age of the model call that runs now, 0.0 between calls. True also while this thread is stuck in one."""
        since = self._busy_since
        return 0.0 if since is None else time.perf_counter() - since

    def _run(self) -> None:
        try:
            model = self._load()
        except BaseException as error:  # SystemExit of a careless library as well: a load ends in one message
            self._on_loaded(None, error)
            return
        self._generation = model.generation
        self._model = model if model.any_thread else None
        self._on_loaded(model, None)
        try:
            self._serve(model)
        except BaseException as error:  # a thread that is gone would leave a model that looks healthy and never answers
            self._broke(error)
            return
        if self._device_lost is not None:
            self._on_lost(self._device_lost)
        else:
            self._unload(model)

    def _broke(self, error: BaseException) -> None:
        """What uses the model failed where nobody expected it."""
        log.error("%s: what uses the model failed", self._model_id, exc_info=error)
        self._on_lost(error)

    def _serve(self, model: LoadedModel) -> None:
        """Returns at the end, or when the device is lost."""
        while not self._is_over and self._device_lost is None:
            self._gather()
            if self._asked:
                self._answer_asked()
            if self._has_leavers or self._has_deadlines:
                self._drop_those_over()
            if self._is_over or self._device_lost is not None:
                continue
            slices = self._waiting.take(time.perf_counter())
            if slices:
                self._compute(model, slices, self._on_done)
            if self._generation is not None and self._generation.has_work and self._device_lost is None:
                self._generate(self._generation)

    @property
    def _is_generating(self) -> bool:
        return self._generation is not None and self._generation.has_work

    def _gather(self) -> None:
        """Takes all that arrived; waits when there is nothing to do, and a moment for requests that are coming back."""
        if self._return.is_expected:
            self._take(0.0)
            self._return.begins(self._waiting.interactive_items)
        if self._waiting or self._asked or self._is_over or self._is_generating:
            self._take(0.0)
        else:
            self._parked_at = self._taken
            self._take(None)
        while self._return.is_expected and not (
            self._asked or self._is_over or self._is_generating or self._has_deadlines or self._has_leavers
        ):
            patience = self._return.worth_waiting(self._waiting.interactive_items, time.perf_counter())
            self._return.is_expected = patience > 0.0 and self._take(patience)

    def _take(self, patience: float | None) -> bool:
        """Takes in what has arrived, and whether anything has; waits so long for the first, None: for ever."""
        get, taken = self._arrived.get, self._taken
        try:
            arrived = get(patience != 0.0, patience)
            while True:
                self._taken += 1
                if isinstance(arrived, Job):
                    self._add(arrived)
                elif arrived is None:
                    self._is_over = True
                    break
                elif isinstance(arrived, list):
                    for job in arrived:
                        self._add(job)
                else:
                    self._asked.append(arrived)
                arrived = get(False)
        except Empty:
            pass
        return self._taken > taken

    def _add(self, job: Job) -> None:
        self._waiting.add(job)
        if job.deadline != float("inf"):
            self._has_deadlines = True

    def _drop_those_over(self) -> None:
        """Nobody waits for an abandoned job; whose deadline is over gets an error in place of a late answer."""
        self._has_leavers = False
        now = time.perf_counter()
        dropped = self._waiting.drop(lambda job: job.abandoned or (job.deadline <= now and job.started_at is None))
        for job in dropped:
            if not job.abandoned:
                allowed_seconds = round(job.deadline - job.arrived_at, 9)  # as it was asked for, not as clocks add up
                job.error = ModelTimeout(
                    f"{self._model_id} did not begin with the request within the {allowed_seconds:g} s "
                    "that it allowed; try again in a moment, or allow more.",
                    model_id=self._model_id,
                    timeout_seconds=allowed_seconds,
                )
        if dropped:
            self._on_done(dropped, 0, 0.0, 0)
        self._has_deadlines = bool(self._waiting)

    def _answer_asked(self) -> None:
        while self._asked:
            self._busy_since = time.perf_counter()
            try:
                error = self._asked.popleft()()
            except BaseException as fault:  # the thread outlives it: the jobs that wait are none of its business
                log.exception("%s: what was asked between two calls failed", self._model_id)
                error = fault
            finally:
                self._busy_since = None
            if error is not None and is_device_lost(error):
                self._device_lost = error

    def _generate(self, generation: Generation) -> None:
        began = self._busy_since = time.perf_counter()
        try:
            events = generation.step()
        finally:
            self._busy_since = None
        self._steps += 1
        self._step_seconds += time.perf_counter() - began
        for event in events:
            if event.error is not None and is_device_lost(event.error):
                self._device_lost = event.error
        if events:
            self._on_events(events, self._steps, self._step_seconds)
            self._steps, self._step_seconds = 0, 0.0

    def failure_of(self, error: BaseException) -> LoaderdError:
        """What a client is told of something that the model raised."""
        if isinstance(error, LoaderdError):
            return error
        self._failures.note(error)
        return PredictionFailed(self._sentence(error), model_id=self._model_id)

    def _unload(self, model: LoadedModel) -> None:
        try:
            model.unload()
        except BaseException:
            log.exception("%s could not give back what it holds", self._model_id)
        if self._on_ended is not None:
            self._on_ended()

    def _compute(self, model: LoadedModel, slices: list[Slice], on_done: OnDone) -> None:
        started_at = time.perf_counter()
        for part in slices:
            if part.job.started_at is None:
                part.job.started_at = started_at
        self._batches = 0
        self._in_call = len(slices)
        try:
            handed_out(slices, self._predict(model, slices))
        except BaseException as error:
            if len(slices) == 1 or is_device_lost(error):
                for part in slices:
                    self._fail(part.job, error)
            else:
                self._compute_alone(model, slices)
        self._in_call = 0
        seconds, items = time.perf_counter() - started_at, items_of(slices)
        self._waiting.called(items, seconds)
        finished = []
        for part in slices:
            job = part.job
            job.timings.called(seconds, items)
            if job.is_over:
                finished.append(job)
        self._return.answered(slices, seconds, started_at + seconds)
        on_done(finished, self._batches, seconds, items)

    def _compute_alone(self, model: LoadedModel, slices: list[Slice]) -> None:
        """Predicts each slice by itself, so that only the one at fault fails."""
        for part in slices:
            try:
                handed_out([part], self._predict(model, [part]))
            except BaseException as error:
                self._fail(part.job, error)

    def _predict(self, model: LoadedModel, slices: list[Slice]) -> Arrays:
        self._batches += 1
        inputs = joined(slices)
        self._busy_since = time.perf_counter()
        try:
            return call(self._model_id, model, inputs)
        finally:
            self._busy_since = None

    def _fail(self, job: Job, error: BaseException) -> None:
        if job.remaining_items:
            self._waiting.drop(lambda other: other is job)
        if is_device_lost(error):
            self._device_lost = error
        job.error = self.failure_of(error)

    def _sentence(self, error: BaseException) -> str:
        if not is_out_of_memory(error):
            return f"{self._model_id} failed to predict: {describe(error)} (the model's log has the traceback)."
        limit = self._memory_limit_bytes
        return (
            f"{self._model_id} ran out of memory while it predicted ({describe(error)}); send fewer items at once, or "
            + ("unload another model." if limit is None else f"raise its memory_limit_mb ({limit / 2**20:g}).")
        )
