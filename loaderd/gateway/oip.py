"""The rooms of the Open Inference Protocol v2 (`/v2`) and of the private plain prediction (`/internal`)."""

from __future__ import annotations

from typing import Any

import orjson

import loaderd
from loaderd import wire
from loaderd.errors import LoaderdError
from loaderd.gateway.app import (
    Answer,
    NoSuchPath,
    NotReady,
    Request,
    Response,
    error_headers,
    headers_of,
    json_response,
    plain_error,
)
from loaderd.gateway.http.exchange import JSON
from loaderd.gateway.model_config import model_config
from loaderd.gateway.predicting import Ask, Predictor
from loaderd.gateway.repository import Repository
from loaderd.gateway.statistics import statistics

EXTENSIONS = [
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
]
_NOT_OFFERED = {
    "systemsharedmemory": "Shared memory is not offered; send the tensors' data.",
    "cudasharedmemory": "Shared memory is not offered; send the tensors' data.",
    "trace": "Tracing is not set by clients of the inference door; SAMPLING_RATE in the admin does it.",
    "logging": "Logging is not set by clients of the inference door; PERFORMANCE_LOG_LEVEL in the admin does it.",
}
_PRIORITY = b"x-modelhub-priority"
_OTHERS = b"x-modelhub-others-ms"


class NotOffered(LoaderdError):
    """An extension of the protocol that this server does not have."""

    code = "not_offered"
    http_status = 404


async def predict(
    predictor: Predictor, request: Request, name: str, version: str | None, kind: wire.Kind, head: dict[str, Any]
) -> Response:
    """Reads the body, asks, answers; tells bulk work how others are answered. Raises LoaderdError, Disconnected."""
    await predictor.require_hope(name, version)  # before its body is read
    if request.headers.get(_PRIORITY) == b"bulk":
        head = {**head, "bulk": True}
    pieces = await request.pieces()
    request.leave_with_client()
    ask = Ask(
        name,
        version,
        kind,
        head,
        pieces,
        request.caller,
        request.deadline,
        request.began,
        request.body.reserved_bytes,
        request.is_traced,
        request.course,
    )
    answer = await predictor.answer(ask)
    headers = headers_of(answer.head) if answer.head else JSON
    if ask.others_seconds is not None:
        headers = (*headers, (_OTHERS, b"%.3f" % (ask.others_seconds * 1000)))
    return Response(answer.body, headers=headers)


class OpenInference:
    """`/v2`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._supervisor = predictor.supervisor

    def error(self, error: LoaderdError) -> Response:
        return plain_error(error)

    async def handle(self, request: Request, rest: list[str]) -> Answer:
        match rest:
            case ["models"]:
                request.require_method("GET")
                routes = self._supervisor.routes
                return json_response({"models": [name for name, each in routes.models.items() if each.is_ready]})
            case ["models", "stats"]:
                request.require_method("GET")
                return json_response(await statistics(self._supervisor, self._predictor.lookup))
            case ["models", name, *further]:
                return await self._model(request, name, further)
            case ["repository", *further]:
                return await self._repository(request, further)
            case []:
                request.require_method("GET")
                return json_response({"name": "modelhub", "version": loaderd.__version__, "extensions": EXTENSIONS})
            case [extension, *_] if extension in _NOT_OFFERED:
                raise NotOffered(_NOT_OFFERED[extension])
        raise NoSuchPath(f"There is nothing at {request.path}; the Open Inference Protocol begins at /v2.")

    async def _model(self, request: Request, name: str, rest: list[str]) -> Response:
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        match rest:
            case ["infer"]:
                request.require_method("POST")
                request.require("predict")
                head = {"name": name, "header_bytes": request.whole_number(b"inference-header-content-length")}
                return await predict(self._predictor, request, name, version, wire.Kind.INFER, head)
            case ["ready"]:
                request.require_method("GET")
                route = (await self._predictor.lookup.find(name, version)).route
                if not route.is_ready:
                    reason = f": {route.reason}" if route.reason else ""
                    raise NotReady(f"{route.model_id} is {route.state}{reason}.", model_id=route.model_id)
                return json_response({"name": name, "ready": True})
            case ["stats"]:
                request.require_method("GET")
                return json_response(await statistics(self._supervisor, self._predictor.lookup, name, version))
            case ["config"]:
                request.require_method("GET")
                return json_response(model_config((await self._predictor.lookup.find(name, version)).route, name))
            case ["trace", "setting"]:
                raise NotOffered(_NOT_OFFERED["trace"])
            case []:
                request.require_method("GET")
                return await self._metadata(name, version)
        raise NoSuchPath(
            f"There is nothing at {request.path}; a model answers infer, ready, config, stats, and its own path."
        )

    async def _metadata(self, name: str, version: str | None) -> Response:
        route = (await self._predictor.lookup.find(name, version)).route
        if route.signature is None:
            route.require_ready()
        signature = route.signature or {}
        return json_response(
            {
                "name": name,
                "versions": [route.version] if version else self._supervisor.routes.versions_of(name),
                "platform": route.framework,
                "inputs": signature.get("inputs", []),
                "outputs": signature.get("outputs", []),
            }
        )

    async def _repository(self, request: Request, rest: list[str]) -> Response:
        repository = Repository(self._supervisor)
        match rest:
            case ["index"]:
                request.require_method("POST")
                return json_response(await repository.index(await request.json()))
            case ["models", name, ("load" | "unload") as command]:
                request.require_method("POST")
                request.require(command)
                return json_response(await repository.command(command, name, await request.json(), request.caller.user))
        raise NoSuchPath(f"There is nothing at {request.path}; the repository answers index, load and unload.")


class Internal:
    """`/internal`, on the private door: the plain form of a prediction, for the API."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def error(self, error: LoaderdError) -> Response:
        body = orjson.dumps({"error": error.to_message()}, default=str)
        return Response(body, error.http_status, error_headers(error))

    async def handle(self, request: Request, rest: list[str]) -> Answer:
        match rest:
            case ["models", name, "predict"]:
                request.require_method("POST")
                return await predict(self._predictor, request, name, None, wire.Kind.PREDICT, {})
        raise NoSuchPath(f"There is nothing at {request.path}.")
