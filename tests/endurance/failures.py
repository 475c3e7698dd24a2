"""Parts that are killed under constant traffic: how soon it is noticed, how soon it is back, who failed meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import psutil
import psycopg

from modelhub import postgres
from tests.deadline import wait_until
from tests.endurance.figures import Finding
from tests.stack import Stack
from tests.traffic import Traffic, text_request

SMALL, BYSTANDER, MINILM = "sentiment-sklearn-v1.0", "topic-sklearn-v1.0", "bench-minilm-v1.0"
BACK_SECONDS = 90.0


class Failures:
    """Each method kills something and tells what followed. Models are loaded already and stay so."""

    def __init__(self, stack: Stack, api: httpx.Client) -> None:
        self.stack = stack
        self.api = api
        self.findings: list[Finding] = []

    def run(self) -> list[Finding]:
        for model_id in (SMALL, BYSTANDER, MINILM):
            loaded = self.api.post(f"/api/models/{model_id}/load")
            assert loaded.status_code == 200, loaded.text
        self._model("a small sklearn model, SIGKILL", SMALL, signal.SIGKILL, 1.0)
        self._model("a small sklearn model, SIGSEGV", SMALL, signal.SIGSEGV, 1.0)
        self._model("MiniLM, SIGKILL", MINILM, signal.SIGKILL, 2.0)
        self._hang()
        self._zygote()
        self._part("the gateway, SIGKILL", lambda: self._kill_line("loaderd.gateway"))
        self._queue()
        self._postgres()
        self._supervisor()
        return self.findings

    def _traffic(self) -> Traffic:
        targets = {SMALL: text_request(), BYSTANDER: text_request(), MINILM: text_request()}
        return Traffic(self.stack.inference, self.stack.headers, targets, per_second=40)

    def _pid(self, model_id: str) -> int:
        return int(self.api.get(f"/api/models/{model_id}").json()["runtime"]["pid"])

    def _model(self, what: str, model_id: str, signum: int, limit_seconds: float) -> None:
        self._settle()
        with self._traffic() as traffic:
            wait_until(lambda: len(traffic.of(model_id)) > 20, 20, "traffic flows")
            pid, at, began = self._pid(model_id), datetime.now(UTC), time.monotonic()
            os.kill(pid, signum)
            wait_until(lambda: self._changed_at(model_id, "loaded", at), BACK_SECONDS, f"{model_id} is loaded again")
            loaded_at = self._monotonic(self._changed_at(model_id, "loaded", at))
            wait_until(lambda: traffic.recovered_at(model_id, loaded_at), BACK_SECONDS, f"{model_id} answers again")
        noticed = (self._changed_at(model_id, "error", at) - at).total_seconds()
        back = (self._changed_at(model_id, "loaded", at) - at).total_seconds()
        others = [answer for name in (SMALL, BYSTANDER, MINILM) if name != model_id for answer in traffic.bad(name)]
        self._tell(what, noticed, back, traffic, [model_id], others, began, limit_seconds)

    def _hang(self) -> None:
        """A stopped process gives no sign of life, as one that hangs in C code holding the interpreter."""
        self.api.patch("/api/policy", json={"HANG_SECONDS": 3})
        self._settle()
        with self._traffic() as traffic:
            wait_until(lambda: len(traffic.of(SMALL)) > 20, 20, "traffic flows")
            pid, at, began = self._pid(SMALL), datetime.now(UTC), time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: self._changed_at(SMALL, "loaded", at), BACK_SECONDS, "it is loaded again")
        self.api.patch("/api/policy", json={"HANG_SECONDS": None})
        noticed = (self._changed_at(SMALL, "error", at) - at).total_seconds()
        back = (self._changed_at(SMALL, "loaded", at) - at).total_seconds()
        others = [answer for name in (BYSTANDER, MINILM) for answer in traffic.bad(name)]
        self._tell("a model that gives no sign of life (HANG_SECONDS=3)", noticed, back, traffic, [SMALL], others,
                   began, 8.0)  # fmt: skip

    def _zygote(self) -> None:
        self._settle()
        zygotes = self.stack.loader_client().status()["facts"]["zygotes"]
        with self._traffic() as traffic:
            wait_until(lambda: len(traffic.of(SMALL)) > 20, 20, "traffic flows")
            os.kill(zygotes["sklearn"]["pid"], signal.SIGKILL)
            began = time.monotonic()
            loaded = self.api.post("/api/models/intent-sklearn-v1.0/load")
            seconds = time.monotonic() - began
        self.api.post("/api/models/intent-sklearn-v1.0/unload")
        bad = [answer for answer in traffic.answers if not answer.is_good]
        self.findings.append(
            Finding(
                "the zygote of sklearn, SIGKILL",
                f"next load of its framework {loaded.status_code} after {seconds:.2f} s; {len(bad)} requests failed",
                "the load succeeds, no request fails",
                loaded.status_code == 200 and not bad,
            )
        )

    def _part(self, what: str, kill: Callable[[], None]) -> None:
        self._settle()
        with self._traffic() as traffic:
            wait_until(lambda: len(traffic.of(SMALL)) > 20, 20, "traffic flows")
            pids = {name: self._pid(name) for name in (SMALL, BYSTANDER, MINILM)}
            began = time.monotonic()
            kill()
            wait_until(lambda: all(self._whole_again(traffic, name, began) for name in pids), BACK_SECONDS, "answers")
            stayed = all(self._pid(name) == pid for name, pid in pids.items())
        back = max(self._outage(traffic, name, began) for name in pids)
        bad = [answer for answer in traffic.answers if not answer.is_good]
        self.findings.append(
            Finding(what, f"answers again after {back:.2f} s; {len(bad)} of {len(traffic.answers)} requests failed; "
                    f"models stayed loaded: {stayed}", "restarted, models stay loaded", stayed))  # fmt: skip

    def _queue(self) -> None:
        for what, which in (("a worker of the queue", "worker"), ("the whole queue", "all")):
            self._settle()
            queues = [p for p in self.stack.family() if (p.info["cmdline"] or [])[-1:] == ["queue"]]
            victims = queues if which == "all" else [max(queues, key=lambda process: process.pid)]
            before = self.api.get("/api/models/intent-sklearn-v1.0").json()["load_count"]
            asked = self.api.post("/api/models/intent-sklearn-v1.0/load", headers={"Prefer": "respond-async"}).json()
            for process in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            began = time.monotonic()
            wait_until(
                lambda asked=asked: self.api.get(f"/api/operations/{asked['id']}").json()["status"] == "succeeded",
                BACK_SECONDS, "the command completes")  # fmt: skip
            seconds = time.monotonic() - began
            loads = self.api.get("/api/models/intent-sklearn-v1.0").json()["load_count"] - before
            self.api.post("/api/models/intent-sklearn-v1.0/unload")
            self.findings.append(Finding(f"{what}, SIGKILL in the middle of a command",
                                         f"it completed {loads} time(s), after {seconds:.1f} s", "exactly once",
                                         loads == 1))  # fmt: skip

    def _postgres(self) -> None:
        self._settle()
        used = {name: self._usage(name) for name in (SMALL, BYSTANDER, MINILM)}
        with self._traffic() as traffic:
            wait_until(lambda: len(traffic.of(SMALL)) > 20, 20, "traffic flows")
            pid = postgres.postmaster_pid(self.stack.config)
            assert pid is not None
            began = time.monotonic()
            os.kill(pid, signal.SIGINT)  # "fast": sessions are ended
            wait_until(
                lambda: postgres.postmaster_pid(self.stack.config) not in (None, pid), BACK_SECONDS, "it is back"
            )

            def commands_work() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return self.api.get("/api/models/").status_code == 200
                return False

            wait_until(commands_work, BACK_SECONDS, "the API answers again")
            seconds = time.monotonic() - began
            wait_until(lambda: len(traffic.of(SMALL, time.monotonic() - 0.5)) > 5, 20, "traffic still flows")
        bad = [answer for answer in traffic.answers if not answer.is_good]
        good = {name: sum(answer.is_good for answer in traffic.of(name)) for name in used}
        wait_until(lambda: all(self._usage(name) - used[name] >= good[name] for name in used), 30, "all is counted")
        lost = sum(good[name] - (self._usage(name) - used[name]) for name in used)
        self.findings.append(
            Finding("Postgres, stopped and started under load",
                    f"API answers again after {seconds:.1f} s; {len(bad)} of {len(traffic.answers)} predictions "
                    f"failed; {lost} uncounted", "no prediction fails, none is lost or counted twice",
                    not bad and lost == 0))  # fmt: skip

    def _supervisor(self) -> None:
        self._settle()
        loaderd = self.stack.loaderd()
        processes = [psutil.Process(self._pid(name)) for name in (SMALL, BYSTANDER, MINILM)]
        with self._traffic() as traffic:
            wait_until(lambda: len(traffic.of(SMALL)) > 20, 20, "traffic flows")
            began = time.monotonic()
            loaderd.kill()
            wait_until(lambda: not any(_lives(process) for process in processes), 10, "no orphan is left")
            orphans = time.monotonic() - began
            told = ""

            def unreachable() -> bool:
                nonlocal told
                health = self.api.get("/api/models/health").json()
                told = health["status"]
                return health["loaderd"]["reachable"] is False or health["loaderd"]["pid"] != loaderd.pid

            wait_until(unreachable, 20, "it is said")
            said = time.monotonic() - began
            wait_until(lambda: all(self._whole_again(traffic, name, began) for name in (SMALL, BYSTANDER, MINILM)),
                       BACK_SECONDS, "every model answers again")  # fmt: skip
        back = max(self._outage(traffic, name, began) for name in (SMALL, BYSTANDER, MINILM))
        bad = [answer for answer in traffic.answers if not answer.is_good]
        self.findings.append(
            Finding("loaderd, SIGKILL",
                    f"its models' processes gone after {orphans:.3f} s; API says so after {said:.1f} s ({told}); all "
                    f"three models answer again after {back:.1f} s; {len(bad)} requests failed",
                    "no orphan a second later; all loaded again within 10 s, without a person",
                    orphans <= 1.0 and back <= 10.0))  # fmt: skip

    # What was observed

    def _tell(self, what, noticed, back, traffic, own, others, began, limit_seconds) -> None:
        failed = [answer for name in own for answer in traffic.bad(name, began - 1.0)]
        codes = sorted({answer.status for answer in failed})
        self.findings.append(
            Finding(what, f"noticed after {noticed:.3f} s, loaded again after {back:.2f} s; {len(failed)} of its "
                    f"requests failed {codes}, {len(others)} of the others'",
                    f"back within {limit_seconds:g} s, no other fails",
                    back <= limit_seconds and not others))  # fmt: skip

    def _changed_at(self, model_id: str, state: str, since: datetime) -> datetime | None:
        with psycopg.connect(postgres.embedded_database_url(self.stack.config)) as database:
            row = database.execute(
                "SELECT min(change.at) FROM lifecycle_statechange change JOIN registry_modelversion version "
                "ON version.id = change.version_id WHERE version.model_id = %s AND change.to_state = %s "
                "AND change.at > %s",
                [model_id, state, since],
            ).fetchone()
        return row[0] if row else None

    def _monotonic(self, at: datetime | None) -> float:
        assert at is not None
        return time.monotonic() - (datetime.now(UTC) - at).total_seconds()

    def _usage(self, model_id: str) -> int:
        return int(self.api.get(f"/api/models/{model_id}").json()["usage_count"])

    def _whole_again(self, traffic: Traffic, name: str, since: float) -> bool:
        """The last ten requests since then were answered."""
        answers = traffic.of(name, since)
        return len(answers) > 10 and all(answer.is_good for answer in answers[-10:])

    def _outage(self, traffic: Traffic, name: str, since: float) -> float:
        bad = traffic.bad(name, since - 0.5)
        return max((answer.ended_at for answer in bad), default=since) - since

    def _kill_line(self, words: str) -> None:
        for process in self.stack.family():
            if words in " ".join(process.info["cmdline"] or []):
                process.kill()

    def _settle(self) -> None:
        """Every model is loaded and healthy before the next blow, and no restart counts for the next one."""

        def all_loaded() -> bool:
            models = (self.api.get(f"/api/models/{name}").json() for name in (SMALL, BYSTANDER, MINILM))
            return all(model["status"] == "loaded" for model in models)

        wait_until(all_loaded, BACK_SECONDS, "all models are loaded")
        for name in (SMALL, MINILM):  # a person's command begins the count of restarts anew
            self.api.post(f"/api/models/{name}/unload")
            assert self.api.post(f"/api/models/{name}/load").status_code == 200


def _lives(process: psutil.Process) -> bool:
    """Not for one that is gone and waits for its parent to look."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
