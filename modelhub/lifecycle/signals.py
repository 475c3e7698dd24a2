"""Tells loaderd, through NOTIFY, that its rules are out of date: a policy, an alias or a lineage's traffic was saved.

Aliases that discovery removes get their line in the history here.

The notification leaves with the transaction that made the change. What loaderd itself reports is written by
`.update()`, which sends no signal: its heartbeats must not make it read its rules anew each second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Model as AnyModel
from django.db.models.signals import post_delete, post_save

from modelhub.lifecycle.alias_moves import record_strayed
from modelhub.lifecycle.rules import POLICY_FIELDS
from modelhub.policy.effective import notify_rules_changed
from modelhub.policy.models import Policy
from modelhub.registry.discovery import aliases_strayed
from modelhub.registry.models import Alias, Model, ModelVersion

# The fields that rules are made of; None: any.
_FIELDS: dict[type[AnyModel], frozenset[str] | None] = {
    Policy: None,
    Alias: None,
    Model: frozenset({"name", "candidate_percent", "shadow"}),
    ModelVersion: frozenset({"model_id", *POLICY_FIELDS}),
}


def _changed(sender: type[AnyModel], using: str, update_fields: frozenset[str] | None = None, **kwargs: Any) -> None:
    fields = _FIELDS[sender]
    if fields is None or update_fields is None or fields & update_fields:
        notify_rules_changed(using)


def _strayed(aliases: Sequence[Alias], actor: str, **kwargs: Any) -> None:
    record_strayed(aliases, actor)


def connect() -> None:
    aliases_strayed.connect(_strayed, dispatch_uid="lifecycle.aliases_strayed")
    for sender in _FIELDS:
        for signal in (post_save, post_delete):
            signal.connect(_changed, sender=sender, dispatch_uid=f"lifecycle.rules.{sender.__name__}")
