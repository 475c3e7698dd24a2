"""What Ctrl+K finds: pages, models, lineages, and what may be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Case, Exists, F, IntegerField, OuterRef, Q, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from loaderd.rules import LIVE
from modelhub.console.jobs.access import may_predict
from modelhub.console.site import groups
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.observed import effective_status, loader_view
from modelhub.lifecycle.permissions import ACTIVATE, LOAD, UNLOAD
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion

User: TypeAlias = AbstractBaseUser | AnonymousUser

MOST_MODELS = 8
MOST_LINEAGES = 5
MOST_RECENT = 6
LONGEST_QUERY = 200

_COLUMNS = ("pk", "model_id", "version", "framework", "status", "lineage__name")
_IN_MEMORY = (Status.LOADING, Status.LOADED)
_SEE_MODELS, _SEE_LINEAGES = "registry.view_modelversion", "registry.view_model"
_DISCOVER = "registry.discover_modelversion"


@dataclass(frozen=True, slots=True)
class Found:
    """One line to choose: where it leads, or what it does.

    word: a state, shown with its colour. is_dialog: `url` answers a dialog.
    fill: it writes this into the search instead, to be gone on with.
    """

    title: str
    url: str
    icon: str
    detail: str = ""
    word: str = ""
    is_dialog: bool = False
    fill: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    found: Sequence[Found]


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done with one model.

    words: how people say it, the longest first. permission: what it needs. candidates: with which models it can be
    done; `is_live` and `was_live` are annotations of _versions().
    """

    name: str
    title: str
    icon: str
    words: tuple[str, ...]
    permission: str
    candidates: Q

    def on(self, version: ModelVersion) -> Found:
        url = reverse(f"admin:registry_modelversion_{self.name}", args=[version.pk])
        return Found(f"{self.title} {version.model_id}", url, self.icon, _detail(version), is_dialog=True)

    def on_some(self) -> Found:
        return Found(f"{self.title}…", "", self.icon, "a model", fill=f"{self.words[-1]} ")

    def can(self, version: ModelVersion) -> bool:
        return bool(getattr(version, f"can_{self.name}"))


_NOT_LIVE = Q(missing_since=None, is_live=False)
ACTIONS = (
    Action("load", "Load", "play_arrow", ("load",), LOAD, Q(missing_since=None) & ~Q(status__in=_IN_MEMORY)),
    Action("unload", "Unload", "stop", ("unload",), UNLOAD, Q(status__in=_IN_MEMORY)),
    Action("activate", "Activate", "check_circle", ("activate",), ACTIVATE, _NOT_LIVE),
    Action(
        "rollback",
        "Roll back to",
        "undo",
        ("roll back to", "rollback to", "rollback", "roll back"),
        ACTIVATE,
        _NOT_LIVE & Q(was_live=True),
    ),
)


def search(request: HttpRequest) -> HttpResponse:
    """The lines for `?q=`, as a fragment. Never cached: what may be done changes with every load."""
    stated = _stated(request.GET.get("q", ""))
    sections = find(request, stated.lower()) if stated else suggestions(request)
    response = render(request, "console/search.html", {"sections": sections, "query": stated})
    response.headers["Cache-Control"] = "no-store"
    return response


def _stated(query: str) -> str:
    """The words of it with a space between them; what cannot be printed (the database takes no NUL) parts them too."""
    return " ".join("".join(each if each.isprintable() else " " for each in query[:LONGEST_QUERY]).split())


def find(request: HttpRequest, words: str) -> list[Section]:
    """What matches `words` (lower case), the likeliest first: three queries, however many models there are."""
    user = request.user
    pages = [page for page in _pages(request) if _begin(words, page.title, page.detail)]
    general = [found for found, other in _general(user) if _begin(words, found.title, other)]
    action, rest = _action_in(user, words)
    if action is not None:
        return _shown(
            Section(action.title, _with(action, user, rest)), Section("Actions", general), Section("Pages", pages)
        )
    versions = list(_versions(words)[:MOST_MODELS]) if user.has_perm(_SEE_MODELS) else []
    begun = [each.on_some() for each in _permitted(user) if any(said.startswith(words) for said in each.words)]
    of_site = [Section("Pages", pages), Section("Actions", [*begun, *general])]
    of_models = [
        Section("Models", _models(versions)),
        *(Section(f"With {version.model_id}", _actions_on(user, version)) for version in versions[:1]),
        Section("Lineages", _lineages(user, words)),
    ]
    is_meant = bool(versions) and versions[0].model_id.lower().startswith(words)
    return _shown(*of_models, *of_site) if is_meant else _shown(*of_site, *of_models)


def suggestions(request: HttpRequest) -> list[Section]:
    """Before anything is typed: the models loaded last, what can be done at all, the pages. Two queries."""
    user, recent = request.user, list[ModelVersion]()
    if user.has_perm(_SEE_MODELS):
        loaded = _versions("").filter(last_loaded_at__isnull=False)
        recent = list(loaded.order_by("-last_loaded_at")[:MOST_RECENT])
    actions = [action.on_some() for action in _permitted(user)]
    return _shown(
        Section("Loaded last", _models(recent)),
        Section("Actions", [*actions, *(found for found, _ in _general(user))]),
        Section("Pages", _pages(request)),
    )


def _shown(*sections: Section) -> list[Section]:
    return [section for section in sections if section.found]


# Models and lineages


def _versions(words: str, first: str | None = None) -> QuerySet[ModelVersion]:
    """The models that have every word in their id, name or lineage; before all others those that begin with them.

    first: an annotation; the models for which it holds come before those.
    """
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
        .annotate(is_live=Exists(Alias.objects.filter(name=LIVE, version=OuterRef("pk"))), was_live=Exists(moves))
        .annotate(**{f"can_{action.name}": action.candidates for action in ACTIONS})
    )
    for word in words.split():
        found = found.filter(Q(model_id__icontains=word) | Q(name__icontains=word) | Q(lineage__name__icontains=word))
    order = [F(first).desc()] if first else []
    return found.order_by(*order, rank, F("last_used_at").desc(nulls_last=True), "model_id")


def _models(versions: Sequence[ModelVersion]) -> list[Found]:
    """A line for each, with the status that is true now."""
    loader = loader_view() if versions else None
    return [
        Found(
            version.model_id,
            reverse("admin:registry_modelversion_change", args=[version.pk]),
            "deployed_code",
            _detail(version),
            word=effective_status(version, loader),
        )
        for version in versions
        if loader is not None
    ]


def _detail(version: Any) -> str:
    return f"{version.lineage.name} {version.version}{', live' if version.is_live else ''} · {version.framework}"


def _lineages(user: User, words: str) -> list[Found]:
    if not user.has_perm(_SEE_LINEAGES):
        return []
    found = Model.objects.only("pk", "name", "type")
    for word in words.split():
        found = found.filter(name__icontains=word)
    rank = Case(When(name__istartswith=words, then=Value(0)), default=Value(1), output_field=IntegerField())
    return [
        Found(lineage.name, reverse("admin:registry_model_change", args=[lineage.pk]), "account_tree", lineage.type)
        for lineage in found.order_by(rank, "name")[:MOST_LINEAGES]
    ]


# What may be done


def _permitted(user: User) -> Iterable[Action]:
    return (action for action in ACTIONS if user.has_perm(_SEE_MODELS) and user.has_perm(action.permission))


def _action_in(user: User, words: str) -> tuple[Action | None, str]:
    """The permitted action that `words` begin with, and what follows: "unload sent" is (unload, "sent")."""
    for action in _permitted(user):
        for said in action.words:
            if f"{words} ".startswith(f"{said} "):
                return action, words[len(said) :].strip()
    return None, words


def _with(action: Action, user: User, words: str) -> list[Found]:
    """The action for each model that matches; then those with which it cannot be done, which show their state."""
    can = f"can_{action.name}"
    matching = _versions(words, can) if words else _versions("").filter(**{can: True})
    found = list(matching[:MOST_MODELS])
    possible = [version for version in found if action.can(version)]
    others = [version for version in found if not action.can(version)]
    return [*(action.on(version) for version in possible), *_models(others)]


def _actions_on(user: User, version: ModelVersion) -> list[Found]:
    return [action.on(version) for action in _permitted(user) if action.can(version)]


def _general(user: User) -> list[tuple[Found, str]]:
    """What is done with all models, and the other words for it."""
    optimise = Found("Optimise memory", reverse("admin:registry_modelversion_optimize"), "mop", is_dialog=True)
    discover = Found("Run discovery", reverse("admin:registry_modelversion_discover"), "travel_explore", is_dialog=True)
    predict = Found("Predict a file", reverse("console:predict-file"), "dataset")
    return [
        *([(predict, "job batch csv upload offline")] if may_predict(user) else []),
        *([(optimise, "optimize unload unused free")] if user.has_perm(UNLOAD) else []),
        *([(discover, "discover find new models store")] if user.has_perm(_DISCOVER) else []),
    ]


# Pages


def _pages(request: HttpRequest) -> list[Found]:
    """The sidebar's pages that the user may see; the detail is what else they are called."""
    return [
        *(
            Found(item["title"], str(item["link"]), item["icon"], item.get("keywords", ""))
            for group in groups(request, {})
            for item in group["items"]
            if "permission" not in item or item["permission"](request)
        ),
        Found("Change password", reverse("admin:password_change"), "password", "account secret"),
    ]


def _begin(words: str, title: str, other: str) -> bool:
    """Whether each word begins a word of the title or of its other names."""
    known = f"{title} {other}".lower().split()
    return all(any(name.startswith(word) for name in known) for word in words.split())
