"""Predictions for the API, the admin and the commands: through loaderd's private door, never through the queue."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx

from loaderd.errors import InvalidInput, LoaderdError, LoaderUnreachable, ModelTimeout, from_message
from modelhub.conf import config
from modelhub.policy.effective import effective_lately

# Requests at the same time through one process; more wait for their turn within their time limit.
MAX_CONNECTIONS = 64
# The door ends a request that passes its limits and says why; this much longer is waited for its word.
GRACE_SECONDS = 1.0

_BULK = {"X-Modelhub-Priority": "bulk"}
_OTHERS = "X-Modelhub-Others-Ms"
_TRACE = ("traceparent", "tracestate")


def time_limit_seconds() -> float:
    """How long to wait for an answer: a prediction's time, and before it the load of a model that loads on demand.

    As the door waits, by the policy in force; one query a second at most, however many predictions there are.
    """
    settings = effective_lately()
    return settings.PREDICT_TIMEOUT_SECONDS + settings.LOAD_WAIT_SECONDS + GRACE_SECONDS


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request that say which trace it belongs to, for `predict` to pass on."""
    values = {name: headers.get(name, "") for name in _TRACE}
    return {name: value for name, value in values.items() if value and value.isascii() and value.isprintable()}


def predict(
    model_id: str,
    inputs: Sequence[Any],
    *,
    user: str,
    timeout_seconds: float,
    is_bulk: bool = False,
    trace: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """{"model_id", "version", "predictions": […], "latency_ms"} for texts or rows, as the gateway answers; of a bulk
    request, while others are answered, "others_seconds" besides: their mean latency in the model's process.

    model_id: or a lineage's name; the answer's model_id says which version of it was asked. is_bulk: nobody waits for
    the answer, so the requests of those who do go first. trace: see `trace_of`.
    The door trusts this process: whoever calls has checked that `user` may predict. Raises LoaderUnreachable,
    ModelTimeout, or the LoaderdError that the gateway answered.
    """
    try:
        body = json.dumps({"inputs": list(inputs)}, allow_nan=False)
    except ValueError as error:
        raise InvalidInput(f"The inputs for {model_id} cannot be sent as JSON: {error}.", model_id=model_id) from None
    try:
        response = _client().post(
            f"/internal/models/{quote(model_id, safe='')}/predict",
            content=body,
            headers={
                "Content-Type": "application/json",
                "X-Modelhub-User": quote(user),
                **(_BULK if is_bulk else {}),
                **trace,
            },
            timeout=timeout_seconds,
        )
        answer = response.json()
    except httpx.TimeoutException as error:
        raise ModelTimeout(
            f"{model_id} did not answer within {timeout_seconds:g} s; send fewer inputs, or raise "
            "PREDICT_TIMEOUT_SECONDS or, for a model that is loaded on demand, LOAD_WAIT_SECONDS.",
            model_id=model_id,
            timeout_seconds=timeout_seconds,
        ) from error
    except httpx.TransportError as error:
        raise LoaderUnreachable(
            f"loaderd's door does not answer ({error}), so {model_id} was not asked; start loaderd with `make up`, "
            "then repeat.",
            model_id=model_id,
        ) from error
    except ValueError as error:
        raise LoaderdError(f"loaderd's door answered {response.status_code} without JSON; see its log.") from error
    if response.is_success:
        if is_bulk and (others := response.headers.get(_OTHERS)) is not None:
            return {**answer, "others_seconds": float(others) / 1000}
        return dict(answer)
    raise _said_here(from_message(answer["error"]))


# The door's advice is for its own clients: (what it names, what those name who ask from here).
_ADVICE = (
    (re.compile(r"POST /v2/repository/models/(\S+)/load"), r"POST /api/models/\1/load or `manage.py load \1`"),
    (re.compile(r"POST /v2/repository/index"), r"GET /api/models/"),
)


def _said_here(error: LoaderdError) -> LoaderdError:
    """The error, whose advice names the API and the commands: the other door has another port and other paths."""
    for named, instead in _ADVICE:
        error.message = named.sub(instead, error.message)
    return error


_lock = threading.Lock()
_client_of: dict[tuple[int, Path], httpx.Client] = {}  # by process, because connections do not survive a fork


def _client() -> httpx.Client:
    """This process' pool of connections."""
    socket_path = config().gateway_socket
    key = (os.getpid(), socket_path)
    with _lock:
        client = _client_of.get(key)
        if client is None:
            limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
            transport = httpx.HTTPTransport(uds=str(socket_path), limits=limits)
            client = _client_of[key] = httpx.Client(transport=transport, base_url="http://loaderd", trust_env=False)
        return client
