"""Where it leads when a job is no more, or when one turns back from asking for one."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse


def list_for(user: Any) -> str:
    """The list of jobs; the first page for who may see his own only."""
    return reverse("admin:jobs_job_changelist" if user.has_perm("jobs.view_job") else "admin:index")


def to_list(request: HttpRequest, told: str, level: int = messages.SUCCESS) -> HttpResponse:
    """Leads there, and tells it there; also when a dialog or the page's own look at how it stands asked."""
    messages.add_message(request, level, told)
    where = list_for(request.user)
    if "HX-Request" in request.headers:
        return HttpResponse(status=204, headers={"HX-Redirect": where, "Cache-Control": "no-store"})
    return redirect(where)


def no_more(request: HttpRequest, job_id: Any) -> HttpResponse:
    """To the list, with why a job that was just shown is not there."""
    told = f"There is no job {job_id} any more: it was removed, or its time was over."
    return to_list(request, told, messages.WARNING)
