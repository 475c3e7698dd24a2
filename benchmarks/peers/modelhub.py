from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import places, processes
from benchmarks.counters import ModelCounts, counts_of
from benchmarks.models import MODELS, BenchModel, Item
from benchmarks.peers.base import OpenInferencePeer
from tests.stack import Stack

SETTLED_SECONDS = 2.5
MODELS_OF_ALL_CORES = {"minilm"}  # those that compute all the time get a process a core, as the other servers have


def load(api: httpx.Client, model_id: str, policy: Mapping[str, Any] | None = None) -> None:
    """Approves the files, as formats that can run code need, and loads them. policy: settings of the version, in place
    of ours for benchmarks. Raises AssertionError."""
    approved = api.post(f"/api/models/{model_id}/approve")
    assert approved.status_code in (200, 201, 409), _told(approved)
    if policy is None and MODELS_OF_ALL_CORES & set(model_id.split("-")):
        policy = {"instances": psutil.cpu_count()}
    if policy:
        patched = api.patch(f"/api/models/{model_id}", json=dict(policy))
        assert patched.status_code == 200, _told(patched)
    loaded = api.post(f"/api/models/{model_id}/load")
    assert loaded.status_code == 200, _told(loaded)


def _told(response: httpx.Response) -> str:
    """The sentence of an error's answer; all of what came when it is none of ours."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text


class Modelhub(OpenInferencePeer):
    """Ours, as a user starts it: `manage.py up` with an empty state folder, a token, the models approved and loaded.

    Its defaults, at every concurrency, and a process a core for MiniLM. Authentication stays on; Postgres, web server
    and queue run beside it. policies: other settings of a model's version, by name, set before `start`.
    """

    kind = "modelhub"
    title = "Modelhub"
    environment = None
    packages = ()
    settings = {"": "defaults of `manage.py up`, MiniLM with `instances` = cores; token checked on every request"}

    def __init__(self, variant: str = "", **settings: str) -> None:
        super().__init__(variant)
        self._settings = settings
        self.policies: dict[str, Mapping[str, Any]] = {}
        self._stack: Stack | None = None

    @property
    def stack(self) -> Stack:
        assert self._stack is not None, "start it first"
        return self._stack

    @property
    def address(self) -> str:
        return self.stack.inference

    def start(self, names: list[str]) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="bench-mh"))
        self.folder.chmod(0o755)
        store = self.folder / "store"
        for name in names:
            model_id = MODELS[name].model_id
            shutil.copytree(places.store_dir() / "other" / model_id, store / "other" / model_id)
        self._stack = Stack(self.folder / "var", store, **{processes.MARK: self.mark}, **self._settings)
        self._stack.start()
        self._stack.wait_for_zygotes()
        with self._stack.api() as api:
            for name in names:
                load(api, MODELS[name].model_id, self.policies.get(name))
        self.__dict__.pop("_inputs", None)

    def counts(self, model: BenchModel) -> ModelCounts:
        """What the model's process counted so far, when nobody asks it any more: it tells now and then, not at once."""
        before, since = self._counts(model), time.monotonic()
        while time.monotonic() - since < SETTLED_SECONDS:
            time.sleep(0.2)
            now = self._counts(model)
            if now != before:
                before, since = now, time.monotonic()
        return before

    def _counts(self, model: BenchModel) -> ModelCounts:
        status, text = self.request("GET", "/metrics")
        assert status == 200, text
        return counts_of(text.decode(), model.model_id)

    def end(self) -> None:
        if self._stack is not None:
            self._stack.end()
            self._stack = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self) -> list[int]:
        """The installation's processes, Postgres included, and all that descend from them."""
        family = self.stack.family()
        found = {process.pid for process in family}
        for process in family:
            try:
                found.update(child.pid for child in process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        return sorted(found)

    def headers(self) -> dict[str, str]:
        return dict(self.stack.headers)

    def body(self, model: BenchModel, items: list[Item]) -> Any:
        shape = [len(items), *model.shape]
        data = items if model.is_text else [number for item in items for number in item]
        assert model.is_text or len(data) == math.prod(shape)
        return {
            "inputs": [{"name": self._inputs[model.name], "datatype": model.datatype, "shape": shape, "data": data}]
        }

    def prediction(self, answer: Any) -> Any:
        (label,) = [output for output in answer["outputs"] if output["name"] == "label"]
        return label["data"][0]

    def log_tail(self) -> str:
        return "".join(self.stack.output[-40:]) if self._stack is not None else ""

    @cached_property
    def _inputs(self) -> dict[str, str]:
        """Name of each loaded model's input, as its metadata says."""
        names = {}
        for name in MODELS:
            status, answer = self.request("GET", f"/v2/models/{name}")
            if status == 200:
                names[name] = json.loads(answer)["inputs"][0]["name"]
        return names
