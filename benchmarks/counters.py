"""What a model process itself counted, from the Prometheus text of the inference door."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^(?P<name>\w+)\{(?P<labels>[^}]*)\} (?P<value>[-+.\deE]+|NaN)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """Sums since the model was loaded. request_seconds: from arrival in the model process to the answer; cached:
    answers that nothing was computed for."""

    requests: float = 0.0
    request_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    batches: float = 0.0
    items: float = 0.0
    cached: float = 0.0

    def since(self, before: ModelCounts) -> ModelCounts:
        return ModelCounts(*(getattr(self, name) - getattr(before, name) for name in self.__slots__))


_NAMES = {
    "modelhub_requests_total": "requests",
    "modelhub_request_seconds_sum": "request_seconds",
    "modelhub_queue_seconds_total": "queue_seconds",
    "modelhub_compute_seconds_total": "compute_seconds",
    "modelhub_batches_total": "batches",
    "modelhub_items_total": "items",
    "modelhub_cache_hits_total": "cached",
    "modelhub_cache_shared_total": "cached",
}


def counts_of(text: str, model_id: str) -> ModelCounts:
    """Zeros for a model that the text does not know."""
    found: dict[str, float] = {}
    for line in _LINE.finditer(text):
        name = _NAMES.get(line["name"])
        if name is not None and f'model="{model_id}"' in line["labels"]:
            found[name] = found.get(name, 0.0) + float(line["value"])
    return ModelCounts(**found)
