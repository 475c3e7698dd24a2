"""Jobs in the admin: how far each is, its result, and what next after a failure."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from loaderd.errors import ModelNotLoaded
from modelhub.console.admin.read_only import NOTHING, Fact, ReadOnlyAdmin, model_link
from modelhub.console.jobs.gone import to_list
from modelhub.console.templatetags.console import UNKNOWN, moment, percent, seconds, size, state
from modelhub.console.templatetags.records import short
from modelhub.jobs.formats import CSV, FileRefused
from modelhub.jobs.models import (
    RETRIABLE,
    Job,
    JobState,
    may_cancel,
    may_look,
    may_read_result,
    may_remove,
    may_retry,
)
from modelhub.jobs.options import Options
from modelhub.jobs.scoring import RowRefused
from modelhub.lifecycle.permissions import LOAD
from modelhub.registry.choices import Status
from modelhub.registry.models import large_columns

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tabulator", " ": "space", "|": "|"}


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("what", "shown_model", "shown_state", "rows", "said", "asker", "asked")
    list_filter = ("state", "created_at")
    search_fields = ("model_name", "model_id", "input_name", "owner_name")
    search_help_text = "Model, file, or user"
    change_form_template = "console/job/page.html"
    list_before_template = "console/job/bar.html"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """All jobs are for who may see them; one's own page is for whose it is, too."""
        return super().has_view_permission(request, obj) or (obj is not None and may_look(request.user, obj))

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        """The page of a job that somebody removed looks for it again and again."""
        told = f"There is no job {object_id} any more: it was removed, or its time was over."
        return to_list(request, told, messages.WARNING)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        jobs: QuerySet[Job] = super().get_queryset(request)
        return jobs.select_related("version").defer("checkpoint", *large_columns("version"))

    def heading(self, record: Job) -> str:
        return str(record)

    def facts(self, record: Job) -> list[Fact]:
        is_running = record.state == JobState.RUNNING
        result = record.output_format + (f", {size(record.result_bytes)}" if record.result_bytes is not None else "")
        facts = [
            ("Model", model_link(record.version, record.model_id or record.model_name)),
            ("Asked for", f"{record.model_name} {record.version_asked}".strip()),
            ("File", f"{record.input_name or UNKNOWN}, {record.input_format}, {size(record.input_bytes)}"),
            ("Result", result),
            ("Asked for by", record.owner_name),
            ("Asked for at", moment(record.created_at)),
            ("Begun", moment(record.started_at)),
            ("Heard of", moment(record.heartbeat_at)) if is_running else ("Ended", moment(record.finished_at)),
            ("Ran", seconds(record.seconds) if record.seconds else NOTHING),
            ("How", how_told(record)),
            ("Id", format_html('<span class="mh-mono">{}</span>', record.pk)),
        ]
        return [fact for fact in facts if fact[0] != "Ended" or record.is_ended]

    def shown(self, request: HttpRequest, record: Job) -> dict[str, Any]:
        has_result = record.state == JobState.SUCCEEDED and may_read_result(request.user, record)
        may_end = not record.is_ended and may_cancel(request.user, record)
        may_begin = record.state in RETRIABLE and may_retry(request.user, record)
        return {
            "job": record,
            "done": share_done(record),
            "rows": rows_told(record),
            "percent": 100 * (record.progress or 0.0),
            "left": time_left(record.remaining_seconds),
            "advice": advice(record),
            "load_url": load_url(record, request.user),
            "retry_url": reverse("console:job-retry", args=[record.pk]) if may_begin else None,
            "result_url": reverse("job-result", args=[record.pk]) if has_result else None,
            "remove_url": reverse("console:job-remove", args=[record.pk]) if may_remove(request.user, record) else None,
            "cancel_url": reverse("console:job-cancel", args=[record.pk]) if may_end else None,
        }

    @display(description="File", ordering="input_name")
    def what(self, job: Job) -> SafeString:
        return format_html('<span class="mh-named">{}</span>', short(job.input_name or "a file", 48))

    @display(description="Model", ordering="model_id")
    def shown_model(self, job: Job) -> SafeString:
        return format_html('<span class="mh-named">{}</span>', short(job.model_id or job.model_name, 48))

    @display(description="State", ordering="state")
    def shown_state(self, job: Job) -> SafeString:
        return state(job.state)

    @display(description="Rows", ordering="rows_done")
    def rows(self, job: Job) -> SafeString:
        if job.rows_total is None and not job.rows_done:
            return NOTHING
        is_part = job.state != JobState.SUCCEEDED and job.progress is not None
        told = f"{rows_told(job)} ({share_done(job)})" if is_part else rows_told(job)
        failed = f", {job.rows_failed:,} with an error" if job.rows_failed else ""
        return format_html('<span><span class="mh-number">{}</span>{}</span>', told, failed)

    @display(description="What it says")
    def said(self, job: Job) -> SafeString:
        reason = (job.error or {}).get("message") or job.problem
        return format_html('<span class="mh-named">{}</span>', short(reason)) if reason else NOTHING

    @display(description="Asked by", ordering="owner_name")
    def asker(self, job: Job) -> SafeString:
        return short(job.owner_name, 30)

    @display(description="When", ordering="created_at")
    def asked(self, job: Job) -> SafeString:
        return moment(job.created_at)


def rows_told(job: Job) -> str:
    """ "1,000 of 4,000", or "1,000" while nobody has counted them."""
    return f"{job.rows_done:,}" + ("" if job.rows_total is None else f" of {job.rows_total:,}")


def share_done(job: Job) -> str:
    """As percent, never 100 % before the last row is done; a dash while nobody has counted them."""
    share = job.progress
    if share is None:
        return UNKNOWN
    return percent(share if share >= 1 else min(share, 0.999))


def time_left(left: float | None) -> str:
    """In the unit that fits; "" when nobody knows."""
    if left is None:
        return ""
    if left < 90:
        return f"about {max(1, round(left))} s left"
    return f"about {round(left / 60)} min left" if left < 5400 else f"about {left / 3600:.1f} h left"


def how_told(job: Job) -> str:
    """The options that matter for its formats, in words."""
    options = Options.from_json(job.options)
    told = [f"input in {', '.join(options.columns)}" if options.columns else "input found by name"]
    if CSV in (job.input_format, job.output_format):
        told.append(f"delimiter {_DELIMITERS.get(options.delimiter, options.delimiter)}")
    if job.input_format == CSV and not options.header:
        told.append("no header")
    if options.scores != "json":
        told.append({"columns": "a column for each score", "none": "without scores"}[options.scores])
    told += [f"prefix {options.prefix}"] if options.prefix else []
    told += ["ends at the first wrong row"] if options.strict else []
    told += [f"at most {options.batch_rows:,} rows a request"] if options.batch_rows else []
    told += ["formulas unguarded"] if job.output_format == CSV and not options.guard_formulas else []
    return "; ".join(told)


def advice(job: Job) -> str:
    """What next: after a failure, after it was cancelled, while it waits; "" when nothing is to be done."""
    code = (job.error or {}).get("code", "")
    if job.state not in RETRIABLE:
        return "Nothing is lost: it goes on by itself as soon as the model answers." if job.problem else ""
    if code == FileRefused.code:
        return "Correct the file and send it again; retrying the same one would end in the same way."
    where = f"goes on behind row {job.rows_done:,}" if job.rows_done else "begins with the first row"
    if code == RowRefused.code:
        return (
            "Send the file without that row, or without strict, which gives it an error and goes on. "
            f"Retry {where}, and ends there again unless the model takes the row by then."
        )
    if code == ModelNotLoaded.code:
        return f"Load the model, then retry: it {where}."
    return f"Retry {where}."


def load_url(job: Job, user: Any) -> str | None:
    """Where the model is loaded that it waits for, for who may."""
    version = job.version
    is_wanted = job.problem or (job.error or {}).get("code") == ModelNotLoaded.code
    if not is_wanted or version is None or version.status == Status.LOADED or not user.has_perm(LOAD):
        return None
    return reverse("admin:registry_modelversion_load", args=[version.pk])
