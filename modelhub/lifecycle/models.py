"""Commands, what became of them, and what loaderd last said of itself."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from loaderd.states import OperationState
from modelhub.registry.choices import Status
from modelhub.registry.models import Model, ModelVersion


class OperationKind(models.TextChoices):
    LOAD = "load", "Load"
    UNLOAD = "unload", "Unload"
    ACTIVATE = "activate", "Activate"  # make a version live in its lineage
    ROLLBACK = "rollback", "Roll back"  # make an earlier version live again
    OPTIMIZE = "optimize", "Optimise memory"  # of no version


class OperationStatus(models.TextChoices):
    QUEUED = OperationState.QUEUED.value, "Queued"
    RUNNING = OperationState.RUNNING.value, "Running"
    SUCCEEDED = OperationState.SUCCEEDED.value, "Succeeded"
    FAILED = OperationState.FAILED.value, "Failed"
    CANCELLED = OperationState.CANCELLED.value, "Cancelled"


ACTIVE = (OperationStatus.QUEUED, OperationStatus.RUNNING)

_WORDS = {"load": "load of", "unload": "unload of", "activate": "activation of", "rollback": "rollback to"}


class Operation(models.Model):
    """A command of a person or program: who asked for what, why, when, and how it ended."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=16, choices=OperationKind.choices)
    version = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="operations",
        verbose_name="model",
        help_text="Empty for what concerns all models.",
    )
    parameters = models.JSONField(
        default=dict, blank=True, help_text="What the command was given: {allow_gap, desired_before, …}."
    )
    status = models.CharField(max_length=16, choices=OperationStatus.choices, default=OperationStatus.QUEUED)
    phase = models.CharField(max_length=32, blank=True)
    progress = models.FloatField(default=0.0, help_text="Share done within the phase, 0.0 to 1.0.")
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    requested_by_name = models.CharField(max_length=150, blank=True, help_text="Kept when the user is deleted.")
    reason = models.CharField(max_length=500, blank=True, help_text="Why, in the words of who asked.")
    source = models.CharField(max_length=32, blank=True, help_text="api, admin, command, inference, demand, python.")
    requested_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True, help_text="When loaderd took it.")
    finished_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Deliveries to loaderd that were begun.")
    result = models.JSONField(null=True, blank=True)
    error = models.JSONField(null=True, blank=True, help_text="{code, message, facts} when it failed.")

    class Meta:
        ordering = ["-requested_at"]
        indexes = [
            models.Index(fields=["-requested_at"], name="operation_newest"),  # the lists of API and admin
            models.Index(fields=["version", "-requested_at"], name="operation_of_version"),  # a model's page
            models.Index(fields=["requested_at"], name="operation_active", condition=Q(status__in=ACTIVE)),
        ]
        constraints = [
            # Single flight: two loads of one model are one load.
            models.UniqueConstraint(
                fields=["version", "kind"], condition=Q(status__in=ACTIVE), name="operation_single_flight"
            ),
            models.UniqueConstraint(
                fields=["kind"],
                condition=Q(status__in=ACTIVE, version__isnull=True),
                name="operation_single_flight_of_all",
            ),
            models.CheckConstraint(
                condition=Q(version__isnull=False) | Q(kind=OperationKind.OPTIMIZE), name="operation_has_version"
            ),
            models.CheckConstraint(condition=Q(kind__in=OperationKind.values), name="operation_kind_known"),
            models.CheckConstraint(condition=Q(status__in=OperationStatus.values), name="operation_status_known"),
            models.CheckConstraint(condition=Q(progress__gte=0.0, progress__lte=1.0), name="operation_progress_share"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.version_id or 'all'} ({self.status})"

    @property
    def is_ended(self) -> bool:
        return self.status not in ACTIVE

    @property
    def took_seconds(self) -> float | None:
        """From the request to its end; None while it runs."""
        return None if self.finished_at is None else (self.finished_at - self.requested_at).total_seconds()

    @property
    def what(self) -> str:
        """For sentences: "load of sentiment-v1", "rollback to sentiment-v1", "memory optimisation"."""
        if self.version is None:
            return "memory optimisation"
        return f"{_WORDS[self.kind]} {self.version.model_id}"


class StateChange(models.Model):
    """One move of one model: from, to, reason, who, when. Never changed, never deleted by hand."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="state_changes")
    from_state = models.CharField(max_length=16, choices=Status.choices)
    to_state = models.CharField(max_length=16, choices=Status.choices)
    reason = models.TextField(blank=True)
    actor = models.CharField(max_length=150, help_text="User who asked, or loaderd.")
    operation = models.ForeignKey(Operation, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(help_text="When it became true, by loaderd's clock.")

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["version", "-at"], name="statechange_of_version"),  # a model's history
            models.Index(fields=["-at"], name="statechange_newest"),  # the dashboard, the admin's list
        ]

    def __str__(self) -> str:
        return f"{self.version_id}: {self.from_state} -> {self.to_state}"


class LineageChange(models.Model):
    """Who was live when, why, by whom: one move of one alias, or a change of the traffic. Never changed."""

    class Kind(models.TextChoices):
        FIRST = "first", "First load"  # a lineage without a live version got its first
        ACTIVATE = "activate", "Activated"
        ROLLBACK = "rollback", "Rolled back"
        SET = "set", "Set"
        REMOVE = "remove", "Removed"
        TRAFFIC = "traffic", "Traffic changed"

    lineage = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="changes")
    alias = models.CharField(max_length=64, blank=True, help_text="Empty for a change of the traffic.")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    version = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="Leads here now."
    )
    previous = models.ForeignKey(
        ModelVersion, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", help_text="Led here before."
    )
    details = models.JSONField(
        default=dict, help_text="{version_id, previous_id} as names, kept when rows go; {candidate_percent, shadow}."
    )
    reason = models.CharField(max_length=500, blank=True)
    actor = models.CharField(max_length=150, help_text="User who asked, or loaderd.")
    operation = models.ForeignKey(Operation, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(help_text="When it became true.")

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["lineage", "-at"], name="lineagechange_of_lineage"),  # its history
            models.Index(fields=["-at"], name="lineagechange_newest"),  # the dashboard, the admin's list
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["first", "activate", "rollback", "set", "remove", "traffic"]),
                name="lineagechange_kind_known",
            )
        ]

    def __str__(self) -> str:
        return f"{self.lineage_id}/{self.alias}: {self.kind}"

    @property
    def leads_to(self) -> str:
        """Where the alias leads after the change, by name, or the traffic that was set. No query where details tell."""
        if self.kind == self.Kind.TRAFFIC:
            percent, is_shadow = self.details.get("candidate_percent", 0.0), self.details.get("shadow")
            return f"{percent:g} % to candidate{', copies too' if is_shadow else ''}"
        return self.details.get("version_id") or (self.version.model_id if self.version else "nowhere")


class LoaderStatus(models.Model):
    """What loaderd last said of itself: one row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    pid = models.PositiveIntegerField(null=True)
    boot_id = models.CharField(max_length=64, blank=True)
    started_at = models.DateTimeField(null=True)
    observed_at = models.DateTimeField(null=True)
    stopped_at = models.DateTimeField(
        null=True, help_text="When it said goodbye; null while it runs or if it was killed."
    )
    facts = models.JSONField(default=dict, help_text="Versions, host memory, GPUs, zygotes.")

    class Meta:
        verbose_name = "loaderd status"
        verbose_name_plural = "loaderd status"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="loaderstatus_one_row")]

    def __str__(self) -> str:
        return f"loaderd {self.pid}"
