"""What a person does about a directory that discovery refuses: one step for each kind of reason, with a link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from modelhub.console.registering.access import may_describe


@dataclass(frozen=True, slots=True)
class Refusal:
    """A directory, why it is refused, what to do, and where: url is "" where nothing here helps."""

    path: str
    reason: str
    step: str
    url: str = ""
    label: str = ""


# What a reason says -> (the step, whether editing its metadata is it).
_STEPS: tuple[tuple[str, str, bool], ...] = (
    ("changed while it was read", "Wait until it is copied, then run discovery again.", False),
    (
        "No framework knows its files",
        "Put the model's file there under a name that is known; see docs/registry.md.",
        False,
    ),
    ("states framework", "Correct the framework, or put its files there.", True),
    ("The directory is empty", "Copy the model's files into it, or remove it.", False),
    ("holds more than", "Pack small files, or move what the model does not need elsewhere.", False),
    ("symbolic link", "Copy the real file or folder there, or mount it.", False),
    ("only regular files", "Take it away; a model's directory holds files and folders only.", False),
    ("Cannot read", "Correct owner and mode, so that Modelhub's user can read it.", False),
    ("Cannot list", "Correct owner and mode, so that Modelhub's user can read it.", False),
    ("is a word of the API", "Rename the directory.", False),
    ("is taken by", "Rename one of both directories.", False),
    ("control or invisible characters", "Rename it.", False),
    ("lies directly in the store", "Move it one folder deeper.", False),
    ("of the lineage", "State another version or lineage.", True),
    ("The lineage", "Move it to that type's folder, or state another lineage.", True),
    ("metadata.json", "Correct metadata.json.", True),
    ("config.json", "Correct config.json.", True),
)


def refusal_of(path: str, reason: str, user: Any) -> Refusal:
    """The step, with a link where this user can take it here."""
    for said, step, is_edited in _STEPS:
        if said in reason:
            can_edit = is_edited and path.count("/") == 1 and path.isprintable() and may_describe(user)
            url = reverse("console:describe", args=[path]) if can_edit else ""
            return Refusal(path, reason, step, url, "Edit what it says" if url else "")
    return Refusal(path, reason, "Mend it, then run discovery again.")
