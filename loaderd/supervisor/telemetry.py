"""What models did and held over time: samples for the registry, usage for the scheduler, Prometheus' text.

The counters of a model process are cumulative and end with it; here they become increments, so that what is
summed goes on over any number of processes of one model.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loaderd import histogram
from loaderd.protocol import KeptAnswers, Lost
from loaderd.reporter import Report, Sample
from loaderd.states import ModelState

USAGE_MINUTES = 60
MAX_SERIES = 200  # models that the exposition names; what the others did is summed under OTHER
OTHER = "_other"
LE_BUCKETS = range(4, 89, 6)  # of loaderd.histogram: 15 bounds from 0.1 ms to 210 s, each 2.8 times the one before

_COUNTS = (
    "requests",
    "items",
    "errors",
    "batches",
    "latency_seconds",
    "compute_seconds",
    "queue_seconds",
    "input_seconds",
    "infer_seconds",
    "output_seconds",
)
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # items of a call


@dataclass(slots=True)
class _Sums:
    """What was added up; by the names of the counters. sizes: how many calls of the model had so many items."""

    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    histogram: list[int] = field(default_factory=histogram.empty)
    sizes: Counter[int] = field(default_factory=Counter)

    def add(self, other: _Sums) -> None:
        for name, value in other.counts.items():
            self.counts[name] += value
        self.histogram = histogram.merged((self.histogram, other.histogram))
        self.sizes.update(other.sizes)


@dataclass(slots=True)
class _Highest:
    """The highest values seen within an interval; None: not seen."""

    queued: int = 0
    in_flight: int = 0
    private_bytes: int | None = None
    gpu_bytes: int | None = None

    def see(self, counters: Mapping[str, Any], private_bytes: int | None, gpu_bytes: int | None) -> None:
        self.queued = max(self.queued, counters.get("max_queued", 0), counters.get("queued", 0))
        self.in_flight = max(self.in_flight, counters.get("max_in_flight", 0), counters.get("in_flight", 0))
        self.private_bytes = _higher(self.private_bytes, private_bytes)
        self.gpu_bytes = _higher(self.gpu_bytes, gpu_bytes)


@dataclass(slots=True)
class _CacheUse:
    """What the gateway's cache did for a model. interval_hits, interval_misses: since the last sample."""

    hits: int = 0
    shared: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0
    interval_hits: int = 0
    interval_misses: int = 0

    def add(self, kept: KeptAnswers) -> None:
        self.hits += kept.hits
        self.shared += kept.shared
        self.misses += kept.misses
        self.entries, self.bytes = kept.entries, kept.bytes
        self.interval_hits += kept.hits + kept.shared
        self.interval_misses += kept.misses


@dataclass(slots=True)
class _Track:
    """One model since the daemon started. Times are of the monotonic clock.

    counters: as its present process gave them last, {} before the first look. total: over all its processes.
    minutes: those of the last hour in which it was asked.
    """

    first_seen_at: float
    active_at: float
    counters: Mapping[str, Any] = field(default_factory=dict)
    is_loaded: bool = True
    total: _Sums = field(default_factory=_Sums)
    interval: _Sums = field(default_factory=_Sums)
    highest: _Highest = field(default_factory=_Highest)
    minutes: set[int] = field(default_factory=set)
    queued: int = 0
    in_flight: int = 0
    cache: _CacheUse = field(default_factory=_CacheUse)


@dataclass(slots=True)
class _Host:
    """used, reserved, gpu: the highest within the interval; available: the lowest."""

    used_bytes: int = 0
    reserved_bytes: int = 0
    budget_bytes: int | None = None
    available_bytes: int | None = None
    gpu_bytes: int | None = None


_UNUSED = _CacheUse()


class Telemetry:
    """One per daemon; called from its event loop. clock: monotonic seconds; wall: unix seconds."""

    def __init__(
        self,
        report: Callable[[Report], None],
        interval_seconds: float = 10.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._wall = wall
        self._tracks: dict[str, _Track] = {}
        self._labels: dict[str, str] = {}  # of the exposition, given once: a series never changes its meaning
        self._interval_began_at = clock()
        self._host: _Host | None = None
        self._last_host = _Host()

    def counted(
        self, model_id: str, counters: Mapping[str, Any], private_bytes: int | None, gpu_bytes: int | None
    ) -> None:
        """A look at a loaded model's counters and memory."""
        now = self._clock()
        track = self._tracks.get(model_id)
        if track is None:
            track = self._tracks[model_id] = _Track(first_seen_at=now, active_at=now)
        elif not track.is_loaded:
            track.is_loaded, track.active_at = True, now
        if _is_another_process(counters, track.counters):
            track.counters = {}
        added = _difference(counters, track.counters)
        track.counters = counters
        track.queued, track.in_flight = counters.get("queued", 0), counters.get("in_flight", 0)
        track.highest.see(counters, private_bytes, gpu_bytes)
        if added.counts["requests"]:
            track.interval.add(added)
            track.total.add(added)
        else:  # a call that is not answered yet, at most
            for sums in (track.interval, track.total):
                for name, value in added.counts.items():
                    sums.counts[name] += value
                sums.sizes.update(added.sizes)
        if added.counts["requests"] or track.in_flight:
            self._note_use(track, now)

    def _note_use(self, track: _Track, now: float) -> None:
        track.active_at = now
        minute = int(now // 60)
        if minute not in track.minutes:
            track.minutes = {used for used in track.minutes if used > minute - USAGE_MINUTES} | {minute}

    def lost(self, lost: Lost) -> None:
        """Requests that ended in an error before its process could count them."""
        now = self._clock()
        track = self._tracks.get(lost.model_id)
        if track is None:
            track = self._tracks[lost.model_id] = _Track(first_seen_at=now, active_at=now, is_loaded=False)
        added = _Sums(histogram=list(lost.histogram))
        added.counts.update(requests=lost.requests, errors=lost.requests, latency_seconds=lost.latency_seconds)
        track.interval.add(added)
        track.total.add(added)
        self._note_use(track, now)

    def kept(self, kept: KeptAnswers) -> None:
        """What the gateway's cache did for a model: an answer that it gave is a use of the model."""
        track = self._tracks.get(kept.model_id)
        if track is None:
            now = self._clock()
            track = self._tracks[kept.model_id] = _Track(first_seen_at=now, active_at=now, is_loaded=False)
        track.cache.add(kept)
        if kept.hits or kept.shared:
            self._note_use(track, self._clock())

    def host(
        self,
        used_bytes: int,
        reserved_bytes: int,
        budget_bytes: int | None,
        available_bytes: int | None,
        gpu_bytes: int | None,
    ) -> None:
        """What all models hold, what is promised to loads, the limit that holds, and what the machine has left."""
        seen = self._host or _Host()
        lowest = available_bytes
        if seen.available_bytes is not None and available_bytes is not None:
            lowest = min(seen.available_bytes, available_bytes)
        self._host = _Host(
            max(seen.used_bytes, used_bytes),
            max(seen.reserved_bytes, reserved_bytes),
            budget_bytes,
            lowest,
            _higher(seen.gpu_bytes, gpu_bytes),
        )
        self._last_host = _Host(used_bytes, reserved_bytes, budget_bytes, available_bytes, gpu_bytes)

    def left(self, model_id: str, counters: Mapping[str, Any] | None = None) -> None:
        """It is not loaded any more; what it did in this interval is still reported. counters: its last ones, where
        it could still tell them, as after a drain."""
        track = self._tracks.get(model_id)
        if track is None or not track.is_loaded:
            return
        if counters:
            self.counted(model_id, counters, None, None)
        track.is_loaded, track.counters, track.queued, track.in_flight = False, {}, 0, 0

    def tick(self) -> None:
        """Reports the samples of the interval, if it is over: of each model that is loaded or did something in it,
        and of the host."""
        now = self._clock()
        seconds = now - self._interval_began_at
        if seconds < self._interval_seconds:
            return
        self._interval_began_at = now
        at = self._wall()
        for model_id, track in self._tracks.items():
            if track.is_loaded or track.interval.counts["requests"] or track.cache.interval_hits:
                self._report(_sample(model_id, track, at, seconds))
            track.interval, track.highest = _Sums(), _Highest()
            track.cache.interval_hits = track.cache.interval_misses = 0
        if self._host is not None:
            self._report(
                Sample(
                    model_id=None,
                    at=at,
                    seconds=seconds,
                    private_bytes=self._host.used_bytes,
                    gpu_bytes=self._host.gpu_bytes,
                    reserved_bytes=self._host.reserved_bytes,
                    budget_bytes=self._host.budget_bytes,
                    available_bytes=self._host.available_bytes,
                )
            )
            self._host = None

    def usage_share(self, model_id: str) -> float:
        """Share of the last 60 minutes, or of those since it was seen first, with a request: 0.0 to 1.0."""
        track = self._tracks.get(model_id)
        if track is None:
            return 0.0
        minute = int(self._clock() // 60)
        used = sum(1 for each in track.minutes if each > minute - USAGE_MINUTES)
        return used / self.watched_minutes(model_id)

    def watched_minutes(self, model_id: str) -> int:
        """The minutes that `usage_share` is a share of."""
        track = self._tracks.get(model_id)
        if track is None:
            return 1
        return min(USAGE_MINUTES, int(self._clock() // 60) - int(track.first_seen_at // 60) + 1)

    def idle_seconds(self, model_id: str) -> float:
        """Since its last request or load, whichever was later; 0.0 of a model that was never seen."""
        track = self._tracks.get(model_id)
        return 0.0 if track is None else max(0.0, self._clock() - track.active_at)

    def exposition(self, models: Mapping[str, Mapping[str, Any]]) -> str:
        """Prometheus' text format 0.0.4. models: each one's snapshot, of which "state" and memory are told.

        At most MAX_SERIES models have series of their own, those seen first; the others are summed as model="_other".
        That bounds what a scrape costs the event loop: some 40 ms for 1,000 models.
        """
        for model_id in (*self._tracks, *models):
            if model_id not in self._labels:
                self._labels[model_id] = model_id if len(self._labels) < MAX_SERIES else OTHER
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Exposition(self._labels, self._tracks, models, self._last_host))
        return generate_latest(registry).decode()


class _Exposition(Collector):
    """The metrics of one moment."""

    def __init__(
        self,
        labels: Mapping[str, str],
        tracks: Mapping[str, _Track],
        models: Mapping[str, Mapping[str, Any]],
        host: _Host,
    ) -> None:
        self._labels = labels
        self._tracks = tracks
        self._models = models
        self._host = host
        self._sums = self._summed_up()

    def collect(self) -> Iterable[Metric]:
        yield self._states()
        yield from self._counters()
        yield from self._cache()
        yield self._latencies()
        yield self._batch_sizes()
        yield from self._gauges()
        yield from self._host_gauges()

    def _states(self) -> Metric:
        family = GaugeMetricFamily("modelhub_model_state", "Models in each state.", labels=["model", "state"])
        counts: dict[tuple[str, str], int] = {}
        for model_id, label in self._labels.items():
            now = self._models.get(model_id, {}).get("state", ModelState.UNLOADED)
            for state in ModelState:
                counts[label, state] = counts.get((label, state), 0) + (state == now)
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return family

    def _summed_up(self) -> dict[str, _Sums]:
        sums: dict[str, _Sums] = {}
        for model_id, label in self._labels.items():
            track = self._tracks.get(model_id)
            if track is None:
                continue
            if label == OTHER:
                sums.setdefault(label, _Sums()).add(track.total)
            else:
                sums[label] = track.total  # read only
        return sums

    def _counters(self) -> Iterator[Metric]:
        for name, metric, prose in (
            ("requests", "modelhub_requests", "Predictions answered, errors included."),
            ("items", "modelhub_items", "Inputs in them."),
            ("errors", "modelhub_errors", "Predictions that failed in the model or for want of time."),
            ("batches", "modelhub_batches", "Calls of the model."),
            ("compute_seconds", "modelhub_compute_seconds", "Time in the model's calls."),
            ("queue_seconds", "modelhub_queue_seconds", "Time that requests waited for their call, summed."),
            ("input_seconds", "modelhub_input_seconds", "Time to read and prepare requests, summed."),
            ("infer_seconds", "modelhub_infer_seconds", "Time of requests in the calls they were part of, summed."),
            ("output_seconds", "modelhub_output_seconds", "Time to write answers, summed."),
        ):
            family = CounterMetricFamily(metric, prose, labels=["model"])
            for label, each in self._sums.items():
                family.add_metric([label], each.counts[name])
            yield family

    def _cache(self) -> Iterator[Metric]:
        for name, metric, prose in (
            ("hits", "modelhub_cache_hits", "Predictions answered with a kept answer."),
            ("shared", "modelhub_cache_shared", "Predictions answered by the computation of an identical one."),
            ("misses", "modelhub_cache_misses", "Predictions computed whose answer could have been kept."),
        ):
            yield self._of_cache(CounterMetricFamily(metric, prose, labels=["model"]), name)
        for name, metric, prose in (
            ("entries", "modelhub_cache_entries", "Answers that are kept now."),
            ("bytes", "modelhub_cache_bytes", "Memory that the kept answers take."),
        ):
            yield self._of_cache(GaugeMetricFamily(metric, prose, labels=["model"]), name)

    def _of_cache(self, family: Any, name: str) -> Metric:
        """The family, filled; of models that never used the cache it tells nothing."""
        values = self._summed(
            (label, getattr(self._tracks[model_id].cache, name))
            for model_id, label in self._labels.items()
            if model_id in self._tracks and self._tracks[model_id].cache != _UNUSED
        )
        for label, value in values.items():
            family.add_metric([label], value)
        return family

    def _latencies(self) -> Metric:
        family = HistogramMetricFamily(
            "modelhub_request_seconds", "From a request's arrival in the model process to its answer.", labels=["model"]
        )
        bounds = [(index, f"{histogram.BOUNDS_SECONDS[index]:.6g}") for index in LE_BUCKETS]
        for label, each in self._sums.items():
            running = list(accumulate(each.histogram, initial=0))
            buckets = [(bound, float(running[index + 1])) for index, bound in bounds]
            buckets.append(("+Inf", float(running[-1])))
            family.add_metric([label], buckets, each.counts["latency_seconds"])
        return family

    def _batch_sizes(self) -> Metric:
        family = HistogramMetricFamily(
            "modelhub_batch_items",
            "Items in a call of the model; beyond 64 as the next power of two.",
            labels=["model"],
        )
        for label, each in self._sums.items():
            buckets = [
                (str(bound), float(sum(calls for size, calls in each.sizes.items() if size <= bound)))
                for bound in SIZE_BOUNDS
            ]
            buckets.append(("+Inf", float(each.sizes.total())))
            items = sum(size * calls for size, calls in each.sizes.items())
            family.add_metric([label], buckets, float(items))
        return family

    def _gauges(self) -> Iterator[Metric]:
        for metric, prose, values in (
            ("modelhub_queued", "Requests that wait for a call now.", self._from_tracks("queued")),
            ("modelhub_in_flight", "Requests that are not answered yet.", self._from_tracks("in_flight")),
            (
                "modelhub_model_private_bytes",
                "Memory that ends with the model's process (USS).",
                self._from_models("private_bytes"),
            ),
            ("modelhub_model_gpu_bytes", "GPU memory of the model's process.", self._from_models("gpu_bytes")),
        ):
            family = GaugeMetricFamily(metric, prose, labels=["model"])
            for label, value in values.items():
                family.add_metric([label], value)
            yield family

    def _from_tracks(self, name: str) -> dict[str, int]:
        return self._summed(
            (label, getattr(self._tracks[model_id], name))
            for model_id, label in self._labels.items()
            if model_id in self._tracks and self._tracks[model_id].is_loaded
        )

    def _from_models(self, name: str) -> dict[str, int]:
        return self._summed(
            (label, self._models.get(model_id, {}).get(name)) for model_id, label in self._labels.items()
        )

    @staticmethod
    def _summed(values: Iterable[tuple[str, int | None]]) -> dict[str, int]:
        sums: dict[str, int] = {}
        for label, value in values:
            if value is not None:
                sums[label] = sums.get(label, 0) + value
        return sums

    def _host_gauges(self) -> Iterator[Metric]:
        for metric, prose, value in (
            ("modelhub_memory_used_bytes", "Memory that all models hold.", self._host.used_bytes),
            ("modelhub_memory_reserved_bytes", "Memory promised to loads under way.", self._host.reserved_bytes),
            ("modelhub_memory_budget_bytes", "Memory that all models may hold.", self._host.budget_bytes),
            ("modelhub_memory_available_bytes", "Memory that the machine has left.", self._host.available_bytes),
            ("modelhub_gpu_used_bytes", "GPU memory that all models hold.", self._host.gpu_bytes),
        ):
            if value is not None:
                yield GaugeMetricFamily(metric, prose, value=value)


def _is_another_process(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the counters began anew."""
    if now.get("started_at") != before.get("started_at"):
        return True
    return any(now.get(name, 0) < before.get(name, 0) for name in _COUNTS)


def _difference(now: Mapping[str, Any], before: Mapping[str, Any]) -> _Sums:
    return _Sums(
        {name: now.get(name, 0) - before.get(name, 0) for name in _COUNTS},
        histogram.subtracted(now.get("histogram", ()), before.get("histogram", ())),
        _sizes(now) - _sizes(before),
    )


def _sizes(counters: Mapping[str, Any]) -> Counter[int]:
    return Counter({int(items): int(calls) for items, calls, *_ in counters.get("sizes", ())})


def _sample(model_id: str, track: _Track, at: float, seconds: float) -> Sample:
    counts, highest = track.interval.counts, track.highest
    return Sample(
        model_id=model_id,
        at=at,
        seconds=seconds,
        requests=int(counts["requests"]),
        items=int(counts["items"]),
        errors=int(counts["errors"]),
        latency_seconds=counts["latency_seconds"],
        compute_seconds=counts["compute_seconds"],
        histogram=tuple(track.interval.histogram) if counts["requests"] else (),
        queued=highest.queued,
        in_flight=highest.in_flight,
        cache_hits=track.cache.interval_hits,
        cache_misses=track.cache.interval_misses,
        private_bytes=highest.private_bytes,
        gpu_bytes=highest.gpu_bytes,
    )


def _higher(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)
