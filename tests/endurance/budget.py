"""Twelve models that do not fit together, asked for at random: never over budget, nobody left unanswered."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

import psutil

from tests.endurance.figures import Finding, mebibytes
from tests.endurance.processes import model_processes, private_bytes
from tests.stack import Stack

BUDGET_MB = 600
CLIENTS = 6
SAMPLE_SECONDS = 0.1
TIMEOUT_SECONDS = 90.0
REFUSALS = {409, 429, 503, 504, 507}


@dataclass(slots=True)
class Seen:
    """What the kernel said, and what the clients were answered."""

    highest_bytes: int = 0
    readings: int = 0
    over: int = 0
    most_processes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    without_reason: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def budget(stack: Stack, minutes: float, model_ids: list[str]) -> list[Finding]:
    """All are autoload, so that a prediction brings its model in."""
    models: dict[str, dict] = {}
    seen, stop = Seen(), threading.Event()
    with stack.api() as api:
        for model_id in model_ids:
            changed = api.patch(f"/api/models/{model_id}", json={"autoload": True})
            assert changed.status_code == 200, changed.text
        for model_id in model_ids:  # each was loaded once, as in a house that runs for a while: its peak is measured
            assert api.post(f"/api/models/{model_id}/load").status_code == 200
            models[model_id] = request_for(api.get(f"/api/models/{model_id}").json()["signature"])
            assert api.post(f"/api/models/{model_id}/unload").status_code == 200
        for name, value in (("MAX_MEMORY_USAGE_MB", BUDGET_MB), ("MIN_RESIDENCY_SECONDS", 2)):
            changed = api.patch("/api/policy", json={name: value})
            assert changed.status_code == 200, changed.text
        stack.wait_for_zygotes()
        threads = [threading.Thread(target=_watch, args=(stack, seen, stop), daemon=True)]
        threads += [
            threading.Thread(target=_ask, args=(stack, models, number, seen, stop), daemon=True)
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        stop.wait(minutes * 60)
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)
        loads = sum(api.get(f"/api/models/{model_id}").json()["load_count"] for model_id in models)
        for model_id in models:
            api.patch(f"/api/models/{model_id}", json={"autoload": False})
            api.post(f"/api/models/{model_id}/unload")
        api.patch("/api/policy", json={"MAX_MEMORY_USAGE_MB": None, "MIN_RESIDENCY_SECONDS": None})
    limit = BUDGET_MB * 2**20
    good = seen.statuses[200]
    refused = sum(count for status, count in seen.statuses.items() if status in REFUSALS)
    others = {status: count for status, count in seen.statuses.items() if status != 200 and status not in REFUSALS}
    return [
        Finding(
            f"highest private memory of all models, {seen.readings} readings in {minutes:g} min",
            f"{mebibytes(seen.highest_bytes)} of {mebibytes(limit)}; {seen.over} over",
            "never over",
            seen.over == 0 and seen.readings > 0,
        ),
        Finding("loads meanwhile; most processes at once", f"{loads}; {seen.most_processes}"),
        Finding("requests answered / refused with a reason", f"{good} / {refused} {dict(seen.statuses)}"),
        Finding("requests with neither", f"{others} {seen.without_reason[:3]}", "none",
                not others and not seen.without_reason),
    ]  # fmt: skip


def request_for(signature: dict) -> dict:
    """One item that fits the signature."""
    inputs = []
    for spec in signature["inputs"]:
        shape = [1, *(abs(size) for size in spec["shape"][1:])]
        value = "Where is my parcel?" if spec["datatype"] == "BYTES" else 0
        inputs.append({**spec, "shape": shape, "data": [value] * math.prod(shape)})
    return {"inputs": inputs}


def _watch(stack: Stack, seen: Seen, stop: threading.Event) -> None:
    loaderd = stack.loaderd()
    facts = stack.loader_client().status()["facts"]
    not_models = {zygote["pid"] for zygote in facts["zygotes"].values()}
    not_models |= {child.pid for child in loaderd.children() if "loaderd.gateway" in " ".join(child.cmdline())}
    while not stop.wait(SAMPLE_SECONDS):
        with contextlib.suppress(psutil.NoSuchProcess):
            pids = model_processes(loaderd, not_models)
            held = private_bytes(pids)
            seen.readings += 1
            seen.over += held > BUDGET_MB * 2**20
            seen.highest_bytes = max(seen.highest_bytes, held)
            seen.most_processes = max(seen.most_processes, len(pids))


def _ask(stack: Stack, models: dict[str, dict], number: int, seen: Seen, stop: threading.Event) -> None:
    chance = random.Random(number)
    names = sorted(models)
    weights = [1 / (rank + 1) for rank in range(len(names))]  # some are asked for often, some hardly ever
    headers = {**stack.headers, "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(stack.inference, timeout=TIMEOUT_SECONDS)
    while not stop.is_set():
        (name,) = chance.choices(names, weights)
        for _ in range(chance.randint(1, 20)):
            status, text = 0, ""
            try:
                connection.request("POST", f"/v2/models/{name}/infer", json.dumps(models[name]), headers)
                response = connection.getresponse()
                status, text = response.status, response.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                text = f"{type(error).__name__}: {error}"
                connection.close()
            with seen.lock:
                seen.statuses[status] += 1
                if status != 200 and '"error"' not in text:
                    seen.without_reason.append(f"{name}: {status} {text[:200]}")
            if stop.wait(0.01):
                return
    connection.close()
