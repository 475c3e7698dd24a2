"""The dialogs on a job's page: cancel, retry, remove. GET says what that means, POST does it.

A job that went meanwhile, in another tab or as its time was over, leads to the list, which says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from modelhub.api.auditing import record_of_job
from modelhub.console.admin.confirming import (
    Done,
    Outcome,
    Question,
    ask,
    carry_out,
    forget_what_was_shown,
    require,
)
from modelhub.console.admin.effects import Effect
from modelhub.console.advice import Way
from modelhub.console.jobs.gone import no_more, to_list
from modelhub.console.templatetags.console import size
from modelhub.jobs import retrying, submitting
from modelhub.jobs.models import RETRIABLE, Job, JobState, may_cancel, may_look, may_remove, may_retry

Dialog = Callable[[HttpRequest, Any], HttpResponse]


def _while_it_is_there(dialog: Dialog) -> Dialog:
    """Also when the job goes between the look and the command."""

    @wraps(dialog)
    def answered(request: HttpRequest, pk: Any) -> HttpResponse:
        try:
            return dialog(request, pk)
        except Job.DoesNotExist:
            return no_more(request, pk)

    return answered


@require_http_methods(["GET", "POST"])
@_while_it_is_there
def cancel(request: HttpRequest, pk: Any) -> HttpResponse:
    """GET says what that means; POST does it."""
    job = Job.objects.defer("checkpoint").get(pk=pk)
    is_permitted = may_look(request.user, job) and may_cancel(request.user, job)
    refused = require(request, is_permitted, "cancel this job")
    if refused is not None:
        return refused
    back = reverse("admin:jobs_job_change", args=[pk])
    question = partial(_cancel_question, job, back)
    if request.method != "POST":
        return ask(request, admin.site, question())
    return carry_out(request, admin.site, partial(_cancel, request, job), question, back)


def _cancel_question(job: Job, back: str) -> Question:
    if job.is_ended:
        effect = Effect(str(job), f"It has {job.state}: there is nothing to cancel.", is_possible=False)
    else:
        done = (
            f"{job.rows_done:,} rows are predicted; they are kept, and Retry goes on behind them."
            if job.rows_done
            else ""
        )
        effect = Effect(str(job), "It ends, and there is no result.", done)
    return Question(
        "Cancel the job", "Cancel the job", back, [effect], is_grave=True, no="Let it go on", asks_reason=False
    )


def _cancel(request: HttpRequest, job: Job) -> Outcome:
    cancelled = submitting.cancel(job)
    record_of_job(cancelled, "cancelled", request.user, "In the admin")
    return Done("Cancelled", f"Cancelled: {cancelled}.")


@require_http_methods(["GET", "POST"])
@_while_it_is_there
def retry(request: HttpRequest, pk: Any) -> HttpResponse:
    """GET says what that means; POST does it. ?from_start=1: anew."""
    job = Job.objects.get(pk=pk)
    is_permitted = may_look(request.user, job) and may_retry(request.user, job)
    refused = require(request, is_permitted, "retry this job")
    if refused is not None:
        return refused
    back = reverse("admin:jobs_job_change", args=[pk])
    anew = request.GET.get("from_start") == "1"
    question = partial(_retry_question, job, back, anew=anew)
    if request.method != "POST":
        return ask(request, admin.site, question())
    return carry_out(request, admin.site, partial(_retry, request, job, anew=anew), question, back)


def _retry_question(job: Job, back: str, *, anew: bool) -> Question:
    address = reverse("console:job-retry", args=[job.pk])
    verb = "Begin anew" if anew else "Retry"
    if job.state not in RETRIABLE:
        effect = Effect(str(job), f"It is {job.state}: there is nothing to retry.", is_possible=False)
    elif anew:
        lost = f"{job.rows_done:,} rows that are written are thrown away." if job.rows_done else ""
        headline = "It begins with the first row, with the version that its name means then."
        effect = Effect(str(job), headline, lost)
    elif why := retrying.obstacle(job, reads_file=False):
        way = Way("Begin anew", f"{address}?from_start=1")
        told = f"It cannot go on where it stopped: {why}"
        effect = Effect(str(job), told, is_possible=False, ways=(way,), tone="bad")
    elif job.rows_done:
        headline = f"It goes on behind row {job.rows_done:,}; what is written stays."
        effect = Effect(str(job), headline, f"{job.model_id} answers the rest, as it did the rows before.")
    else:
        effect = Effect(str(job), "It begins with the first row: nothing is written yet.")
    return Question(verb, verb, back, [effect], is_grave=anew and job.rows_done > 0, asks_reason=False)


def _retry(request: HttpRequest, job: Job, *, anew: bool) -> Outcome:
    retried = retrying.retry(job, request.user, from_start=anew)
    record_of_job(retried, "begun anew" if anew else "retried", request.user, "In the admin")
    where = f"it goes on behind row {retried.rows_done:,}" if retried.rows_done else "it begins with the first row"
    return Done("Queued again", f"Queued again: {where}.")


@require_http_methods(["GET", "POST"])
@_while_it_is_there
def remove(request: HttpRequest, pk: Any) -> HttpResponse:
    """What it removed has no page any more: it leads to the list."""
    job = Job.objects.defer("checkpoint").get(pk=pk)
    refused = require(request, may_look(request.user, job) and may_remove(request.user, job), "remove this job")
    if refused is not None:
        return refused
    if request.method != "POST":
        return ask(request, admin.site, _remove_question(job))
    told = f"Removed: {job}, with its files."
    record_of_job(job, "removed", request.user, "In the admin")
    submitting.remove(job)
    forget_what_was_shown()
    return to_list(request, told)


def _remove_question(job: Job) -> Question:
    files = f"Its file ({size(job.input_bytes)})"
    if job.state == JobState.SUCCEEDED:
        kept = f" and its result ({size(job.result_bytes)})" if job.result_bytes is not None else " and its result"
        headline = f"{files}{kept} are deleted, and it goes from the list."
        sentence = "What is to be kept has to be downloaded before."
    elif job.is_ended:
        headline = f"{files} and what is written of its result are deleted; it cannot be retried then."
        sentence = ""
    else:
        headline = f"It ends. {files} and what is written of its result are deleted."
        sentence = f"{job.rows_done:,} rows are predicted; Cancel keeps them." if job.rows_done else ""
    back = reverse("admin:jobs_job_change", args=[job.pk])
    effect = Effect(str(job), headline, sentence, details=("The audit keeps that it was there.",))
    return Question("Remove the job", "Remove the job", back, [effect], is_grave=True, no="Keep it", asks_reason=False)
