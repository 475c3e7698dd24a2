"""What people tell lineages to do in the admin: roll back, set and remove aliases, set the traffic.

Each is asked for first, with its effect stated, and done by POST; see `confirming`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods
from unfold.admin import ModelAdmin

from loaderd.errors import InvalidInput, UnknownModel
from loaderd.rules import CANDIDATE, LIVE
from modelhub.console.admin import effects
from modelhub.console.admin.confirming import Done, Outcome, Question, ask, carry_out, reason_of, require
from modelhub.console.admin.effects import Effect, effect_of
from modelhub.console.advice import Way
from modelhub.console.model_page.lineage_look import make as look_at
from modelhub.console.model_page.views import lineage_first_view
from modelhub.lifecycle.models import LineageChange
from modelhub.lifecycle.planning import plan_rollback
from modelhub.lifecycle.versions import (
    live_of,
    previous_live,
    remove_alias,
    request_rollback,
    set_alias,
    set_traffic,
)
from modelhub.registry.choices import Status
from modelhub.registry.models import Alias, Model, ModelVersion, large_columns

MOST_WAYS = 4


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do with one lineage. what: for who may not: "set aliases". run: as in `model_commands`."""

    name: str
    what: str
    question: Callable[[HttpRequest, Model], Question]
    run: Callable[[HttpRequest, Model], Outcome]


class LineageCommands(ModelAdmin):
    """What the buttons of a lineage's page do."""

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.activate_modelversion")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        lineage = self.get_object(request, object_id)
        shown: dict[str, Any] = {"title": object_id}
        if lineage is not None and self.has_view_or_change_permission(request, lineage):
            shown = {"title": lineage.name, "subtitle": None, **lineage_first_view(request, lineage.pk)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    # Aliases

    def _ask_alias(self, request: HttpRequest, lineage: Model) -> Question:
        """`?name=` and `?version=` (its key) are filled in."""
        stated = request.POST if request.method == "POST" else request.GET
        name, chosen = stated.get("name", CANDIDATE).strip(), stated.get("version", "")
        leads_to = dict(Alias.objects.filter(lineage=lineage).values_list("name", "version__model_id"))
        live = live_of(lineage)
        versions = list(
            ModelVersion.objects.filter(lineage=lineage, missing_since=None).only("pk", "model_id", "version", "status")
        )
        if not versions:
            effect = Effect(str(lineage), f"{lineage} has no version that an alias could lead to.", is_possible=False)
        else:
            is_new = name not in leads_to
            now = f"{lineage}/{name} is new." if is_new else f"{lineage}/{name} leads to {leads_to[name]} now."
            effect = Effect(
                str(lineage),
                f"Requests for an alias of {lineage} are answered by the version that it leads to.",
                f"{now} The inference door follows within a second; nothing is loaded or unloaded. `{LIVE}` is moved "
                "by activating a version.",
            )
        # What one comes to choose: a candidate is another version than the live one.
        others = [version.pk for version in versions if live is None or version.pk != live.pk]
        return Question(
            f"Set an alias of {lineage}",
            "Set alias",
            _page_of(lineage),
            [effect],
            fields="console/dialog/alias.html",
            shown={
                "alias_name": name,
                "live_pk": live and live.pk,
                "versions": versions,
                "chosen": int(chosen) if chosen.isdecimal() else (others[-1] if others else None),
            },
        )

    def _set_alias(self, request: HttpRequest, lineage: Model) -> Outcome:
        name = request.POST.get("name", "").strip()
        chosen = request.POST.get("version", "")
        version = ModelVersion.objects.filter(lineage=lineage, pk=chosen).first() if chosen.isdecimal() else None
        if version is None:
            raise UnknownModel(f"Choose one of the versions of {lineage} for the alias {name!r}.")
        alias = set_alias(lineage, name, version, user=request.user, reason=reason_of(request))
        way = None
        if name == CANDIDATE and not (lineage.candidate_percent or lineage.shadow):
            way = Way("Send it traffic", _url("traffic", lineage))
        return Done("Alias set", f"{alias} leads to {version}.", way=way)

    def _ask_alias_remove(self, request: HttpRequest, lineage: Model) -> Question:
        """`?name=` says which."""
        name = (request.POST if request.method == "POST" else request.GET).get("name", "")
        aliases = Alias.objects.select_related("version").defer(*large_columns("version"))
        alias = next((alias for alias in aliases.filter(lineage=lineage) if alias.name == name), None)
        if alias is None:
            effect = Effect(str(lineage), f"{lineage} has no alias {name[:70]!r}.", is_possible=False)
        elif name == LIVE:
            effect = Effect(
                str(lineage),
                f"{lineage} keeps its live version; unload {alias.version} if nobody shall be answered.",
                is_possible=False,
                ways=(Way("Unload", reverse("admin:registry_modelversion_unload", args=[alias.version_id])),),
            )
        else:
            ends: tuple[str, ...] = ()
            if name == CANDIDATE and (lineage.candidate_percent or lineage.shadow):
                ends = (f"Its traffic ends ({_traffic(lineage)}): {LIVE} answers everything.",)
            headline = f"Requests for {lineage}/{name} are answered 404 from then on; {alias.version} stays as it is."
            effect = Effect(str(lineage), headline, details=ends)
        title = f"Remove the alias {name} of {lineage}"
        return Question(title, "Remove alias", _page_of(lineage), [effect], hidden=[("name", name)], is_grave=True)

    def _remove_alias(self, request: HttpRequest, lineage: Model) -> Outcome:
        name = request.POST.get("name", "")
        remove_alias(lineage, name, user=request.user, reason=reason_of(request))
        return Done("Alias removed", f"{lineage} has no alias {name} any more.")

    # Traffic

    def _ask_traffic(self, request: HttpRequest, lineage: Model) -> Question:
        aliases = Alias.objects.filter(lineage=lineage, name__in=(LIVE, CANDIDATE)).select_related("version")
        leads_to = {alias.name: alias.version for alias in aliases.defer(*large_columns("version"))}
        live, candidate = leads_to.get(LIVE), leads_to.get(CANDIDATE)
        if candidate is None or (live is not None and live.pk == candidate.pk):
            why = (
                f"{lineage} has no candidate to send traffic to."
                if candidate is None
                else f"The candidate of {lineage} is live, so there is nothing to split."
            )
            effect = Effect(
                str(lineage),
                why,
                f"Set its alias `{CANDIDATE}` to another version first.",
                is_possible=False,
                ways=(
                    Way("Set alias", f"{reverse('admin:registry_model_alias', args=[lineage.pk])}?name={CANDIDATE}"),
                ),
                tone="bad",
            )
        else:
            details = [f"Now: {_traffic(lineage)}.", "The comparison of the two begins anew."]
            if candidate.status != Status.LOADED:
                details.insert(
                    0, f"{candidate} is {candidate.status}: until it is loaded, {LIVE} answers all requests."
                )
            effect = Effect(
                str(lineage),
                f"Of the requests for {lineage} so many are answered by {candidate}, drawn at random; the rest by "
                f"{live or 'its highest loaded version'}.",
                details=tuple(details),
            )
        sent = request.POST if request.method == "POST" else None
        return Question(
            f"Traffic of {lineage}",
            "Set traffic",
            _page_of(lineage),
            [effect],
            fields="console/dialog/traffic.html",
            shown={
                "percent": f"{lineage.candidate_percent:g}" if sent is None else sent.get("candidate_percent", ""),
                "shadow": lineage.shadow if sent is None else "shadow" in sent,
            },
        )

    def _set_traffic(self, request: HttpRequest, lineage: Model) -> Outcome:
        stated = request.POST.get("candidate_percent", "").strip()
        try:
            percent = float(stated)
        except ValueError:
            raise InvalidInput(f"The share is a number from 0 to 100, not {stated!r}.") from None
        changed = set_traffic(
            lineage,
            candidate_percent=percent,
            shadow="shadow" in request.POST,
            user=request.user,
            reason=reason_of(request),
        )
        return Done("Traffic set", look_at(changed.pk).traffic)

    # Rollback

    def _ask_rollback(self, request: HttpRequest, lineage: Model) -> Question:
        to = previous_live(lineage)
        if to is None:
            effect, title = _no_way_back(lineage, request.user), f"Roll {lineage} back"
        else:
            # Read again, with the columns that a plan needs.
            version = ModelVersion.objects.select_related("lineage").get(pk=to.pk)
            words = partial(effects.switching, version, user=request.user, is_rollback=True)
            effect = effect_of(version, partial(plan_rollback, lineage, version), words, request.user)
            title = f"Roll {lineage} back to {to}"
        hidden = [("to", to.model_id)] if to else []
        return Question(title, "Roll back", _page_of(lineage), [effect], hidden=hidden)

    def _roll_back(self, request: HttpRequest, lineage: Model) -> Outcome:
        return request_rollback(
            lineage,
            to=self._target(request, lineage),
            user=request.user,
            source="admin",
            reason=reason_of(request),
            allow_gap="allow_gap" in request.POST,
        )

    def _target(self, request: HttpRequest, lineage: Model) -> ModelVersion | None:
        """The version that the confirmation named; somebody may have moved `live` since, so it is named again."""
        stated = request.POST.get("to", "")
        if not stated:
            return None
        version = ModelVersion.objects.select_related("lineage").filter(lineage=lineage, model_id=stated).first()
        if version is None:
            raise UnknownModel(f"{lineage} has no version {stated}.", model_id=stated)
        return version

    # Addresses

    def get_urls(self) -> list[URLPattern]:
        commands = (
            Command("alias", "set aliases", self._ask_alias, self._set_alias),
            Command("alias-remove", "remove aliases", self._ask_alias_remove, self._remove_alias),
            Command("traffic", "change the traffic of lineages", self._ask_traffic, self._set_traffic),
            Command("rollback", "roll back", self._ask_rollback, self._roll_back),
        )
        return [
            *(
                path(
                    f"<int:pk>/{command.name}/",
                    self.admin_site.admin_view(require_http_methods(["GET", "POST"])(self._view_of(command))),
                    name=f"registry_model_{command.name}",
                )
                for command in commands
            ),
            *super().get_urls(),
        ]

    def _view_of(self, command: Command) -> Callable[..., HttpResponse]:
        """GET states the effect and asks; POST does it."""

        def view(request: HttpRequest, pk: int) -> HttpResponse:
            refused = require(request, self.has_activate_permission(request), command.what)
            if refused is not None:
                return refused
            lineage: Any = get_object_or_404(Model, pk=pk)
            question = partial(command.question, request, lineage)
            if request.method != "POST":
                return ask(request, self.admin_site, question())
            act = partial(command.run, request, lineage)
            return carry_out(request, self.admin_site, act, question, _page_of(lineage))

        return view


def _url(command: str, lineage: Model) -> str:
    return reverse(f"admin:registry_model_{command}", args=[lineage.pk])


def _page_of(lineage: Model) -> str:
    return _url("change", lineage)


def _traffic(lineage: Model) -> str:
    copies = ", and copies of what live answers" if lineage.shadow else ""
    return f"{lineage.candidate_percent:g} % to the candidate{copies}"


def _no_way_back(lineage: Model, user: Any) -> Effect:
    """Why a rollback without a name has no target, and what can be done instead."""
    live = live_of(lineage)
    moves = LineageChange.objects.filter(lineage=lineage, alias=LIVE, version__isnull=False)
    if live is not None:
        moves = moves.exclude(version=live.pk)
    earlier = list(moves.order_by("version_id").distinct("version_id").values_list("version__model_id", flat=True))
    if live is None:
        why = f"{lineage} has no live version: nothing was loaded or activated yet."
    elif not earlier:
        why = f"{live} is the only version of {lineage} that ever was live."
    else:
        why = (
            f"Of the versions that were live before ({', '.join(earlier)}) each was left by a rollback, is gone from "
            "the store, or is refused by discovery."
        )
    versions = ModelVersion.objects.filter(lineage=lineage, missing_since=None, refusal="").only("pk", "model_id")
    others = [version for version in versions if live is None or version.pk != live.pk][:MOST_WAYS]
    ways = tuple(
        Way(f"Activate {version}", reverse("admin:registry_modelversion_activate", args=[version.pk]))
        for version in others
    )
    next_step = (
        "Activate the version that shall answer; that works with every version."
        if others
        else "Put another version into the store and run discovery; then activate it."
    )
    title = "No earlier version can be live again."
    return Effect(str(lineage), title, f"{why} {next_step}", is_possible=False, ways=ways, tone="bad")
