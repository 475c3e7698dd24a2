"""What people tell models to do in the admin: load, unload, activate, roll back, approve, forget the canary,
optimise, discover.

Each is asked for first, with its effect stated, and done by POST; see `confirming`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods
from unfold.admin import ModelAdmin

from loaderd import catalogue
from loaderd.errors import UnknownFramework
from loaderd.rules import LIVE
from modelhub.conf import config
from modelhub.console.admin import effects
from modelhub.console.admin.confirming import (
    REFUSED,
    Done,
    Outcome,
    Question,
    ask,
    carry_out,
    forget_what_was_shown,
    reason_for_refusal,
    reason_of,
    require,
    tell,
)
from modelhub.console.admin.effects import MOST_PLANS, Effect, effect_of, effects_of
from modelhub.console.advice import Way
from modelhub.console.following import together_url
from modelhub.console.templatetags.console import size
from modelhub.lifecycle.actions import request_load, request_unload
from modelhub.lifecycle.canaries import forget_canary, plan_forget_canary
from modelhub.lifecycle.kept_answers import clear_cache
from modelhub.lifecycle.models import Operation
from modelhub.lifecycle.optimising import request_optimize
from modelhub.lifecycle.planning import plan_activate, plan_load, plan_optimize, plan_rollback, plan_unload
from modelhub.lifecycle.versions import request_activate, request_rollback, was_live
from modelhub.registry.approval import ApprovalRefused, approve, revoke
from modelhub.registry.artifacts import declared_canary
from modelhub.registry.choices import Status
from modelhub.registry.discovery import DiscoveryReport, discover
from modelhub.registry.models import DiscoveryRun, ModelVersion, large_columns

SHOWN_REFUSALS = 20
MOST_AT_ONCE = 500  # models of one list action: a request waits for all of them
CHUNK = 50
SHOWN_FILES = 5

_LIST = "admin:registry_modelversion_changelist"


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do with models.

    title: of its buttons. heading: of its question, with the model in it. what: for who may not: "load models". verb:
    on the button that says yes, where that is not the title. permission: `has_<permission>_permission` of the
    admin. effects: what it would do to each of some models, for this user. run: does it to one and returns the
    operation or what came of it, or raises one of `confirming.REFUSED`. is_grave: something ends by it that serves.
    """

    name: str
    title: str
    heading: str
    what: str
    permission: str
    effects: Callable[[Sequence[ModelVersion], Any], Sequence[Effect]]
    run: Callable[[HttpRequest, ModelVersion], Outcome]
    is_grave: bool = False
    asks_reason: bool = True
    verb: str = ""

    def question(self, of: str, versions: Sequence[ModelVersion], user: Any, back: str, **more: Any) -> Question:
        """of: the model, or how many."""
        return Question(
            title=self.heading.format(of),
            verb=self.verb or self.title,
            back=back,
            effects=self.effects(versions, user),
            is_grave=self.is_grave,
            asks_reason=self.asks_reason,
            **more,
        )


# Effects


def _load_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    return effects_of(versions, plan_load, lambda version, plan: effects.loading(version, plan, user), user)


def _unload_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    live_of = dict(
        ModelVersion.objects.filter(pk__in=[version.pk for version in versions], aliases__name=LIVE).values_list(
            "pk", "lineage__name"
        )
    )
    return effects_of(
        versions, plan_unload, lambda version, plan: effects.unloading(version, plan, live_of.get(version.pk)), user
    )


def _activate_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    return effects_of(
        versions,
        plan_activate,
        lambda version, plan: effects.switching(version, plan, user, is_rollback=False),
        user,
    )


def _rollback_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    return effects_of(
        versions,
        lambda version: plan_rollback(version.lineage, version),
        lambda version, plan: effects.switching(version, plan, user, is_rollback=True),
        user,
    )


def _approve_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    return [_approval(version) for version in versions]


def _approval(version: ModelVersion) -> Effect:
    name, count = version.model_id, len(version.manifest)
    if version.is_approved:
        return Effect(name, "These files are approved already.", is_possible=False)
    try:
        runs_code = catalogue.format_executes_code(version.framework, version.artifact_format)
    except UnknownFramework:
        runs_code = True
    headline = (
        f"Allows these files to run code on this machine: loading the format {version.artifact_format} can do so."
        if runs_code
        else f"Approves these files. The format {version.artifact_format} runs no code by itself, so this is needed "
        "only where a load asked for it."
    )
    shown = [f"{file['path']}, {size(file['size_bytes'])}" for file in version.manifest[:SHOWN_FILES]]
    more = [f"and {count - SHOWN_FILES} more; the tab Files lists them all"] if count > SHOWN_FILES else []
    sentence = (
        f"Approve them if you trust where they come from. It holds for these bytes alone (digest "
        f"{version.digest[:12]}): files that change need a new approval."
    )
    return Effect(name, headline, sentence, details=(*shown, *more))


def _revoke_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    return [_revocation(version) for version in versions]


def _revocation(version: ModelVersion) -> Effect:
    if not version.is_approved:
        return Effect(version.model_id, "These files are not approved: nothing is to be taken back.", is_possible=False)
    stays = " It is in memory and stays there until it is unloaded." if version.status == Status.LOADED else ""
    return Effect(version.model_id, f"From now on loading these files is refused until somebody approves them.{stays}")


def _canary_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    found = []
    for version in versions:
        try:
            found.append(Effect(version.model_id, plan_forget_canary(version)["sentence"]))
        except REFUSED as error:
            told = reason_for_refusal(error)
            found.append(Effect(version.model_id, "This is not possible.", told, is_possible=False))
    return found


def _cache_effects(versions: Sequence[ModelVersion], user: Any) -> list[Effect]:
    told = "What the response cache keeps of it is forgotten; each answer is computed again when it is asked for."
    return [Effect(version.model_id, told) for version in versions]


# What is done


def _load(request: HttpRequest, version: ModelVersion) -> Outcome:
    return request_load(version, user=request.user, source="admin", reason=reason_of(request))


def _unload(request: HttpRequest, version: ModelVersion) -> Outcome:
    return request_unload(version, user=request.user, source="admin", reason=reason_of(request))


def _activate(request: HttpRequest, version: ModelVersion) -> Outcome:
    return request_activate(
        version, user=request.user, source="admin", reason=reason_of(request), allow_gap="allow_gap" in request.POST
    )


def _roll_back(request: HttpRequest, version: ModelVersion) -> Outcome:
    return request_rollback(
        version.lineage,
        to=version,
        user=request.user,
        source="admin",
        reason=reason_of(request),
        allow_gap="allow_gap" in request.POST,
    )


LOAD = Command("load", "Load", "Load {}", "load models", "load", _load_effects, _load)
UNLOAD = Command("unload", "Unload", "Unload {}", "unload models", "unload", _unload_effects, _unload, is_grave=True)
ACTIVATE = Command("activate", "Activate", "Activate {}", "activate versions", "activate", _activate_effects, _activate)
ROLLBACK = Command(
    "rollback",
    "Roll back to this",
    "Roll back to {}",
    "roll back",
    "activate",
    _rollback_effects,
    _roll_back,
    verb="Roll back",
)


class ModelCommands(ModelAdmin):
    """List actions, the buttons of a model's page, and the buttons that optimise and run discovery."""

    actions = ["load_selected", "unload_selected", "approve_selected"]

    # Permissions: Django asks has_<name>_permission of each action

    def has_load_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.load_modelversion")

    def has_unload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.unload_modelversion")

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.activate_modelversion")

    def has_approve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.approve_modelversion")

    def has_discover_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("registry.discover_modelversion")

    # List actions

    @admin.action(description="Load selected models", permissions=["load"])
    def load_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> HttpResponse:
        return self._confirm_each(request, queryset, LOAD)

    @admin.action(description="Unload selected models", permissions=["unload"])
    def unload_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> HttpResponse:
        return self._confirm_each(request, queryset, UNLOAD)

    @admin.action(description="Approve selected models: their files may run code", permissions=["approve"])
    def approve_selected(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> HttpResponse:
        return self._confirm_each(request, queryset, self._approve)

    def _confirm_each(self, request: HttpRequest, queryset: QuerySet[ModelVersion], command: Command) -> HttpResponse:
        """First the page that states the effects, then, confirmed, the command for each."""
        count = queryset.count()
        if count > MOST_AT_ONCE:
            told = f"{count} models are chosen; at most {MOST_AT_ONCE} are taken at once, so nothing was done."
            messages.error(request, f"{told} Narrow the list by a search or a filter, or choose fewer.")
            return redirect(request.get_full_path())
        if "confirmed" in request.POST:
            return self._run_each(request, queryset, command)
        chosen = list(_complete(queryset)[:MOST_PLANS])
        question = command.question(
            str(chosen[0]) if count == 1 else f"{count} models",
            chosen,
            request.user,
            request.get_full_path(),
            # As they were sent: with "all of the list" chosen there is no naming them one by one.
            hidden=[
                ("action", f"{command.name}_selected"),
                ("select_across", request.POST.get("select_across", "0")),
                *((ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)),
                *self._digests(chosen, command),
            ],
            left_out=max(0, count - MOST_PLANS),
        )
        return ask(request, self.admin_site, question)

    def _run_each(self, request: HttpRequest, queryset: QuerySet[ModelVersion], command: Command) -> HttpResponse:
        """Every model gets the command; one that refuses does not stop the others. Their operations are followed on
        one page."""
        operations, refusals = list[Operation](), list[str]()
        for version in _small(queryset):
            try:
                outcome = command.run(request, version)
            except REFUSED as error:
                refusals.append(reason_for_refusal(error))
                continue
            if isinstance(outcome, Operation):
                operations.append(outcome)
            else:
                tell(request, outcome)
        for told in refusals[:SHOWN_REFUSALS]:
            messages.error(request, told)
        if len(refusals) > SHOWN_REFUSALS:
            more = f"{len(refusals) - SHOWN_REFUSALS} more were refused: {len(refusals)} in all."
            messages.error(request, more)
        forget_what_was_shown()
        return redirect(together_url(operations) if operations else request.get_full_path())

    def _run_approve(self, request: HttpRequest, version: ModelVersion) -> Outcome:
        # The question says which bytes were looked at; they may have changed since.
        stated = request.POST.getlist(f"digest-{version.pk}") or request.POST.getlist("digest")
        if not stated:
            raise ApprovalRefused(
                f"{version} was not approved, because nobody was shown its files; choose at most {MOST_PLANS} at once."
            )
        approve(version, request.user, stated[0])
        self.log_change(request, version, f"Approved {version.approved_digest}.")
        sentence = f"{version} is approved with digest {version.approved_digest[:12]}."
        way = None
        if self.has_load_permission(request) and version.status != Status.LOADED:
            way = Way("Load it", reverse("admin:registry_modelversion_load", args=[version.pk]))
        return Done("Approved", sentence, way=way)

    def _run_revoke(self, request: HttpRequest, version: ModelVersion) -> Outcome:
        revoke(version, request.user)
        self.log_change(request, version, "Approval taken back.")
        return Done("Approval taken back", f"The approval of {version} is taken back.")

    def _run_forget_canary(self, request: HttpRequest, version: ModelVersion) -> Outcome:
        forget_canary(version, user=request.user, reason=reason_of(request))
        self.log_change(request, version, "Recorded canary forgotten.")
        return Done("Canary forgotten", f"The canary of {version} is forgotten; its next load records a new one.")

    @property
    def _forget_canary(self) -> Command:
        return Command(
            "forget_canary",
            "Forget canary",
            "Forget the canary of {}",
            "change models",
            "change",
            _canary_effects,
            self._run_forget_canary,
        )

    def _run_clear_cache(self, request: HttpRequest, version: ModelVersion) -> Outcome:
        count = clear_cache(version, user=request.user)["forgotten"]
        self.log_change(request, version, f"{count} kept answers forgotten.")
        return Done("Answers forgotten", f"{count} kept answers of {version} are forgotten.")

    @property
    def _clear_cache(self) -> Command:
        return Command(
            "clear_cache",
            "Forget kept answers",
            "Forget the kept answers of {}",
            "change models",
            "change",
            _cache_effects,
            self._run_clear_cache,
            asks_reason=False,
        )

    @property
    def _approve(self) -> Command:
        return Command(
            "approve",
            "Approve these files",
            "Approve the files of {}",
            "approve models",
            "approve",
            _approve_effects,
            self._run_approve,
            asks_reason=False,
        )

    @property
    def _revoke(self) -> Command:
        return Command(
            "revoke",
            "Take approval back",
            "Take back the approval of {}",
            "approve models",
            "approve",
            _revoke_effects,
            self._run_revoke,
            asks_reason=False,
        )

    # Buttons

    def buttons_of(self, request: HttpRequest, version: ModelVersion) -> list[dict[str, Any]]:
        """What this user may do with this model now: [{title, url, is_main}]; each address asks first."""
        is_loaded = version.status == Status.LOADED
        commands = [LOAD, UNLOAD]
        if not any(alias.name == LIVE for alias in version.aliases.all()):
            commands.append(ACTIVATE)
            if was_live(version):
                commands.append(ROLLBACK)
        # Every format: a skops file with types of its own needs it, which shows when it is loaded only.
        commands.append(self._revoke if version.is_approved else self._approve)
        if version.canary is not None and declared_canary(version) is None:
            commands.append(self._forget_canary)
        return [
            {
                "title": command.title,
                "url": reverse(f"admin:registry_modelversion_{command.name}", args=[version.pk]),
                "is_main": command is (ACTIVATE if is_loaded else LOAD),
            }
            for command in commands
            if self._may(request, command)
        ]

    def _may(self, request: HttpRequest, command: Command) -> bool:
        return bool(getattr(self, f"has_{command.permission}_permission")(request))

    def get_urls(self) -> list[URLPattern]:
        def at(place: str, view: Callable[..., HttpResponse], name: str) -> URLPattern:
            asked_or_done = require_http_methods(["GET", "POST"])(view)
            return path(place, self.admin_site.admin_view(asked_or_done), name=f"registry_modelversion_{name}")

        commands = (
            LOAD,
            UNLOAD,
            ACTIVATE,
            ROLLBACK,
            self._approve,
            self._revoke,
            self._forget_canary,
            self._clear_cache,
        )
        return [
            at("discover/", self.run_discovery, "discover"),
            at("optimize/", self.optimize, "optimize"),
            *(at(f"<int:pk>/{command.name}/", self._view_of(command), command.name) for command in commands),
            *super().get_urls(),
        ]

    def _view_of(self, command: Command) -> Callable[..., HttpResponse]:
        """GET states the effect and asks; POST does it."""

        def view(request: HttpRequest, pk: int) -> HttpResponse:
            refused = require(request, self._may(request, command), command.what)
            if refused is not None:
                return refused
            version: Any = get_object_or_404(ModelVersion.objects.select_related("lineage"), pk=pk)
            back = reverse("admin:registry_modelversion_change", args=[pk])

            def question() -> Question:
                digests = self._digests([version], command)
                return command.question(str(version), [version], request.user, back, hidden=digests)

            if request.method != "POST":
                return ask(request, self.admin_site, question())
            return carry_out(request, self.admin_site, partial(command.run, request, version), question, back)

        return view

    def _digests(self, versions: Sequence[ModelVersion], command: Command) -> list[tuple[str, str]]:
        """Which bytes were looked at, for the commands that hold for these bytes alone."""
        if command.name != self._approve.name:
            return []
        return [(f"digest-{version.pk}", version.digest) for version in versions]

    def optimize(self, request: HttpRequest) -> HttpResponse:
        """Unloads what is unused or little used; GET tells what that would be."""
        refused = require(request, self.has_unload_permission(request), "optimise memory, which unloads models")
        if refused is not None:
            return refused
        back = reverse(_LIST)

        def question() -> Question:
            effect = effect_of(None, plan_optimize, effects.optimising, request.user)
            return Question("Optimise memory", "Optimise memory", back, [effect], is_grave=True)

        if request.method != "POST":
            return ask(request, self.admin_site, question())
        act = partial(request_optimize, user=request.user, source="admin", reason=reason_of(request))
        return carry_out(request, self.admin_site, act, question, back)

    def run_discovery(self, request: HttpRequest) -> HttpResponse:
        """Compares the store with the registry; GET tells what that means."""
        refused = require(request, self.has_discover_permission(request), "run discovery")
        if refused is not None:
            return refused
        back = reverse(_LIST)

        def question() -> Question:
            effect = Effect(
                str(config().MODELS_DIR),
                f"Compares {config().MODELS_DIR} with the registry.",
                "New directories are registered, files that changed are noticed (their approval ends), what is gone is "
                "marked. Nothing is loaded or unloaded, and no file is touched.",
            )
            return Question("Run discovery", "Run discovery", back, [effect], asks_reason=False)

        if request.method != "POST":
            return ask(request, self.admin_site, question())
        return carry_out(request, self.admin_site, partial(self._discover, request), question, back)

    def _discover(self, request: HttpRequest) -> Done:
        report = discover(actor=request.user.get_username())
        run = DiscoveryRun.objects.only("pk").first()
        way = run and Way("Whole report", reverse("admin:registry_discoveryrun_change", args=[run.pk]), dialog=False)
        return Done("Discovery", f"Discovery: {report.summary()}.", _warnings_of(report), way)


def _warnings_of(report: DiscoveryReport) -> list[str]:
    told = [
        f"{model_id} changed on disk while it is loaded; unload and load it to use the new files."
        for model_id in report.stale_in_memory
    ]
    told += [f"{refused_path} is refused. {reason}" for refused_path, reason in report.refused[:SHOWN_REFUSALS]]
    if len(report.refused) > SHOWN_REFUSALS:
        told.append(f"{len(report.refused) - SHOWN_REFUSALS} more are refused; see the discovery's page.")
    return told


def _complete(queryset: QuerySet[ModelVersion]) -> QuerySet[ModelVersion]:
    """The rows read again: a list's come without their large fields."""
    chosen = ModelVersion.objects.filter(pk__in=queryset.order_by().values("pk"))
    return chosen.select_related("lineage").order_by("model_id")


def _small(queryset: QuerySet[ModelVersion]) -> Iterator[ModelVersion]:
    """At most MOST_AT_ONCE of them, without their large fields: a few at a time, as each command takes a while."""
    pks = list(_complete(queryset).values_list("pk", flat=True)[:MOST_AT_ONCE])
    for start in range(0, len(pks), CHUNK):
        versions = ModelVersion.objects.filter(pk__in=pks[start : start + CHUNK]).select_related("lineage")
        yield from versions.defer(*large_columns()).order_by("model_id")
