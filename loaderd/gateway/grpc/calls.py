"""The calls of `inference.GRPCInferenceService` with one request and one answer.

Each is a coroutine that takes its parsed request and who asks, and returns a message; all raise LoaderdError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import json_format

import loaderd
from loaderd.errors import LoaderdError, UnknownModel
from loaderd.gateway.access import Caller
from loaderd.gateway.grpc import transcoding
from loaderd.gateway.grpc.messages import SERVICE, message_class
from loaderd.gateway.model_config import model_config
from loaderd.gateway.oip import EXTENSIONS
from loaderd.gateway.predicting import Predictor
from loaderd.gateway.repository import Repository
from loaderd.gateway.statistics import statistics

Call = Callable[[Any, Caller], Awaitable[Any]]


class UnknownService(LoaderdError):
    code = "unknown_service"
    http_status = 404


class Calls:
    """Named as in inference.proto and health.proto. Those of health are asked without a token, so with nobody's
    rights."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._supervisor = predictor.supervisor
        self._repository = Repository(predictor.supervisor)

    async def server_live(self, request: Any, caller: Caller) -> Any:
        return _message("ServerLiveResponse", live=True)

    async def server_ready(self, request: Any, caller: Caller) -> Any:
        return _message("ServerReadyResponse", ready=self._supervisor.has_routes)

    async def check(self, request: Any, caller: Caller) -> Any:
        """What orchestrators ask: ready or not, of the server or of its only service."""
        if request.service not in ("", SERVICE.full_name):
            raise UnknownService(f'There is no service "{request.service}" here; there is {SERVICE.full_name}.')
        status = "SERVING" if self._supervisor.has_routes else "NOT_SERVING"
        return _message("grpc.health.v1.HealthCheckResponse", status=status)

    async def model_ready(self, request: Any, caller: Caller) -> Any:
        """An unknown model is not ready: who waits for one that is yet to be registered asks the same question."""
        try:
            target = await self._predictor.lookup.find(request.name, request.version or None)
        except UnknownModel:
            return _message("ModelReadyResponse", ready=False)
        return _message("ModelReadyResponse", ready=target.route.is_ready)

    async def server_metadata(self, request: Any, caller: Caller) -> Any:
        return _message(
            "ServerMetadataResponse", name="modelhub", version=loaderd.__version__, extensions=[*EXTENSIONS]
        )

    async def model_metadata(self, request: Any, caller: Caller) -> Any:
        route = (await self._predictor.lookup.find(request.name, request.version or None)).route
        if route.signature is None:
            route.require_ready()
        signature = route.signature or {}
        versions = [route.version] if request.version else self._supervisor.routes.versions_of(request.name)
        return _message(
            "ModelMetadataResponse",
            name=request.name,
            versions=versions,
            platform=route.framework,
            inputs=[_tensor(given) for given in signature.get("inputs", [])],
            outputs=[_tensor(given) for given in signature.get("outputs", [])],
        )

    async def model_config(self, request: Any, caller: Caller) -> Any:
        route = (await self._predictor.lookup.find(request.name, request.version or None)).route
        return _from_json("ModelConfigResponse", {"config": model_config(route, request.name)})

    async def model_statistics(self, request: Any, caller: Caller) -> Any:
        told = await statistics(self._supervisor, self._predictor.lookup, request.name or None, request.version or None)
        return _from_json("ModelStatisticsResponse", told)

    async def repository_index(self, request: Any, caller: Caller) -> Any:
        entries = await self._repository.index({"ready": request.ready})
        return _from_json("RepositoryIndexResponse", {"models": entries})

    async def repository_model_load(self, request: Any, caller: Caller) -> Any:
        await self._command("load", request, caller)
        return _message("RepositoryModelLoadResponse")

    async def repository_model_unload(self, request: Any, caller: Caller) -> Any:
        await self._command("unload", request, caller)
        return _message("RepositoryModelUnloadResponse")

    async def _command(self, command: str, request: Any, caller: Caller) -> None:
        """Returns when the operation has ended well."""
        caller.require(command)
        parameters = transcoding.parameters_of(request.parameters)
        await self._repository.command(command, request.model_name, {"parameters": parameters}, caller.user)


def _message(of: str, /, **fields: Any) -> Any:
    return message_class(of)(**fields)


def _from_json(name: str, value: Any) -> Any:
    """The message that the REST half would answer as this; what gRPC has no field for is left out."""
    return json_format.ParseDict(value, message_class(name)(), ignore_unknown_fields=True)


def _tensor(spec: Any) -> dict[str, Any]:
    return {key: spec[key] for key in ("name", "datatype", "shape")}
