"""Discovery: makes the registry say what lies in the store, and reports what is new, changed, gone, refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import F
from django.dispatch import Signal
from django.utils import timezone

from modelhub.conf import config
from modelhub.registry.artifacts import files_of, manifest_of
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, DiscoveryRun, Model, ModelVersion, summary_of
from modelhub.registry.plan import Claim, conflicts, lineage_types
from modelhub.registry.scan import Directory, Known, Progress, Scan, scan_store

# Sent before aliases are removed whose version is of another lineage now: aliases, actor. In discovery's transaction;
# who keeps the history of aliases writes it then.
aliases_strayed = Signal()

_LOCK_KEY = 0x6D6F64656C687562  # "modelhub"; session-wide, so no transaction is open while files are hashed
LOCK_WAIT_SECONDS = 60
KEPT_RUNS = 200
_BATCH_ROWS = 200
_IN_MEMORY = (Status.LOADING, Status.LOADED, Status.UNLOADING)
_WRITTEN = [
    *("lineage", "name", "version", "path", "framework", "artifact_format", "size_bytes", "digest", "manifest"),
    *("config", "metadata", "performance_metrics", "created_at", "changed_at", "missing_since", "refusal"),
]


class DiscoveryFailed(Exception):
    """Nothing was looked at: the store is not there, or another discovery holds the lock for too long."""


@dataclass(slots=True)
class DiscoveryReport:
    """What one discovery found, by model_id; refused by path, with the reason.

    changed: other bytes than before; their approval no longer holds. gone: not found for the first time.
    returned: found again. stale_in_memory: loaded from bytes that are not those on disk any more; unload
    and load them. notes: remarks for people.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    stale_in_memory: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "refused": [{"path": path, "reason": reason} for path, reason in self.refused],
            "counts": self.counts,
        }

    @property
    def counts(self) -> dict[str, int]:
        return {name: len(found) for name, found in asdict(self).items() if name != "notes"}

    def summary(self) -> str:
        """What was found, in one line."""
        return summary_of(self.counts)


def discover(*, actor: str, progress: Progress | None = None) -> DiscoveryReport:
    """Looks through MODELS_DIR and writes what changed, in one transaction; observed fields are not touched.

    actor: who asked, for the run's row. Runs queue up behind one lock. Raises DiscoveryFailed.
    """
    with _alone():
        run = DiscoveryRun.objects.create(actor=actor[:150], started_at=timezone.now())
        try:
            report = _discover(progress, actor[:150])
        except BaseException as error:
            run.error = str(error) or type(error).__name__
            with suppress(DatabaseError):  # the first error is the one to hear of
                _finish(run)
            raise
        # The unchanged are the registry itself; their names would fill the table of runs.
        run.report = {key: value for key, value in report.to_dict().items() if key != "unchanged"}
        _finish(run)
        DiscoveryRun.objects.filter(pk__lte=run.pk - KEPT_RUNS).delete()
    return report


def _finish(run: DiscoveryRun) -> None:
    run.finished_at = timezone.now()
    run.save(update_fields=["report", "error", "finished_at"])


@contextmanager
def _alone() -> Iterator[None]:
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_WAIT_SECONDS}s"])
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK_KEY])
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != "55P03":
                raise
            raise DiscoveryFailed(
                f"Another discovery has run for more than {LOCK_WAIT_SECONDS} seconds; try again when it has ended."
            ) from error
        finally:
            cursor.execute("RESET lock_timeout")
    try:
        yield
    finally:
        # A lost connection gave the lock back already.
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK_KEY])


def _discover(progress: Progress | None, actor: str) -> DiscoveryReport:
    rows = {row.model_id: row for row in _registered()}
    known = {
        row.path: Known({file.path: file for file in files_of(row.manifest)}, row.metadata, row.config)
        for row in rows.values()
    }
    root = config().MODELS_DIR
    try:
        scan = scan_store(root, known, progress)
    except OSError as error:
        raise DiscoveryFailed(
            f"Cannot list the store {root}: {error.strerror}; create it or set MODELS_DIR. Nothing was changed."
        ) from error
    registered = {row.model_id: _claim_of_row(row) for row in rows.values()}
    occupied = {
        row.path for row in rows.values() if row.path in scan.refused or row.path.split("/")[0] in scan.unlisted_types
    }
    refusals = conflicts(registered, [_claim_of(directory) for directory in scan.directories], occupied)
    scan.refused |= refusals
    scan.directories = [directory for directory in scan.directories if directory.path not in refusals]
    types = lineage_types(registered, [_claim_of(directory) for directory in scan.directories])
    return _write(rows, scan, types, timezone.now(), actor)


def _registered() -> Iterable[ModelVersion]:
    return ModelVersion.objects.select_related("lineage").only(
        *_WRITTEN, "model_id", "status", "loaded_digest", "lineage__name", "lineage__type"
    )


def _claim_of_row(row: ModelVersion) -> Claim:
    return Claim(row.path, row.model_id, row.lineage.type, row.lineage.name, row.version)


def _claim_of(directory: Directory) -> Claim:
    said = directory.said
    return Claim(directory.path, directory.model_id, directory.type, said.lineage, said.version)


@transaction.atomic
def _write(
    rows: dict[str, ModelVersion], scan: Scan, types: dict[str, str], now: datetime, actor: str
) -> DiscoveryReport:
    report = DiscoveryReport(notes=scan.notes)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS version_unique_in_lineage DEFERRED")
    # In one order, so that two writers of many rows cannot wait for each other.
    list(ModelVersion.objects.select_for_update(no_key=True).order_by("pk").values_list("pk"))
    lineages = _lineages(scan.directories, types)
    new, altered, seen = [], [], []
    for directory in scan.directories:
        row = rows.get(directory.model_id)
        if row is None:
            new.append(_fill(ModelVersion(model_id=directory.model_id), directory, lineages))
            report.new.append(directory.model_id)
            continue
        seen.append(row.pk)
        if row.missing_since is not None:
            report.returned.append(row.model_id)
        if row.path != directory.path:
            report.notes.append(f"{row.model_id} moved from {row.path} to {directory.path}.")
        before = _written_values(row)
        digest_before = row.digest
        _fill(row, directory, lineages)
        if row.digest != digest_before:
            row.changed_at = now
            report.changed.append(row.model_id)
        else:
            report.unchanged.append(row.model_id)
        if _written_values(row) != before:
            altered.append(row)
    _note_refused_and_gone(rows, scan, report, altered, seen, now)
    ModelVersion.objects.bulk_create(new, batch_size=_BATCH_ROWS)
    ModelVersion.objects.bulk_update(altered, _WRITTEN, batch_size=_BATCH_ROWS)
    ModelVersion.objects.filter(pk__in=seen).update(discovered_at=now)
    _remove_strayed_aliases(report, actor)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS version_unique_in_lineage IMMEDIATE")
    report.stale_in_memory = sorted(
        row.model_id for row in rows.values() if row.is_stale_in_memory and row.status in _IN_MEMORY
    )
    return report


def _remove_strayed_aliases(report: DiscoveryReport, actor: str) -> None:
    """A version that is of another lineage now takes no name of its old one with it."""
    rows = Alias.objects.exclude(version__lineage=F("lineage")).select_related("lineage", "version__lineage")
    strayed = list(rows.only("name", "lineage__name", "version__model_id", "version__lineage__name"))
    if strayed:
        aliases_strayed.send(Alias, aliases=strayed, actor=actor)
    for alias in strayed:
        report.notes.append(
            f"{alias.version} is of the lineage {alias.version.lineage} now; the name {alias.name} of {alias.lineage}, "
            "which led to it, was removed."
        )
        alias.delete()


def _lineages(directories: Iterable[Directory], types: dict[str, str]) -> dict[str, Model]:
    """The lineage of each name, made or moved to its type where needed."""
    known = {lineage.name: lineage for lineage in Model.objects.all()}
    new: dict[str, Model] = {}
    for directory in directories:
        said = directory.said
        if said.lineage not in known and said.lineage not in new:
            new[said.lineage] = Model(name=said.lineage, type=types[said.lineage], description=said.description)
    Model.objects.bulk_create(new.values(), batch_size=_BATCH_ROWS)
    moved = [lineage for name, lineage in known.items() if types.get(name, lineage.type) != lineage.type]
    for lineage in moved:
        lineage.type = types[lineage.name]
    Model.objects.bulk_update(moved, ["type"], batch_size=_BATCH_ROWS)
    return known | new


def _fill(row: ModelVersion, directory: Directory, lineages: dict[str, Model]) -> ModelVersion:
    said = directory.said
    row.lineage = lineages[said.lineage]
    row.name, row.version, row.path = said.name, said.version, directory.path
    row.framework, row.artifact_format = said.framework, said.artifact_format
    row.size_bytes, row.digest, row.manifest = directory.size_bytes, directory.digest, manifest_of(directory.files)
    row.config, row.metadata, row.performance_metrics = directory.config, directory.metadata, said.performance_metrics
    if said.created_at is not None:
        row.created_at = said.created_at
    row.missing_since, row.refusal = None, ""
    return row


def _written_values(row: ModelVersion) -> list[Any]:
    return [row.lineage_id, *(getattr(row, name) for name in _WRITTEN if name != "lineage")]


def _note_refused_and_gone(
    rows: dict[str, ModelVersion],
    scan: Scan,
    report: DiscoveryReport,
    altered: list[ModelVersion],
    seen: list[int],
    now: datetime,
) -> None:
    accepted = {directory.model_id for directory in scan.directories}
    refused = dict(scan.refused)
    for row in rows.values():
        if row.model_id in accepted:
            continue
        before = (row.missing_since, row.refusal)
        folder = row.path.split("/", 1)[0]
        if row.path in refused:
            row.missing_since, row.refusal = None, refused[row.path]
            seen.append(row.pk)
        elif folder in scan.unlisted_types:
            row.refusal = scan.unlisted_types[folder]
            refused[row.path] = row.refusal
        else:
            if row.missing_since is None:
                row.missing_since = now
                report.gone.append(row.model_id)
            row.refusal = ""
        if (row.missing_since, row.refusal) != before:
            altered.append(row)
    report.gone.sort()
    report.refused = sorted({**scan.unlisted_types, **refused}.items())
