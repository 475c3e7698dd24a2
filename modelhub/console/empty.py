"""What a list without rows says: what would be here, and how it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from modelhub.console.jobs.access import may_predict


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do about it. is_posted: it is done by a POST, which the list's own form sends."""

    title: str
    url: str
    is_posted: bool = False


@dataclass(frozen=True, slots=True)
class Empty:
    title: str
    text: str
    icon: str = "inbox"
    steps: Sequence[Step] = ()


# Label of the model -> title, text, icon.
_WORDS: dict[str, tuple[str, str, str]] = {
    "registry.modelversion": (
        "No model is registered yet",
        "Put each into MODELS_DIR/<type>/<model id>/ with its config.json, then run discovery.",
        "deployed_code",
    ),
    "registry.model": (
        "No lineage yet",
        "A lineage begins with its first version: discovery makes it when it finds a model of a new name.",
        "account_tree",
    ),
    "registry.discoveryrun": (
        "The store was not looked through yet",
        "Every discovery leaves its report here: what is new, changed, gone, and what was refused and why.",
        "travel_explore",
    ),
    "telemetry.comparison": (
        "Nothing is compared",
        "Give a lineage the alias candidate and a share of its traffic; both are then measured side by side.",
        "compare_arrows",
    ),
    "telemetry.alert": (
        "Nothing needs your attention",
        "Alerts open by themselves, for slow loads, little memory, failures and dead models; Policy says from when on.",
        "notifications",
    ),
    "telemetry.trace": (
        "No request was traced yet",
        "Predictions leave a trace here: how long they waited, how long they were computed, and how they ended.",
        "timeline",
    ),
    "telemetry.sample": (
        "Nothing was measured yet",
        "loaderd measures every loaded model: memory, requests, latency. Load one, and it appears here.",
        "monitoring",
    ),
    "lifecycle.operation": (
        "Nobody has asked for anything yet",
        "Every load, unload, activation and rollback is kept here: who asked, why, how it ended. Load a model.",
        "play_circle",
    ),
    "jobs.job": (
        "No file was predicted yet",
        "A job takes CSV, JSON lines or Parquet and predicts every row; POST /api/jobs/ asks for one, too.",
        "dataset",
    ),
    "lifecycle.statechange": (
        "No model has changed its state yet",
        "Every move of a model is kept here with its reason: loaded, unloaded, evicted, crashed. Load one.",
        "swap_horiz",
    ),
    "lifecycle.lineagechange": (
        "No version was live yet",
        "The first version of a lineage that is loaded becomes live; activations and rollbacks follow here.",
        "history",
    ),
    "lifecycle.loaderstatus": (
        "loaderd was not heard yet",
        "It says here how it is, once a second: start it with manage.py up or manage.py loaderd.",
        "memory",
    ),
    "admin.logentry": (
        "Nobody has changed anything yet",
        "Who changes something in the console, by the API or by a command is kept here.",
        "policy",
    ),
    "policy.policychange": (
        "The policy is as it was configured",
        "Each change of a setting is kept here: by whom, when, from what to what.",
        "manage_history",
    ),
    "accounts.apitoken": (
        "No token yet",
        "Programs show a token to the API. Make one here or with manage.py create_token; it is shown once.",
        "key",
    ),
    "auth.group": ("No group", "Groups give several people the same permissions.", "group"),
    "django_q.schedule": ("No schedule", "manage.py migrate makes those that Modelhub needs.", "schedule"),
    "django_q.ormq": ("No task waits", "What was asked for waits here until a worker takes it.", "pending_actions"),
    "django_q.success": ("No task has ended yet", "Tasks that succeeded are kept here for a while.", "task_alt"),
    "django_q.failure": ("No task has failed", "A task that fails is kept here with its reason.", "task_alt"),
}


def empty_of(request: HttpRequest, changelist: Any) -> Empty:
    """What to say of changelist, which has no row to show; "no match" when a search or filter hides them."""
    if changelist.query or changelist.has_active_filters:
        asked = [f"“{changelist.query}”"] if changelist.query else []
        asked += ["the filters that are set"] if changelist.has_active_filters else []
        text = f"None of the {changelist.opts.verbose_name_plural} fits {' and '.join(asked)}."
        return Empty("Nothing matches", text, "search_off", [Step("Show all", "?")])
    title, text, icon = _WORDS.get(
        changelist.opts.label_lower,
        (f"No {changelist.opts.verbose_name_plural} yet", "What is added appears here.", "inbox"),
    )
    return Empty(title, text, icon, _steps(request, changelist))


def _steps(request: HttpRequest, changelist: Any) -> list[Step]:
    """What this user may do about it."""
    user, label = request.user, changelist.opts.label_lower
    steps = []
    if changelist.model_admin.has_add_permission(request):
        url = reverse(f"admin:{changelist.opts.app_label}_{changelist.opts.model_name}_add")
        steps.append(Step(f"Add {changelist.opts.verbose_name}", url))
    if label in ("registry.modelversion", "registry.model", "registry.discoveryrun"):
        if user.has_perm("registry.discover_modelversion"):
            steps.append(Step("Run discovery", reverse("admin:registry_modelversion_discover"), is_posted=True))
    elif label in ("lifecycle.operation", "lifecycle.statechange", "lifecycle.lineagechange", "telemetry.sample"):
        if user.has_perm("registry.view_modelversion"):
            steps.append(Step("Choose a model", reverse("admin:registry_modelversion_changelist")))
    elif label == "jobs.job":
        if may_predict(user):
            steps.append(Step("Predict a file", reverse("console:predict-file")))
    elif label == "telemetry.comparison" and user.has_perm("registry.view_model"):
        steps.append(Step("Choose a lineage", reverse("admin:registry_model_changelist")))
    elif label in ("telemetry.alert", "policy.policychange") and user.has_perm("policy.view_policy"):
        steps.append(Step("Policy", reverse("admin:policy_policy_changelist")))
    return steps
