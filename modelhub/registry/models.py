"""The registry: a `Model` is a lineage, a `ModelVersion` is one directory of the store (the specification's model)."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from loaderd.protocol import measured_as
from modelhub.registry.choices import DesiredState, HealthStatus, ModelType, Precision, Status

MAX_INSTANCES = 64
MAX_QUEUE = 1_000_000
_LARGE = ("manifest", "config", "metadata", "performance_metrics", "signature", "canary")


def large_columns(path: str = "") -> tuple[str, ...]:
    """The columns of a version that may be large, for `defer()`: no list and no decision needs them.

    path: the relation that leads to the version, as "version".
    """
    return tuple(f"{path}__{name}" if path else name for name in _LARGE)


class Model(models.Model):
    """A lineage: versions that replace one another, for one purpose."""

    name = models.CharField(max_length=200, unique=True, help_text="Name that all versions share.")
    type = models.CharField(max_length=32, choices=ModelType.choices, default=ModelType.OTHER)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # Traffic: written by people
    candidate_percent = models.FloatField(
        default=0.0, help_text="Share of the requests for the bare name that `candidate` answers, 0 to 100."
    )
    shadow = models.BooleanField(
        default=False, help_text="`candidate` gets a copy of what `live` answers, and the answers are compared."
    )
    traffic_changed_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when live and candidate are compared under the present split."
    )

    class Meta:
        ordering = ["name"]
        verbose_name = "lineage"
        verbose_name_plural = "lineages"
        indexes = [
            models.Index(fields=["type"], name="model_type"),  # list filter by type; models_by_type of the metrics
        ]
        constraints = [
            models.CheckConstraint(condition=Q(type__in=ModelType.values), name="model_type_known"),
            models.CheckConstraint(
                condition=Q(candidate_percent__gte=0.0, candidate_percent__lte=100.0), name="model_percent_share"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """One version: `<MODELS_DIR>/<type>/<model_id>/`.

    Written by: discovery (artifact), people (policy, approval), `lifecycle.reporting` alone (observed, usage).
    """

    # Identity
    lineage = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    model_id = models.CharField(max_length=200, unique=True, help_text="The directory's name.")
    name = models.CharField(max_length=200, help_text="Name for people.")
    version = models.CharField(max_length=64, default="1.0.0")

    # Artifact: written by discovery
    path = models.CharField(max_length=512, unique=True, help_text="Relative to MODELS_DIR: <type>/<model_id>.")
    framework = models.CharField(max_length=64, help_text="Name in loaderd's catalogue.")
    artifact_format = models.CharField(max_length=64, help_text="How the weights are stored.")
    size_bytes = models.BigIntegerField(default=0)
    digest = models.CharField(max_length=64, help_text="SHA-256 over the manifest of files, hexadecimal.")
    manifest = models.JSONField(
        default=list, help_text="[{path, size_bytes, mtime_ns, ctime_ns, sha256}], sorted by path."
    )
    config = models.JSONField(default=dict, blank=True, help_text="config.json as found.")
    metadata = models.JSONField(default=dict, blank=True, help_text="metadata.json as found.")
    performance_metrics = models.JSONField(
        default=dict, blank=True, help_text="As metadata.json states them: accuracy and the like."
    )
    created_at = models.DateTimeField(db_default=Now(), help_text="As metadata.json states it, else first seen.")
    discovered_at = models.DateTimeField(db_default=Now(), help_text="When discovery saw it last.")
    changed_at = models.DateTimeField(null=True, blank=True, help_text="When discovery saw other bytes than before.")
    missing_since = models.DateTimeField(null=True, blank=True, help_text="When discovery did not find it any more.")
    refusal = models.TextField(blank=True, help_text="Why discovery refuses the directory now; empty when it does not.")

    # Approval of formats that can run code
    approved_digest = models.CharField(max_length=64, blank=True, help_text="The bytes that a person approved.")
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    approved_at = models.DateTimeField(null=True, blank=True)

    # Policy: written by people
    desired_state = models.CharField(max_length=16, choices=DesiredState.choices, default=DesiredState.UNLOADED)
    load_timeout_seconds = models.FloatField(
        null=True, blank=True, help_text="Seconds that a load may take. Empty: MODEL_TIMEOUT_SECONDS."
    )
    threads = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Threads it computes with. Empty: MODEL_THREADS."
    )
    instances = models.PositiveSmallIntegerField(
        default=1, help_text="Processes that answer for it, 1 to 64. They share what they can of its weights."
    )
    max_batch_size = models.PositiveIntegerField(default=64, help_text="Items predicted in one call.")
    max_queue = models.PositiveIntegerField(
        default=1024, help_text="Predictions that wait at each of its processes; who comes after them gets 429."
    )
    precision = models.CharField(
        max_length=8,
        blank=True,
        default=Precision.AS_STORED,
        choices=Precision.choices,
        help_text="What it computes in. Its canary must hold in it, else the load fails.",
    )
    pinned = models.BooleanField(default=False, help_text="Never evicted, and never unloaded for being idle.")
    priority = models.PositiveSmallIntegerField(
        default=50, help_text="0 to 100: higher is loaded first and kept longer, and never goes for a lower one."
    )
    autoload = models.BooleanField(default=False, help_text="Loaded when a prediction asks for it.")
    keep_alive_seconds = models.FloatField(
        null=True, blank=True, help_text="Seconds without a prediction after which it is unloaded. Empty: stays."
    )
    cache_enabled = models.BooleanField(
        null=True,
        blank=True,
        help_text="Answers are kept and given again to who asks the same. Empty: as CACHE_ENABLED says.",
    )
    cache_ttl_seconds = models.FloatField(
        null=True, blank=True, help_text="Seconds for which an answer is kept. Empty: CACHE_TTL_SECONDS."
    )
    memory_limit_mb = models.PositiveIntegerField(
        null=True, blank=True, help_text="MiB that its process may allocate for itself. Empty: no limit of its own."
    )

    # Observed: written by lifecycle.reporting
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.UNLOADED)
    status_reason = models.TextField(blank=True)
    status_changed_at = models.DateTimeField(db_default=Now())
    observed_at = models.DateTimeField(null=True, blank=True, help_text="When loaderd last saw this state.")
    pid = models.PositiveIntegerField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    phase = models.CharField(max_length=32, blank=True)
    private_bytes = models.BigIntegerField(null=True, blank=True, help_text="USS: what ends with the process.")
    pss_bytes = models.BigIntegerField(null=True, blank=True)
    gpu_bytes = models.BigIntegerField(null=True, blank=True)
    loaded_digest = models.CharField(max_length=64, blank=True, help_text="The bytes that are in memory.")
    signature = models.JSONField(null=True, blank=True, help_text="Inputs, outputs, labels, sample input.")
    status_cause = models.CharField(
        max_length=16, blank=True, help_text="Why, for programs: evicted, idle, unused, replaced, crashed, hung, …"
    )

    # Health: written by lifecycle.reporting
    health_status = models.CharField(max_length=16, choices=HealthStatus.choices, default=HealthStatus.UNKNOWN)
    health_reason = models.TextField(blank=True)
    last_health_check_at = models.DateTimeField(null=True, blank=True, help_text="When its health was judged last.")
    heartbeat_at = models.DateTimeField(null=True, blank=True, help_text="When its process answered last.")
    canary = models.JSONField(
        null=True, blank=True, help_text="Sample input and expected output, from metadata.json or the first load."
    )
    canary_digest = models.CharField(max_length=64, blank=True, help_text="The bytes that the canary was recorded of.")
    canary_at = models.DateTimeField(null=True, blank=True, help_text="When the canary was run last.")
    canary_ok = models.BooleanField(null=True, blank=True)
    canary_seconds = models.FloatField(null=True, blank=True)

    # Measured of certain bytes on a certain device, for the next admission: written by lifecycle.reporting
    measured_digest = models.CharField(max_length=64, blank=True, help_text="The bytes that were measured.")
    measured_device = models.CharField(max_length=200, blank=True, help_text="cpu, or the GPU's name.")
    measured_as = models.CharField(
        max_length=50,
        blank=True,
        default=measured_as(1, ""),
        help_text="In how many processes, and in which precision.",
    )
    measured_peak_bytes = models.BigIntegerField(null=True, blank=True, help_text="Highest during the last load.")
    measured_resident_bytes = models.BigIntegerField(null=True, blank=True, help_text="Highest while serving.")
    measured_gpu_bytes = models.BigIntegerField(null=True, blank=True, help_text="Highest on the GPU.")

    # Versions: written by lifecycle.reporting
    rolled_back_at = models.DateTimeField(null=True, blank=True, help_text="When a rollback left this version.")
    rolled_back_reason = models.TextField(blank=True)

    # Usage: written by lifecycle.reporting as increments
    last_loaded_at = models.DateTimeField(null=True, blank=True)
    load_count = models.PositiveBigIntegerField(default=0)
    load_seconds_total = models.FloatField(default=0.0)
    last_load_seconds = models.FloatField(null=True, blank=True)
    peak_private_bytes = models.BigIntegerField(
        null=True, blank=True, help_text="Highest measured since the last load."
    )
    last_used_at = models.DateTimeField(null=True, blank=True)
    usage_count = models.PositiveBigIntegerField(default=0, help_text="Answered predictions, errors included.")
    item_count = models.PositiveBigIntegerField(default=0, help_text="Inputs in them.")
    latency_seconds_total = models.FloatField(default=0.0)
    prediction_error_count = models.PositiveBigIntegerField(default=0)
    cache_hit_count = models.PositiveBigIntegerField(
        default=0, help_text="Predictions answered without the model: with a kept answer, or another one's computation."
    )
    cache_miss_count = models.PositiveBigIntegerField(
        default=0, help_text="Predictions that it computed although its answers are kept."
    )
    error_count = models.PositiveBigIntegerField(
        default=0, help_text="Failed loads, dead processes, failed predictions."
    )
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ["model_id"]
        verbose_name = "model"
        verbose_name_plural = "models"
        permissions = [
            ("load_modelversion", "Can load models"),
            ("unload_modelversion", "Can unload models"),
            ("predict_modelversion", "Can predict with models"),
            ("discover_modelversion", "Can run discovery"),
            ("approve_modelversion", "Can approve artifacts that can run code"),
            ("activate_modelversion", "Can activate versions, roll back, and set aliases and traffic"),
        ]
        indexes = [
            # Lists of the loaded: health, metrics, the daemon's index, the admin's filter. Few rows match.
            models.Index(fields=["status"], name="version_not_unloaded", condition=~Q(status=Status.UNLOADED)),
            # What loaderd loads again at its start.
            models.Index(fields=["model_id"], name="version_desired", condition=Q(desired_state=DesiredState.LOADED)),
            models.Index(fields=["framework"], name="version_framework"),  # filter; models_by_framework
            models.Index(fields=["-last_used_at"], name="version_last_used"),  # "unused since", sort by last use
            # What loaderd's rules say of models: those whose policy is not the default. Few rows match.
            models.Index(
                fields=["model_id"],
                name="version_policy",
                condition=Q(pinned=True)
                | Q(autoload=True)
                | ~Q(priority=50)
                | Q(keep_alive_seconds__isnull=False)
                | Q(cache_enabled__isnull=False)
                | Q(cache_ttl_seconds__isnull=False),
            ),
        ]
        constraints = [
            # Deferrable: discovery may find that two directories swapped their versions.
            models.UniqueConstraint(
                fields=["lineage", "version"],
                name="version_unique_in_lineage",
                deferrable=models.Deferrable.IMMEDIATE,
            ),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="version_status_known"),
            models.CheckConstraint(condition=Q(desired_state__in=DesiredState.values), name="version_desired_known"),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="version_size_not_negative"),
            models.CheckConstraint(
                condition=Q(load_timeout_seconds__isnull=True) | Q(load_timeout_seconds__gt=0),
                name="version_timeout_positive",
            ),
            models.CheckConstraint(condition=Q(max_batch_size__gte=1), name="version_batch_positive"),
            models.CheckConstraint(
                condition=Q(threads__isnull=True) | Q(threads__gte=1), name="version_threads_positive"
            ),
            models.CheckConstraint(condition=Q(priority__lte=100), name="version_priority_to_100"),
            models.CheckConstraint(
                condition=Q(keep_alive_seconds__isnull=True) | Q(keep_alive_seconds__gt=0),
                name="version_keep_alive_positive",
            ),
            models.CheckConstraint(
                condition=Q(memory_limit_mb__isnull=True) | Q(memory_limit_mb__gte=1),
                name="version_memory_limit_positive",
            ),
            models.CheckConstraint(
                condition=Q(instances__gte=1, instances__lte=MAX_INSTANCES), name="version_instances_bounded"
            ),
            models.CheckConstraint(
                condition=Q(max_queue__gte=1, max_queue__lte=MAX_QUEUE), name="version_queue_bounded"
            ),
            models.CheckConstraint(condition=Q(precision__in=Precision.values), name="version_precision_known"),
            models.CheckConstraint(
                condition=Q(cache_ttl_seconds__isnull=True) | Q(cache_ttl_seconds__gt=0),
                name="version_cache_ttl_positive",
            ),
            models.CheckConstraint(
                condition=Q(prediction_error_count__lte=F("usage_count")), name="version_errors_within_usage"
            ),
        ]

    def __str__(self) -> str:
        return self.model_id

    @property
    def type(self) -> str:
        return self.lineage.type

    @property
    def is_approved(self) -> bool:
        """Whether a person approved exactly the registered bytes."""
        return bool(self.digest) and self.approved_digest == self.digest

    @property
    def is_stale_in_memory(self) -> bool:
        """Whether the bytes in memory are not those on disk any more."""
        return bool(self.loaded_digest) and self.loaded_digest != self.digest

    @property
    def average_load_seconds(self) -> float:
        return self.load_seconds_total / self.load_count if self.load_count else 0.0

    @property
    def average_latency_seconds(self) -> float | None:
        return self.latency_seconds_total / self.usage_count if self.usage_count else None

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of the predictions that the cache answered, of those that it could have; None before the first."""
        asked = self.cache_hit_count + self.cache_miss_count
        return self.cache_hit_count / asked if asked else None

    @property
    def error_rate(self) -> float:
        """Share of predictions that failed, 0.0 to 1.0."""
        return self.prediction_error_count / self.usage_count if self.usage_count else 0.0


class Alias(models.Model):
    """A name that leads to a version of its lineage: `live` answers the lineage's bare name.

    Written by: lifecycle. loaderd works by it; see docs/versions.md.
    """

    lineage = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=64, help_text="live, candidate, or a name of your own.")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="aliases")
    set_at = models.DateTimeField(db_default=Now())
    set_by = models.CharField(max_length=150, help_text="User who asked, or loaderd.")

    class Meta:
        ordering = ["lineage", "name"]
        verbose_name_plural = "aliases"
        constraints = [models.UniqueConstraint(fields=["lineage", "name"], name="alias_unique_in_lineage")]

    def __str__(self) -> str:
        return f"{self.lineage}/{self.name}"


class DiscoveryRun(models.Model):
    """One look through the store: who asked, when, what was found. The newest 200 are kept."""

    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True, help_text="Empty while it runs, or when it was killed.")
    actor = models.CharField(max_length=150, help_text="User name, or the program that asked.")
    report = models.JSONField(
        default=dict,
        help_text="{new, changed, gone, returned, refused: [{path, reason}], stale_in_memory, notes, counts}.",
    )
    error = models.TextField(blank=True, help_text="Why it found nothing out; empty when it did.")

    class Meta:
        ordering = ["-id"]
        verbose_name = "discovery"
        verbose_name_plural = "discoveries"

    def __str__(self) -> str:
        return f"Discovery by {self.actor}, {self.started_at:%Y-%m-%d %H:%M:%S}"

    @property
    def outcome(self) -> str:
        if self.error:
            return "failed"
        if self.finished_at is None:
            return "running or killed"
        return "some refused" if self.report.get("refused") else "done"

    @property
    def summary(self) -> str:
        """What was found, in one line."""
        if self.error or self.finished_at is None:
            return self.error or self.outcome
        return summary_of(self.report.get("counts", {}))


def summary_of(counts: Mapping[str, int]) -> str:
    """A discovery's counts in words: "2 new, 1 refused"."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "nothing found"
