"""Filters of the list of models. Their choices come from code, so they cost no query."""

from __future__ import annotations

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest

from loaderd import catalogue
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion


class FrameworkFilter(SimpleListFilter):
    title = "framework"
    parameter_name = "framework"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(entry.name, entry.label) for entry in catalogue.entries().values()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
        return queryset.filter(framework=self.value()) if self.value() else queryset


class AttentionFilter(SimpleListFilter):
    """What somebody should look at."""

    title = "needs attention"
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [
            ("refused", "Refused by discovery"),
            ("gone", "Directory gone"),
            ("stale", "Changed since it was loaded"),
            ("approval", "Not approved, can run code"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
        match self.value():
            case "refused":
                return queryset.exclude(refusal="")
            case "gone":
                return queryset.filter(missing_since__isnull=False)
            case "stale":
                in_memory = queryset.filter(status__in=[Status.LOADING, Status.LOADED, Status.UNLOADING])
                return in_memory.exclude(loaded_digest="").exclude(loaded_digest=F("digest"))
            case "approval":
                return queryset.filter(_can_run_code()).exclude(approved_digest=F("digest"))
        return queryset


def _can_run_code() -> Q:
    condition = Q(pk__in=[])
    for entry in catalogue.entries().values():
        for known in entry.formats:
            if known.executes_code:
                condition |= Q(framework=entry.name, artifact_format=known.name)
    return condition
