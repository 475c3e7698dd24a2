"""Parts that die while the product answers: nothing claims what is not true, and it comes back by itself.

The failure matrix of docs/architecture.md; what needs a model made to misbehave is in tests/loaderd/supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from modelhub import postgres
from tests.deadline import wait_until
from tests.integration.counting import settled
from tests.stack import Stack
from tests.traffic import Traffic, text_request

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

MODEL = "sentiment-sklearn-v1.0"
OTHER = "topic-sklearn-v1.0"


def answers(api: httpx.Client, model_id: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return api.post(f"/api/models/{model_id}/predict", json={"inputs": ["Where is my parcel?"]}).status_code == 200
    return False


def pid_of(api: httpx.Client, model_id: str) -> int:
    return int(api.get(f"/api/models/{model_id}").json()["runtime"]["pid"])


def is_back(api: httpx.Client, model_id: str, pid: int) -> bool:
    """Whether the model is loaded, in another process than `pid`."""
    detail = api.get(f"/api/models/{model_id}").json()
    return bool(detail["status"] == "loaded" and detail["runtime"]["pid"] != pid)


@pytest.fixture
def two_loaded(api: httpx.Client) -> Iterator[None]:
    for model_id in (MODEL, OTHER):
        loaded = api.post(f"/api/models/{model_id}/load")
        assert loaded.status_code == 200, loaded.text
    yield
    for model_id in (MODEL, OTHER):
        api.post(f"/api/models/{model_id}/unload")


def flow(stack: Stack) -> Traffic:
    return Traffic(stack.inference, stack.headers, {MODEL: text_request(), OTHER: text_request()}, per_second=40)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
@pytest.mark.usefixtures("two_loaded")
def test_a_model_process_that_dies_is_started_again_and_harms_no_other(
    stack: Stack, api: httpx.Client, name: str
) -> None:
    pid, errors = pid_of(api, MODEL), settled(api, MODEL)["error_count"]
    with flow(stack) as traffic:
        wait_until(lambda: len(traffic.of(MODEL)) > 10, 20, "traffic flows")
        os.kill(pid, signal.Signals[name])
        killed_at = time.monotonic()
        wait_until(lambda: traffic.recovered_at(MODEL, killed_at + 0.05), 30, "it answers again")
        wait_until(lambda: is_back(api, MODEL, pid), 30, "the API says so")
    lost = traffic.bad(MODEL)
    assert {answer.status for answer in lost} <= {503}
    # Heartbeats bring the gateway's counts, so they come later than the answers.
    wait_until(
        lambda: api.get(f"/api/models/{MODEL}").json()["error_count"] - errors == 1 + len(lost),
        20,
        "its death and what it held are counted, once each",
    )
    assert name in api.get(f"/api/models/{MODEL}").json()["last_error"], "the signal is told"
    assert not traffic.bad(OTHER), "no other model loses a request"


@pytest.mark.usefixtures("two_loaded")
def test_the_kernels_oom_killer_is_named(stack: Stack, api: httpx.Client) -> None:
    """The process is put into a memory cgroup that is too small for its next request."""
    group = Path("/sys/fs/cgroup/memory/modelhub-test")
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(2 << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup of version 1 can be made here: {error}")
    pid = pid_of(api, MODEL)
    try:
        (group / "cgroup.procs").write_text(str(pid))
        large = text_request()
        large["inputs"][0] |= {"shape": [500], "data": ["many words " * 1000] * 500}
        asked = httpx.post(f"http://{stack.inference}/v2/models/{MODEL}/infer", json=large, headers=dict(stack.headers))
        assert asked.status_code == 503, asked.text
        wait_until(lambda: not psutil.pid_exists(pid), 30, "the kernel has ended it")
        wait_until(lambda: is_back(api, MODEL, pid), 30, "it is loaded again")
        assert "OOM killer" in api.get(f"/api/models/{MODEL}").json()["last_error"]
        assert answers(api, OTHER)
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(left)
        group.rmdir()


@pytest.mark.usefixtures("two_loaded")
def test_a_model_without_a_sign_of_life_is_ended_and_started_again(stack: Stack, api: httpx.Client) -> None:
    assert api.patch("/api/policy", json={"HANG_SECONDS": 2}).status_code == 200
    pid = pid_of(api, MODEL)
    try:
        with flow(stack) as traffic:
            wait_until(lambda: len(traffic.of(OTHER)) > 10, 20, "traffic flows")
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: not psutil.pid_exists(pid), 30, "it is ended")
            wait_until(lambda: is_back(api, MODEL, pid), 30, "it is loaded again")
            wait_until(lambda: answers(api, MODEL), 30, "it answers again")
    finally:
        assert api.patch("/api/policy", json={"HANG_SECONDS": None}).status_code == 200
    assert not traffic.bad(OTHER)
    assert "sign of life" in api.get(f"/api/models/{MODEL}").json()["last_error"]


@pytest.mark.usefixtures("two_loaded")
def test_a_killed_zygote_is_no_obstacle(stack: Stack, api: httpx.Client) -> None:
    zygote = stack.loader_client().status()["facts"]["zygotes"]["sklearn"]["pid"]
    with flow(stack) as traffic:
        wait_until(lambda: len(traffic.of(MODEL)) > 10, 20, "traffic flows")
        os.kill(zygote, signal.SIGKILL)
        assert api.post("/api/models/intent-sklearn-v1.0/load").status_code == 200
        api.post("/api/models/intent-sklearn-v1.0/unload")
    assert not [answer for answer in traffic.answers if not answer.is_good]
    stack.wait_for_zygotes()


@pytest.mark.usefixtures("two_loaded")
def test_a_killed_gateway_comes_back_and_the_models_stay_loaded(stack: Stack, api: httpx.Client) -> None:
    pids = {model_id: pid_of(api, model_id) for model_id in (MODEL, OTHER)}
    gateways = [p for p in stack.family() if "loaderd.gateway" in " ".join(p.info["cmdline"])]
    assert gateways
    with flow(stack) as traffic:
        wait_until(lambda: len(traffic.of(MODEL)) > 10, 20, "traffic flows")
        for process in gateways:
            process.kill()
        killed_at = time.monotonic()
        wait_until(lambda: all(traffic.recovered_at(name, killed_at + 0.1) for name in pids), 30, "answers again")
    assert {model_id: pid_of(api, model_id) for model_id in pids} == pids


@pytest.mark.usefixtures("two_loaded")
def test_a_killed_loaderd_is_never_shown_as_loaded_and_comes_back_with_its_models(
    stack: Stack, api: httpx.Client
) -> None:
    models = [psutil.Process(pid_of(api, model_id)) for model_id in (MODEL, OTHER)]
    old = stack.loaderd()
    old.kill()
    wait_until(lambda: not any(model.is_running() for model in models), 10, "no orphan is left")

    def successor_was_heard() -> bool:
        loaderd = api.get("/api/models/health").json()["loaderd"]
        return bool(loaderd["reachable"]) and loaderd["pid"] != old.pid

    def back(model_id: str, before: psutil.Process) -> bool:
        heard = successor_was_heard()  # asked first: what is read after it was heard is what it says
        detail = api.get(f"/api/models/{model_id}").json()
        is_loaded, pid = detail["status"] == "loaded", (detail["runtime"] or {}).get("pid")
        assert not (heard and is_loaded and pid == before.pid), "who was heard shows no dead process as loaded"
        return is_loaded and pid != before.pid

    for model_id, before in zip((MODEL, OTHER), models, strict=True):
        wait_until(lambda model_id=model_id, before=before: back(model_id, before), 60, "loaded again without a person")
    assert stack.loaderd().pid != old.pid
    wait_until(lambda: answers(api, MODEL), 30, "it answers again")


def test_while_loaderd_is_away_commands_say_so(stack: Stack, api: httpx.Client) -> None:
    loaderd = stack.loaderd()
    loaderd.suspend()
    try:
        wait_until(
            lambda: api.get("/api/models/health").json()["loaderd"]["reachable"] is False, 30, "its silence is seen"
        )
        refused = api.post(f"/api/models/{MODEL}/load")
        assert refused.status_code == 503
        assert "loaderd" in refused.json()["error"]["message"]
    finally:
        loaderd.resume()
    wait_until(lambda: api.get("/api/models/health").json()["loaderd"]["reachable"], 30, "it is heard again")
    assert api.post(f"/api/models/{MODEL}/load").status_code == 200
    api.post(f"/api/models/{MODEL}/unload")


@pytest.mark.parametrize("which", ["one worker", "all of it"])
def test_a_queue_that_is_killed_in_the_middle_of_a_command_completes_it_once(
    stack: Stack, api: httpx.Client, which: str
) -> None:
    before = api.get(f"/api/models/{MODEL}").json()["load_count"]
    queues = [p for p in stack.family() if "queue" in p.info["cmdline"][-1:]]
    assert queues, "the queue's processes are found"
    victims = queues if which == "all of it" else [max(queues, key=lambda process: process.pid)]
    asked = api.post(f"/api/models/{MODEL}/load", headers={"Prefer": "respond-async"}).json()
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(
        lambda: api.get(f"/api/operations/{asked['id']}").json()["status"] == "succeeded", 90, "the command completes"
    )
    assert api.get(f"/api/models/{MODEL}").json()["load_count"] == before + 1
    unloaded = api.post(f"/api/models/{MODEL}/unload")
    assert unloaded.json()["status"] == "unloaded", unloaded.text


@pytest.mark.usefixtures("two_loaded")
def test_postgres_stops_and_starts_under_load_and_no_prediction_fails_or_is_lost(
    stack: Stack, api: httpx.Client
) -> None:
    used = {MODEL: settled(api, MODEL)["usage_count"], OTHER: api.get(f"/api/models/{OTHER}").json()["usage_count"]}
    with flow(stack) as traffic:
        wait_until(lambda: len(traffic.of(MODEL)) > 10, 20, "traffic flows")
        pid = postgres.postmaster_pid(stack.config)
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        wait_until(lambda: postgres.postmaster_pid(stack.config) not in (None, pid), 60, "Postgres is back")

        def commands_work() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return api.get("/api/models/").status_code == 200
            return False

        wait_until(commands_work, 60, "the API answers again")
        back_at = time.monotonic()
        wait_until(lambda: len(traffic.of(MODEL, back_at)) > 10, 20, "traffic still flows")
    assert not [answer for answer in traffic.answers if not answer.is_good]
    good = {name: len(traffic.of(name)) for name in used}

    def counted(name: str) -> int:
        return int(api.get(f"/api/models/{name}").json()["usage_count"]) - used[name]

    wait_until(lambda: all(counted(name) >= good[name] for name in used), 30, "all is counted")
    assert {name: counted(name) for name in used} == good, "nothing is counted twice"
    assert api.post("/api/models/intent-sklearn-v1.0/load").status_code == 200
    api.post("/api/models/intent-sklearn-v1.0/unload")


def test_a_killed_web_server_comes_back(stack: Stack) -> None:
    servers = [p for p in stack.family() if "gunicorn" in " ".join(p.info["cmdline"])]
    masters = [p for p in servers if p.parent() not in servers]
    assert masters
    for process in masters:
        process.kill()

    def alive() -> bool:
        try:
            return httpx.get(f"{stack.web}/livez", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(alive, 60, "the web server answers again")


class TestArtifacts:
    """What happens on disk under a loaded model does not reach it, and what changed is not loaded unseen."""

    VERSIONS = ("sentiment-sklearn-v1.0", "sentiment-sklearn-v2.0")

    @pytest.fixture
    def live(self, stack: Stack, api: httpx.Client) -> Iterator[Path]:
        old, new = self.VERSIONS
        assert api.post(f"/api/models/{old}/activate").status_code == 200
        folder = stack.models_dir / "sentiment" / new
        (model,) = folder.glob("model.*")
        content = model.read_bytes()
        yield model
        model.write_bytes(content)
        assert api.post("/api/models/discover").status_code == 200
        for model_id in self.VERSIONS:
            api.post(f"/api/models/{model_id}/unload")

    @pytest.mark.parametrize("blow", ["altered", "deleted"])
    def test_a_version_whose_files_are_gone_or_changed_does_not_become_live(
        self, stack: Stack, api: httpx.Client, live: Path, blow: str
    ) -> None:
        old, new = self.VERSIONS
        lineage = {"sentiment-sklearn": text_request()}
        with Traffic(stack.inference, stack.headers, lineage, per_second=40) as traffic:
            wait_until(lambda: len(traffic.of("sentiment-sklearn")) > 10, 20, "traffic flows")
            if blow == "deleted":
                live.unlink()
            else:
                live.write_bytes(live.read_bytes()[:-1] + b"?")
            refused = api.post(f"/api/models/{new}/activate")
        assert refused.status_code == 409, refused.text
        assert live.name in refused.json()["error"]["message"]
        assert not traffic.bad("sentiment-sklearn"), "the old version keeps serving"
        assert api.get("/api/lineages/sentiment-sklearn").json()["aliases"]["live"] == old

    def test_files_that_go_under_a_loaded_model_do_not_disturb_it(self, api: httpx.Client, live: Path) -> None:
        _, new = self.VERSIONS
        assert api.post(f"/api/models/{new}/load").status_code == 200
        live.unlink()
        assert answers(api, new)


def test_a_full_disk_stops_no_prediction_and_loses_no_count(sample_store: Path, tmp_path: Path) -> None:
    """State and store on a small file system that is filled up while models answer."""
    import shutil

    from tests import environment

    folder = environment.fresh_folder()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        environment.remove_folder(folder)
        pytest.skip("no small file system can be mounted here")
    stack = Stack(folder / "state", folder / "models")
    filler = folder / "filler"
    try:
        shutil.copytree(sample_store / "sentiment" / MODEL, stack.models_dir / "sentiment" / MODEL)
        stack.start()
        with stack.api() as api:
            assert api.post(f"/api/models/{MODEL}/load").status_code == 200
            used = api.get(f"/api/models/{MODEL}").json()["usage_count"]
            with Traffic(stack.inference, stack.headers, {MODEL: text_request()}, per_second=40) as traffic:
                wait_until(lambda: len(traffic.of(MODEL)) > 10, 20, "traffic flows")
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * (1 << 16))
                full_at = time.monotonic()
                wait_until(lambda: len(traffic.of(MODEL, full_at)) > 200, 60, "traffic flows over a full disk")
                filler.unlink()
                wait_until(lambda: answers(api, MODEL), 60, "the API answers when there is room again")
            assert not traffic.bad(MODEL), traffic.bad(MODEL)[:3]
            wait_until(
                lambda: api.get(f"/api/models/{MODEL}").json()["usage_count"] - used >= len(traffic.of(MODEL)),
                60, "all is counted",
            )  # fmt: skip
            assert api.post(f"/api/models/{MODEL}/unload").status_code == 200
    finally:
        stack.end()
        subprocess.run(["umount", "-l", str(folder)], check=True)
        environment.remove_folder(folder)
