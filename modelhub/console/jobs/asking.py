"""The page that has a file predicted. The file goes where the API's goes, and is judged as there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from django.contrib import admin
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_GET, require_http_methods
from rest_framework.exceptions import ValidationError

from loaderd.errors import LoaderdError, UnknownModel
from modelhub.api.auditing import record_of_job
from modelhub.api.serializers.jobs import SubmitSerializer
from modelhub.conf import config
from modelhub.console.jobs.access import check_predict
from modelhub.console.jobs.forms import PredictForm, as_api_form
from modelhub.console.jobs.gone import list_for
from modelhub.jobs.formats import FileRefused
from modelhub.jobs.models import Job
from modelhub.jobs.pinning import pinned
from modelhub.jobs.receiving import BrokenOff, FileTooLarge, JobReceiver, NoSpace
from modelhub.jobs.submitting import require_place

NOT_TAKEN = 422
NO_NAME = "file"
CHOOSE_AGAIN = "The file was not kept: choose it again."
_OF_THE_FILE = (FileRefused, FileTooLarge, NoSpace, BrokenOff)

Errors = Mapping[str, list[str]]


# The token is checked below, where the file has a place to go to: checking it reads the body.
@csrf_exempt
@require_http_methods(["GET", "POST"])
def predict_file(request: HttpRequest) -> HttpResponse:
    """The page; POST takes the file and leads to its job. What is refused leaves nothing."""
    check_predict(request.user)
    if request.method == "GET":
        stated = {name: request.GET.get(name, "") for name in ("model", "version")}
        return _page(request, PredictForm(initial=stated))
    receiver = JobReceiver()
    with suppress(LoaderdError):  # it is read past all the same: what was typed is not to be lost
        receiver.receive(request)
    with ExitStack() as at_the_end:
        at_the_end.callback(receiver.discard)
        return _take(request, receiver, at_the_end)


@csrf_protect
def _take(request: HttpRequest, receiver: JobReceiver, at_the_end: ExitStack) -> HttpResponse:
    """at_the_end: throws away what was received, unless a job came of it."""
    serializer = SubmitSerializer(data=as_api_form(request.POST, request.FILES))
    try:
        receiver.check()
        serializer.is_valid(raise_exception=True)
        job = serializer.submit(receiver.folder, request.user)
        at_the_end.pop_all()  # the folder is the job's from now on, whatever goes wrong
    except ValidationError as error:
        return _refused(request, {name: _sentences(told) for name, told in error.detail.items()})
    except LoaderdError as error:
        place = _place_of(error, request.POST.get("model", ""), request.POST.get("version", ""))
        return _refused(request, {place: [error.message]})
    record_of_job(job, "asked", request.user, "In the admin")
    return _accepted(request, job)


@require_GET
def check(request: HttpRequest) -> JsonResponse:
    """{"errors": {field: [sentence]}} of all but what the file has within, before a gigabyte is sent in vain.

    The fields as they are sent with the file, and its name as ?file=; without one, it tells no format.
    """
    check_predict(request.user)
    named = _named(request.GET.get("file", ""))
    serializer = SubmitSerializer(data=as_api_form(request.GET, MultiValueDict({"file": [named]})))
    serializer.is_valid()
    errors = {name: _sentences(told) for name, told in serializer.errors.items()}
    if not errors:
        model, version = request.GET.get("model", ""), request.GET.get("version", "")
        try:
            pinned(model, version)
            require_place(request.user)
        except LoaderdError as error:
            errors[_place_of(error, model, version)] = [error.message]
    return JsonResponse({"errors": errors})


def _named(name: str) -> UploadedFile:
    """A file of that name, without content; of one that tells no format where it is no file's name."""
    try:
        return UploadedFile(name=name, size=0)
    except SuspiciousFileOperation:  # "", "." or ".."
        return UploadedFile(name=NO_NAME, size=0)


def _place_of(error: LoaderdError, model: str, version: str) -> str:
    """The field that it is about; "" where it is about none."""
    if error.facts.get("param") == "columns":
        return "column"
    if isinstance(error, _OF_THE_FILE):
        return "file"
    if not isinstance(error, UnknownModel):
        return ""
    if not version:
        return "model"
    try:
        pinned(model)
    except UnknownModel:
        return "model"
    return "version"


def _sentences(told: Any) -> list[str]:
    """Of a field's errors; a list's are told for each of its entries."""
    if isinstance(told, Mapping):
        return [sentence for inner in told.values() for sentence in _sentences(inner)]
    return [str(sentence) for sentence in told]


def _accepted(request: HttpRequest, job: Job) -> HttpResponse:
    address = reverse("admin:jobs_job_change", args=[job.pk])
    return JsonResponse({"url": address}, status=201) if _wants_json(request) else redirect(address)


def _refused(request: HttpRequest, errors: Errors) -> HttpResponse:
    if _wants_json(request):
        return JsonResponse({"errors": errors}, status=NOT_TAKEN)
    form = PredictForm(request.POST)
    form.refuse(errors)
    if "file" not in errors:
        form.refuse({"file": [CHOOSE_AGAIN]})
    return _page(request, form, status=NOT_TAKEN)


def _wants_json(request: HttpRequest) -> bool:
    return bool(request.headers.get("Accept", "").startswith("application/json"))


def _page(request: HttpRequest, form: PredictForm, status: int = 200) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": "Predict a file",
        "form": form,
        "errors": form.error_list() if form.is_bound else {},
        "max_mb": config().JOB_MAX_MB,
        "kept_days": config().JOB_RETENTION_DAYS,
        "back": list_for(request.user),
    }
    return TemplateResponse(request, "console/job/predict.html", context, status=status)
