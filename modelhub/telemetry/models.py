"""Samples of models and host, alerts, traces, and live beside candidate."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from modelhub.registry.models import Model, ModelVersion


class Sample(models.Model):
    """One interval of one model, or of the host (version null). Rolled up with age: 10 s, 60 s, 600 s.

    Sums: requests, items, errors, latency_seconds, compute_seconds, cache_hits, cache_misses, histogram
    (loaderd.histogram; empty when nothing was asked). Highest: queued, in_flight, and all bytes; of available_bytes
    the lowest.
    """

    version = models.ForeignKey(ModelVersion, null=True, blank=True, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField(help_text="End of the interval.")
    seconds = models.PositiveIntegerField(help_text="Length of the interval's grid: 10, 60 or 600.")
    requests = models.PositiveBigIntegerField(default=0)
    items = models.PositiveBigIntegerField(default=0)
    errors = models.PositiveBigIntegerField(default=0)
    latency_seconds = models.FloatField(default=0.0)
    compute_seconds = models.FloatField(default=0.0)
    histogram = ArrayField(models.BigIntegerField(), default=list, blank=True)
    cache_hits = models.PositiveBigIntegerField(default=0, help_text="Answered without the model; not in requests.")
    cache_misses = models.PositiveBigIntegerField(default=0, help_text="Computed although answers are kept.")
    queued = models.PositiveIntegerField(default=0)
    in_flight = models.PositiveIntegerField(default=0)
    private_bytes = models.BigIntegerField(null=True, blank=True)
    gpu_bytes = models.BigIntegerField(null=True, blank=True)
    reserved_bytes = models.BigIntegerField(null=True, blank=True, help_text="Host: promised to loads under way.")
    budget_bytes = models.BigIntegerField(null=True, blank=True, help_text="Host: the limit in force.")
    available_bytes = models.BigIntegerField(null=True, blank=True, help_text="Host: what the machine has left.")

    class Meta:
        indexes = [
            models.Index(fields=["version", "-at"], name="sample_of_version"),  # a model's last hour, day, week
            models.Index(fields=["seconds", "at"], name="sample_by_age"),  # roll-up and purge
        ]
        constraints = [
            models.CheckConstraint(condition=Q(errors__lte=models.F("requests")), name="sample_errors_within"),
            models.UniqueConstraint(
                fields=["version", "seconds", "at"], name="sample_once", nulls_distinct=False
            ),  # a redelivered report and a repeated roll-up are harmless
        ]

    def __str__(self) -> str:
        return f"{self.version_id or 'host'} {self.at:%Y-%m-%d %H:%M:%S}"


class Alert(models.Model):
    """Something that needs a person's eye: opened and resolved by loaderd, acknowledged by people."""

    key = models.CharField(max_length=300, help_text="One problem of one model: error_rate:sentiment-v1.")
    kind = models.CharField(max_length=32)
    version = models.ForeignKey(ModelVersion, null=True, blank=True, on_delete=models.CASCADE, related_name="alerts")
    message = models.TextField()
    value = models.FloatField(null=True, blank=True)
    threshold = models.FloatField(null=True, blank=True)
    opened_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    acknowledged_by_name = models.CharField(max_length=150, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-opened_at", "-id"]
        indexes = [
            models.Index(fields=["-opened_at"], name="alert_open", condition=Q(resolved_at=None)),  # what is open now
            models.Index(fields=["resolved_at"], name="alert_by_age"),  # purge
        ]
        constraints = [
            # One open alert a problem: what goes on is the same alert.
            models.UniqueConstraint(fields=["key"], condition=Q(resolved_at=None), name="alert_open_once"),
        ]

    def __str__(self) -> str:
        return self.message

    @property
    def state(self) -> str:
        """open, acknowledged or resolved."""
        if self.resolved_at is not None:
            return "resolved"
        return "open" if self.acknowledged_at is None else "acknowledged"


class Trace(models.Model):
    """One prediction that was picked by SAMPLING_RATE: where its time went."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="traces")
    at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(help_text="HTTP status of the answer.")
    route = models.CharField(max_length=16, help_text="live, candidate or direct.")
    user = models.CharField(max_length=150, blank=True)
    items = models.PositiveIntegerField(default=0)
    batch_items = models.PositiveIntegerField(null=True, blank=True, help_text="Items in the call that computed it.")
    total_seconds = models.FloatField()
    queue_seconds = models.FloatField(null=True, blank=True)
    compute_seconds = models.FloatField(null=True, blank=True)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["version", "-at"], name="trace_of_version"),  # a model's page
            models.Index(fields=["at"], name="trace_by_age"),  # purge
        ]

    def __str__(self) -> str:
        return f"{self.version_id} {self.at:%H:%M:%S} {self.status}"


class Comparison(models.Model):
    """Live beside candidate since the traffic was set: sums, and histograms that give quantiles."""

    lineage = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="comparisons")
    live = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    candidate = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    since = models.DateTimeField(help_text="When this split was set.")
    last_at = models.DateTimeField()
    compared = models.PositiveBigIntegerField(default=0, help_text="Items whose two answers were compared.")
    disagreed = models.PositiveBigIntegerField(default=0, help_text="Items of them that were answered differently.")
    dropped = models.PositiveBigIntegerField(default=0, help_text="Copies that were not sent: too many were under way.")
    live_requests = models.PositiveBigIntegerField(default=0)
    live_errors = models.PositiveBigIntegerField(default=0)
    live_latency_seconds = models.FloatField(default=0.0)
    live_histogram = ArrayField(models.BigIntegerField(), default=list, blank=True)
    candidate_requests = models.PositiveBigIntegerField(default=0)
    candidate_errors = models.PositiveBigIntegerField(default=0)
    candidate_latency_seconds = models.FloatField(default=0.0)
    candidate_histogram = ArrayField(models.BigIntegerField(), default=list, blank=True)

    class Meta:
        ordering = ["-last_at"]
        constraints = [
            models.UniqueConstraint(fields=["lineage", "live", "candidate", "since"], name="comparison_once"),
            models.CheckConstraint(
                condition=Q(disagreed__lte=models.F("compared")), name="comparison_disagreed_within"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.live_id} beside {self.candidate_id}"
