"""`GET /metrics` of the web door, for Prometheus: what the registry knows. The inference door tells its own, live.

A fixed number of queries and a bounded number of series, however many models, operations and alerts there are:
`MOST_MODELS` have series of their own, the rest are summed up as model="_other".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Sum, Value, When
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_q.models import OrmQ
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from rest_framework.exceptions import AuthenticationFailed

from modelhub.accounts.authentication import TokenAuthentication
from modelhub.lifecycle.models import ACTIVE, Operation
from modelhub.lifecycle.observed import LoaderView, effective_status, known, loader_view
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion
from modelhub.telemetry.models import Alert

MOST_MODELS = 200
RECENT = timedelta(hours=1)  # older operations that have ended are not counted: the table only grows
OTHER = "_other"
PERMISSION = "registry.view_modelversion"

# Column of a model -> name and prose of its metric
_COUNTERS = {
    "usage_count": ("predictions", "Answered predictions, errors included."),
    "item_count": ("items", "Inputs in them."),
    "prediction_error_count": ("prediction_errors", "Predictions that failed."),
    "cache_hit_count": ("cache_hits", "Predictions answered without the model, by the response cache."),
    "cache_miss_count": ("cache_misses", "Predictions computed although the model's answers are kept."),
    "latency_seconds_total": ("latency_seconds", "Latency of all predictions, summed."),
    "load_count": ("loads", "Loads that succeeded."),
    "load_seconds_total": ("load_seconds", "Time of all loads, summed."),
    "error_count": ("errors", "Failed loads, dead processes, failed predictions."),
}
_MEMORY = {
    "private_bytes": "Memory that ends with the model's process (USS).",
    "gpu_bytes": "GPU memory of the model's process.",
}
_BUDGET = {
    "used_bytes": "Memory that all models hold.",
    "reserved_bytes": "Memory promised to loads under way.",
    "budget_bytes": "Memory that all models may hold.",
    "gpu_used_bytes": "GPU memory that all models hold.",
    "gpu_budget_bytes": "GPU memory that all models may hold.",
}
_COLUMNS = ("model_id", "status", "health_status", "last_used_at", *_COUNTERS, *_MEMORY)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Needs a session or `Authorization: Token …`, and the permission to view models."""
    user: Any = request.user
    if not user.is_authenticated:
        try:
            found = TokenAuthentication().authenticate(request)
        except AuthenticationFailed as error:
            return _refused(401, str(error.detail))
        if found is None:
            return _refused(401, "Send `Authorization: Token …`; make a token with manage.py create_token.")
        user = found[0]
    if not user.has_perm(PERMISSION):
        return _refused(403, f"{user.get_username()} lacks the permission {PERMISSION}.")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)


def _refused(status: int, sentence: str) -> HttpResponse:
    headers = {"WWW-Authenticate": "Token"} if status == 401 else {}
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8", headers=headers)


class _Figures(Collector):
    """The figures of one moment."""

    def describe(self) -> Iterable[Metric]:
        return []  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        loader = loader_view()
        yield from _of_loaderd(loader)
        yield from _of_models(loader)
        since = timezone.now() - RECENT
        recent = Operation.objects.filter(Q(status__in=ACTIVE) | Q(requested_at__gte=since))
        operations = recent.order_by().values_list("kind", "status").annotate(Count("pk"))
        prose = "Operations by kind and status: those under way, and those requested in the last hour."
        yield _counted("operations", prose, ("kind", "status"), operations)
        yield GaugeMetricFamily("modelhub_queue_tasks", "Tasks that wait in the queue.", OrmQ.objects.count())
        alerts = Alert.objects.filter(resolved_at=None).order_by().values_list("kind").annotate(Count("pk"))
        yield _counted("alerts_open", "Open alerts by kind, acknowledged ones too.", ("kind",), alerts)


def _counted(name: str, prose: str, labels: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Metric:
    family = GaugeMetricFamily(f"modelhub_{name}", prose, labels=labels)
    for *values, count in rows:
        family.add_metric([str(value) for value in values], count)
    return family


def _of_loaderd(loader: LoaderView) -> Iterator[Metric]:
    yield GaugeMetricFamily("modelhub_loaderd_up", "Whether loaderd was heard in the last seconds.", loader.reachable)
    if loader.observed_at is not None:
        age = (timezone.now() - loader.observed_at).total_seconds()
        yield GaugeMetricFamily("modelhub_loaderd_heartbeat_age_seconds", "Since it was heard last.", max(0.0, age))
    if loader.started_at is not None:
        began = loader.started_at.timestamp()
        yield GaugeMetricFamily("modelhub_loaderd_start_time_seconds", "Unix time of its start.", began)
    budget = loader.facts.get("budget") or {}
    for name, prose in _BUDGET.items():
        if loader.reachable and isinstance(value := budget.get(name), int | float):
            yield GaugeMetricFamily(f"modelhub_registry_{name}", prose, value)


def _of_models(loader: LoaderView) -> Iterator[Metric]:
    shown, rest = _models()
    states: Counter[tuple[str, str]] = Counter()
    healths: Counter[tuple[str, str]] = Counter()
    sums: dict[str, dict[str, float]] = {name: {} for name in (*_COUNTERS, *_MEMORY)}
    used: dict[str, datetime] = {}
    for model, version, count in [*((row.model_id, row, 1) for row in shown), *((OTHER, *each) for each in rest)]:
        state = effective_status(version, loader)
        states[model, state] += count
        healths[model, known(str(version.health_status), state) or "unknown"] += count
        for name in _COUNTERS:
            sums[name][model] = sums[name].get(model, 0) + getattr(version, name)
        for name in _MEMORY:
            if (measured := known(getattr(version, name), state)) is not None:
                sums[name][model] = sums[name].get(model, 0) + measured
        if version.last_used_at is not None and model != OTHER:
            used[model] = version.last_used_at
    labels = ("model", "state")
    yield _counted("registry_model_state", "Models in each state; only those that are.", labels, _flat(states))
    labels = ("model", "health")
    yield _counted("registry_model_health", "Models of each health; only those that are.", labels, _flat(healths))
    for name, (metric, prose) in _COUNTERS.items():
        family: Any = CounterMetricFamily(f"modelhub_registry_{metric}", prose, labels=["model"])
        for model, value in sums[name].items():
            family.add_metric([model], value)
        yield family
    for name, prose in _MEMORY.items():
        yield _counted(f"registry_model_{name}", prose, ("model",), sums[name].items())
    times = ((model, at.timestamp()) for model, at in used.items())
    yield _counted("registry_model_last_used_time_seconds", "Unix time of the last prediction.", ("model",), times)


def _flat(counts: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, str, int]]:
    return ((*key, count) for key, count in counts.items())


def _models() -> tuple[list[ModelVersion], list[tuple[ModelVersion, int]]]:
    """(models with series of their own, the rest summed by status and health, with how many): two queries.

    Those that are not simply unloaded come first, then the most used.
    """
    is_unloaded = Case(When(status=Status.UNLOADED, then=Value(1)), default=Value(0), output_field=IntegerField())
    ranked = ModelVersion.objects.order_by(is_unloaded, "-usage_count", "model_id")
    shown = list(ranked.only(*_COLUMNS)[:MOST_MODELS])
    if len(shown) < MOST_MODELS:
        return shown, []
    others = ModelVersion.objects.exclude(pk__in=[version.pk for version in shown])
    return shown, [_summed(row) for row in _by_state(others)]


def _by_state(versions: QuerySet[ModelVersion]) -> Any:
    sums = {f"sum_{name}": Sum(name) for name in (*_COUNTERS, *_MEMORY)}
    return versions.order_by().values("status", "health_status").annotate(models=Count("pk"), **sums)


def _summed(row: Mapping[str, Any]) -> tuple[ModelVersion, int]:
    """The row as a model that stands for all of its group."""
    values = {name: row[f"sum_{name}"] for name in (*_COUNTERS, *_MEMORY)}
    return ModelVersion(status=row["status"], health_status=row["health_status"], **values), row["models"]
