"""The main job through real parts: discovered on disk, loaded, asked, measured, unloaded."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from tests.deadline import wait_until
from tests.integration.counting import settled
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("stack")]

TEXT = "The invoice is wrong again and nobody answers my mails. I am really disappointed."
TEXT_MODELS = {
    "sklearn": "sentiment-sklearn-v1.0",
    "transformers": "sentiment-bert-v1.0",
    "tensorflow": "topic-keras-v1.0",
}


@pytest.fixture
def client(stack: Stack) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stack.inference) as client:
        yield client


def anonymous_bytes(root: psutil.Process) -> int:
    """What a process and its descendants hold together in memory of their own, shared pages counted once.

    Pages of files are left out: their share changes with whatever else runs on the machine.
    """
    lines: list[str] = []
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            lines += Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon"))


def test_every_sample_model_was_discovered_with_size_and_digest(api: httpx.Client, stack: Stack) -> None:
    models = {model["id"]: model for model in api.get("/api/models/").json()}
    on_disk = {path.parent.name for path in stack.models_dir.glob("*/*/metadata.json")}
    assert set(models) == on_disk
    assert {model["framework"] for model in models.values()} == {"sklearn", "transformers", "tensorflow"}
    detail = api.get("/api/models/sentiment-bert-v1.0").json()
    assert detail["size_bytes"] > 1_000_000
    assert len(detail["digest"]) == 64
    assert detail["performance_metrics"]["accuracy"] > 0


@pytest.mark.parametrize(("framework", "model_id"), TEXT_MODELS.items())
def test_load_infer_with_a_real_client_unload(
    stack: Stack, api: httpx.Client, client: triton.InferenceServerClient, framework: str, model_id: str
) -> None:
    stack.wait_for_zygotes()
    before = anonymous_bytes(stack.loaderd())

    loaded = api.post(f"/api/models/{model_id}/load")
    assert loaded.status_code == 200, loaded.text
    assert loaded.json()["status"] == "loaded"
    assert set(loaded.json()) >= {"model_id", "status", "load_time", "memory_usage"}

    detail = api.get(f"/api/models/{model_id}").json()
    runtime = detail["runtime"]
    process = psutil.Process(runtime["pid"])
    assert process.ppid() == stack.loaderd().pid
    assert runtime["private_bytes"] > 1_000_000
    seen = stack.loader_client().status()
    assert seen["models"][model_id]["forked"] is True
    if seen["facts"]["gpus"]:
        assert runtime["gpu_bytes"] >= 0
    else:
        assert runtime["gpu_bytes"] is None

    headers = dict(stack.headers)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model_id, headers=headers)
    metadata = client.get_model_metadata(model_id, headers=headers)
    (input_spec,) = metadata["inputs"]
    tensor = triton.InferInput(input_spec["name"], [2], "BYTES")
    tensor.set_data_from_numpy(np.array([TEXT, "Thank you, that was perfect!"], dtype=object))
    answer = client.infer(model_id, [tensor], headers=headers)
    labels = answer.as_numpy("label")
    assert labels.shape == (2,)
    assert {label.decode() for label in labels} <= set(detail["signature"]["labels"])
    assert np.allclose(answer.as_numpy("probabilities").sum(axis=1), 1.0, atol=1e-3)

    predicted = api.post(f"/api/models/{model_id}/predict", json={"inputs": [TEXT]}).json()
    assert predicted["predictions"][0]["label"] == labels[0].decode()
    assert predicted["latency_ms"] > 0

    unloaded = api.post(f"/api/models/{model_id}/unload")
    assert unloaded.json() == {"model_id": model_id, "status": "unloaded"}
    assert not process.is_running()
    assert api.get(f"/api/models/{model_id}").json()["runtime"] is None
    assert not client.is_model_ready(model_id, headers=headers)
    left = anonymous_bytes(stack.loaderd()) - before
    assert left < 0.05 * runtime["private_bytes"] + 4e6, "its memory is back"


def test_tensors_go_in_and_probabilities_come_out(
    stack: Stack, api: httpx.Client, client: triton.InferenceServerClient
) -> None:
    model_id = "digits-sklearn-v1.0"
    assert api.post(f"/api/models/{model_id}/load").status_code == 200
    (input_spec,) = client.get_model_metadata(model_id, headers=dict(stack.headers))["inputs"]
    rows = np.zeros((5, 64), dtype=np.float32 if input_spec["datatype"] == "FP32" else np.float64)
    tensor = triton.InferInput(input_spec["name"], list(rows.shape), input_spec["datatype"])
    tensor.set_data_from_numpy(rows)
    answer = client.infer(model_id, [tensor], headers=dict(stack.headers))
    assert answer.as_numpy("probabilities").shape == (5, 10)
    assert api.post(f"/api/models/{model_id}/unload").status_code == 200


def test_load_and_unload_through_the_inference_door_are_the_same_operations(
    stack: Stack, api: httpx.Client, client: triton.InferenceServerClient
) -> None:
    model_id = TEXT_MODELS["sklearn"]
    headers = dict(stack.headers)
    client.load_model(model_id, headers=headers)
    assert api.get(f"/api/models/{model_id}").json()["status"] == "loaded"
    index = {entry["name"]: entry for entry in client.get_model_repository_index(headers=headers)}
    assert any(entry["state"] == "READY" for entry in index.values())
    client.unload_model(model_id, headers=headers)
    assert api.get(f"/api/models/{model_id}").json()["status"] == "unloaded"
    newest = api.get("/api/operations/", params={"model": model_id}).json()
    entries = newest["results"] if isinstance(newest, dict) else newest
    assert [(entry["kind"], entry["status"]) for entry in entries[:2]] == [
        ("unload", "succeeded"),
        ("load", "succeeded"),
    ]


def test_the_inference_door_wants_a_token(stack: Stack) -> None:
    for path in ("/v2", "/v2/models/sentiment-sklearn-v1.0"):
        assert httpx.get(f"http://{stack.inference}{path}").status_code == 401
    assert httpx.get(f"http://{stack.inference}/v2", headers={"Authorization": "Bearer wrong"}).status_code == 401
    bearer = {"Authorization": f"Bearer {stack.token}"}
    assert httpx.get(f"http://{stack.inference}/v2", headers=bearer).status_code == 200


def test_usage_is_counted_from_real_predictions(stack: Stack, api: httpx.Client) -> None:
    model_id = TEXT_MODELS["sklearn"]
    settled(api, model_id)
    before = api.get(f"/api/models/{model_id}/performance").json()
    api.post(f"/api/models/{model_id}/load")
    for _ in range(5):
        assert api.post(f"/api/models/{model_id}/predict", json={"inputs": [TEXT]}).status_code == 200
    api.post(f"/api/models/{model_id}/unload")

    def counted() -> bool:
        after = api.get(f"/api/models/{model_id}/performance").json()
        return (
            after["usage_count"] == before["usage_count"] + 5
            and after["load_count"] == before["load_count"] + 1
            and after["average_load_time"] > 0
        )

    wait_until(counted, 20, "five predictions and one load more than before")


def test_an_asynchronous_load_answers_202_and_its_operation_ends(api: httpx.Client) -> None:
    model_id = TEXT_MODELS["sklearn"]
    accepted = api.post(f"/api/models/{model_id}/load", headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    location = accepted.headers["Location"]
    wait_until(lambda: api.get(location).json()["status"] == "succeeded", 30, "the operation succeeds")
    again = api.post(f"/api/models/{model_id}/load")
    assert (again.status_code, again.json()["status"]) == (200, "loaded")
    assert api.post(f"/api/models/{model_id}/unload").json()["status"] == "unloaded"
    assert api.post(f"/api/models/{model_id}/unload").json()["status"] == "not_loaded"


def test_a_model_process_holds_no_credential(stack: Stack, api: httpx.Client) -> None:
    model_id = TEXT_MODELS["sklearn"]
    api.post(f"/api/models/{model_id}/load")
    pid = api.get(f"/api/models/{model_id}").json()["runtime"]["pid"]
    environment = Path(f"/proc/{pid}/environ").read_text()
    for word in ("DATABASE_URL", "SECRET_KEY", "DJANGO_SUPERUSER_PASSWORD"):
        assert word not in environment
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not [link for link in links if "postgres" in link.lower() or "5432" in link]
    api.post(f"/api/models/{model_id}/unload")


def test_a_pickle_is_refused_until_its_bytes_are_approved(stack: Stack, api: httpx.Client) -> None:
    import pickle

    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    directory = stack.models_dir / "other" / "iris-pickle-v1.0"
    directory.mkdir(parents=True)
    features, target = load_iris(return_X_y=True)
    (directory / "model.pkl").write_bytes(pickle.dumps(LogisticRegression(max_iter=500).fit(features, target)))
    assert api.post("/api/models/discover").status_code == 200
    refused = api.post("/api/models/iris-pickle-v1.0/load")
    assert refused.status_code == 409
    assert "approve" in refused.json()["error"]["message"]
    stack.manage("approve", "iris-pickle-v1.0", "--user", "ada")
    assert api.post("/api/models/iris-pickle-v1.0/load").status_code == 200
    rows = api.post("/api/models/iris-pickle-v1.0/predict", json={"inputs": [[5.1, 3.5, 1.4, 0.2]]}).json()
    assert rows["predictions"][0]["label"] == "0"
    api.post("/api/models/iris-pickle-v1.0/unload")


def test_commands_load_predict_and_unload(stack: Stack) -> None:
    model_id = TEXT_MODELS["sklearn"]
    assert stack.manage("load", model_id).returncode == 0
    statuses = {model["model_id"]: model["status"] for model in json.loads(stack.manage("models", "--json").stdout)}
    assert statuses[model_id] == "loaded"
    assert stack.manage("predict", model_id, TEXT).returncode == 0
    assert stack.manage("unload", model_id).returncode == 0
    assert stack.manage("load", "no-such-model", check=False).returncode != 0


def test_twenty_small_models_at_once(stack: Stack, api: httpx.Client) -> None:
    import shutil
    from concurrent.futures import ThreadPoolExecutor

    source = stack.models_dir / "sentiment" / "sentiment-sklearn-v1.0"
    names = [f"crowd-{number:02d}" for number in range(20)]
    for name in names:
        target = stack.models_dir / "sentiment" / name
        shutil.copytree(source, target)
        (target / "metadata.json").unlink()
    assert api.post("/api/models/discover").status_code == 200
    stack.wait_for_zygotes()
    before = {process.pid for process in stack.loaderd().children(recursive=True)}

    def load(name: str) -> int:
        with stack.api() as client:
            return client.post(f"/api/models/{name}/load").status_code

    def ask(name: str) -> int:
        with stack.api() as client:
            return client.post(f"/api/models/{name}/predict", json={"inputs": [TEXT]}).status_code

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(load, names)) == [200] * 20
        assert api.get("/api/models/health").json()["active_models"] >= 20
        assert list(pool.map(ask, names)) == [200] * 20
    print(f"Memory of loaderd with 20 models: {anonymous_bytes(stack.loaderd()) / 2**20:.0f} MiB")
    pids = {api.get(f"/api/models/{name}").json()["runtime"]["pid"] for name in names}
    assert len(pids - before) == 20
    for name in names:
        assert api.post(f"/api/models/{name}/unload").status_code == 200
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
