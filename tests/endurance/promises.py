"""What a dry run promised to free beside what was measured as freed."""

from __future__ import annotations

import psutil

from loaderd.resources import memory_of
from tests.endurance.figures import Finding, mebibytes
from tests.stack import Stack

TOLERANCE = 0.10


def promises(stack: Stack, model_ids: list[str]) -> list[Finding]:
    findings = []
    with stack.api() as api:
        for model_id in model_ids:
            assert api.post(f"/api/models/{model_id}/load").status_code == 200
        promised = {
            model_id: api.post(f"/api/models/{model_id}/unload", json={"dry_run": True}).json()["frees_bytes"]
            for model_id in model_ids
        }
        for model_id in model_ids:
            pid = api.get(f"/api/models/{model_id}").json()["runtime"]["pid"]
            held = memory_of(pid)
            assert held is not None
            operation = api.post(f"/api/models/{model_id}/unload", headers={"Prefer": "respond-async"}).json()
            result = stack_wait(api, operation["id"])
            assert not psutil.pid_exists(pid)
            findings.append(_finding(f"unload of {model_id}", promised[model_id], result["freed_bytes"]))
        for model_id in model_ids:
            assert api.post(f"/api/models/{model_id}/load").status_code == 200
        api.patch("/api/policy", json={"LOW_USAGE_THRESHOLD": 1.0, "UNUSED_MODEL_TIMEOUT_HOURS": 0.0001,
                                       "MIN_RESIDENCY_SECONDS": 0})  # fmt: skip
        wait_for_idle(api, model_ids)
        plan = api.post("/api/models/optimize-memory", json={"dry_run": True}).json()
        before = {model_id: api.get(f"/api/models/{model_id}").json()["runtime"]["pid"] for model_id in model_ids}
        held_bytes = sum(memory.private_bytes for pid in before.values() if (memory := memory_of(pid)) is not None)
        done = api.post("/api/models/optimize-memory").json()
        left = sum(psutil.pid_exists(pid) for pid in before.values())
        api.patch("/api/policy", json={"LOW_USAGE_THRESHOLD": None, "UNUSED_MODEL_TIMEOUT_HOURS": None,
                                       "MIN_RESIDENCY_SECONDS": None})  # fmt: skip
    findings.append(_finding("optimize-memory, promised beside what the kernel said before", plan["frees_bytes"],
                             held_bytes))  # fmt: skip
    findings.append(_finding("optimize-memory, promised beside freed", plan["frees_bytes"],
                             done["memory_freed_mb"] * 2**20))  # fmt: skip
    findings.append(Finding("models unloaded by it; processes left", f"{done['models_unloaded']}; {left}", "all; 0",
                            done["models_unloaded"] == len(model_ids) and left == 0))  # fmt: skip
    return findings


def wait_for_idle(api, model_ids) -> None:
    from tests.deadline import wait_until

    def all_are_unused() -> bool:
        victims = {victim["model_id"] for victim in
                   api.post("/api/models/optimize-memory", json={"dry_run": True}).json()["victims"]}  # fmt: skip
        return victims >= set(model_ids)

    wait_until(all_are_unused, 60, "all models count as unused")


def stack_wait(api, operation_id: str) -> dict:
    from tests.deadline import wait_until

    def ended() -> bool:
        return api.get(f"/api/operations/{operation_id}").json()["status"] not in ("queued", "running")

    wait_until(ended, 60, "the operation ends")
    operation = api.get(f"/api/operations/{operation_id}").json()
    assert operation["status"] == "succeeded", operation
    return dict(operation["result"])


def _finding(what: str, promised: float, freed: float) -> Finding:
    off = abs(promised - freed) / max(freed, 1)
    return Finding(f"{what}: promised / freed", f"{mebibytes(promised)} / {mebibytes(freed)} ({off:.1%} off)",
                   "within 10 %", off <= TOLERANCE)  # fmt: skip
