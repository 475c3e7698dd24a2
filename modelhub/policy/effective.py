"""The settings that are in force: the environment's, with the policy record's in their place where it has any."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, connections, transaction
from pydantic import BaseModel, create_model
from pydantic import ValidationError as NotValid

from modelhub.actors import COMMAND, actor_of
from modelhub.conf import Config, config
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange

RULES_CHANNEL = "modelhub_rules"  # loaderd listens: policy, limits, aliases or traffic changed

LATELY_SECONDS = 1.0
# When the policy was read for effective_lately(), by the monotonic clock, and what it overrode then. Of this process:
# a change counts within a second, as at loaderd.
_lately: tuple[float, dict[str, Any]] = (float("-inf"), {})

logger = logging.getLogger(__name__)

# The settings' own types and bounds, without the rest of Config, which would read the environment again.
_Values: type[BaseModel] = create_model(  # type: ignore[call-overload]
    "_Values", **{name: (Config.model_fields[name].annotation, Config.model_fields[name]) for name in OVERRIDABLE}
)


def effective() -> Config:
    """The settings in force: one query for one row, so ask once a request, not once a row. Treat it as read-only.

    Not remembered for a while: who is told of a change must see it. Only the checking of the values is remembered.
    """
    record = Policy.objects.filter(pk=1).first()
    return _with({} if record is None else record.overrides())


def effective_lately() -> Config:
    """The settings that were in force within the last second, for what is asked too often for a query each time.

    While the database is away: those that were in force last.
    """
    global _lately
    read_at, overrides = _lately
    if time.monotonic() - read_at > LATELY_SECONDS:
        try:
            record = Policy.objects.filter(pk=1).first()
            overrides = {} if record is None else record.overrides()
        except (OperationalError, InterfaceError):
            logger.warning("the database is away; the policy is taken as it was read last")
        _lately = (time.monotonic(), overrides)
    return _with(overrides)


def problems(overrides: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with these values: setting -> one sentence; {} when all are good."""
    wrong = {name: f"{name} cannot be changed while Modelhub runs." for name in overrides if name not in OVERRIDABLE}
    try:
        _Values.model_validate(dict(overrides))
    except NotValid as error:
        for problem in error.errors():
            name = str(problem["loc"][0])
            wrong[name] = f"{problem['msg']}. {Config.model_fields[name].description}"
    return wrong


def change(values: Mapping[str, Any], *, user: Any, source: str = COMMAND) -> Policy:
    """Sets these settings (None or "": back to the environment's value), leaves a PolicyChange for each that
    changed, and tells loaderd at commit.

    user, source: who changes; see modelhub.actors. Raises django's ValidationError, by field, and then nothing has
    changed.
    """
    wrong = problems({name: value for name, value in values.items() if value not in (None, "")})
    wrong |= problems({name: None for name in values if name not in OVERRIDABLE})
    if wrong:
        raise ValidationError({name.lower(): sentence for name, sentence in wrong.items()})
    with transaction.atomic():
        row = Policy.objects.select_for_update().filter(pk=1)
        record = row.first()
        if record is None:
            if all(value in (None, "") for value in values.values()):
                return Policy()
            Policy.objects.get_or_create(pk=1)  # two who are first at once: one waits here for the other
            record = row.get()
        before = record.overrides()
        for name, value in values.items():
            empty: Any = "" if name == "PERFORMANCE_LOG_LEVEL" else None
            setattr(record, name.lower(), empty if value in (None, "") else _typed(name, value))
        record.full_clean(exclude=["id"])
        after = record.overrides()
        changes = [
            PolicyChange(
                setting=name,
                before=str(before.get(name, "")),
                after=str(after.get(name, "")),
                actor=actor_of(user, source),
                user=user,
            )
            for name in OVERRIDABLE
            if before.get(name) != after.get(name)
        ]
        if changes:
            record.save()
            PolicyChange.objects.bulk_create(changes)
            notify_rules_changed()
    return record


def notify_rules_changed(using: str = "default") -> None:
    """Tells loaderd, when the transaction commits, to ask for its rules again."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [RULES_CHANNEL])


def _with(overrides: Mapping[str, Any]) -> Config:
    """The environment's settings with these in their place."""
    return config().model_copy(update=dict(_checked(tuple(overrides.items())))) if overrides else config()


def _typed(name: str, value: Any) -> Any:
    """A good value as the setting has it: who types "true" means a truth."""
    return getattr(_Values.model_validate({name: value}), name)


@lru_cache(maxsize=8)
def _checked(overrides: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    """The overrides with their proper types; one that the settings refuse now (an upgrade) is left out."""
    wrong = problems(dict(overrides))
    good = {name: value for name, value in overrides if name not in wrong}
    valid = _Values.model_validate(good)
    return tuple((name, getattr(valid, name)) for name in good)
