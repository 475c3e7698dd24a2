"""What Ctrl+K finds: pages, models, lineages, and what may be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Case, Exists, F, IntegerField, OuterRef, Q, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from loaderd.rules import LIVE
from modelhub.console.site import navigation
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.observed import LoaderView, effective_status, loader_view
from modelhub.lifecycle.permissions import ACTIVATE, LOAD, UNLOAD
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion

MOST_MODELS = 8
MOST_LINEAGES = 5
MOST_RECENT = 6
LONGEST_QUERY = 200

_COLUMNS = ("pk", "model_id", "version", "framework", "status", "missing_since", "lineage__name")
_IN_MEMORY = (Status.LOADING, Status.LOADED)


@dataclass(frozen=True, slots=True)
class Found:
    """One line to choose. word: its state, with a colour. is_dialog: the address answers a dialog. is_posted: it is
    asked by POST, with this page's token."""

    title: str
    url: str
    icon: str
    detail: str = ""
    word: str = ""
    is_dialog: bool = False
    is_posted: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    found: Sequence[Found]


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done with one model. words: how people begin to say it. permission: what it needs.

    candidates: the models with which it can be done.
    """

    name: str
    title: str
    icon: str
    words: tuple[str, ...]
    permission: str
    candidates: Q

    def on(self, version: ModelVersion) -> Found:
        return Found(
            f"{self.title} {version.model_id}",
            reverse(f"admin:registry_modelversion_{self.name}", args=[version.pk]),
            self.icon,
            _detail(version),
            is_dialog=True,
        )


# `is_live` and `was_live` are annotations of _versions().
ACTIONS = (
    Action("load", "Load", "play_arrow", ("load",), LOAD, Q(missing_since=None) & ~Q(status__in=_IN_MEMORY)),
    Action("unload", "Unload", "stop", ("unload",), UNLOAD, Q(status__in=_IN_MEMORY)),
    Action(
        "activate", "Activate", "check_circle", ("activate",), ACTIVATE, Q(missing_since=None, is_live=False)
    ),
    Action(
        "rollback",
        "Roll back to",
        "undo",
        ("roll back to", "rollback to", "roll back", "rollback"),
        ACTIVATE,
        Q(missing_since=None, is_live=False, was_live=True),
    ),
)  # fmt: skip
_OF_ALL = (
    # title, address, icon, other words, permission, is_posted
    ("Optimise memory", "optimize", "mop", "optimize memory unload unused free", UNLOAD, False),
    ("Run discovery", "discover", "travel_explore", "discover find new models store", "registry.discover_modelversion", True),
)  # fmt: skip


def search(request: HttpRequest) -> HttpResponse:
    """The lines for `?q=`, as a fragment. Never cached: what may be done changes with every load."""
    stated = " ".join(request.GET.get("q", "")[:LONGEST_QUERY].split())
    sections = find(request, stated) if stated else suggestions(request)
    response = render(request, "console/search.html", {"sections": sections, "query": stated})
    response.headers["Cache-Control"] = "no-store"
    return response


def find(request: HttpRequest, stated: str) -> list[Section]:
    """What matches, the likeliest first; three queries at most, however many models there are."""
    user, words = request.user, stated.lower()
    action, rest = _action_in(user, words)
    models, loader = [], None
    if user.has_perm("registry.view_modelversion"):
        models = list(_versions(rest if action else words, action)[:MOST_MODELS])
        loader = loader_view() if models else None
    pages = Section("Pages", [page for page in _pages(request) if _matches(words, page.title, page.detail)])
    general = Section("Actions", [found for found, other in _general(user) if _matches(words, found.title, other)])
    if action is not None:
        return _shown([Section("Actions", [action.on(version) for version in models]), general, pages])
    return _shown(
        [
            Section("Models", [_model(version, loader) for version in models]),
            Section("Actions", [*general.found, *_actions_on(user, models[:1])]),
            Section("Lineages", _lineages(user, words)),
            pages,
        ]
        if models and models[0].model_id.startswith(words)
        else [
            pages,
            general,
            Section("Models", [_model(version, loader) for version in models]),
            Section("Lineages", _lineages(user, words)),
            Section("Actions", _actions_on(user, models[:1])),
        ]
    )


def suggestions(request: HttpRequest) -> list[Section]:
    """Before anything is typed: the models loaded last, what can be done at all, the pages."""
    user = request.user
    recent: list[Found] = []
    if user.has_perm("registry.view_modelversion"):
        loaded = _versions("", None).filter(last_loaded_at__isnull=False).order_by("-last_loaded_at")[:MOST_RECENT]
        versions = list(loaded)
        loader = loader_view() if versions else None
        recent = [_model(version, loader) for version in versions]
    return _shown(
        [
            Section("Loaded last", recent),
            Section("Actions", [found for found, _ in _general(user)]),
            Section("Pages", [Found(page.title, page.url, page.icon) for page in _pages(request)]),
        ]
    )


def _shown(sections: Iterable[Section]) -> list[Section]:
    return [section for section in sections if section.found]


def _action_in(user: AbstractBaseUser | AnonymousUser, words: str) -> tuple[Action | None, str]:
    """The action that `words` begin with, if the user may do it, and what follows: "unload sent" -> (unload, "sent")."""
    for action in ACTIONS:
        for said in action.words:
            if (words == said or words.startswith(f"{said} ")) and user.has_perm(action.permission):
                return action, words[len(said) :].strip()
    return None, words


def _versions(words: str, action: Action | None) -> QuerySet[ModelVersion]:
    """The models that contain every word in their id, name or lineage; those that begin with them first."""
    rank = Case(
        When(model_id__iexact=words, then=Value(0)),
        When(model_id__istartswith=words, then=Value(1)),
        When(lineage__name__istartswith=words, then=Value(2)),
        default=Value(3),
        output_field=IntegerField(),
    )
    moves = LineageChange.objects.filter(lineage=OuterRef("lineage"), alias=LIVE, version=OuterRef("pk"))
    found = (
        ModelVersion.objects.select_related("lineage")
        .only(*_COLUMNS)
        .annotate(
            is_live=Exists(Alias.objects.filter(name=LIVE, version=OuterRef("pk"))),
            was_live=Exists(moves),
        )
    )
    for word in words.split():
        found = found.filter(
            Q(model_id__icontains=word) | Q(name__icontains=word) | Q(lineage__name__icontains=word)
        )
    if action is not None:
        found = found.filter(action.candidates)
    return found.order_by(rank, F("last_used_at").desc(nulls_last=True), "model_id")


def _lineages(user: AbstractBaseUser | AnonymousUser, words: str) -> list[Found]:
    if not user.has_perm("registry.view_model"):
        return []
    found = Model.objects.only("pk", "name", "type")
    for word in words.split():
        found = found.filter(name__icontains=word)
    rank = Case(When(name__istartswith=words, then=Value(0)), default=Value(1), output_field=IntegerField())
    return [
        Found(
            lineage.name, reverse("admin:registry_model_change", args=[lineage.pk]), "account_tree", f"lineage, {lineage.type}"
        )
        for lineage in found.order_by(rank, "name")[:MOST_LINEAGES]
    ]


def _model(version: ModelVersion, loader: LoaderView | None) -> Found:
    return Found(
        version.model_id,
        reverse("admin:registry_modelversion_change", args=[version.pk]),
        "deployed_code",
        _detail(version),
        word=str(version.status) if loader is None else effective_status(version, loader),
    )


def _detail(version: ModelVersion) -> str:
    live = ", live" if getattr(version, "is_live", False) else ""
    return f"{version.lineage.name} {version.version}{live} · {version.framework}"


def _actions_on(user: AbstractBaseUser | AnonymousUser, versions: Iterable[ModelVersion]) -> list[Found]:
    """What the user may do with each of these, as they are now."""
    return [
        action.on(version)
        for version in versions
        for action in ACTIONS
        if user.has_perm(action.permission) and _can(action, version)
    ]


def _can(action: Action, version: Any) -> bool:
    """Whether the model is one of the action's candidates; told from what was read of it."""
    is_held = version.status in _IN_MEMORY
    if action.name == "unload":
        return is_held
    if version.missing_since is not None:
        return False
    if action.name == "load":
        return not is_held
    return not version.is_live and (action.name == "activate" or version.was_live)


def _general(user: AbstractBaseUser | AnonymousUser) -> list[tuple[Found, str]]:
    """What is done with all models, and the other words for it."""
    return [
        (
            Found(title, reverse(f"admin:registry_modelversion_{name}"), icon, is_dialog=not is_posted, is_posted=is_posted),
            other,
        )
        for title, name, icon, other, permission, is_posted in _OF_ALL
        if user.has_perm(permission)
    ]


def _pages(request: HttpRequest) -> list[Found]:
    """The sidebar's pages that the user may see; the detail is what else they are called."""
    own = Found("Change password", reverse("admin:password_change"), "password", "account secret")
    return [
        *(
            Found(item["title"], str(item["link"]), item["icon"], item.get("keywords", ""))
            for group in navigation(request)
            for item in group["items"]
            if "permission" not in item or item["permission"](request)
        ),
        own,
    ]


def _matches(words: str, title: str, other: str) -> bool:
    """Whether each word begins a word of the title or of its other names."""
    known = f"{title} {other}".lower().split()
    return all(any(name.startswith(word) for name in known) for word in words.split())
