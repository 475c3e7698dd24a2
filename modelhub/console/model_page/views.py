"""The fragments of a model's page and of its lineage's: for who may see the model, fetched when they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string

from loaderd import catalogue
from loaderd.errors import UnknownFramework
from modelhub.console.advice import ways_after
from modelhub.console.fragments import answer, fragment
from modelhub.console.model_page import logs
from modelhub.console.model_page.changes import changes_of
from modelhub.console.model_page.lineage_look import LineageLook, lineage_looks
from modelhub.console.model_page.lineage_look import make as make_lineage_look
from modelhub.console.model_page.look import Look, looks
from modelhub.console.model_page.look import make as make_look
from modelhub.console.model_page.measures import measures
from modelhub.console.model_page.offers import Offer, check_may_see, offers, rights_of
from modelhub.console.registering.access import may_describe
from modelhub.lifecycle.models import Operation, StateChange
from modelhub.registry.approval import needs_approval
from modelhub.registry.artifacts import declared_canary
from modelhub.registry.models import Model, ModelVersion, large_columns

SHOWN_OPERATIONS = 50
SHOWN_CHANGES = 50
SHOWN_FILES = 200

Tab = Callable[[HttpRequest, ModelVersion], HttpResponse]


# A model's page


def head_context(request: HttpRequest, look: Look) -> dict[str, Any]:
    """What the page's head and its overview are made of, for this user."""
    rights = rights_of(request.user)
    return {
        "look": look,
        "version": look.version,
        "offers": offers(look.version, look.status, rights, is_live=look.is_live, was_live=look.was_live),
        "ways": ways_after(look.failure.error, look.version, request.user) if look.failure else [],
        "may_clear_cache": "registry.change_modelversion" in rights,
        "may_forget_canary": "registry.change_modelversion" in rights
        and look.version.canary is not None
        and declared_canary(look.version) is None,
    }


def first_view(request: HttpRequest, pk: int) -> dict[str, Any]:
    """The head and the overview as the page shows them first: read now, for who just changed something."""
    context = head_context(request, make_look(pk))
    return {
        "look": context["look"],
        "head": fragment(request, "console/model/head.html", context),
        "overview": fragment(request, "console/model/overview.html", context),
    }


def head(request: HttpRequest, pk: int) -> HttpResponse:
    """State, what can be done, and what is wrong: above the tabs."""
    check_may_see(request)
    return answer(request, "console/model/head.html", head_context(request, _look(pk)))


def tab(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    """A tab's content; as a page of its own for a browser without JavaScript."""
    check_may_see(request)
    if name not in _TABS:
        raise Http404(f"A model's page has no tab {name!r}.")
    version: Any = get_object_or_404(ModelVersion.objects.select_related("lineage").defer(*large_columns()), pk=pk)
    response = _TABS[name](request, version)
    if "HX-Request" in request.headers or response.status_code != 200:
        return response
    page = {
        **admin.site.each_context(request),
        "title": f"{version.model_id}: {name}",
        "version": version,
        "content": response.content.decode(),
    }
    return render(request, "console/model/tab_page.html", page)


def _overview(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    return answer(request, "console/model/overview.html", head_context(request, _look(version.pk)))


def _versions(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    look = lineage_looks.get(version.lineage_id)
    context = {**lineage_context(request, look), "version": version}
    return answer(request, "console/model/versions.html", context)


def _metrics(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    found = measures(version, request.GET.get("window", ""))
    return answer(request, "console/model/metrics.html", {"version": version, "measures": found})


def _operations(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    if not request.user.has_perm("lifecycle.view_operation"):
        return _not_for(request, "the operations")
    operations = Operation.objects.filter(version=version).order_by("-requested_at")
    context = {"version": version, "operations": list(operations[:SHOWN_OPERATIONS]), "most": SHOWN_OPERATIONS}
    return answer(request, "console/model/operations.html", context)


def _log(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    written = logs.tail(version.model_id)
    context = {"version": version, "written": written, "most": logs.SHOWN_LINES}
    return _fresh(render_to_string("console/model/log.html", context, request=request))


def more_log(request: HttpRequest, pk: int) -> HttpResponse:
    """What was written to the log since `?at=`; 204 when nothing was."""
    check_may_see(request)
    version: Any = get_object_or_404(ModelVersion.objects.only("model_id"), pk=pk)
    at = request.GET.get("at", "")
    written = logs.since(version.model_id, at) if at else logs.tail(version.model_id)
    if not written.lines and written.at == at:
        return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
    context = {"version": version, "written": written}
    # What follows the last element would be empty lines of the log.
    return _fresh(render_to_string("console/model/log_more.html", context, request=request).rstrip())


def _files(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    whole = ModelVersion.objects.select_related("lineage", "approved_by").get(pk=version.pk)
    try:
        entry: Any = catalogue.entry(whole.framework)
    except UnknownFramework:
        entry = None
    try:
        can_run_code = catalogue.format_executes_code(whole.framework, whole.artifact_format)
    except UnknownFramework:
        can_run_code = True
    context = {
        "version": whole,
        "files": whole.manifest[:SHOWN_FILES],
        "more_files": max(0, len(whole.manifest) - SHOWN_FILES),
        "framework": entry.label if entry else whole.framework,
        "format_prose": next((found.prose for found in entry.formats if found.name == whole.artifact_format), "")
        if entry
        else "",
        "can_run_code": can_run_code,
        "needs_approval": needs_approval(whole),
        "may_approve": request.user.has_perm("registry.approve_modelversion"),
        "may_describe": may_describe(request.user),
        "signature": [
            (title, whole.signature.get(key) or [])
            for title, key in (("Inputs", "inputs"), ("Outputs", "outputs"))
            if whole.signature
        ],
        "texts": [
            (title, _as_json(content))
            for title, content in (
                ("metadata.json", whole.metadata),
                ("config.json", whole.config),
                ("Performance as metadata.json states it", whole.performance_metrics),
                ("Canary: sample input and expected output", whole.canary),
            )
            if content
        ],
        "signature_text": _as_json(whole.signature),
    }
    return _fresh(render_to_string("console/model/files.html", context, request=request))


def _audit(request: HttpRequest, version: ModelVersion) -> HttpResponse:
    may_changes = request.user.has_perm("lifecycle.view_statechange")
    may_log = request.user.has_perm("admin.view_logentry")
    if not (may_changes or may_log):
        return _not_for(request, "its history")
    changes = StateChange.objects.filter(version=version) if may_changes else StateChange.objects.none()
    lines: list[tuple[str, datetime, Any]] = [("state", change.at, change) for change in changes[:SHOWN_CHANGES]]
    if may_log:
        lines += [("change", change.at, change) for change in changes_of(version, SHOWN_CHANGES)]
    context = {
        "version": version,
        "lines": sorted(lines, key=lambda line: line[1], reverse=True)[:SHOWN_CHANGES],
        "most": SHOWN_CHANGES,
        "may_log": may_log,
    }
    return answer(request, "console/model/audit.html", context)


_TABS: dict[str, Tab] = {
    "overview": _overview,
    "versions": _versions,
    "metrics": _metrics,
    "operations": _operations,
    "log": _log,
    "files": _files,
    "audit": _audit,
}


# A lineage's page


def lineage_context(request: HttpRequest, look: LineageLook) -> dict[str, Any]:
    """The look with, for each version, what this user may do with it."""
    rights = rights_of(request.user)
    rows: list[tuple[Any, list[Offer]]] = [
        (row, offers(row.version, row.status, rights, is_live=row.is_live, was_live=row.was_live))
        for row in look.versions
    ]
    return {
        "look": look,
        "lineage": look.lineage,
        "rows": rows,
        "has_offers": any(found for _, found in rows),
        "may_activate": "registry.activate_modelversion" in rights,
    }


def lineage_first_view(request: HttpRequest, pk: int) -> dict[str, Any]:
    """The lineage's live part as its page shows it first: read now."""
    context = lineage_context(request, make_lineage_look(pk))
    return {**context, "live": fragment(request, "console/lineage/live.html", context)}


def lineage(request: HttpRequest, pk: int) -> HttpResponse:
    """The lineage's live part."""
    if not (request.user.has_perm("registry.view_model") or request.user.has_perm("registry.change_model")):
        raise PermissionDenied
    try:
        look = lineage_looks.get(pk)
    except Model.DoesNotExist:
        raise Http404("This lineage is not registered any more.") from None
    return answer(request, "console/lineage/live.html", lineage_context(request, look))


def _look(pk: int) -> Look:
    try:
        return looks.get(pk)
    except ModelVersion.DoesNotExist:
        raise Http404("This model is not registered any more.") from None


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _fresh(content: str) -> HttpResponse:
    return HttpResponse(content, headers={"Cache-Control": "no-store"})


def _not_for(request: HttpRequest, what: str) -> HttpResponse:
    return _fresh(render_to_string("console/model/not_for.html", {"what": what}, request=request))
