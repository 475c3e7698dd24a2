"""The protocol's model configuration extension: how a loaded model is served, in the shape of Triton's ModelConfig.

There is nothing to configure from here: it tells the truth to clients that look for batch sizes and types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loaderd.gateway.routes import Route


def model_config(route: Route, name: str | None = None) -> dict[str, Any]:
    """The configuration, which reads as an inference.ModelConfig of the gRPC service too. name: as the client called
    the model; None: its model_id. Raises ModelNotLoaded when the model is not loaded."""
    route.require_ready()
    signature = route.signature or {}
    labels = signature.get("labels")
    return {
        "name": name or route.model_id,
        "platform": "",
        "backend": route.framework,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": route.max_batch_size,
        "input": [
            {**_tensor(spec), "format": "FORMAT_NONE", "allow_ragged_batch": False, "optional": False}
            for spec in signature.get("inputs", ())
        ],
        "output": [{**_tensor(spec), "label_filename": ""} for spec in signature.get("outputs", ())],
        "response_cache": {"enable": route.keeps_answers},
        "instance_group": [{"name": route.model_id, "kind": "KIND_MODEL", "count": len(route.sockets)}],
        "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
            "default_queue_policy": {"allow_timeout_override": True, "max_queue_size": route.max_queue},
        },
        "parameters": {
            key: {"string_value": value}
            for key, value in (
                ("model_id", route.model_id),
                ("lineage", route.lineage),
                ("version", route.version),
                ("labels", ",".join(labels) if labels else ""),
            )
            if value
        },
    }


def _tensor(spec: Mapping[str, Any]) -> dict[str, Any]:
    """dims: without the batch, as Triton tells it where max_batch_size is above 0."""
    datatype, shape = str(spec["datatype"]), spec["shape"]
    kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    dims: Sequence[int] = list(shape[1:])
    return {"name": spec["name"], "data_type": kind, "dims": dims, "is_shape_tensor": False}
