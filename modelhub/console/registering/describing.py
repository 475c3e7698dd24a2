"""What a model says of itself, edited: its metadata.json and config.json."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from modelhub.console.registering.access import check_describe
from modelhub.console.registering.forms import DescribeForm
from modelhub.console.registering.uploading import NOT_TAKEN
from modelhub.lifecycle.models import ACTIVE, Operation
from modelhub.registry.artifacts import Refused, directory_of
from modelhub.registry.choices import DesiredState, Status
from modelhub.registry.describing import FILES, ChangedMeanwhile, Texts, read_texts, with_fields, write_texts
from modelhub.registry.discovery import DiscoveryFailed, discover
from modelhub.registry.metadata import METADATA_FILE, parse_json
from modelhub.registry.models import ModelVersion, large_columns

_IN_MEMORY = (Status.LOADING, Status.LOADED, Status.UNLOADING)


@require_http_methods(["GET", "POST"])
def describe(request: HttpRequest, path: str) -> HttpResponse:
    """The form; POST writes, keeps what was there before in the audit, runs discovery, and leads to the model."""
    check_describe(request.user)
    try:
        directory_of(path)
    except Refused as refusal:  # before the registry is asked for a path that it cannot even ask for
        return _page(request, path, None, None, {"hindrance": str(refusal)}, status=404)
    version = ModelVersion.objects.filter(path=path).defer("manifest", "signature").first()
    try:
        texts = read_texts(path)
    except Refused as refusal:
        return _page(request, path, version, None, {"hindrance": str(refusal)}, status=404)
    if request.method == "GET":
        return _page(request, path, version, _form(texts))
    form = _form(texts, request.POST)
    if form.is_valid():
        try:
            written = _written(texts, form)
            with transaction.atomic():  # the entry is there before the files are, and goes when they cannot be written
                _check_now(path)
                entry = _entry(request.user, path, version, texts)
                changed = write_texts(path, written, seen=form.cleaned_data["seen"])
                if changed:
                    entry.change_message = _told(changed, texts)
                    entry.save()
                else:
                    entry.delete()
        except _NotNow as refusal:
            return _page(request, path, version, form, {"hindrance": str(refusal)}, status=409)
        except ChangedMeanwhile:
            form.add_error(None, "Somebody changed the files meanwhile; open this page again, then repeat your change.")
        except Refused as refusal:
            form.refuse(refusal)
        else:
            return _done(request, path, changed)
    return _page(request, path, version, form, status=NOT_TAKEN)


class _NotNow(Exception):
    """It must not be edited now; the words are those of _hindrance()."""


def _check_now(path: str) -> None:
    """Raises _NotNow. No command for the model is accepted from then on until the transaction ends."""
    rows = ModelVersion.objects.select_for_update(no_key=True).defer(*large_columns())
    hindrance = _hindrance(rows.filter(path=path).first())
    if hindrance is not None:
        raise _NotNow(hindrance)


def _hindrance(version: ModelVersion | None) -> str | None:
    """Why it must not be edited now."""
    if version is None:
        return None
    if version.status in _IN_MEMORY:
        return (
            f"{version} is in memory. With other files what is loaded would differ from what is on disk: a process "
            "that dies could not be started again, and the model would be gone. Unload it first, or register another "
            "version."
        )
    operation = Operation.objects.filter(version=version, status__in=ACTIVE).only("kind").first()
    if operation is not None:
        return (
            f"A command for {version} has not ended ({operation.get_kind_display().lower()}), and it was given for "
            "the files as they are. Wait for it or cancel it, then edit."
        )
    if version.desired_state == DesiredState.LOADED and version.status != Status.ERROR:
        return (
            f"{version} is to be in memory, and is loaded from the files as they are as soon as that can be. "
            "Unload it first, or register another version."
        )
    return None


def _form(texts: Texts, data: Any = None) -> DescribeForm:
    try:
        metadata = parse_json(METADATA_FILE, texts.metadata.encode()) if texts.metadata.strip() else {}
    except Refused:
        metadata = {}
    initial = {"metadata": texts.metadata, "config": texts.config, "seen": texts.digest}
    return DescribeForm(data, metadata=metadata, initial=initial)


def _written(texts: Texts, form: DescribeForm) -> Texts:
    """Both files as they shall be. A text that was not touched stays byte for byte: browsers change line ends."""
    values = {}
    for key in FILES:
        sent, before = form.cleaned_data[key].replace("\r\n", "\n"), getattr(texts, key)
        values[key] = before if sent == before.replace("\r\n", "\n") else sent
    return Texts(with_fields(values["metadata"], form.changes()), values["config"])


def _entry(user: Any, path: str, version: ModelVersion | None, texts: Texts) -> LogEntry:
    return LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(ModelVersion),
        object_id=None if version is None else str(version.pk),
        object_repr=(path if version is None else str(version))[:200],
        action_flag=CHANGE,
    )


def _told(changed: list[str], texts: Texts) -> str:
    before = [
        f"{name} before:\n{getattr(texts, key) or '(there was none)'}" for key, name in FILES.items() if name in changed
    ]
    return "\n".join([f"Edited {' and '.join(changed)}.", *before])


def _done(request: HttpRequest, path: str, changed: list[str]) -> HttpResponse:
    if not changed:
        messages.info(request, "Nothing was changed.")
    else:
        try:
            report = discover(actor=request.user.get_username())
        except DiscoveryFailed as error:
            messages.warning(request, f"{' and '.join(changed)} of {path} is written. {error}")
        else:
            refusal = dict(report.refused).get(path)
            told = f"{' and '.join(changed)} of {path} is written"
            if refusal:
                messages.warning(request, f"{told}, and discovery refuses it: {refusal}")
            else:
                messages.success(request, f"{told}, and the registry says the same.")
    version = ModelVersion.objects.filter(path=path).only("pk").first()
    if version is None:
        return redirect("console:describe", path)
    return redirect("admin:registry_modelversion_change", version.pk)


def _page(
    request: HttpRequest,
    path: str,
    version: ModelVersion | None,
    form: DescribeForm | None,
    more: dict[str, Any] | None = None,
    status: int = 200,
) -> HttpResponse:
    back = (
        reverse("admin:registry_modelversion_change", args=[version.pk])
        if version is not None
        else reverse("admin:registry_discoveryrun_changelist")
    )
    context = {
        **admin.site.each_context(request),
        "title": f"Edit {path}",
        "path": path,
        "version": version,
        "form": form,
        "errors": form.error_list() if form is not None and form.is_bound else {},
        "hindrance": _hindrance(version),
        "back": back,
        "loses_approval": version is not None and version.is_approved,
        **(more or {}),
    }
    return TemplateResponse(request, "console/registering/describe.html", context, status=status)
