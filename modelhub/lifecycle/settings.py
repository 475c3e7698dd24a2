"""Each setting that changes at run time: what counts, where that comes from, and what loaderd said it works by.

Whoever asks may have another environment than what runs (a second terminal), so loaderd's heartbeat brings its own.
"""

from __future__ import annotations

from typing import Any

from modelhub.conf import Config, config
from modelhub.lifecycle.observed import LoaderView
from modelhub.lifecycle.rules import settings_of
from modelhub.policy.effective import effective, problems
from modelhub.policy.models import OVERRIDABLE, Policy

# In the facts of loaderd's heartbeat.
ENVIRONMENT = "environment"


def own_environment() -> dict[str, Any]:
    """What the environment of this process sets: setting -> value, of those that change at run time."""
    return {name: getattr(config(), name) for name in OVERRIDABLE if name in config().model_fields_set}


def settings_in_force(loader: LoaderView) -> list[dict[str, Any]]:
    """[{"name", "value", "source", "environment", "override", "observed", "observed_at", "description"}]; two queries.

    value: what counts. source: where it comes from, "policy", "environment" or "default". environment: what counts
    without the policy, by loaderd's environment; before loaderd's first start by that of this process. override: the
    policy's, or None; one that the settings refuse by now (an upgrade) is told, and does not count. observed: what
    loaderd worked by at observed_at; None when it never said, and for settings that are not loaderd's.
    """
    record, decided = Policy.objects.filter(pk=1).first(), effective()
    overrides = record.overrides() if record is not None else {}
    counting = set(overrides) - set(problems(overrides))
    environment = loader.facts.get(ENVIRONMENT)
    if environment is None:
        environment = own_environment()
    observed = settings_of(loader.facts.get("limits") or {})
    told = []
    for name in OVERRIDABLE:
        base = environment.get(name, Config.model_fields[name].default)
        told.append(
            {
                "name": name,
                "value": getattr(decided, name) if name in counting else base,
                "source": "policy" if name in counting else "environment" if name in environment else "default",
                "environment": base,
                "override": overrides.get(name),
                "observed": observed.get(name),
                "observed_at": loader.observed_at if name in observed else None,
                "description": Config.model_fields[name].description,
            }
        )
    return told
