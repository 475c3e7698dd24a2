"""The list's rows as they change: what all open pages show is read together, once a second."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe

from loaderd.states import ModelState
from modelhub.console.live import Shared
from modelhub.console.model_page.cells import (
    COLUMNS,
    LATENCY_SECONDS,
    NAMES,
    Row,
    cells_of,
    digest_in,
    row_of,
)
from modelhub.console.model_page.offers import check_may_see, rights_of
from modelhub.lifecycle.observed import LoaderView, loader_view
from modelhub.registry.models import Alias, ModelVersion
from modelhub.telemetry.queries import summaries

MOST_ROWS = 200  # what a page can show at once
FORGET_SECONDS = 15.0  # a page asks every two seconds; one that does not is closed or hidden


class Watched:
    """The models that pages show now: whoever asks for some adds them, and one look reads all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at: dict[int, float] = {}
        self._lock = threading.Lock()
        self._seen = Shared(self._read)

    def get(self, pks: Iterable[int]) -> Mapping[int, Row]:
        """At least these, as they were within the last second; those that are not registered any more are left out."""
        wanted, now = set(pks), self._clock()
        with self._lock:
            is_known = wanted <= self._asked_at.keys()
            self._asked_at.update(dict.fromkeys(wanted, now))
        if not is_known:
            self._seen.forget()
        return self._seen.get()

    def forget(self) -> None:
        """Who looks next sees what is true then."""
        with self._lock:
            self._asked_at.clear()
        self._seen.forget()

    def _read(self) -> dict[int, Row]:
        with self._lock:
            oldest = self._clock() - FORGET_SECONDS
            self._asked_at = {pk: at for pk, at in self._asked_at.items() if at >= oldest}
            pks = list(self._asked_at)
        versions = list(ModelVersion.objects.filter(pk__in=pks).only(*COLUMNS).order_by())
        names: dict[int, list[str]] = defaultdict(list)
        for pk, name in Alias.objects.filter(version__in=pks).order_by().values_list("version_id", "name"):
            names[pk].append(name)
        return {row.version.pk: row for row in rows_of(versions, names, loader_view())}


def rows_of(versions: Iterable[ModelVersion], aliases: Mapping[int, list[str]], loader: LoaderView) -> Iterable[Row]:
    """Each with its latency of the last minutes: one query, and none when nothing is loaded."""
    listed = list(versions)
    loaded = [version.pk for version in listed if version.status == ModelState.LOADED]
    latencies = summaries(loaded, LATENCY_SECONDS)
    for version in listed:
        found = latencies.get(version.pk)
        yield row_of(version, loader, aliases.get(version.pk, []), found["latency_ms"]["p95"] if found else None)


watched = Watched()


def changed(request: HttpRequest) -> HttpResponse:
    """The cells of those rows that are not as the page shows them: `?rows=pk:digest,…`; 204 when all are."""
    check_may_see(request)
    shown = _shown(request.GET.get("rows", ""))
    rights = rights_of(request.user)
    rows = watched.get(shown) if shown else {}
    cells: list[SafeString] = []
    for pk, digest in shown.items():
        row = rows.get(pk)
        if row is None:
            continue
        made = cells_of(row, rights)
        if digest_in(made) != digest:
            cells += [_in_place(made[name]) for name in NAMES]
    response = HttpResponse(status=204) if not cells else render(request, "console/model/cells.html", {"cells": cells})
    response.headers["Cache-Control"] = "no-store"
    return response


def _in_place(cell: SafeString) -> SafeString:
    """The cell as htmx puts it where one of its id stands."""
    return mark_safe(cell.replace("<span ", '<span hx-swap-oob="morph" ', 1))  # noqa: S308 (it was escaped)


def _shown(text: str) -> dict[int, str]:
    """Primary key -> digest, of what a page says it shows; what is no pair is passed over."""
    found = {}
    for part in text.split(",")[:MOST_ROWS]:
        pk, _, digest = part.partition(":")
        if pk.isascii() and pk.isdecimal() and len(pk) < 18:
            found[int(pk)] = digest
    return found
