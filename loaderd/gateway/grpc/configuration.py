"""A model's configuration in Triton's words, for clients that ask it how to call a model."""

from __future__ import annotations

from typing import Any

from loaderd.gateway.routes import Route


def configuration(name: str, route: Route) -> dict[str, Any]:
    """The JSON of a `ModelConfig`. name: as the client called the model.

    max_batch_size is 0 on purpose: with another number Triton's clients take the first dimension off the shapes that
    they send; here a shape has it always, as in the model's metadata.
    """
    signature = route.signature or {}
    return {
        "name": name,
        "platform": route.framework,
        "backend": route.framework,
        "max_batch_size": 0,
        "input": [_tensor(spec) for spec in signature.get("inputs", [])],
        "output": [_tensor(spec) for spec in signature.get("outputs", [])],
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "model_transaction_policy": {"decoupled": False},
        "parameters": {
            key: {"string_value": value}
            for key, value in {
                "model_id": route.model_id,
                "lineage": route.lineage,
                "version": route.version,
                "batched_items": str(route.max_batch_size),
                "max_queue": str(route.max_queue),
            }.items()
        },
    }


def _tensor(spec: Any) -> dict[str, Any]:
    datatype = spec["datatype"]
    return {
        "name": spec["name"],
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": list(spec["shape"]),
    }
