"""`make scale`: the console's pages with 10,000 models, 40 of them loaded, beside an installation of the 40 alone.

Queries and the server's time come from within the product, bytes and the first paint from Chromium. Prints a table and
writes it as JSON to <MODELHUB_STATE_DIR>/console.json. Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from samples.catalogue import SAMPLES
from samples.making import make_samples
from tests.browser import chromium, people, store
from tests.browser.visit import Visit
from tests.performance import console_rows
from tests.stack import Stack

LOADED = 40
PAINTS = 5
MODELS = "/admin/registry/modelversion/"
# What may grow with the number of models: nothing but a count and an index' depth.
MOST_RATIO = 3.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A page once. bytes: of the page with its static files as they came over the wire, nothing cached; html_bytes:
    of these the page itself. paint_ms: from the request to the first content, with the static files cached."""

    queries: int
    server_ms: float
    bytes: int
    html_bytes: int
    first_paint_ms: float
    paint_ms: float


def pages(model: int, last_page: int) -> dict[str, str]:
    return {
        "dashboard": "/admin/",
        "list, first page": MODELS,
        # What both installations fill a page with, so that they are comparable.
        "list, search": f"{MODELS}?q=v",
        "list, filter": f"{MODELS}?framework=sklearn",
        "list, last page": f"{MODELS}?p={last_page}",
        "model page": f"{MODELS}{model}/change/",
    }


def look(stack: Stack, browser: Browser, session: str, paths: Mapping[str, str]) -> dict[str, Seen]:
    """Every page: measured inside the product, then in Chromium."""
    code = f"from tests.performance.console_rows import measure; measure({list(paths.values())!r})"
    inside = json.loads(stack.manage("shell", "-v", "0", "-c", code).stdout.strip().splitlines()[-1])
    found = {}
    for name, path in paths.items():
        cold = [_visit(stack, browser, session, path) for _ in range(3)]
        visit = Visit(browser, stack.web, session)
        visit.page.goto(path, wait_until="load")
        warm = [_paint(visit, path) for _ in range(PAINTS)]
        visit.context.close()
        queries, server_ms = inside[path]
        found[name] = Seen(
            queries=queries,
            server_ms=server_ms,
            bytes=cold[0][0],
            html_bytes=cold[0][1],
            first_paint_ms=statistics.median(paint for _, _, paint in cold),
            paint_ms=statistics.median(warm),
        )
    return found


def _visit(stack: Stack, browser: Browser, session: str, path: str) -> tuple[int, int, float]:
    """Bytes, of these the page's, and milliseconds to the first paint, with nothing cached."""
    visit = Visit(browser, stack.web, session)
    received: dict[str, int] = {}
    addresses: dict[str, str] = {}
    protocol = visit.context.new_cdp_session(visit.page)
    protocol.on("Network.responseReceived", lambda event: addresses.update({event["requestId"]: event["type"]}))
    protocol.on(
        "Network.loadingFinished",
        lambda event: received.update({event["requestId"]: int(event["encodedDataLength"])}),
    )
    protocol.send("Network.enable")
    paint = _paint(visit, path)
    visit.page.wait_for_load_state("load")
    problems = visit.unexpected()
    assert not problems, problems
    visit.context.close()
    html = sum(size for request, size in received.items() if addresses.get(request) == "Document")
    return sum(received.values()), html, paint


def _paint(visit: Visit, path: str) -> float:
    visit.page.goto(path, wait_until="load")
    paint: float = visit.page.evaluate(
        """() => new Promise((done) => new PerformanceObserver((list) => {
            const first = list.getEntriesByName("first-contentful-paint")[0];
            if (first) done(first.startTime);
        }).observe({ type: "paint", buffered: true }))"""
    )
    return paint


def missed(few: Mapping[str, Seen], many: Mapping[str, Seen]) -> list[str]:
    """Which promises are not kept, in lines."""
    lines = []
    for name, seen in many.items():
        if seen.queries > few[name].queries and name in ("dashboard", "list, first page", "model page"):
            lines.append(f"{name}: {few[name].queries} queries with few models, {seen.queries} with many")
        if seen.server_ms > MOST_RATIO * few[name].server_ms:
            lines.append(f"{name}: the server takes {seen.server_ms / few[name].server_ms:.1f} times as long with many")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--loaded", type=int, default=LOADED)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="mh") as folder, sync_playwright() as playwright:
        Path(folder).chmod(0o755)
        models = Path(folder) / "store"
        models.mkdir()
        make_samples(models, [sample for sample in SAMPLES if sample.model_id == store.OLD])
        names = store.crowd(models, options.loaded)
        stack = Stack(Path(folder) / "var", models)
        browser = chromium.launch(playwright)
        try:
            stack.start().wait_for_zygotes()
            session = people.sessions(stack)[people.ADMIN]
            with stack.api() as api:
                for name in names:
                    assert api.post(f"/api/models/{name}/load").status_code == 200, name
            keys = _inside(stack, "keys()")
            model = keys[names[0]]
            console.print(f"{len(keys)} models, all loaded")
            few = look(stack, browser, session, pages(model, 1))
            count = _inside(stack, f"fill({options.versions - len(names)})")
            console.print(f"{count} models, {len(keys)} loaded")
            many = look(stack, browser, session, pages(model, -(-count // 50)))
        finally:
            browser.close()
            stack.end()
    table = Table(
        "page", "queries", "server", "HTML", "with static files", "first paint, nothing cached", "first paint"
    )
    for name, seen in many.items():
        before = few[name]
        table.add_row(
            name,
            f"{seen.queries} ({before.queries})",
            f"{seen.server_ms:.0f} ms (×{seen.server_ms / before.server_ms:.1f})",
            f"{seen.html_bytes / 1e3:.0f} kB",
            f"{seen.bytes / 1e3:.0f} kB",
            f"{seen.first_paint_ms:.0f} ms",
            f"{seen.paint_ms:.0f} ms (×{seen.paint_ms / before.paint_ms:.1f})",
        )
    console.print(table)
    console.print(f"In brackets: with the {options.loaded} loaded models alone.")
    from modelhub.conf import config

    report = config().MODELHUB_STATE_DIR / "console.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    both = {"few": few, "many": many}
    report.write_text(json.dumps({when: {n: asdict(s) for n, s in seen.items()} for when, seen in both.items()}))
    console.print(f"written to {report}")
    lines = missed(few, many)
    for line in lines:
        console.print(f"[red]{line}")
    return 1 if lines else 0


def _inside(stack: Stack, call: str) -> object:
    """What a function of `console_rows` printed last."""
    code = f"from {console_rows.__name__} import *; {call}"
    return json.loads(stack.manage("shell", "-v", "0", "-c", code).stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
