"""The names that a file can be predicted with, as somebody types them: a few queries, however many models there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from modelhub.console.jobs.access import check_predict
from modelhub.registry.models import Alias, Model, ModelVersion

MOST = 12  # of a kind
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Name:
    """value: what is asked for. told: what it is."""

    value: str
    told: str


@require_GET
def models(request: HttpRequest) -> HttpResponse:
    """Options of a datalist: lineages and models with ?model= in their names, those that begin with it first."""
    check_predict(request.user)
    typed = _typed(request, "model")
    lineages = _matching(Model.objects.all(), "name", typed).values_list("name", "type")[:MOST]
    versions = _matching(ModelVersion.objects.filter(missing_since=None), "model_id", typed)
    found = [Name(name, f"lineage, {type_}: its live version") for name, type_ in lineages]
    found += [
        Name(model_id, f"model, version {version} of {lineage}, {status}")
        for model_id, version, lineage, status in versions.values_list(
            "model_id", "version", "lineage__name", "status"
        )[:MOST]
    ]
    return _options(request, found)


@require_GET
def versions(request: HttpRequest) -> HttpResponse:
    """Options of a datalist: aliases and versions of the lineage ?model= that begin with ?version=."""
    check_predict(request.user)
    lineage, typed = _typed(request, "model"), _typed(request, "version")
    aliases = Alias.objects.filter(lineage__name=lineage, name__istartswith=typed).order_by("name")
    found = [Name(alias, f"alias of {version}") for alias, version in aliases.values_list("name", "version__version")]
    of_lineage = ModelVersion.objects.filter(lineage__name=lineage, version__istartswith=typed).order_by("-created_at")
    found += [
        Name(version, f"{model_id}, {status}")
        for version, model_id, status in of_lineage.values_list("version", "model_id", "status")[:MOST]
    ]
    return _options(request, found)


def _matching(rows: QuerySet[Any], field: str, typed: str) -> QuerySet[Any]:
    begins = Case(
        When(**{f"{field}__istartswith": typed}, then=Value(0)), default=Value(1), output_field=IntegerField()
    )
    return rows.filter(**{f"{field}__icontains": typed}).order_by(begins, field)


def _typed(request: HttpRequest, field: str) -> str:
    return request.GET.get(field, "").strip()[:LONGEST_NAME]


def _options(request: HttpRequest, found: list[Name]) -> HttpResponse:
    response = render(request, "console/job/names.html", {"names": found})
    response.headers["Cache-Control"] = "no-store"
    return response
