"""Where the names of lineages lead, and the moves of `live` from one version to another without a failed request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal, Protocol

from loaderd.errors import ActivationFailed, InsufficientMemory, LoaderdError
from loaderd.protocol import ModelSpec
from loaderd.reporter import AliasMoved, Report
from loaderd.rules import CANDIDATE, LIVE, LineageTraffic, Rules
from loaderd.states import LoadPhase, ModelState
from loaderd.supervisor.config import DaemonConfig
from loaderd.supervisor.model.managed import ManagedModel

log = logging.getLogger(__name__)

Kind = Literal["activate", "rollback"]


class LineageHouse(Protocol):
    """What lineages need of the daemon around them.

    load, unload: return the result of today's operations or raise LoaderdError; both know no operation's end.
    unload with ends_wish of a model that is not loaded ends its wish, and its restart if one was on its way.
    require_room_instead_of: raises InsufficientMemory, with the plan as its facts, when a load of the spec cannot be
    made to fit even once the model `live` is unloaded.
    place_kept: nobody else gets the memory that a load of the spec needs, for the length of the block.
    """

    config: DaemonConfig
    rules: Rules
    stopping: asyncio.Event

    def model(self, model_id: str) -> ManagedModel: ...
    async def load(
        self,
        spec: ModelSpec,
        operation_id: str | None,
        reason: str,
        *,
        protected: frozenset[str] = frozenset(),
    ) -> dict[str, Any]: ...
    async def require_room_instead_of(self, live: str, spec: ModelSpec) -> None: ...
    async def unload(
        self,
        model_id: str,
        operation_id: str | None,
        reason: str,
        *,
        ends_wish: bool,
        cause: str,
        drain_seconds: float | None = None,
    ) -> dict[str, Any]: ...
    def place_kept(self, spec: ModelSpec) -> AbstractContextManager[None]: ...
    def progress(self, operation_id: str | None, model_id: str, phase: LoadPhase, share: float) -> None: ...
    async def publish_routes(self) -> None: ...
    def report(self, report: Report) -> None: ...


class Lineages:
    """traffic: where each lineage's names lead now. moves: how often an alias was moved here; a table of the registry
    that was asked for before the newest move does not know of it, and must not be followed."""

    def __init__(self, house: LineageHouse) -> None:
        self.traffic: dict[str, LineageTraffic] = {}
        self.moves = 0
        self._house = house
        self._gaps: set[str] = set()
        self._replaced: dict[str, str | None] = {}  # what is live when the lineage's activation under way begins
        self._locks: dict[str, asyncio.Lock] = {}

    def follow(self, lineages: Mapping[str, LineageTraffic]) -> None:
        """Takes over the registry's table, whole. The caller publishes the routes."""
        self.traffic = dict(lineages)

    def table(self) -> dict[str, Any]:
        """{lineage: {"aliases", "candidate_percent", "shadow", "in_gap"}} for the gateway. in_gap: its live version
        was unloaded so that another one can be loaded and become live; requests wait for that."""
        return {
            lineage: {
                "aliases": dict(traffic.aliases),
                "candidate_percent": traffic.candidate_percent,
                "shadow": traffic.shadow,
                "in_gap": lineage in self._gaps,
            }
            for lineage, traffic in self.traffic.items()
        }

    def live_of(self, lineage: str) -> str | None:
        """The model_id that the lineage's bare name answers with; None when nothing was ever activated or loaded."""
        return self._of(lineage).aliases.get(LIVE)

    async def activate(
        self, spec: ModelSpec, operation_id: str | None, *, user: str, kind: Kind, reason: str, allow_gap: bool
    ) -> dict[str, Any]:
        """Loads the version beside the live one, moves `live` to it, drains the old one and unloads it.

        Answers {"model_id", "status": "live", "previous", "load_seconds", "freed_bytes", "gap_seconds"}. gap_seconds:
        how long no version answered; None when that was not needed. Raises what the load failed with, or
        ActivationFailed: then the old version is live as before, and the new one as it was found.
        Until the alias moves the call may be cancelled; from there on it is finished.
        """
        async with self._locks.setdefault(spec.lineage, asyncio.Lock()):
            activation = _Activation(self, self._house, spec, operation_id, user, kind, reason)
            self._replaced[spec.lineage] = self.live_of(spec.lineage)
            try:
                return await activation.run(allow_gap=allow_gap)
            finally:
                del self._replaced[spec.lineage]

    def takes_part(self, lineage: str, model_id: str) -> bool:
        """Whether the lineage's activations, under way or waiting for their turn, need this version as it is: it is
        live, or was when the one under way began."""
        return model_id in (self.live_of(lineage), self._replaced.get(lineage))

    def _of(self, lineage: str) -> LineageTraffic:
        return self.traffic.get(lineage, LineageTraffic())

    def _point_live_at(self, lineage: str, model_id: str | None) -> None:
        self.moves += 1
        traffic = self._of(lineage)
        aliases = {name: target for name, target in traffic.aliases.items() if name != LIVE}
        if model_id is not None:
            aliases[LIVE] = model_id
        self.traffic[lineage] = replace(traffic, aliases=aliases)

    def _is_candidate(self, lineage: str, model_id: str) -> bool:
        """Whether the lineage's candidate gets traffic and is this version."""
        traffic = self._of(lineage)
        return traffic.aliases.get(CANDIDATE) == model_id and (traffic.candidate_percent > 0 or traffic.shadow)


class _Activation:
    """One move of `live`, under its lineage's lock."""

    def __init__(
        self,
        lineages: Lineages,
        house: LineageHouse,
        spec: ModelSpec,
        operation_id: str | None,
        user: str,
        kind: Kind,
        reason: str,
    ) -> None:
        self._lineages = lineages
        self._house = house
        self._spec = spec
        self._operation_id = operation_id
        self._user = user
        self._kind = kind
        self._reason = reason
        self._previous = lineages.live_of(spec.lineage)
        self._new = house.model(spec.model_id)
        self._load_seconds = 0.0
        self._freed_bytes: int | None = None
        self._gap_began: float | None = None
        self._gap_seconds: float | None = None

    @property
    def _previous_answers(self) -> bool:
        return self._previous is not None and self._house.model(self._previous).state is ModelState.LOADED

    @property
    def _why(self) -> str:
        return f"{'rolled back' if self._kind == 'rollback' else 'activated'} by {self._user}" + (
            f": {self._reason}" if self._reason else ""
        )

    async def run(self, *, allow_gap: bool) -> dict[str, Any]:
        if self._previous == self._spec.model_id:
            await self._load()
            return self._result(previous=None)
        found = self._new.state
        found_loaded = found in (ModelState.LOADED, ModelState.LOADING)
        try:
            await self._load_beside_or_instead(allow_gap)
        except LoaderdError as error:
            if found is ModelState.UNLOADED and self._new.state is ModelState.ERROR:
                # As it was found: nobody wishes it loaded, so it is no model that fails to be. Its error is kept.
                await _finished(self._take_back(f"its activation failed: {error.message}"))
            raise self._told(error, f"{self._previous} stays live." if self._previous_answers else "") from error
        try:
            await self._move()
        except BaseException:
            if not found_loaded:
                await _finished(self._take_back())
            raise
        await _finished(self._retire_previous())
        return self._result(previous=self._previous)

    # The load

    async def _load(self, **how: Any) -> None:
        was_loaded = self._new.state is ModelState.LOADED
        result = await self._house.load(self._spec, self._operation_id, f"to be {self._why}", **how)
        if not was_loaded:
            self._load_seconds = result.get("load_seconds") or 0.0

    async def _load_beside_or_instead(self, allow_gap: bool) -> None:
        previous = self._previous
        if previous is None or not self._previous_answers:
            await self._load()
            return
        try:
            await self._load(protected=frozenset({previous}))
        except InsufficientMemory as error:
            if allow_gap:
                await self._load_instead_of(previous)
                return
            raise self._told(
                error,
                f"With allow_gap {previous} is unloaded first: then nothing answers for {self._spec.lineage} until "
                f"{self._spec.model_id} is loaded.",
                offers_gap=True,
            ) from None

    async def _load_instead_of(self, previous: str) -> None:
        """The stated gap: the old version is unloaded first, and loaded again when the new one fails. Where the new one
        would not fit then either, it raises InsufficientMemory before anything is touched."""
        await self._house.require_room_instead_of(previous, self._spec)
        spec = self._house.model(previous).spec
        assert spec is not None  # it was loaded
        self._gap_began = time.monotonic()
        self._lineages._gaps.add(self._spec.lineage)
        try:
            # Still wished: a daemon that dies in the gap comes back with it.
            with self._house.place_kept(self._spec):
                await self._unload(previous, f"makes room for {self._spec.model_id}", ends_wish=False, cause="")
                await self._load()
        except BaseException as failure:
            if self._house.stopping.is_set():
                raise  # it is still wished, so the next start loads it
            try:
                await _finished(self._load_again(spec))
            except LoaderdError as second:
                raise ActivationFailed(
                    f"{self._spec.model_id} could not take over ({failure}), and {previous}, which was unloaded "
                    f"for it, could not be loaded again: {second.message}",
                    model_id=self._spec.model_id,
                    previous=previous,
                    cause=failure.to_message() if isinstance(failure, LoaderdError) else None,
                ) from failure
            raise
        finally:
            self._lineages._gaps.discard(self._spec.lineage)

    async def _load_again(self, spec: ModelSpec) -> None:
        """The version that went for the new one comes back, unless the daemon is told to stop meanwhile."""
        reason = f"live again: {self._spec.model_id} could not take over"
        with self._house.place_kept(spec):
            load = asyncio.ensure_future(self._house.load(spec, self._operation_id, reason))
            stop = asyncio.ensure_future(self._house.stopping.wait())
            try:
                await asyncio.wait({load, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not load.done():
                    load.cancel()
                await load
            finally:
                stop.cancel()

    # The move

    async def _move(self) -> None:
        """`live` leads to the new version, at the door too. Raises ActivationFailed when that has died meanwhile."""
        house, spec, previous = self._house, self._spec, self._previous
        house.progress(self._operation_id, spec.model_id, LoadPhase.SWITCHING, 0.0)
        self._require_loaded()
        self._lineages._point_live_at(spec.lineage, spec.model_id)
        try:
            await house.publish_routes()
            self._require_loaded()
        except BaseException:
            self._lineages._point_live_at(spec.lineage, previous)
            await _finished(house.publish_routes())
            raise
        house.report(
            AliasMoved(
                lineage=spec.lineage,
                alias=LIVE,
                model_id=spec.model_id,
                previous=previous,
                kind=self._kind,
                reason=self._reason,
                user=self._user,
                at=time.time(),
                operation_id=self._operation_id,
                left_by_rollback=previous if self._kind == "rollback" else None,
            )
        )
        if self._gap_began is not None:
            self._gap_seconds = time.monotonic() - self._gap_began

    def _require_loaded(self) -> None:
        if self._new.state is not ModelState.LOADED:
            stays = f"{self._previous} stays live" if self._previous else "nothing was changed"
            raise ActivationFailed(
                f"{self._spec.model_id} was loaded and is {self._new.state} ({self._new.reason}) before it could "
                f"take over; {stays}. Repeat it when the cause is mended.",
                model_id=self._spec.model_id,
                previous=self._previous,
            )

    async def _take_back(self, reason: str = "could not take over") -> None:
        """Unloads what was loaded for this activation only."""
        try:
            await self._unload(self._spec.model_id, reason, ends_wish=False, cause="")
        except LoaderdError as error:
            log.error("%s could not be unloaded after its activation failed: %s", self._spec.model_id, error)

    async def _retire_previous(self) -> None:
        """The old version finishes what it has, and goes; unless it now answers as the candidate."""
        previous = self._previous
        if previous is None or self._lineages._is_candidate(self._spec.lineage, previous):
            return
        self._house.progress(self._operation_id, self._spec.model_id, LoadPhase.SWITCHING, 0.5)
        try:
            await self._unload(previous, f"replaced by {self._spec.model_id}", ends_wish=True, cause="replaced")
        except LoaderdError as error:  # the new version is live all the same
            log.error("%s could not be unloaded after %s took over: %s", previous, self._spec.model_id, error)

    async def _unload(self, model_id: str, reason: str, *, ends_wish: bool, cause: str) -> None:
        drain_seconds = self._house.config.predict_timeout_seconds
        result = await self._house.unload(
            model_id, self._operation_id, reason, ends_wish=ends_wish, cause=cause, drain_seconds=drain_seconds
        )
        if model_id == self._previous and result.get("freed_bytes") is not None:
            self._freed_bytes = result["freed_bytes"]

    # What is told

    def _told(self, error: LoaderdError, more: str, **facts: Any) -> LoaderdError:
        """The same error with a sentence about what that means for the lineage."""
        message = f"{error.message} {more}" if more else error.message
        return type(error)(message, **{**error.facts, "live": self._previous, **facts})

    def _result(self, previous: str | None) -> dict[str, Any]:
        return {
            "model_id": self._spec.model_id,
            "status": "live",
            "previous": previous,
            "load_seconds": self._load_seconds,
            "freed_bytes": self._freed_bytes,
            "gap_seconds": self._gap_seconds,
        }


async def _finished(work: Any) -> None:
    """Waits for work that must not be cut in half: a cancellation of the caller comes too late for it."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
    task.result()
