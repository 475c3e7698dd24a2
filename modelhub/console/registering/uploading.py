"""The upload of a model: its page, the look at a name before anything is sent, and the files themselves."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods

from modelhub.conf import config
from modelhub.console.registering.access import check_register
from modelhub.console.registering.forms import RegisterForm
from modelhub.private_dir import NotPrivate, ensure_private_dir
from modelhub.registry.artifacts import Refused
from modelhub.registry.uploads.inspecting import Inspection, apply_fields, check_free, inspect
from modelhub.registry.uploads.receiving import StagingHandler, check_length
from modelhub.registry.uploads.staging import NoSuchUpload, Staging, create, open_of, uploads_dir
from modelhub.registry.uploads.unpacking import place_files

NOT_TAKEN = 422


# The token is checked below, where the files have a place to go to: checking it reads the body.
@csrf_exempt
@require_http_methods(["GET", "POST"])
def register(request: HttpRequest) -> HttpResponse:
    """The page; POST takes the files and leads to what was recognised in them. What is refused leaves nothing."""
    check_register(request.user)
    if request.method == "GET":
        return _page(request, RegisterForm(initial={"type": request.GET.get("type", "")}))
    try:
        ensure_private_dir(uploads_dir())
        check_length(request.META, uploads_dir())
        staging = create(request.user.pk)
    except (Refused, NotPrivate, OSError) as error:
        form = RegisterForm({})
        form.errors.clear()
        form.add_error(None, str(error))
        return _refused(request, form)
    handler = StagingHandler(staging)
    request.upload_handlers = [handler]
    is_kept = False
    with staging.held():
        try:
            response = _take(request, staging, handler)
            is_kept = response.status_code < 400
        finally:
            handler.close()
            if not is_kept:
                staging.remove()
    return response


@csrf_protect
def _take(request: HttpRequest, staging: Staging, handler: StagingHandler) -> HttpResponse:
    form = RegisterForm(request.POST)
    try:
        _check_received(handler)
        if form.is_valid():
            type_name, model_id = form.cleaned_data["type"], form.cleaned_data["model_id"]
            try:
                check_free(type_name, model_id)
            except Refused as refusal:
                form.add_error("model_id", str(refusal))
                return _refused(request, form)
            place_files(handler.received, _paths(request, handler), staging.store / type_name / model_id)
            apply_fields(staging, f"{type_name}/{model_id}", form.changes())
            keep(staging, request.user, inspect(staging))
    except Refused as refusal:
        form.refuse(refusal, "files")
    except OSError as error:
        form.refuse(Refused(f"It could not be unpacked: {error.strerror}; look at the disk of the state folder."))
    if form.errors:
        return _refused(request, form)
    address = reverse("console:register-review", args=[staging.token])
    return JsonResponse({"url": address}, status=201) if _wants_json(request) else redirect(address)


def _check_received(handler: StagingHandler) -> None:
    if handler.failure:
        raise Refused(handler.failure)
    if handler.is_broken_off:
        raise Refused("The upload broke off; send it again.")


def _paths(request: HttpRequest, handler: StagingHandler) -> list[str]:
    """Where each file lay in the folder that was chosen. A browser without scripts sends plain names."""
    said = request.POST.get("paths", "")
    if not said:
        return [file.name for file in handler.received]
    try:
        paths = json.loads(said)
    except ValueError:
        paths = None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Refused("The list of the files' paths is damaged; send them again.")
    return paths


def keep(staging: Staging, user: Any, found: Inspection) -> None:
    """What was recognised, and whose upload it is."""
    staging.keep_note({"user": user.pk, "inspection": found.to_dict()})


@require_GET
def check_name(request: HttpRequest) -> JsonResponse:
    """{"errors": {field: [sentence]}} of type and id, before gigabytes are sent for a name that is taken."""
    check_register(request.user)
    form = RegisterForm(request.GET)
    errors = {name: told for name, told in form.error_list().items() if name in ("type", "model_id")}
    if not errors:
        try:
            check_free(form.cleaned_data["type"], form.cleaned_data["model_id"])
        except Refused as refusal:
            errors["model_id"] = [str(refusal)]
    return JsonResponse({"errors": errors})


def _waiting(user: Any) -> list[tuple[str, str]]:
    """(address, path) of this user's uploads that wait to be confirmed."""
    found = []
    for staging in open_of(user.pk):
        try:
            seen = staging.note().get("inspection")
        except NoSuchUpload:  # it was registered, or thrown away, meanwhile
            continue
        if seen:  # else it is still being received
            address = reverse("console:register-review", args=[staging.token])
            found.append((address, Inspection(**seen).path))
    return sorted(found, key=lambda one: one[1])


def _refused(request: HttpRequest, form: RegisterForm) -> HttpResponse:
    if _wants_json(request):
        return JsonResponse({"errors": form.error_list()}, status=NOT_TAKEN)
    return _page(request, form, status=NOT_TAKEN)


def _wants_json(request: HttpRequest) -> bool:
    return bool(request.headers.get("Accept", "").startswith("application/json"))


def _page(request: HttpRequest, form: RegisterForm, status: int = 200) -> HttpResponse:
    limits = config()
    context = {
        **admin.site.each_context(request),
        "title": "Register a model",
        "form": form,
        "errors": form.error_list() if form.is_bound else {},
        "max_mb": limits.UPLOAD_MAX_MB,
        "max_files": limits.UPLOAD_MAX_FILES,
        "max_unpacked_mb": limits.UPLOAD_MAX_UNPACKED_MB,
        "store": limits.MODELS_DIR,
        "waiting": _waiting(request.user),
    }
    return TemplateResponse(request, "console/registering/upload.html", context, status=status)
