"""The live cells of a model in the list: the same text at the page's first view and when they change in place."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from loaderd.rules import LIVE
from loaderd.states import ModelState
from modelhub.console.model_page.offers import offers
from modelhub.console.templatetags.console import UNKNOWN, milliseconds, moment, size, state
from modelhub.lifecycle.observed import LoaderView, effective_status, known
from modelhub.lifecycle.permissions import LOAD, UNLOAD
from modelhub.registry.approval import needs_approval
from modelhub.registry.models import ModelVersion

LATENCY_SECONDS = 300.0
NAMES = ("state", "health", "aliases", "memory", "p95", "used", "actions")
# Columns of a model that its cells are made of.
COLUMNS = (
    *("pk", "model_id", "status", "status_reason", "phase", "health_status", "health_reason", "private_bytes"),
    *("gpu_bytes", "last_used_at", "missing_since", "refusal", "lineage_id"),
    *("framework", "artifact_format", "digest", "approved_digest"),
)
_QUIET = format_html('<span class="mh-subtle">{}</span>', UNKNOWN)


@dataclass(frozen=True, slots=True)
class Row:
    """A model with what is true of it now. p95_ms: of the last five minutes, None when nothing was asked."""

    version: ModelVersion
    status: str
    aliases: Sequence[str]
    p95_ms: float | None


def row_of(version: ModelVersion, loader: LoaderView, aliases: Sequence[str], p95_ms: float | None) -> Row:
    return Row(
        version, effective_status(version, loader), sorted(aliases, key=lambda name: (name != LIVE, name)), p95_ms
    )


def cells_of(row: Row, rights: Container[str]) -> dict[str, SafeString]:
    """Name of a cell -> its HTML, within an element that can be replaced on its own. No query."""
    version, status = row.version, row.status
    inner = {
        "state": _state(version, status),
        "health": _health(version, status),
        "aliases": _aliases(row.aliases),
        "memory": _memory(version, status),
        "p95": SafeString(milliseconds(row.p95_ms)) if row.p95_ms is not None else _QUIET,
        "used": _used(version.last_used_at),
        "actions": _actions(row, rights),
    }
    digest = hashlib.blake2b("".join(inner.values()).encode(), digest_size=6).hexdigest()
    cells = {name: _cell(version.pk, name, content) for name, content in inner.items()}
    # One of them tells what the page shows of this row, so that only rows that changed are sent.
    cells["state"] = format_html(
        '<span id="mh-cell-{}-state" hx-ext="morph" class="mh-row" data-mh-row="{}:{}">{}</span>',
        version.pk,
        version.pk,
        digest,
        inner["state"],
    )
    return cells


def digest_in(cells: Mapping[str, SafeString]) -> str:
    """What the page sends back to say which row it shows."""
    return cells["state"].split('data-mh-row="')[1].split('"')[0].partition(":")[2]


def _cell(pk: int, name: str, content: str) -> SafeString:
    return format_html('<span id="mh-cell-{}-{}" hx-ext="morph">{}</span>', pk, name, content)


def _state(version: ModelVersion, status: str) -> SafeString:
    shown = state(status, version.status_reason)
    if status == ModelState.LOADING and version.phase:
        return format_html('{} <span class="mh-subtle mh-small">{}</span>', shown, version.phase)
    told = _odd(version)
    return (
        shown if told is None else format_html('{} <span class="mh-tag" title="{}">{}</span>', shown, told[1], told[0])
    )


def _odd(version: ModelVersion) -> tuple[str, str] | None:
    """A word, and a sentence for its title, for what keeps a model from being loaded."""
    if version.missing_since is not None:
        return "gone", "Its directory is not in the store."
    if version.refusal:
        return "refused", version.refusal
    if needs_approval(version):
        return "needs approval", "Loading its format can run code, and nobody has approved these files."
    return None


def _health(version: ModelVersion, status: str) -> SafeString:
    if status != ModelState.LOADED:
        return _QUIET
    return state(version.get_health_status_display(), version.health_reason)


def _aliases(names: Sequence[str]) -> SafeString:
    tags = (("mh-tag mh-tag--accent" if name == LIVE else "mh-tag", name) for name in names)
    return format_html_join(" ", '<span class="{}">{}</span>', tags)


def _memory(version: ModelVersion, status: str) -> SafeString:
    private, gpu = known(version.private_bytes, status), known(version.gpu_bytes, status)
    if private is None:
        return _QUIET
    if gpu:
        return format_html('{} <span class="mh-subtle">+ {} GPU</span>', size(private), size(gpu))
    return SafeString(size(private))


def _used(at: datetime | None) -> SafeString:
    return moment(at) if at is not None else format_html('<span class="mh-subtle">{}</span>', "not yet")


def _actions(row: Row, rights: Container[str]) -> SafeString:
    if row.status in (ModelState.LOADING, ModelState.UNLOADING) and (LOAD in rights or UNLOAD in rights):
        # It keeps the place, and the focus of who asked for it, until there is something to do again.
        return format_html(
            '<span class="mh-number"><button type="button" class="mh-button mh-button--small" aria-disabled="true">{}…'
            '<span class="mh-hidden"> {}</span></button></span>',
            row.status.capitalize(),
            row.version.model_id,
        )
    found = offers(row.version, row.status, rights, is_live=LIVE in row.aliases)
    buttons = format_html_join(
        " ",
        '<button type="button" class="mh-button mh-button--small" data-mh-dialog="{}">{}'
        '<span class="mh-hidden"> {}</span></button>',
        ((offer.url, offer.title, row.version.model_id) for offer in found),
    )
    return format_html('<span class="mh-number">{}</span>', buttons)
