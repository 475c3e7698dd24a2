"""What an eviction is expected to cost: how likely the model is asked again soon, and how long it then takes."""

from __future__ import annotations

from loaderd.scheduler.snapshot import Claim
from loaderd.scheduler.wording import MIB, duration, minutes, percent

SOON_MINUTES = 10
HOUR_MINUTES = 60
IDLE_HALVES_SECONDS = 30 * 60.0
PRIORITY_DOUBLES = 10
NEUTRAL_PRIORITY = 50
LEAST_PROBABILITY = 1e-3
LEAST_RELOAD_SECONDS = 0.1
SECONDS_PER_MIB = 1e-10


def probability(claim: Claim) -> float:
    """That the model is asked within the next ten minutes.

    1 - (1 - u)^10 from the share u of the last hour's minutes in which it was asked (one minute more among 61, so
    that a model never asked is not thought to be asked never), halved for each half hour that it has been idle:
    usage tells how often, idleness whether that is over. Never below 0.001.
    """
    share = (60.0 * min(1.0, max(0.0, claim.usage_share)) + 1.0) / 61.0
    soon: float = 1.0 - (1.0 - share) ** SOON_MINUTES
    return max(LEAST_PROBABILITY, soon * 0.5 ** (max(0.0, claim.idle_seconds) / IDLE_HALVES_SECONDS))


def regret_seconds(claim: Claim) -> float:
    """Expected seconds that somebody waits because this model was evicted, weighted by what it is worth.

    probability(claim) * reload_seconds * 2^((priority - 50) / 10), plus 1e-10 s per MiB that comes back, so that among
    equals the least memory is taken. Always positive: of two sets that make room, one inside the other, the smaller
    is the cheaper.
    """
    weight = 2.0 ** ((claim.priority - NEUTRAL_PRIORITY) / PRIORITY_DOUBLES)
    size_mib = (max(0, claim.frees_bytes) + max(0, claim.frees_gpu_bytes)) / MIB
    reload_seconds = max(LEAST_RELOAD_SECONDS, claim.reload_seconds)
    return probability(claim) * reload_seconds * weight + size_mib * SECONDS_PER_MIB


def why_it(claim: Claim) -> str:
    """The same for people: "idle 3 h, asked in 2 % of the last hour's minutes"."""
    return f"idle {duration(claim.idle_seconds)}, {usage(claim)}"


def usage(claim: Claim) -> str:
    """ "asked in 2 % of the last hour's minutes", "asked in 1 of the 3 minutes since loaderd first loaded it"."""
    watched = claim.watched_minutes
    if watched >= HOUR_MINUTES:
        return f"asked in {percent(claim.usage_share)} of the last hour's minutes"
    return f"asked in {round(claim.usage_share * watched)} of the {minutes(watched)} since loaderd first loaded it"
