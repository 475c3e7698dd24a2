"""What people changed of a model, by the beginning of each entry: an entry may keep whole files as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models.functions import Left

from modelhub.registry.models import ModelVersion

MOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of Django's log. told: the beginning of its first line. has_more: the entry says more than that."""

    pk: int
    at: datetime
    by: str
    told: str
    has_more: bool


def changes_of(version: ModelVersion, most: int) -> Sequence[Change]:
    """The newest entries about it. One query, which reads no message whole that is long."""
    kind = ContentType.objects.get_for_model(ModelVersion)
    entries = LogEntry.objects.filter(content_type=kind, object_id=str(version.pk)).select_related("user")
    # Not its length: for that Postgres would read all of it.
    begun = entries.defer("change_message").annotate(beginning=Left("change_message", MOST_CHARACTERS + 1))
    return [_change(entry, entry.beginning) for entry in begun[:most]]


def _change(entry: LogEntry, beginning: str) -> Change:
    is_whole = len(beginning) <= MOST_CHARACTERS
    if is_whole:
        entry.change_message = beginning
        beginning = entry.get_change_message()  # in words, where it is Django's JSON
    first, _, rest = beginning.partition("\n")
    told = first if is_whole or rest else f"{first[:MOST_CHARACTERS]}…"
    return Change(entry.pk, entry.action_time, entry.user.get_username(), told, bool(rest) or not is_whole)
