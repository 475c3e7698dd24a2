"""Which of the directories found may be registered together: a pure decision over names, types and versions."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What a directory (or a row whose directory is not accepted now) holds in the registry."""

    path: str
    model_id: str
    type: str
    lineage: str
    version: str


def conflicts(registered: Mapping[str, Claim], found: Sequence[Claim], occupied: Container[str] = ()) -> dict[str, str]:
    """path -> reason for each found directory that cannot be registered beside the others.

    registered: by model_id, what the rows hold now. occupied: paths that exist but are refused already;
    a registered model there does not move to a directory of its name elsewhere.

    Who holds a name or version already keeps it; among newcomers the first by path gets it. A refused
    directory's row keeps what it holds, which may refuse another one in turn, so the decision is repeated
    until nothing changes.
    """
    refused: dict[str, str] = _doubled_names(registered, found, occupied)
    while True:
        accepted = [claim for claim in found if claim.path not in refused]
        moving = {claim.model_id for claim in accepted}
        kept = [claim for model_id, claim in registered.items() if model_id not in moving]
        more = _mixed_types(registered, accepted) or _doubled_versions(registered, kept, accepted)
        if not more:
            return refused
        refused |= more


def lineage_types(registered: Mapping[str, Claim], accepted: Iterable[Claim]) -> dict[str, str]:
    """lineage -> type: the type it has, unless all its directories lie in another folder now."""
    types: dict[str, list[str]] = {}
    for claim in sorted(accepted, key=lambda claim: claim.path):
        types.setdefault(claim.lineage, []).append(claim.type)
    present = {claim.lineage: claim.type for claim in registered.values()}
    return {
        lineage: present[lineage] if present.get(lineage) in found else found[0] for lineage, found in types.items()
    }


def _doubled_names(registered: Mapping[str, Claim], found: Iterable[Claim], occupied: Container[str]) -> dict[str, str]:
    holders = {model_id: row.path for model_id, row in registered.items() if row.path in occupied}
    refused = {}
    for claim in sorted(found, key=lambda claim: (not _holds(registered, claim, "path"), claim.path)):
        holder = holders.setdefault(claim.model_id, claim.path)
        if holder != claim.path:
            refused[claim.path] = f"The name {claim.model_id} is taken by {holder}; rename the directory."
    return refused


def _mixed_types(registered: Mapping[str, Claim], accepted: Sequence[Claim]) -> dict[str, str]:
    types = lineage_types(registered, accepted)
    return {
        claim.path: (
            f"The lineage {claim.lineage} is of type {types[claim.lineage]}; move the directory there or state "
            'another "lineage" in metadata.json.'
        )
        for claim in accepted
        if claim.type != types[claim.lineage]
    }


def _doubled_versions(
    registered: Mapping[str, Claim], kept: Iterable[Claim], accepted: Iterable[Claim]
) -> dict[str, str]:
    holders = {(claim.lineage, claim.version): (claim.model_id, "is not accepted now or gone") for claim in kept}
    refused = {}
    for claim in sorted(accepted, key=lambda claim: (not _holds(registered, claim, "version"), claim.path)):
        model_id, state = holders.setdefault((claim.lineage, claim.version), (claim.model_id, ""))
        if model_id != claim.model_id:
            reason = f"Version {claim.version} of the lineage {claim.lineage} is {model_id} already"
            way_out = f", whose directory {state}; delete that model in the admin or" if state else ";"
            refused[claim.path] = f'{reason}{way_out} state another "version" or "lineage" in metadata.json.'
    return refused


def _holds(registered: Mapping[str, Claim], claim: Claim, what: str) -> bool:
    """Whether the directory's row holds this path, or this version of this lineage, already."""
    row = registered.get(claim.model_id)
    if row is None:
        return False
    return row.path == claim.path if what == "path" else (row.lineage, row.version) == (claim.lineage, claim.version)
