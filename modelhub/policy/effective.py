"""The settings that are in force: the environment's, with the policy record's in their place where it has any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connections, transaction
from pydantic import ValidationError

from modelhub.conf import Config, config
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange

RULES_CHANNEL = "modelhub_rules"  # loaderd listens: policy, limits, aliases or traffic changed


def effective() -> Config:
    """The settings in force. One query; ask once a request, not once a row."""
    record = Policy.objects.filter(pk=1).first()
    if record is None:
        return config()
    return config().model_copy(update=_checked(record.overrides()))


def problems(overrides: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with these values: setting -> one sentence; {} when all are good."""
    try:
        Config.model_validate({**_present(), **overrides})
    except ValidationError as error:
        return {
            str(problem["loc"][0]): f"{problem['msg']}. {Config.model_fields[str(problem['loc'][0])].description}"
            for problem in error.errors()
            if problem["loc"][0] in overrides
        }
    return {}


def change(values: Mapping[str, Any], *, user: Any) -> Policy:
    """Sets these settings (None or "": back to the environment's value), leaves a PolicyChange for each that
    changed, and tells loaderd at commit.

    user: who changes; None is the system. Raises django's ValidationError, by field, and then nothing has changed.
    """
    with transaction.atomic():
        Policy.objects.get_or_create(pk=1)
        record = Policy.objects.select_for_update().get(pk=1)
        before = record.overrides()
        for name, value in values.items():
            empty: Any = "" if name == "PERFORMANCE_LOG_LEVEL" else None
            setattr(record, name.lower(), empty if value in (None, "") else value)
        record.full_clean(exclude=["id"])
        record.save()
        after = record.overrides()
        PolicyChange.objects.bulk_create(
            PolicyChange(
                setting=name,
                before=str(before.get(name, "")),
                after=str(after.get(name, "")),
                actor=user.get_username() if user is not None else "system",
                user=user,
            )
            for name in OVERRIDABLE
            if before.get(name) != after.get(name)
        )
        notify_rules_changed()
    return record


def notify_rules_changed(using: str = "default") -> None:
    """Tells loaderd, when the transaction commits, to ask for its rules again."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [RULES_CHANNEL])


def _present() -> dict[str, Any]:
    return {name: getattr(config(), name) for name in OVERRIDABLE}


def _checked(overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides with their proper types; one that the settings refuse now (an upgrade) is left out."""
    wrong = problems(overrides)
    good = {name: value for name, value in overrides.items() if name not in wrong}
    valid = Config.model_validate({**_present(), **good})
    return {name: getattr(valid, name) for name in good}
