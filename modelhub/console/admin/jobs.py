"""Jobs in the admin: how far each is, its result, and a dialog that cancels it."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_http_methods
from unfold.decorators import display

from modelhub.api.auditing import record_of_job
from modelhub.console.admin.confirming import Done, Outcome, Question, ask, carry_out, require
from modelhub.console.admin.effects import Effect
from modelhub.console.admin.read_only import NOTHING, Fact, ReadOnlyAdmin, because, model_link
from modelhub.console.templatetags.console import UNKNOWN, moment, percent, seconds, size, state
from modelhub.console.templatetags.records import in_json
from modelhub.jobs.models import Job, JobState, may_cancel, may_look, may_read_result
from modelhub.jobs.submitting import cancel
from modelhub.registry.models import large_columns


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ("what", "shown_state", "progress", "rows", "rate", "said", "owner_name", "asked", "took")
    list_filter = ("state", "created_at")
    search_fields = ("model_name", "model_id", "input_name", "owner_name")
    search_help_text = "Model, file, or user"
    change_form_template = "console/job/page.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        jobs: QuerySet[Job] = super().get_queryset(request)
        return jobs.select_related("version").defer("checkpoint", *large_columns("version"))

    def heading(self, record: Job) -> str:
        return str(record)

    def facts(self, record: Job) -> list[Fact]:
        options = {name: value for name, value in record.options.items() if value not in (None, "", [], False)}
        return [
            ("Model", model_link(record.version, record.model_id or record.model_name)),
            ("Asked for", f"{record.model_name} {record.version_asked}".strip()),
            ("File", f"{record.input_name or UNKNOWN}, {record.input_format}, {size(record.input_bytes)}"),
            ("Result", f"{record.output_format}, {size(record.result_bytes)}"),
            ("Asked for by", record.owner_name),
            ("Asked for at", moment(record.created_at)),
            ("Begun", moment(record.started_at)),
            ("Heard of", moment(record.heartbeat_at)),
            ("Ended", moment(record.finished_at)),
            ("Ran", seconds(record.seconds)),
            ("How", in_json(options)),
            ("Id", format_html('<span class="mh-mono">{}</span>', record.pk)),
        ]

    def shown(self, request: HttpRequest, record: Job) -> dict[str, Any]:
        has_result = record.state == JobState.SUCCEEDED and may_read_result(request.user, record)
        may_end = not record.is_ended and may_cancel(request.user, record)
        left = record.remaining_seconds
        return {
            "job": record,
            "done": UNKNOWN if record.progress is None else percent(record.progress),
            "percent": 100 * (record.progress or 0.0),
            "left": None if left is None else seconds(left),
            "result_url": reverse("job-result", args=[record.pk]) if has_result else None,
            "cancel_url": reverse("console:job-cancel", args=[record.pk]) if may_end else None,
        }

    @display(description="Job", ordering="model_name")
    def what(self, job: Job) -> str:
        return str(job)

    @display(description="State", ordering="state")
    def shown_state(self, job: Job) -> SafeString:
        return state(job.state)

    @display(description="Done")
    def progress(self, job: Job) -> SafeString:
        share = job.progress
        return NOTHING if share is None else format_html('<span class="mh-number">{}</span>', percent(share))

    @display(description="Rows", ordering="rows_done")
    def rows(self, job: Job) -> SafeString:
        total = "" if job.rows_total is None else f" of {job.rows_total:,}"
        failed = f", {job.rows_failed:,} with an error" if job.rows_failed else ""
        return format_html('<span class="mh-number">{}</span>', f"{job.rows_done:,}{total}{failed}")

    @display(description="Rows a second")
    def rate(self, job: Job) -> SafeString:
        found = job.rows_per_second
        return NOTHING if found is None else format_html('<span class="mh-number">{}</span>', f"{found:,.0f}")

    @display(description="What it says")
    def said(self, job: Job) -> SafeString:
        return because((job.error or {}).get("message") or job.problem)

    @display(description="When", ordering="created_at")
    def asked(self, job: Job) -> SafeString:
        return moment(job.created_at)

    @display(description="Ran", ordering="seconds")
    def took(self, job: Job) -> SafeString:
        return format_html('<span class="mh-number">{}</span>', seconds(job.seconds)) if job.seconds else NOTHING


@require_http_methods(["GET", "POST"])
def cancel_view(request: HttpRequest, pk: Any) -> HttpResponse:
    """GET says what that means; POST does it."""
    job: Any = get_object_or_404(Job.objects.defer("checkpoint"), pk=pk)
    is_permitted = may_look(request.user, job) and may_cancel(request.user, job)
    refused = require(request, is_permitted, "cancel this job")
    if refused is not None:
        return refused
    back = reverse("admin:jobs_job_change", args=[pk])
    question = partial(_question, job, back)
    if request.method != "POST":
        return ask(request, admin.site, question())
    return carry_out(request, admin.site, partial(_cancel, request, job), question, back)


def _question(job: Job, back: str) -> Question:
    if job.is_ended:
        effect = Effect(str(job), f"It has {job.state}: there is nothing to cancel.", is_possible=False)
    else:
        done = f"{job.rows_done:,} rows are predicted; they are thrown away." if job.rows_done else ""
        effect = Effect(str(job), "It ends, and there will be no result. It cannot be gone on with.", done)
    return Question("Cancel the job", "Cancel the job", back, [effect], is_grave=True, asks_reason=False)


def _cancel(request: HttpRequest, job: Job) -> Outcome:
    cancelled = cancel(job)
    record_of_job(cancelled, "cancelled", request.user, "In the admin")
    return Done("Cancelled", f"Cancelled: {cancelled}.")
