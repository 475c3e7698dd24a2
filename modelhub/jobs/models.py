"""One file that is predicted offline, for whom, and how far it came."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from modelhub.registry.models import ModelVersion


class JobState(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


UNDER_WAY = ("queued", "running")
RETRIABLE = ("failed", "cancelled")
PREDICT = "registry.predict_modelversion"  # who may ask for a job


class Job(models.Model):
    """Its files lie in `<state folder>/jobs/<id>/`: see `folders`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)

    # What is asked for: written by whoever asks
    model_name = models.CharField(max_length=200, help_text="As it was asked for: a lineage's name or a model id.")
    version_asked = models.CharField(max_length=64, blank=True, help_text="A version or an alias; empty: the live one.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    owner_name = models.CharField(max_length=150)
    input_name = models.CharField(max_length=255, blank=True, help_text="The file's name as it was sent.")
    input_format = models.CharField(max_length=16)
    input_bytes = models.BigIntegerField(default=0)
    input_digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the file, hexadecimal.")
    output_format = models.CharField(max_length=16)
    options = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    # How it stands: written by the runner, and by who cancels it
    state = models.CharField(max_length=16, choices=JobState.choices, default=JobState.QUEUED)
    version = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Chosen at its start.",
    )
    model_id = models.CharField(max_length=200, blank=True, help_text="The version's id, kept when it goes.")
    rows_total = models.BigIntegerField(null=True, blank=True)
    rows_done = models.BigIntegerField(default=0)
    rows_failed = models.BigIntegerField(default=0, help_text="Rows with an error in place of a prediction.")
    checkpoint = models.JSONField(null=True, blank=True)
    seconds = models.FloatField(default=0.0, help_text="While it ran.")
    problem = models.TextField(blank=True, help_text="Why it does not go on for now.")
    error = models.JSONField(null=True, blank=True, help_text="{code, message, facts} when it failed.")
    result_bytes = models.BigIntegerField(null=True, blank=True)
    runner = models.UUIDField(null=True, blank=True, help_text="Who runs it.")
    heartbeat_at = models.DateTimeField(null=True, blank=True, help_text="When the runner kept its progress last.")
    not_before = models.DateTimeField(null=True, blank=True, help_text="When it is tried again.")
    waiting_since = models.DateTimeField(null=True, blank=True, help_text="Since when it cannot go on.")
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        permissions = [("read_results_job", "Can read the results of others' jobs")]
        indexes = [
            models.Index(fields=["-created_at"], name="job_newest"),  # the lists of API and admin
            models.Index(fields=["owner", "-created_at"], name="job_of_owner"),
            models.Index(fields=["created_at"], name="job_under_way", condition=Q(state__in=UNDER_WAY)),
            models.Index(fields=["finished_at"], name="job_ended", condition=~Q(state__in=UNDER_WAY)),  # retention
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=JobState.values), name="job_state_known"),
            models.CheckConstraint(condition=Q(rows_failed__lte=models.F("rows_done")), name="job_failed_within_done"),
        ]

    def __str__(self) -> str:
        return f"{self.input_name or 'a file'} by {self.model_id or self.model_name}"

    @property
    def is_ended(self) -> bool:
        return self.state not in UNDER_WAY

    @property
    def progress(self) -> float | None:
        """Share of the rows that are done, 0.0 to 1.0; None while nobody has counted them."""
        if self.state == JobState.SUCCEEDED:
            return 1.0
        if self.rows_total is None:
            return None
        return self.rows_done / self.rows_total if self.rows_total else 1.0

    @property
    def rows_per_second(self) -> float | None:
        """While it ran, all in all; None before it kept any."""
        return self.rows_done / self.seconds if self.seconds > 0 and self.rows_done else None

    @property
    def remaining_seconds(self) -> float | None:
        rate = self.rows_per_second
        if rate is None or self.rows_total is None or self.is_ended:
            return None
        return max(0, self.rows_total - self.rows_done) / rate


def may_look(user: Any, job: Job) -> bool:
    """The owner, and who may see all jobs."""
    return job.owner_id == user.pk or bool(user.has_perm("jobs.view_job"))


def may_read_result(user: Any, job: Job) -> bool:
    return job.owner_id == user.pk or bool(user.has_perm("jobs.read_results_job"))


def may_cancel(user: Any, job: Job) -> bool:
    return job.owner_id == user.pk or bool(user.has_perm("jobs.change_job"))


def may_retry(user: Any, job: Job) -> bool:
    """As asking for it anew: who may predict, for one's own jobs or as who may change those of others."""
    return may_cancel(user, job) and bool(user.has_perm(PREDICT))


def may_remove(user: Any, job: Job) -> bool:
    return job.owner_id == user.pk or bool(user.has_perm("jobs.delete_job"))
