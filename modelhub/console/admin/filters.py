"""Filters of the list of models. Their choices come from code, and one grouped query counts for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.utils import build_q_object_from_lookup_parameters
from django.db.models import BooleanField, Case, Count, F, Q, QuerySet, Value, When
from django.http import HttpRequest
from unfold.views import ChangeList

from loaderd import catalogue
from modelhub.registry.choices import DesiredState, HealthStatus, ModelType, Status
from modelhub.registry.models import ModelVersion

Groups = Sequence[Mapping[str, Any]]
COUNT = "models_counted"
_IN_MEMORY = (Status.LOADING, Status.LOADED, Status.UNLOADING)


class CountedFilter(SimpleListFilter):
    """A filter whose choices tell how many models each would show, the other filters as they are.

    matches(): whether a group of models (one row of `counted_groups()`) is of the choice. A choice
    without a model is not offered.
    """

    def matches(self, group: Mapping[str, Any], value: str) -> bool:
        raise NotImplementedError

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        groups = [group for group in changelist.groups if changelist.fits(group, but=self)]
        yield {
            "selected": self.value() is None,
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
            "display": f"All ({sum(group[COUNT] for group in groups)})",
        }
        for value, title in self.lookup_choices:
            count = sum(group[COUNT] for group in groups if self.matches(group, str(value)))
            is_selected = self.value() == str(value)
            if count or is_selected:
                yield {
                    "selected": is_selected,
                    "query_string": changelist.get_query_string({self.parameter_name: value}),
                    "display": f"{title} ({count})",
                }


class _ColumnFilter(CountedFilter):
    """Of one column with few values."""

    column: ClassVar[str]
    offered: ClassVar[Iterable[tuple[str, str]]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.offered)

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
        if not self.value():
            return queryset
        is_known = any(self.value() == str(value) for value, _ in self.lookup_choices)
        return queryset.filter(**{self.column: self.value()}) if is_known else queryset.none()

    def matches(self, group: Mapping[str, Any], value: str) -> bool:
        return str(group[self.column]) == value


class StatusFilter(_ColumnFilter):
    title = "state"
    parameter_name = "status__exact"
    column = "status"
    offered = Status.choices


class HealthFilter(_ColumnFilter):
    title = "health"
    parameter_name = "health_status__exact"
    column = "health_status"
    offered = HealthStatus.choices


class TypeFilter(_ColumnFilter):
    title = "type"
    parameter_name = "lineage__type__exact"
    column = "lineage__type"
    offered = ModelType.choices


class WantedFilter(_ColumnFilter):
    title = "what is wanted"
    parameter_name = "desired_state__exact"
    column = "desired_state"
    offered = DesiredState.choices


class FrameworkFilter(_ColumnFilter):
    title = "framework"
    parameter_name = "framework"
    column = "framework"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(entry.name, entry.label) for entry in catalogue.entries().values()]


class _YesFilter(_ColumnFilter):
    offered = (("1", "Yes"), ("0", "No"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
        return queryset.filter(**{self.column: self.value() == "1"}) if self.value() in ("0", "1") else queryset

    def matches(self, group: Mapping[str, Any], value: str) -> bool:
        return bool(group[self.column]) == (value == "1")


class PinnedFilter(_YesFilter):
    title = "pinned"
    parameter_name = "pinned__exact"
    column = "pinned"


class AutoloadFilter(_YesFilter):
    title = "loaded on demand"
    parameter_name = "autoload__exact"
    column = "autoload"


class AttentionFilter(CountedFilter):
    """What somebody should look at."""

    title = "needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("refused", "Refused by discovery"),
            ("gone", "Directory gone"),
            ("stale", "Changed since it was loaded"),
            ("approval", "Not approved, can run code"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
        condition = _attention().get(self.value() or "")
        return queryset.filter(condition) if condition is not None else queryset

    def matches(self, group: Mapping[str, Any], value: str) -> bool:
        return bool(group.get(f"is_{value}"))


FILTERS = [
    *(StatusFilter, HealthFilter, AttentionFilter, TypeFilter, FrameworkFilter, WantedFilter, PinnedFilter),
    AutoloadFilter,
]
_GROUPED = ("status", "health_status", "lineage__type", "framework", "desired_state", "pinned", "autoload")


def counted_groups(models: QuerySet[ModelVersion]) -> Groups:
    """How many of these models there are of each combination that filters tell apart: one query, a few dozen rows."""
    flags = {
        f"is_{name}": Case(When(condition, then=Value(True)), default=Value(False), output_field=BooleanField())
        for name, condition in _attention().items()
    }
    grouped = models.order_by().annotate(**flags).values(*_GROUPED, *flags)
    return list(grouped.annotate(**{COUNT: Count("pk")}))


class CountedList(ChangeList):
    """A list whose filters count: among what is searched for, the other filters as they are set."""

    groups: Groups

    def get_filters(self, request: HttpRequest) -> Any:
        found = super().get_filters(request)
        self._remaining_lookups = found[2]
        return found

    def get_results(self, request: HttpRequest) -> None:
        asked = self.root_queryset.filter(build_q_object_from_lookup_parameters(self._remaining_lookups))
        asked, may_repeat = self.model_admin.get_search_results(request, asked, self.query)
        self.groups = counted_groups(asked.distinct() if may_repeat else asked)
        super().get_results(request)

    def fits(self, group: Mapping[str, Any], but: CountedFilter | None = None) -> bool:
        """Whether the filters that are set, all but one, show this group."""
        return all(
            spec is but or not spec.value() or spec.matches(group, spec.value())
            for spec in self.filter_specs
            if isinstance(spec, CountedFilter)
        )


def _attention() -> dict[str, Q]:
    stale = Q(status__in=_IN_MEMORY) & ~Q(loaded_digest="") & ~Q(loaded_digest=F("digest"))
    return {
        "refused": ~Q(refusal=""),
        "gone": Q(missing_since__isnull=False),
        "stale": stale,
        "approval": _can_run_code() & ~Q(approved_digest=F("digest")),
    }


def _can_run_code() -> Q:
    condition = Q(pk__in=[])
    for entry in catalogue.entries().values():
        for known in entry.formats:
            if known.executes_code:
                condition |= Q(framework=entry.name, artifact_format=known.name)
    return condition
