"""Answers that are kept and given again to who asks the same of the same load of a model.

Pure: who calls passes the clock, and nothing here waits (`flights` has what waits). A hit costs one hash over the
request and a few microseconds. All answers together stay within `max_bytes`, those asked for least recently go first.

A key is made of everything that shapes an answer: the model, the load that computes it (its bytes and its process, so
nothing outlives a reload, a new version or an approval), the kind of request, the head for the model process, and the
body. An Open Inference request's `id` is echoed in its answer: where it is the first key of the body, as clients of
that protocol write it, it is left out of the key and put into the answer again; anywhere else it is part of the key.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import orjson

from loaderd import wire
from loaderd.gateway.routes import Route, Routes

MAX_BODY_BYTES = 1 << 20  # of a request; hashing a larger one would hold up the others for more than a millisecond
LARGEST_SHARE = 8  # an answer that takes more than this part of the bound is not kept
OVERHEAD_BYTES = 640  # of a kept answer beside its bytes: key, entry, their places in two tables
DEFAULT_MAX_BYTES = 64 << 20

_KINDS = (wire.Kind.INFER, wire.Kind.PREDICT)
_NO_PART = frozenset({"trace", "bulk"})  # of the head: they do not change the answer
_EMPTY_ID = b'{"id":""'
_FIRST_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([^"\\\x00-\x1f]{0,256})"')


@dataclass(frozen=True, slots=True)
class Key:
    """What a request asks. digest: of all that shapes the answer. request_id: what the answer echoes, as JSON has it
    between its quotes; None: nothing."""

    digest: bytes
    load: str
    request_id: bytes | None


@dataclass(slots=True)
class Figures:
    """Of one model. hits: answers that were kept. shared: answers that somebody else's computation gave. misses:
    requests that were computed and could have been kept. entries, bytes: that are kept now."""

    hits: int = 0
    shared: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0

    def since(self, before: Figures) -> Figures:
        """What was counted since then, and what is kept now."""
        return Figures(
            self.hits - before.hits, self.shared - before.shared, self.misses - before.misses, self.entries, self.bytes
        )


class Answer:
    """A kept answer without the request's id. id_at: where in the body that goes; -1: nowhere."""

    __slots__ = ("body", "head", "id_at")

    def __init__(self, head: bytes, body: bytes, id_at: int) -> None:
        self.head = head
        self.body = body
        self.id_at = id_at

    @classmethod
    def of(cls, key: Key, message: wire.Message) -> Answer | None:
        """The answer to keep, or None: it is none, it tells of its own request, or its id is not where it belongs."""
        head, body = message.head, message.body
        if message.kind != wire.Kind.ANSWER or b'"trace"' in head:
            return None
        if key.request_id is None:
            return cls(head, bytes(body), -1)
        if head.startswith(b"{"):
            return None
        end = int(head) if head else len(body)
        echo = b',"id":"' + key.request_id + b'"}'
        if not body.endswith(echo, 0, end):
            return None
        id_at = end - len(key.request_id) - 2
        rest = bytes(body[:id_at]) + bytes(body[id_at + len(key.request_id) :])
        return cls(b"%d" % (end - len(key.request_id)) if head else b"", rest, id_at)

    def message(self, key: Key) -> wire.Message:
        """As the model would answer this request."""
        if self.id_at < 0 or not key.request_id:
            return wire.Message(0, wire.Kind.ANSWER, self.head, self.body)
        head = b"%d" % (int(self.head) + len(key.request_id)) if self.head else b""
        body = b"".join((self.body[: self.id_at], key.request_id, self.body[self.id_at :]))
        return wire.Message(0, wire.Kind.ANSWER, head, body)


class _Entry:
    __slots__ = ("answer", "cost", "digest", "kept_at", "model_id")

    def __init__(self, digest: bytes, model_id: str, answer: Answer, kept_at: float) -> None:
        self.digest = digest
        self.model_id = model_id
        self.answer = answer
        self.kept_at = kept_at
        self.cost = len(digest) + len(answer.head) + len(answer.body) + OVERHEAD_BYTES


class _Kept:
    """The entries of one model, and what they take together."""

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.bytes = 0
        self.entries: dict[bytes, _Entry] = {}


_NOTHING = Figures()
_NONE_KEPT = _Kept()


class Cache:
    """The kept answers of all models. Nothing is kept before `follow` told which models there are."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # asked for least recently: first
        self._of_model: dict[str, _Kept] = {}
        self._live: dict[str, Route] = {}  # the models whose answers are kept
        self._figures: dict[str, Figures] = {}
        self._told: dict[str, Figures] = {}
        self._before: dict[str, Figures] = {}  # their present load

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, value: int) -> None:
        self._max_bytes = value
        self._make_room(0)

    def key(
        self, route: Route, kind: wire.Kind, head: Mapping[str, Any], pieces: Sequence[bytes | memoryview]
    ) -> Key | None:
        """What this request asks of this model, or None: its answer is not to be kept. head: as for the process."""
        if not route.keeps_answers or kind not in _KINDS:
            return None
        if sum(map(len, pieces)) > MAX_BODY_BYTES:
            return None
        first = bytes(pieces[0]) if pieces else b""
        request_id = None
        header_bytes: int | None = head.get("header_bytes")
        if (
            kind == wire.Kind.INFER
            and (found := _FIRST_ID.match(first))
            and _is_only_id(pieces, found.end(), header_bytes)
        ):
            request_id = found[1]
            first = _EMPTY_ID + first[found.end() :]
            if header_bytes is not None:
                head = {**head, "header_bytes": header_bytes - (found.end() - len(_EMPTY_ID))}
        if not _NO_PART.isdisjoint(head):
            head = {name: value for name, value in head.items() if name not in _NO_PART}
        asked = (route.model_id, route.load, kind, request_id is None, head)
        made = sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS) + b"\0" + first)
        for piece in pieces[1:]:
            made.update(piece)
        return Key(made.digest(), route.load, request_id)

    def get(self, key: Key, now: float) -> wire.Message | None:
        """The kept answer, if it is younger than its model's cache_ttl_seconds. now: as told to `put`."""
        entry = self._entries.get(key.digest)
        if entry is None:
            return None
        if now - entry.kept_at >= self._live[entry.model_id].cache_ttl_seconds:
            self._drop(entry)
            return None
        self._entries.move_to_end(key.digest)
        self._of(entry.model_id).hits += 1
        return entry.answer.message(key)

    def put(self, key: Key, route: Route, message: wire.Message, now: float) -> Answer | None:
        """Keeps an answer that was just computed, and counts that it was. One that is too large, or of a load that is
        gone by now, is not kept. Returns the answer for others who asked the same; None when it is for nobody else."""
        self._of(route.model_id).misses += 1
        answer = Answer.of(key, message)
        live = self._live.get(route.model_id)
        if answer is None or live is None or live.load != key.load:
            return answer
        entry = _Entry(key.digest, route.model_id, answer, now)
        if entry.cost * LARGEST_SHARE > self._max_bytes:
            return answer
        known = self._entries.get(key.digest)
        if known is not None:
            self._drop(known)
        self._make_room(entry.cost)
        self._entries[key.digest] = entry
        kept = self._of_model.get(route.model_id)
        if kept is None:
            kept = self._of_model[route.model_id] = _Kept()
        kept.entries[key.digest] = entry
        kept.bytes += entry.cost
        self.used_bytes += entry.cost
        return answer

    def note_shared(self, route: Route) -> None:
        """A request was answered by the computation that another one had begun."""
        self._of(route.model_id).shared += 1

    def forget(self, model_id: str | None = None) -> int:
        """Drops the kept answers of this model; None: of all. Returns how many there were."""
        before = len(self._entries)
        for name in [model_id] if model_id is not None else list(self._of_model):
            kept = self._of_model.pop(name, None)
            if kept is not None:
                for digest in kept.entries:
                    del self._entries[digest]
                self.used_bytes -= kept.bytes
        return before - len(self._entries)

    def follow(self, routes: Routes) -> None:
        """Takes in what the models are by now; drops what was kept of loads that are gone and of models whose answers
        are not to be kept any more."""
        live = {model_id: route for model_id, route in routes.models.items() if route.keeps_answers}
        for model_id, before in self._live.items():
            if model_id not in live or live[model_id].load != before.load:
                self.forget(model_id)
                self._before[model_id] = self.figures(model_id)
        self._live = live

    def figures(self, model_id: str) -> Figures:
        """Of one model, since the gateway's start."""
        kept, counted = self._of_model.get(model_id, _NONE_KEPT), self._figures.get(model_id, _NOTHING)
        return Figures(counted.hits, counted.shared, counted.misses, len(kept.entries), kept.bytes)

    def figures_of_load(self, model_id: str) -> Figures:
        """Of one model, since its present load."""
        return self.figures(model_id).since(self._before.get(model_id, _NOTHING))

    def take(self) -> list[dict[str, Any]]:
        """What changed since it was taken last, for the supervisor: {"model_id"} and Figures; hits, shared and misses
        are increments, entries and bytes what is kept now."""
        changes = []
        for model_id in self._figures.keys() | self._of_model.keys() | self._told.keys():
            now, told = self.figures(model_id), self._told.get(model_id, _NOTHING)
            if now != told:
                self._told[model_id] = now
                changes.append({"model_id": model_id, **asdict(now.since(told))})
        return changes

    def _of(self, model_id: str) -> Figures:
        figures = self._figures.get(model_id)
        if figures is None:
            figures = self._figures[model_id] = Figures()
        return figures

    def _make_room(self, cost: int) -> None:
        while self._entries and self.used_bytes + cost > self._max_bytes:
            self._drop(next(iter(self._entries.values())))

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.digest]
        kept = self._of_model[entry.model_id]
        del kept.entries[entry.digest]
        kept.bytes -= entry.cost
        if not kept.entries:
            del self._of_model[entry.model_id]
        self.used_bytes -= entry.cost


def _is_only_id(pieces: Sequence[bytes | memoryview], at: int, header_bytes: int | None) -> bool:
    """Whether no other "id" follows in the document, which would be the one that counts."""
    first = bytes(pieces[0])
    if first.find(b'"id"', at, header_bytes) >= 0:
        return False
    is_whole = header_bytes is not None and header_bytes <= len(first)
    return is_whole or not any(b'"id"' in bytes(piece) for piece in pieces[1:])
