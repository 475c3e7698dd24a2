"""Which name leads to which model: the table that the supervisor pushes, whole, on each change.

A bare name means a lineage first: the version that its alias `live` leads to, and never silently another one; without
such an alias its highest loaded version. Then it means a model_id. Behind `/versions/` stands a version or an alias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loaderd.errors import ModelNotLoaded, UnknownModel
from loaderd.rules import CANDIDATE, LIVE, LineageTraffic
from loaderd.states import ModelState
from loaderd.version_order import version_key


@dataclass(frozen=True, slots=True)
class Route:
    """One model version. sockets: paths of its processes' data sockets, () without a process.

    max_queue, max_batch_size: its process takes that many waiting requests beside those of one call.
    load: which load of which bytes answers; another one with each load. cache_ttl_seconds: for how long its answers are
    kept, 0.0: not. cacheable: False of a model that answers the same question in different ways.
    autoload: loaded when a prediction asks for it. recovering: something comes in its place by itself: a new process
    when its own died, or the version that takes over from it when both did not fit at once.
    """

    model_id: str
    lineage: str
    version: str
    state: str
    reason: str = ""
    sockets: tuple[str, ...] = ()
    signature: Mapping[str, Any] | None = None
    framework: str = ""
    max_queue: int = 1024
    max_batch_size: int = 64
    autoload: bool = False
    recovering: bool = False
    load: str = ""
    cache_ttl_seconds: float = 0.0
    cacheable: bool = True

    @property
    def keeps_answers(self) -> bool:
        """Whether its answers are kept and given again."""
        return self.cache_ttl_seconds > 0 and self.cacheable and bool(self.load)

    @property
    def is_ready(self) -> bool:
        return bool(self.sockets) and self.state == ModelState.LOADED

    @property
    def is_awaited(self) -> bool:
        """Whether a prediction may wait for it: it comes back by itself, or is loaded because it is asked for."""
        return self.recovering or self.autoload

    def require_ready(self) -> Route:
        """This route; raises ModelNotLoaded with what to do next."""
        if self.is_ready:
            return self
        reason = f" ({self.reason})" if self.reason else ""
        advice = {
            ModelState.LOADING: "try again when it is ready",
            ModelState.LOADED: "try again in a moment",
        }.get(ModelState(self.state), f"load it with POST /v2/repository/models/{self.model_id}/load")
        raise ModelNotLoaded(
            f"{self.model_id} is {self.state}{reason}; {advice}.", model_id=self.model_id, state=self.state
        )


@dataclass(frozen=True, slots=True)
class Split:
    """What else happens to requests for a lineage's bare name: `percent` of them go to the candidate in place of the
    live version, and shadow sends it a copy of those that the live version answers."""

    lineage: str
    live: Route
    candidate: Route
    percent: float
    shadow: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What a name means. by_lineage: it was asked for by its lineage's bare name."""

    route: Route
    split: Split | None = None
    by_lineage: bool = False


@dataclass(frozen=True, slots=True)
class Routes:
    """A snapshot of the table, with the versions of each lineage from lowest to highest.

    traffic: where the names of each lineage lead. targets: what each bare name means, worked out once a table.
    """

    models: Mapping[str, Route] = field(default_factory=dict)
    lineages: Mapping[str, list[Route]] = field(default_factory=dict)
    traffic: Mapping[str, LineageTraffic] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)

    @classmethod
    def from_message(
        cls, models: Mapping[str, Mapping[str, Any]], lineages: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Routes:
        known = Route.__dataclass_fields__.keys()
        routes = {
            model_id: Route(
                **{
                    "model_id": model_id,
                    **{key: row[key] for key in row if key in known},
                    "sockets": tuple(row.get("sockets") or ()),
                }
            )
            for model_id, row in models.items()
        }
        traffic = {
            name: LineageTraffic(
                dict(row.get("aliases", {})), float(row.get("candidate_percent", 0.0)), bool(row.get("shadow", False))
            )
            for name, row in (lineages or {}).items()
        }
        for name, row in (lineages or {}).items():
            live = routes.get(traffic[name].aliases.get(LIVE, ""))
            if row.get("in_gap") and live is not None:
                routes[live.model_id] = replace(live, recovering=not live.is_ready)
        return cls._of(routes, traffic)

    @classmethod
    def _of(cls, routes: Mapping[str, Route], traffic: Mapping[str, LineageTraffic]) -> Routes:
        lineages: dict[str, list[Route]] = {}
        for route in sorted(routes.values(), key=lambda route: version_key(route.version)):
            lineages.setdefault(route.lineage, []).append(route)
        targets = {model_id: Target(route) for model_id, route in routes.items()}
        for name in lineages.keys() | traffic.keys():
            target = _bare(name, routes, lineages.get(name, []), traffic.get(name))
            if target is not None:
                targets[name] = target
            elif LIVE in traffic[name].aliases:
                targets.pop(name, None)  # a live version that is not in the table is asked of the registry
        return cls(routes, lineages, traffic, targets)

    def registered(self, rows: Sequence[Mapping[str, Any]]) -> Routes:
        """What the registry lists, under the same aliases: for models that the table does not name, so that nothing
        holds them here."""
        models = Routes.from_message(
            {
                row["model_id"]: {
                    "lineage": row["name"],
                    "version": row["version"],
                    "state": row["state"],
                    "reason": row.get("reason", ""),
                    "autoload": bool(row.get("autoload", False)),
                }
                for row in rows
            }
        ).models
        return Routes._of(models, self.traffic)

    def target(self, name: str, version: str | None = None) -> Target | None:
        """What a name, with or without a version or alias, means in this table; None: nothing."""
        if version is None:
            return self.targets.get(name)
        for route in self.lineages.get(name, ()):
            if route.version == version:
                return Target(route)
        traffic = self.traffic.get(name)
        if traffic is not None and version in traffic.aliases:
            aliased = self.models.get(traffic.aliases[version])
            return None if aliased is None else Target(aliased)
        model = self.models.get(name)
        return Target(model) if model is not None and model.version == version else None

    def require_target(self, name: str, version: str | None = None) -> Target:
        """What a name means; raises UnknownModel."""
        target = self.target(name, version)
        if target is None:
            of_version = f" in version {version}" if version is not None else ""
            raise UnknownModel(
                f'No model named "{name}" is known here{of_version}; POST /v2/repository/index lists the models.',
                model=name,
            )
        return target

    def live_of(self, lineage: str) -> str | None:
        traffic = self.traffic.get(lineage)
        return None if traffic is None else traffic.aliases.get(LIVE)

    def versions_of(self, name: str) -> list[str]:
        """The loaded versions behind a name."""
        if name in self.lineages:
            return [route.version for route in self.lineages[name] if route.is_ready]
        return [self.models[name].version] if name in self.models else []


def _bare(
    name: str, models: Mapping[str, Route], versions: Sequence[Route], traffic: LineageTraffic | None
) -> Target | None:
    """What a lineage's bare name means; None when its live version is not in the table."""
    if traffic is not None and LIVE in traffic.aliases:
        live = models.get(traffic.aliases[LIVE])
        return None if live is None else Target(live, _split(name, live, models, traffic), by_lineage=True)
    ready = [route for route in versions if route.is_ready]
    if ready:
        return Target(ready[-1], by_lineage=True)
    if name in models:
        return Target(models[name])
    return Target(versions[-1], by_lineage=True) if versions else None


def _split(name: str, live: Route, models: Mapping[str, Route], traffic: LineageTraffic) -> Split | None:
    candidate = models.get(traffic.aliases.get(CANDIDATE, ""))
    if candidate is None or candidate is live or not candidate.is_ready:
        return None
    if traffic.candidate_percent <= 0 and not traffic.shadow:
        return None
    return Split(name, live, candidate, traffic.candidate_percent, traffic.shadow)
