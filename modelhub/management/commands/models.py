"""Lists the registered models, or shows one."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.markup import escape
from rich.table import Table

from loaderd import catalogue
from loaderd.errors import UnknownModel
from modelhub.lifecycle.observed import LoaderView, effective_status, known, loader_view, reason_of
from modelhub.lifecycle.versions import named
from modelhub.management.operating import print_json
from modelhub.management.tables import at_second, in_units, print_table
from modelhub.registry.approval import needs_approval
from modelhub.registry.choices import ModelType, Status
from modelhub.registry.models import ModelVersion, large_columns

COLOURS = {"loaded": "green", "loading": "cyan", "unloading": "cyan", "error": "red", "unreachable": "yellow"}


class Command(BaseCommand):
    help = (
        "Lists the registered models (`models`), or shows one (`models show ID`). "
        "Exit status: 0, or 1 when no model has that id."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", nargs="?", choices=["list", "show"], default="list", help="What to print.")
        parser.add_argument("model_id", nargs="?", metavar="ID", help="The model to show, or a lineage.")
        parser.add_argument("--type", choices=ModelType.values, help="Only models of this type.")
        parser.add_argument("--framework", choices=sorted(catalogue.entries()), help="Only models of this framework.")
        parser.add_argument("--status", choices=[*Status.values, "unreachable"], help="Only models in this status.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "show":
            self._show(options["model_id"], options["as_json"])
        elif options["model_id"]:
            raise CommandError(f"Did you mean `models show {options['model_id']}`?", returncode=2)
        else:
            self._list(options)

    def _list(self, options: dict[str, Any]) -> None:
        versions = ModelVersion.objects.select_related("lineage").prefetch_related("aliases").defer(*large_columns())
        if options["type"]:
            versions = versions.filter(lineage__type=options["type"])
        if options["framework"]:
            versions = versions.filter(framework=options["framework"])
        loader = loader_view()
        rows = [(version, effective_status(version, loader)) for version in versions]
        if options["status"]:
            rows = [(version, status) for version, status in rows if status == options["status"]]
        if options["as_json"]:
            print_json(self, [_summary(version, status) for version, status in rows])
            return
        table = Table(box=None, pad_edge=False)
        for name, justify in _COLUMNS:
            table.add_column(name, justify=justify, overflow="fold")
        for version, status in rows:
            colour = COLOURS.get(status)
            table.add_row(
                escape(version.model_id),
                f"[{colour}]{status}[/{colour}]" if colour else status,
                version.lineage.type,
                version.framework,
                version.version,
                ", ".join(_aliases(version)),
                _bytes(version.size_bytes),
                _bytes(known(version.private_bytes, status)),
                str(version.load_count),
                at_second(version.last_used_at) if version.last_used_at else "",
                _remark(version),
            )
        print_table(self, table)
        if not rows:
            self.stdout.write("No such models. `manage.py discover` looks through the store.")

    def _show(self, model_id: str | None, as_json: bool) -> None:
        if not model_id:
            raise CommandError("Which one? `models show ID`", returncode=2)
        try:
            version = named(model_id)
        except UnknownModel as error:
            raise CommandError(error.message, returncode=1) from error
        facts = _facts(version, loader_view())
        if as_json:
            print_json(self, facts)
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for name, value in facts.items():
            if name == "files":
                for file in value:
                    table.add_row("file", escape(f"{file['path']}  {_bytes(file['size_bytes'])}"))
            elif value not in (None, "", {}, []):
                shown = _bytes(value) if name.endswith("_bytes") else str(value)
                table.add_row(name.removesuffix("_bytes").replace("_", " "), escape(shown))
        print_table(self, table)


_COLUMNS: list[tuple[str, Any]] = [
    *(("model", "left"), ("status", "left"), ("type", "left"), ("framework", "left"), ("version", "left")),
    ("aliases", "left"),
    *(("size", "right"), ("memory", "right"), ("loads", "right"), ("last used", "left"), ("", "left")),
]


def _summary(version: ModelVersion, status: str) -> dict[str, Any]:
    return {
        "model_id": version.model_id,
        "lineage": version.lineage.name,
        "version": version.version,
        "type": version.lineage.type,
        "framework": version.framework,
        "format": version.artifact_format,
        "status": status,
        "desired_state": version.desired_state,
        "aliases": _aliases(version),
        "pinned": version.pinned,
        "priority": version.priority,
        "autoload": version.autoload,
        "size_bytes": version.size_bytes,
        "private_bytes": known(version.private_bytes, status),
        "gpu_bytes": known(version.gpu_bytes, status),
        "load_count": version.load_count,
        "usage_count": version.usage_count,
        "last_used_at": version.last_used_at,
        "remark": _remark(version),
    }


def _facts(version: ModelVersion, loader: LoaderView) -> dict[str, Any]:
    status = effective_status(version, loader)
    return {
        **_summary(version, status),
        "name": version.name,
        "status_reason": reason_of(version, loader),
        "status_cause": version.status_cause,
        "keep_alive_seconds": version.keep_alive_seconds,
        "cache_enabled": version.cache_enabled,
        "cache_ttl_seconds": version.cache_ttl_seconds,
        "instances": version.instances,
        "threads": version.threads,
        "max_batch_size": version.max_batch_size,
        "max_queue": version.max_queue,
        "precision": version.precision,
        "memory_limit_mb": version.memory_limit_mb,
        "health_status": known(version.health_status, status),
        "health_reason": version.health_reason,
        "heartbeat_at": version.heartbeat_at,
        "canary_at": version.canary_at,
        "canary_ok": version.canary_ok,
        "rolled_back_at": version.rolled_back_at,
        "rolled_back_reason": version.rolled_back_reason,
        "measured_peak_bytes": version.measured_peak_bytes,
        "measured_resident_bytes": version.measured_resident_bytes,
        "observed_at": version.observed_at,
        "pid": known(version.pid, status),
        "path": version.path,
        "digest": version.digest,
        "is_approved": version.is_approved,
        "needs_approval": needs_approval(version),
        "refusal": version.refusal,
        "missing_since": version.missing_since,
        "created_at": version.created_at,
        "changed_at": version.changed_at,
        "peak_private_bytes": version.peak_private_bytes,
        "average_load_seconds": version.average_load_seconds,
        "average_latency_seconds": version.average_latency_seconds,
        "error_rate": version.error_rate,
        "last_error": version.last_error,
        "performance_metrics": version.performance_metrics,
        "files": [{key: file[key] for key in ("path", "size_bytes", "sha256")} for file in version.manifest],
    }


def _aliases(version: ModelVersion) -> list[str]:
    return sorted(alias.name for alias in version.aliases.all())


def _remark(version: ModelVersion) -> str:
    """Why somebody should look at it, in a word or two."""
    if version.missing_since:
        return "directory gone"
    if version.refusal:
        return "refused by discovery"
    if version.is_stale_in_memory and version.status != Status.UNLOADED:
        return "changed since it was loaded"
    if needs_approval(version):
        return "needs approval"
    return "rolled back" if version.rolled_back_at else ""


def _bytes(count: int | None) -> str:
    return "" if count is None else in_units(count)
