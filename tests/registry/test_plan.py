"""Which directories may be registered beside one another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelhub.registry.plan import Claim, conflicts, lineage_types

claims = st.builds(
    Claim,
    path=st.just(""),
    model_id=st.sampled_from("abcd"),
    type=st.sampled_from(["topic", "intent"]),
    lineage=st.sampled_from(["x", "y"]),
    version=st.sampled_from(["1", "2"]),
).map(lambda claim: Claim(f"{claim.type}/{claim.model_id}", claim.model_id, claim.type, claim.lineage, claim.version))


def consistent(found: list[Claim]) -> list[Claim]:
    """As the tables hold them: one row a name, one row a version, one type a lineage."""
    kept: list[Claim] = []
    for claim in found:
        same_lineage = [other for other in kept if other.lineage == claim.lineage]
        if (
            all(other.model_id != claim.model_id for other in kept)
            and all(other.type == claim.type for other in same_lineage)
            and all(other.version != claim.version for other in same_lineage)
        ):
            kept.append(claim)
    return kept


@given(st.lists(claims, max_size=6), st.lists(claims, max_size=6, unique_by=lambda claim: claim.path))
def test_what_is_accepted_satisfies_the_constraints_beside_what_stays(rows: list[Claim], found: list[Claim]) -> None:
    registered = {claim.model_id: claim for claim in consistent(rows)}
    refused = conflicts(registered, found)
    accepted = [claim for claim in found if claim.path not in refused]
    types = lineage_types(registered, accepted)
    assert all(claim.type == types[claim.lineage] for claim in accepted)
    after = {**registered, **{claim.model_id: claim for claim in accepted}}
    assert len({claim.model_id for claim in accepted}) == len(accepted)
    assert len({(claim.lineage, claim.version) for claim in after.values()}) == len(after)


@given(st.lists(claims, max_size=6), st.lists(claims, max_size=6, unique_by=lambda claim: claim.path))
def test_it_is_settled_after_one_run(rows: list[Claim], found: list[Claim]) -> None:
    registered = {claim.model_id: claim for claim in consistent(rows)}
    refused = conflicts(registered, found)
    after = {**registered, **{claim.model_id: claim for claim in found if claim.path not in refused}}
    again = conflicts(after, [claim for claim in found if claim.path not in refused])
    assert again == {}


@given(st.lists(claims, max_size=6))
def test_directories_that_are_registered_already_are_never_refused(rows: list[Claim]) -> None:
    registered = {claim.model_id: claim for claim in consistent(rows)}
    assert conflicts(registered, list(registered.values())) == {}
