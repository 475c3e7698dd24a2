"""Which pages the console has, for what holds for each of them: pictures, axe-core, a phone's width, the network."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST = "#result_list tbody tr:first-child th a"


@dataclass(frozen=True, slots=True)
class Place:
    """A page. name: of its test and picture. path: its address, or that of the list whose entry it is.

    entry: the model's page of this name (list of models only), or `first` for the first entry of any list. tab: of the
    model's page. shows: a heading or text that only this page has once it is ready.
    """

    name: str
    path: str
    entry: str = ""
    tab: str = ""


def _list(app: str, model: str) -> str:
    return f"/admin/{app}/{model}/"


MODELS, LINEAGES = _list("registry", "modelversion"), _list("registry", "model")
LISTS = {
    "models": MODELS,
    "lineages": LINEAGES,
    "comparisons": _list("telemetry", "comparison"),
    "discoveries": _list("registry", "discoveryrun"),
    "alerts": _list("telemetry", "alert"),
    "operations": _list("lifecycle", "operation"),
    "state-changes": _list("lifecycle", "statechange"),
    "who-was-live": _list("lifecycle", "lineagechange"),
    "audit": _list("admin", "logentry"),
    "traces": _list("telemetry", "trace"),
    "samples": _list("telemetry", "sample"),
    "policy": _list("policy", "policy"),
    "policy-changes": _list("policy", "policychange"),
    "schedules": _list("django_q", "schedule"),
    "users": _list("auth", "user"),
    "groups": _list("auth", "group"),
    "tokens": _list("accounts", "apitoken"),
    "loaderd": _list("lifecycle", "loaderstatus"),
    "queued-tasks": _list("django_q", "ormq"),
    "finished-tasks": _list("django_q", "success"),
    "failed-tasks": _list("django_q", "failure"),
}
