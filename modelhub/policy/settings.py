"""Each setting that changes at run time: what is in force, and where that comes from."""

from __future__ import annotations

from typing import Any

from modelhub.conf import Config, config
from modelhub.policy.effective import effective
from modelhub.policy.models import OVERRIDABLE, Policy


def settings_in_force() -> list[dict[str, Any]]:
    """[{"name", "value", "environment", "override", "description"}]; override is None where the environment counts.

    An override that the settings refuse by now (an upgrade) is told, and `value` says what is in force instead.
    """
    in_force, record = effective(), Policy.objects.filter(pk=1).first()
    overrides = record.overrides() if record is not None else {}
    return [
        {
            "name": name,
            "value": getattr(in_force, name),
            "environment": getattr(config(), name),
            "override": overrides.get(name),
            "description": Config.model_fields[name].description,
        }
        for name in OVERRIDABLE
    ]
