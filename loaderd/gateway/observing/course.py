"""One prediction on its way through the gateway, as far as it is known: never what was asked, nor the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from loaderd.gateway.observing.context import TraceContext
    from loaderd.gateway.routes import Route

MAX_TEXT_CHARS = 200
LEFT = "client_left"  # in place of an error's code

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Where the model process writes them (loaderd.oip.response).
_ID = re.compile(rb'\],"id":"((?:[^"\\\x00-\x1f]|\\["\\/bfnrtu]){1,600})"\}\Z')
_ITEMS = re.compile(rb'"outputs":\[\{"name":"[^"\\]{0,200}","datatype":"\w{1,16}","shape":\[(\d{1,9})')
_HEAD_BYTES, _TAIL_BYTES = 1024, 700


@dataclass(slots=True, eq=False)
class Course:
    """began: by time.perf_counter, when the request came; likewise asked_at, when it was sent to the model's process,
    and first_part_at, when the first part of a streamed answer came.

    door: "public" or "private", or "grpc". method: of HTTP or of gRPC. path: without the query. route: the path with
    names in place of what the client chose. parent: the caller's span. decision: what the sampler said, where the
    request's spans are exported; trace_id: of all of them.
    queue_seconds, compute_seconds, items, batch_items: as wire's "trace" has them, None where it was not asked for.
    kept: "hit" or "shared" when the answer came out of the cache. error_code: "" of a request that did not fail.
    role: as which version of its lineage the model answered: "live", "candidate" or "direct".
    """

    door: str
    method: str
    path: str
    route: str
    began: float
    parent: TraceContext | None = None
    trace_id: int = 0
    decision: Any = None
    user: str = ""
    model_id: str = ""
    version: str = ""
    lineage: str = ""
    role: str = ""
    request_id: str = ""
    queue_seconds: float | None = None
    compute_seconds: float | None = None
    items: int | None = None
    batch_items: int | None = None
    asked_at: float | None = None
    first_part_at: float | None = None
    kept: str = ""
    error_code: str = ""
    rpc_status: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None

    def led_to(self, route: Route, role: str = "") -> None:
        """The model version that answers."""
        self.model_id, self.version, self.lineage, self.role = route.model_id, route.version, route.lineage, role

    def took(self, timings: dict[str, Any]) -> None:
        """Where the model's process says that the time went."""
        self.queue_seconds = timings.get("queue_seconds")
        self.compute_seconds = timings.get("compute_seconds")
        self.items = timings.get("items", self.items)
        self.batch_items = timings.get("batch_items")

    def answered(self, body: bytes | bytearray, header_bytes: int | None) -> None:
        """Notes the id and the number of items that an Open Inference answer tells; no more of it is looked at."""
        if self.items is None:
            items = _ITEMS.search(body, 0, min(len(body), _HEAD_BYTES))
            self.items = None if items is None else int(items[1])
        if not self.request_id:
            end = len(body) if header_bytes is None else header_bytes
            told = _ID.search(bytes(body[max(0, end - _TAIL_BYTES) : end]))
            self.request_id = "" if told is None else cleaned(_text(told[1]))


def _text(escaped: bytes) -> str:
    try:
        text: str = orjson.loads(b'"%b"' % escaped)
    except orjson.JSONDecodeError:
        return ""
    return text


def cleaned(text: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """The text in one line and bounded, for a log that others read line by line."""
    text = _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text[: max_chars + 1])
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
