"""`make screenshots`: pictures of every page in docs/screenshots, light, dark and on a phone, of a real product.

The product has models of three frameworks under traffic, a failed load, an alert, and a model with a name of 80
characters. Further pictures are of an empty product, of jobs in every state, and of 40 loaded models.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

from samples.catalogue import SAMPLES
from samples.making import make_samples
from tests.browser import chromium, people, store
from tests.browser.following import loads_wait, open_model
from tests.browser.pages import DASHBOARD, ENTRIES, LISTS, MODELS, Place, go
from tests.browser.visit import Visit
from tests.deadline import wait_until
from tests.stack import PROJECT_DIR, Stack
from tests.traffic import Traffic, text_request

JOBS = next(place for place in LISTS if place.name == "jobs")
FOLDER = PROJECT_DIR / "docs" / "screenshots"
LOOKS = {"light": {}, "dark": {"dark": True}, "phone": {"phone": True}}
# Small files: they are looked at as a whole, and there are many.
QUALITY = 38
SCALE = 0.85
TALLEST = 1500
REST_MS = 3000
CROWD = 40
BUSY = ("sentiment-sklearn-v1.0", "sentiment-sklearn-v2.0", "sentiment-bert-v1.0", "topic-sklearn-v1.0",
        "topic-keras-v1.0", "intent-sklearn-v1.0", "intent-bert-v1.0", "digits-sklearn-v1.0", store.LONG)  # fmt: skip
TABS = ("Overview", "Versions", "Metrics", "Operations", "Log", "Files", "Playground", "Policy", "Audit")


class Camera:
    """Takes pictures of a product as the admin sees it."""

    def __init__(self, stack: Stack, browser: Browser, session: str, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.visits = {
            look: Visit(browser, stack.web, session, scale=SCALE, **options) for look, options in LOOKS.items()
        }

    def take(self, name: str, prepare: Callable[[Page], object], looks: tuple[str, ...] = tuple(LOOKS)) -> None:
        """A picture in each look of what `prepare(page)` leads to."""
        for look in looks:
            page = self.visits[look].page
            prepare(page)
            self._settle(page)
            # A window as tall as the page: in a picture of the whole page, what sticks to the window's end would
            # stand in the middle.
            asked = dict(page.viewport_size or {})
            height = page.evaluate("document.documentElement.scrollHeight")
            page.set_viewport_size({**asked, "height": max(asked["height"], min(TALLEST, height))})
            page.screenshot(
                path=self.folder / f"{name}-{look}.jpg", type="jpeg", quality=QUALITY, animations="disabled"
            )
            page.set_viewport_size(asked)
        print(f"  {name}", flush=True)

    def _settle(self, page: Page) -> None:
        with contextlib.suppress(TookTooLong):  # an operation that is followed never comes to rest
            page.wait_for_load_state("networkidle", timeout=REST_MS)
        page.evaluate("document.fonts.ready.then(() => true)")

    def close(self) -> list[str]:
        """What went wrong in the pages meanwhile, as lines."""
        problems = [line for visit in self.visits.values() for line in visit.unexpected()]
        for visit in self.visits.values():
            visit.context.close()
        return problems


@contextmanager
def product(browser: Browser, folder: Path, name: str, fill: Callable[[Path], object]) -> Iterator[Camera]:
    """A started product whose store `fill` filled. Raises AssertionError at its end if a page had an error."""
    home = folder / name
    (home / "store").mkdir(parents=True)
    for path in (folder, home):
        path.chmod(0o755)
    fill(home / "store")
    stack = Stack(home / "var", home / "store", TMPDIR=str(home))
    try:
        stack.start().wait_for_zygotes()
        camera = Camera(stack, browser, people.sessions(stack)[people.ADMIN], FOLDER)
        yield camera
        problems = camera.close()
        assert not problems, "\n".join(problems)
    finally:
        stack.end()


def of_nothing(camera: Camera) -> None:
    """Every list's empty state, and the login."""
    for place in (DASHBOARD, *LISTS[:6]):
        camera.take(f"empty-{place.name}", lambda page, place=place: go(page, place), ("light", "phone"))


def of_a_busy_house(camera: Camera) -> None:
    stack = camera.stack
    with stack.api() as api:
        for model_id in BUSY:
            assert api.post(f"/api/models/{model_id}/load").status_code == 200, model_id
        assert api.post(f"/api/models/{store.BROKEN}/load").status_code == 500
        assert api.put("/api/lineages/sentiment-sklearn/aliases/candidate", json={"model_id": store.NEW}).is_success
        split = {"candidate_percent": 20, "shadow": True}
        assert api.put("/api/lineages/sentiment-sklearn/traffic", json=split).is_success
    text = text_request()
    targets = dict.fromkeys((store.LINEAGE, "sentiment-bert-v1.0", "topic-sklearn-v1.0", "intent-bert-v1.0"), text)
    with Traffic(stack.inference, stack.headers, targets, per_second=20) as traffic:
        wait_until(lambda: all(len(traffic.of(name)) > 400 for name in targets), 120, "traffic of some seconds")
        _pages(camera)
        for tab in TABS:
            camera.take(f"model-{tab.lower()}", lambda page, tab=tab: open_model(page, store.OLD, tab))
        camera.take("model-playground-answer", _asked)
        camera.take("dialog-unload", lambda page: _dialog(page, "topic-sklearn-v1.0", "Unload"))
        camera.take("dialog-activate", lambda page: _dialog(page, store.NEW, "Activate"))
        with stack.api() as api:
            api.post("/api/models/digits-sklearn-v1.0/unload")
        with loads_wait(stack):
            camera.take("dialog-progress", _loading, ("light",))
            camera.take("dashboard-busy", lambda page: go(page, DASHBOARD))
        camera.take("palette", _palette, ("light", "dark", "phone"))


def _pages(camera: Camera) -> None:
    for place in (DASHBOARD, *LISTS, *ENTRIES):
        if place.name in ("model", "jobs"):
            continue  # each of its tabs, and of what jobs can come to, gets a picture
        camera.take(place.name, lambda page, place=place: go(page, place))
    camera.take("menu", _menu, ("phone",))


def of_jobs(camera: Camera) -> None:
    stack = camera.stack
    camera.take("empty-jobs", lambda page: go(page, JOBS))
    with stack.api() as api:
        assert api.post(f"/api/models/{store.OLD}/load").status_code == 200
        made = {
            "succeeded": _job(api, "mails.csv", _mails(3000)),
            "failed": _job(api, "mails-of-may.jsonl", _mails(800, "jsonl") + b"no JSON\n", strict="true"),
            "long-name": _job(api, f"{'every-mail-since-the-beginning-of-time-' * 4}.csv", _mails(1200) + b"1,2,3\n"),
            "cancelled": _job(api, "archive.csv", _mails(60_000), batch_size="2"),
        }
        _until(api, made["cancelled"], lambda job: job["rows_done"] > 2000)
        assert api.post(f"/api/jobs/{made['cancelled']}/cancel").status_code == 200
        made["waiting"] = _job(api, "topics.csv", _mails(500), model="topic-sklearn-v1.0")
        _until(api, made["waiting"], lambda job: job["problem"])
        made["running"] = _job(api, "inbox.csv", _mails(200_000), batch_size="2")
        _until(api, made["running"], lambda job: job["rows_done"] > 4000)
        camera.take("jobs", lambda page: go(page, JOBS))
        for name, job_id in made.items():
            camera.take(f"job-{name}", lambda page, job_id=job_id: page.goto(f"{JOBS.path}{job_id}/change/"))
        camera.take("dialog-retry", lambda page: _job_dialog(page, made["cancelled"], "Retry"))
        camera.take("dialog-cancel-job", lambda page: _job_dialog(page, made["running"], "Cancel"))
        camera.take("dialog-remove-job", lambda page: _job_dialog(page, made["succeeded"], "Remove"))
        for visit in camera.visits.values():
            visit.expect_problem("422 .*/admin/jobs/predict/")
        camera.take("predict-file-refused", _refused_file)
        assert api.delete(f"/api/jobs/{made['running']}").status_code == 204


def _mails(rows: int, kind: str = "csv") -> bytes:
    mails = [
        json.loads(line)["text"] for line in (PROJECT_DIR / "samples/corpus/emails.jsonl").read_text().splitlines()
    ]
    texts = (f"{mails[number % len(mails)]} ({number})" for number in range(rows))
    if kind == "jsonl":
        return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("id", "text"), *enumerate(texts)])
    return written.getvalue().encode()


def _job(api: httpx.Client, name: str, data: bytes, **fields: str) -> str:
    answer = api.post("/api/jobs/", files={"file": (name, data)}, data={"model": store.LINEAGE, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _until(api: httpx.Client, job_id: str, holds: Callable[[dict[str, Any]], object]) -> None:
    wait_until(lambda: bool(holds(api.get(f"/api/jobs/{job_id}").json())), 120, f"job {job_id} is as it should be")


def _job_dialog(page: Page, job_id: str, link: str) -> None:
    page.goto(f"{JOBS.path}{job_id}/change/")
    page.get_by_role("main").get_by_role("link", name=link, exact=True).click()
    page.get_by_role("dialog").wait_for()


def _refused_file(page: Page) -> None:
    page.goto("/admin/jobs/predict/")
    page.set_input_files("#mh-choose", {"name": "mails.csv", "mimeType": "text/csv", "buffer": _mails(20)})
    page.get_by_role("combobox", name="Model").fill(store.LINEAGE)
    page.get_by_text("More", exact=True).click()
    page.get_by_role("textbox", name="Columns with the input").fill("subject")
    page.get_by_role("button", name="Predict", exact=True).click()
    page.get_by_text("The file has no column").wait_for()


def of_a_crowd(camera: Camera) -> None:
    with camera.stack.api() as api:
        for model_id in sorted(path.name for path in camera.stack.models_dir.glob("*/*")):
            assert api.post(f"/api/models/{model_id}/load").status_code == 200, model_id
    models = Place("models", MODELS)
    camera.take("crowd-dashboard", lambda page: go(page, DASHBOARD))
    camera.take("crowd-models", lambda page: go(page, models))


def _asked(page: Page) -> None:
    open_model(page, store.OLD, "Playground")
    panel = page.get_by_role("tabpanel", name="Playground")
    panel.get_by_role("button", name="Ask", exact=True).click()
    panel.get_by_role("article", name="Input 1").wait_for()


def _dialog(page: Page, model_id: str, button: str) -> None:
    open_model(page, model_id)
    page.get_by_role("main").get_by_role("button", name=button, exact=True).first.click()
    page.get_by_role("dialog").wait_for()


def _loading(page: Page) -> None:
    _dialog(page, "digits-sklearn-v1.0", "Load")
    page.get_by_role("dialog").get_by_role("button", name="Load", exact=True).click()
    page.get_by_role("progressbar").first.wait_for()


def _palette(page: Page) -> None:
    go(page, DASHBOARD)
    page.keyboard.press("Control+k")
    page.get_by_role("dialog").wait_for()
    page.keyboard.type("sent")
    page.get_by_role("option").first.wait_for()


def _menu(page: Page) -> None:
    go(page, DASHBOARD)
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("navigation", name="Main").wait_for()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="nothing,busy,jobs,crowd", help="Products, comma-separated.")
    parser.add_argument("--samples", type=Path, help="A store with the sample models; made when it is not named.")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mh") as name, sync_playwright() as playwright:
        folder = Path(name)
        made = options.samples or folder / "samples"
        if options.samples is None:
            made.mkdir()
            print("making the sample models", flush=True)
            make_samples(made, SAMPLES)

        def busy(target: Path) -> None:
            shutil.copytree(made, target, dirs_exist_ok=True)
            store.troubled(target)

        def crowded(target: Path) -> None:
            source = target / "sentiment" / store.OLD
            shutil.copytree(next(made.glob(f"*/{store.OLD}")), source)
            store.crowd(target, CROWD)
            shutil.rmtree(source)

        browser = chromium.launch(playwright)
        parts = {
            "nothing": (of_nothing, lambda target: None),
            "busy": (of_a_busy_house, busy),
            "jobs": (of_jobs, busy),
            "crowd": (of_a_crowd, crowded),
        }
        for part in options.only.split(","):
            print(part, flush=True)
            take, fill = parts[part]
            with product(browser, folder, part, fill) as camera:
                take(camera)
        browser.close()
    total = sum(path.stat().st_size for path in FOLDER.glob("*.jpg"))
    print(f"{len(list(FOLDER.glob('*.jpg')))} pictures of {total / 1e6:.1f} MB in {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
