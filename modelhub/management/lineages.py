"""How lineages are told at the terminal: their versions, who was live when, and live beside candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone
from rich.markup import escape
from rich.table import Table

from loaderd.rules import CANDIDATE, LIVE
from loaderd.version_order import version_key
from modelhub.lifecycle import versions
from modelhub.lifecycle.observed import LoaderView, effective_status
from modelhub.management.tables import at_second, print_table
from modelhub.registry.models import Model, ModelVersion
from modelhub.telemetry.queries import comparison_of


def facts_of(lineage: Model, loader: LoaderView) -> dict[str, Any]:
    """A lineage with its versions, highest first, as JSON values. Needs aliases and versions prefetched."""
    aliases = {alias.name: alias.version.model_id for alias in lineage.aliases.all()}
    found = sorted(lineage.versions.all(), key=lambda version: version_key(version.version), reverse=True)
    return {
        "lineage": lineage.name,
        "live": aliases.get(LIVE),
        "aliases": aliases,
        "candidate_percent": lineage.candidate_percent,
        "shadow": lineage.shadow,
        "versions": [_version(version, aliases, loader) for version in found],
    }


def history_of(lineage: Model, limit: int) -> list[dict[str, Any]]:
    """Who was live when, newest first; so many periods at most."""
    return [
        {
            "model_id": period.version_id,
            "since": period.since,
            "until": period.until,
            "kind": period.kind,
            "reason": period.reason,
            "actor": period.actor,
        }
        for period in versions.periods(lineage, limit)
    ]


def traffic_of(lineage: Model) -> dict[str, Any]:
    """Where the requests go at this moment, and what the comparison saw so far (None before the first)."""
    aliases = {alias.name: alias.version.model_id for alias in lineage.aliases.select_related("version")}
    return {
        "lineage": lineage.name,
        "live": aliases.get(LIVE),
        "candidate": aliases.get(CANDIDATE),
        "candidate_percent": lineage.candidate_percent,
        "shadow": lineage.shadow,
        "since": lineage.traffic_changed_at,
        "at": timezone.now(),
        "comparison": comparison_of(lineage),
    }


def print_versions(command: BaseCommand, told: list[dict[str, Any]]) -> None:
    table = _table("lineage", "version", "model", "status", "aliases", "")
    for lineage in told:
        for version in lineage["versions"]:
            cells = (lineage["lineage"], version["version"], version["model_id"], version["status"])
            remark = "rolled back" if version["rolled_back_at"] else ""
            table.add_row(*map(escape, cells), ", ".join(version["aliases"]), remark)
    print_table(command, table)


def print_history(command: BaseCommand, periods: list[dict[str, Any]]) -> None:
    table = _table("live from", "until", "model", "how", "by", "why")
    for period in periods:
        until = at_second(period["until"]) if period["until"] else "now"
        cells = (period["model_id"], period["kind"], period["actor"], period["reason"])
        table.add_row(at_second(period["since"]), until, *map(escape, cells))
    print_table(command, table)


def print_traffic(command: BaseCommand, told: Mapping[str, Any]) -> None:
    copies = f", which gets a copy of what {LIVE} answers" if told["shadow"] else ""
    candidate = told["candidate"] or "nobody"
    command.stdout.write(
        f"{told['lineage']} at {at_second(told['at'])}: {told['live'] or 'nobody'} is live; "
        f"{told['candidate_percent']:g} % of the requests go to the candidate, {candidate}{copies}."
    )
    if told["comparison"] is not None:
        _print_comparison(command, told["comparison"])


def _print_comparison(command: BaseCommand, seen: Mapping[str, Any]) -> None:
    table = _table("", "model", "requests", "errors", "mean ms", "p50", "p95", "p99")
    for side in (LIVE, CANDIDATE):
        of = seen[side]
        latency = [_number(of["latency_ms"][name]) for name in ("mean", "p50", "p95", "p99")]
        table.add_row(side, escape(of["model_id"]), str(of["requests"]), f"{of['error_rate']:.2%}", *latency)
    print_table(command, table)
    rate = "" if seen["disagreement_rate"] is None else f" ({seen['disagreement_rate']:.2%})"
    before = "" if seen["is_current"] else "; of the split before"
    command.stdout.write(
        f"Seen from {at_second(seen['since'])} to {at_second(seen['last_at'])}{before}: {seen['disagreed']} of "
        f"{seen['compared']} answers differed{rate}, {seen['dropped']} copies were not sent."
    )


def _version(version: ModelVersion, aliases: Mapping[str, str], loader: LoaderView) -> dict[str, Any]:
    return {
        "model_id": version.model_id,
        "version": version.version,
        "status": effective_status(version, loader),
        "aliases": sorted(name for name, model_id in aliases.items() if model_id == version.model_id),
        "rolled_back_at": version.rolled_back_at,
        "rolled_back_reason": version.rolled_back_reason,
    }


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
