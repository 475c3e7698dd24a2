"""The same request for programs: at the inference door, in a shell, in Python and with tritonclient."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from modelhub.console.playground.signature import DTYPES, Signature, columns_of

TOKEN = "MODELHUB_TOKEN"  # noqa: S105 - the name of an environment variable
# The kernel takes 128 KiB in one argument of a program.
MOST_ARGUMENT_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Snippet:
    """name: of its tab, and of its element. language: what it is written in."""

    name: str
    title: str
    code: str


@dataclass(frozen=True, slots=True)
class Call:
    """One request. door: "host:port" of the inference door."""

    door: str
    model_id: str
    signature: Signature
    items: Sequence[Any]

    @property
    def url(self) -> str:
        return f"http://{self.door}/v2/models/{quote(self.model_id, safe='')}/infer"

    @property
    def body(self) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data}
                for tensor, shape, data in columns_of(self.items, self.signature)
            ]
        }


def snippets(call: Call) -> list[Snippet]:
    return [
        Snippet("curl", "curl", as_curl(call)),
        Snippet("python", "Python", as_python(call)),
        Snippet("triton", "tritonclient", as_tritonclient(call)),
    ]


def as_curl(call: Call) -> str:
    body = json.dumps(call.body, ensure_ascii=False)
    lines = [
        f"curl -sS {shlex.quote(call.url)}",
        f'-H "Authorization: Bearer ${TOKEN}"',
        "-H 'Content-Type: application/json'",
    ]
    if len(body.encode()) > MOST_ARGUMENT_BYTES:
        return " \\\n  ".join([*lines, "--data-binary @- <<'JSON'"]) + f"\n{body}\nJSON\n"
    return " \\\n  ".join([*lines, f"--data-raw {shlex.quote(body)}"]) + "\n"


def as_python(call: Call) -> str:
    tensors = "".join(
        f"""\
            {{
                "name": {_literal(tensor.name)},
                "datatype": {_literal(tensor.datatype)},
                "shape": {shape!r},
                "data": {_lines(data, 16)},
            }},
"""
        for tensor, shape, data in columns_of(call.items, call.signature)
    )
    return f"""\
import os

import httpx  # or: import requests as httpx

answer = httpx.post(
    {_literal(call.url)},
    headers={{"Authorization": f"Bearer {{os.environ['{TOKEN}']}}"}},
    json={{
        "inputs": [
{tensors}        ]
    }},
    timeout=60,
)
answer.raise_for_status()
for output in answer.json()["outputs"]:
    print(output["name"], output["shape"], output["data"])
"""


def as_tritonclient(call: Call) -> str:
    tensors = "".join(
        f"""\
tensor = triton.InferInput({_literal(tensor.name)}, {shape!r}, {_literal(tensor.datatype)})
tensor.set_data_from_numpy(np.array({_lines(data, 0)}, dtype={_literal(DTYPES.get(tensor.datatype, "float32"))}))
inputs.append(tensor)
"""
        for tensor, shape, data in columns_of(call.items, call.signature)
    )
    return f"""\
import os

import numpy as np
import tritonclient.http as triton  # pip install "tritonclient[http]"

inputs = []
{tensors}
headers = {{"Authorization": f"Bearer {{os.environ['{TOKEN}']}}"}}
with triton.InferenceServerClient({_literal(call.door)}) as client:
    answer = client.infer({_literal(call.model_id)}, inputs, headers=headers)
for name in {_literal([output.name for output in call.signature.outputs])}:
    print(name, answer.as_numpy(name))
"""


def _lines(items: Sequence[Any], spaces: int) -> str:
    """A list in Python with one item a line, behind so many spaces."""
    inner = "".join(f"{' ' * spaces}    {_literal(item)},\n" for item in items)
    return f"[\n{inner}{' ' * spaces}]"


def _literal(value: Any) -> str:
    """The value as Python reads it; texts in double quotes, as the rest of the code."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
