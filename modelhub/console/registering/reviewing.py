"""What was recognised in an upload: to be corrected, confirmed, or thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from modelhub.conf import config
from modelhub.console.registering.access import check_register
from modelhub.console.registering.forms import RegisterForm
from modelhub.console.registering.uploading import NOT_TAKEN, keep
from modelhub.console.templatetags.console import size
from modelhub.registry.artifacts import Refused
from modelhub.registry.uploads.inspecting import Inspection, apply_fields, check_free, inspect, move, read_metadata
from modelhub.registry.uploads.placing import NotRegistered
from modelhub.registry.uploads.placing import register as register_staged
from modelhub.registry.uploads.staging import NoSuchUpload, Staging, staged


def _of_an_upload(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Gives the view its own staging, held. An upload of somebody else is none."""

    @wraps(view)
    def found(request: HttpRequest, token: str) -> HttpResponse:
        check_register(request.user)
        with _own(request, token) as staging:
            return view(request, staging)

    return found


@contextmanager
def _own(request: HttpRequest, token: str) -> Iterator[Staging]:
    try:
        staging = staged(token)
        with staging.held():
            note = staging.note()
            if note.get("user") != request.user.pk or "inspection" not in note:
                raise NoSuchUpload(token)
            yield staging
    except NoSuchUpload as error:
        raise Http404("There is no such upload: it was registered, thrown away, or is somebody else's.") from error


@require_http_methods(["GET", "POST"])
@_of_an_upload
def review(request: HttpRequest, staging: Staging) -> HttpResponse:
    """What was recognised; POST corrects type, id and metadata, and looks again."""
    found = Inspection(**staging.note()["inspection"])
    if request.method == "GET":
        return _page(request, staging, found, _form(staging, found))
    form = _form(staging, found, request.POST)
    if form.is_valid():
        try:
            if (form.cleaned_data["type"], form.cleaned_data["model_id"]) != (found.type, found.model_id):
                check_free(form.cleaned_data["type"], form.cleaned_data["model_id"])
            apply_fields(staging, found.path, form.changes())
            move(staging, found.path, form.cleaned_data["type"], form.cleaned_data["model_id"])
            found = inspect(staging)
            keep(staging, request.user, found)
            return redirect("console:register-review", staging.token)
        except Refused as refusal:
            form.refuse(refusal, "model_id")
        except OSError as error:
            form.refuse(Refused(f"It could not be written: {error.strerror}; look at the disk of the state folder."))
    return _page(request, staging, found, form, status=NOT_TAKEN)


@require_POST
@_of_an_upload
def confirm(request: HttpRequest, staging: Staging) -> HttpResponse:
    """Moves it to the store and registers it; leads to the model."""
    found = Inspection(**staging.note()["inspection"])
    try:
        version = register_staged(staging, actor=request.user.get_username())
    except Refused as refusal:
        keep(staging, request.user, Inspection(**{**found.to_dict(), "refusal": str(refusal)}))
        return redirect("console:register-review", staging.token)
    except NotRegistered as error:
        messages.warning(request, str(error))
        return redirect("admin:registry_modelversion_changelist")
    told = f"Registered from an upload: {found.file_count} files, {size(found.size_bytes)}, digest {version.digest}."
    LogEntry.objects.log_actions(request.user.pk, [version], ADDITION, change_message=told, single_object=True)
    next_step = "approve its files before it is loaded." if found.executes_code else "it can be loaded."
    messages.success(request, f"{version} is registered; {next_step}")
    return redirect("admin:registry_modelversion_change", version.pk)


@require_POST
@_of_an_upload
def cancel(request: HttpRequest, staging: Staging) -> HttpResponse:
    staging.remove()
    messages.info(request, "The upload was thrown away; nothing was registered.")
    return redirect("admin:registry_modelversion_changelist")


def _form(staging: Staging, found: Inspection, data: Any = None) -> RegisterForm:
    """With what the upload's metadata.json says; empty fields where it cannot be read."""
    try:
        metadata = read_metadata(staging, found.path)
    except Refused:
        metadata = {}
    return RegisterForm(data, metadata=metadata, initial={"type": found.type, "model_id": found.model_id})


def _page(
    request: HttpRequest, staging: Staging, found: Inspection, form: RegisterForm, status: int = 200
) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": f"Register {found.model_id}",
        "found": found,
        "form": form,
        "errors": form.error_list() if form.is_bound else {},
        "staging": staging,
        "store": config().MODELS_DIR,
        "may_approve": request.user.has_perm("registry.approve_modelversion"),
        "kept_minutes": config().UPLOAD_KEPT_MINUTES,
        "discoveries": reverse("admin:registry_discoveryrun_changelist"),
    }
    return TemplateResponse(request, "console/registering/review.html", context, status=status)
