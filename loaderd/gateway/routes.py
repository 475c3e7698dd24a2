"""Which name leads to which model: the table that the supervisor pushes, whole, on each change."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loaderd.errors import ModelNotLoaded, UnknownModel
from loaderd.states import ModelState


@dataclass(frozen=True, slots=True)
class Route:
    """One model version. socket: path of its process's data socket, None without a process.

    max_queue, max_batch_size: its process takes that many waiting requests beside those of one call.
    """

    model_id: str
    lineage: str
    version: str
    state: str
    reason: str = ""
    socket: str | None = None
    signature: Mapping[str, Any] | None = None
    framework: str = ""
    max_queue: int = 1024
    max_batch_size: int = 64

    @property
    def is_ready(self) -> bool:
        return self.state == ModelState.LOADED and self.socket is not None

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
class Routes:
    """A snapshot of the table, with the versions of each lineage from lowest to highest."""

    models: Mapping[str, Route] = field(default_factory=dict)
    lineages: Mapping[str, list[Route]] = field(default_factory=dict)

    @classmethod
    def from_message(cls, models: Mapping[str, Mapping[str, Any]]) -> Routes:
        known = Route.__dataclass_fields__.keys()
        routes = {
            model_id: Route(**{"model_id": model_id, **{key: row[key] for key in row if key in known}})
            for model_id, row in models.items()
        }
        lineages: dict[str, list[Route]] = {}
        for route in sorted(routes.values(), key=lambda route: _version_key(route.version)):
            lineages.setdefault(route.lineage, []).append(route)
        return cls(routes, lineages)

    @classmethod
    def from_index(cls, rows: Sequence[Mapping[str, Any]]) -> Routes:
        """What the registry lists, for models that the table does not name: nothing holds them here."""
        return cls.from_message(
            {
                row["model_id"]: {
                    "lineage": row["name"],
                    "version": row["version"],
                    "state": row["state"],
                    "reason": row.get("reason", ""),
                }
                for row in rows
            }
        )

    def resolve(self, name: str, version: str | None = None) -> Route:
        """The version that a name means: a model_id, or a lineage with a version, or its highest loaded one.

        A lineage without a loaded version gives its highest version. Raises UnknownModel.
        """
        route = self.models.get(name)
        if route is not None and version in (None, route.version):
            return route
        versions = self.lineages.get(name, [])
        if version is not None:
            versions = [route for route in versions if route.version == version]
        if not versions:
            raise _unknown(name, version)
        ready = [route for route in versions if route.is_ready]
        return (ready or versions)[-1]

    def exactly(self, model_id: str) -> Route:
        """The version with this id; a lineage's name is none. Raises UnknownModel."""
        try:
            return self.models[model_id]
        except KeyError:
            raise _unknown(model_id) from None

    def versions_of(self, name: str) -> list[str]:
        """The loaded versions behind a name."""
        if name in self.models:
            return [self.models[name].version]
        return [route.version for route in self.lineages.get(name, []) if route.is_ready]


def _unknown(name: str, version: str | None = None) -> UnknownModel:
    of_version = f" in version {version}" if version is not None else ""
    return UnknownModel(
        f'No model named "{name}" is known here{of_version}; POST /v2/repository/index lists the models.', model=name
    )


def _version_key(version: str) -> list[tuple[int, int, str]]:
    """Orders 2 before 10 and 1.9 before 1.10; words come before numbers."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
