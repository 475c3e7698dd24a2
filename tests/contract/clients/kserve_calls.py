"""Run as a program with KServe's packages on the path: calls a server with KServe's REST client, prints what it got.

Arguments: the server's address, a token. Only the client is imported: the package's own `__init__` is a whole server
with FastAPI, Kubernetes and Ray.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import types
from typing import Any

import httpx
import numpy as np


def package_without_init(name: str) -> None:
    """Makes a package's modules importable without running its `__init__`."""
    found = importlib.util.find_spec(name)
    assert found is not None
    package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations or ())
    sys.modules[name] = package


package_without_init("kserve")

from kserve.inference_client import InferenceRESTClient, RESTConfig  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferOutput, InferRequest  # noqa: E402


def text_input(texts: list[str], *, binary: bool) -> Any:
    given = InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array(texts, dtype=object), binary_data=binary)
    return given


def rows_input(rows: list[list[float]], *, binary: bool) -> Any:
    given = InferInput("x", [len(rows), len(rows[0])], "FP32")
    given.set_data_from_numpy(np.array(rows, dtype=np.float32), binary_data=binary)
    return given


async def main() -> None:
    base, token = f"http://{sys.argv[1]}", sys.argv[2]
    headers = {"Authorization": f"Bearer {token}"}
    told: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=20)) as client:
        told["live"] = await client.is_server_live(base)
        told["ready"] = await client.is_server_ready(base)
        told["model ready"] = await client.is_model_ready(base, "echo", headers=dict(headers))
        told["other ready"] = await client.is_model_ready(base, "nothing", headers=dict(headers))
        for binary in (False, True):
            way = "binary" if binary else "json"
            asked = InferRequest("echo", [text_input(["ä", "two words"], binary=binary)], request_id="seven")
            answer = await client.infer(base, asked, model_name="echo", headers=dict(headers))
            told[f"texts {way}"] = {
                "id": answer.id,
                "model": answer.model_name,
                "echo": np.asarray(answer.get_output_by_name("echo").as_numpy()).astype(str).tolist(),
                "length": np.asarray(answer.get_output_by_name("length").as_numpy()).tolist(),
            }
            wanted = [InferOutput("y", [], "FP32", parameters={"binary_data": binary})]
            asked = InferRequest(
                "double", [rows_input([[0.5, 1.5], [2.0, 3.0]], binary=binary)], request_outputs=wanted
            )
            received: dict[str, str] = {}
            answer = await client.infer(
                base, asked, model_name="double", headers=dict(headers), response_headers=received
            )
            told[f"rows {way}"] = np.asarray(answer.outputs[0].as_numpy()).tolist()
            told[f"rows {way} header"] = "inference-header-content-length" in received
        plain = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2]]}]}
        answer = await client.infer(base, plain, model_name="double", headers=dict(headers))
        told["a dictionary"] = np.asarray(answer.outputs[0].as_numpy()).tolist()
        for name in ("nothing", "double"):
            try:
                await client.infer(
                    base, InferRequest(name, [text_input(["a"], binary=True)]), model_name=name, headers=dict(headers)
                )
            except httpx.HTTPStatusError as error:
                told[f"error of {name}"] = [error.response.status_code, str(error)]
    print(json.dumps(told))


asyncio.run(main())
