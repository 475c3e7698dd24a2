"""The policy in the admin: one page with every setting that changes at run time, and the list of its changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import Field
from django.forms import BoundField, ModelForm, NullBooleanSelect, NumberInput, Select
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from modelhub.choice_filter import choice_filter
from modelhub.console.admin.read_only import ReadOnlyAdmin
from modelhub.console.templatetags.console import moment
from modelhub.lifecycle.observed import LoaderView, loader_view
from modelhub.lifecycle.settings import settings_in_force
from modelhub.policy import effective as effective_policy
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange

# Section -> {setting: unit}
SECTIONS: dict[str, dict[str, str]] = {
    "Memory": {
        "MAX_MEMORY_USAGE_MB": "MiB",
        "MAX_MEMORY_USAGE_PERCENT": "%",
        "GPU_MEMORY_LIMIT_MB": "MiB",
        "GPU_MEMORY_LIMIT_PERCENT": "%",
    },
    "Eviction and optimisation": {
        "MIN_RESIDENCY_SECONDS": "seconds",
        "MEMORY_OPTIMIZATION_INTERVAL": "seconds",
        "UNUSED_MODEL_TIMEOUT_HOURS": "hours",
        "LOW_USAGE_THRESHOLD": "share, 0 to 1",
    },
    "Loads and recovery": {
        "MAX_CONCURRENT_LOADS": "loads",
        "MODEL_TIMEOUT_SECONDS": "seconds",
        "LOAD_WAIT_SECONDS": "seconds",
        "MAX_LOAD_ATTEMPTS": "starts",
    },
    "Health": {
        "HEALTH_CHECK_INTERVAL": "seconds",
        "HANG_SECONDS": "seconds",
        "SLOW_SECONDS": "seconds",
    },
    "Response cache": {
        "CACHE_ENABLED": "",
        "CACHE_TTL_SECONDS": "seconds",
        "CACHE_MAX_MB": "MiB",
    },
    "Alerts": {
        "ALERT_LOAD_TIME_SECONDS": "seconds",
        "ALERT_MEMORY_USAGE_PERCENT": "%",
        "ALERT_ERROR_RATE_PERCENT": "%",
    },
    "Metrics and logs": {
        "METRICS_RETENTION_DAYS": "days",
        "SAMPLING_RATE": "share, 0 to 1",
        "SLOW_REQUEST_SECONDS": "seconds",
        "PERFORMANCE_LOG_LEVEL": "",
    },
}
UNITS = {name: unit for settings in SECTIONS.values() for name, unit in settings.items()}
_SOURCES = {"policy": "this policy", "environment": "the environment", "default": "the default"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as its row shows it. field: None for who may not change it. observed: None, loaderd has no part in
    it or never said."""

    name: str
    unit: str
    description: str
    field: BoundField | None
    override: str
    value: str
    source: str
    without: str
    observed: str | None
    observed_at: datetime | None
    is_refused: bool

    @property
    def differs(self) -> bool:
        """Whether loaderd works by another value than what counts."""
        return self.observed is not None and self.observed != self.value


@admin.register(Policy)
class PolicyAdmin(ModelAdmin):
    """There is one record, so its list is its page. It is made when it is saved first."""

    fieldsets = [(title, {"fields": [name.lower() for name in settings]}) for title, settings in SECTIONS.items()]
    change_form_template = "console/policy/page.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Policy | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return redirect("admin:policy_policy_change", 1)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Policy | None:
        if object_id != "1":
            return None
        return Policy.objects.filter(pk=1).first() or Policy()

    def get_form(self, request: HttpRequest, obj: Policy | None = None, change: bool = False, **kwargs: Any) -> Any:
        def field_of(column: Field[Any, Any], **options: Any) -> Any:
            name = column.name.upper()
            if name not in UNITS:
                return self.formfield_for_dbfield(column, request=request, **options)
            widget: Any = Select({"class": "mh-input"})
            is_switch = column.get_internal_type() == "BooleanField"
            if is_switch:
                widget = NullBooleanSelect({"class": "mh-input"})
                widget.choices = [("unknown", "not set"), ("true", "yes"), ("false", "no")]
            elif not column.choices:
                whole = column.get_internal_type() == "PositiveIntegerField"
                attributes = {"step": "1" if whole else "any", "inputmode": "numeric" if whole else "decimal"}
                widget = NumberInput({"class": "mh-input", "placeholder": "not set", **attributes})
            widget.attrs["aria-describedby"] = f"about-{name} unit-{name} error-{name}"
            field = column.formfield(widget=widget, label=name, help_text="")
            if column.choices:
                field.choices = [("", "not set"), *column.choices]
            return field

        return super().get_form(request, obj, change, **{**kwargs, "formfield_callback": field_of})

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **options: Any
    ) -> HttpResponse:
        loader = loader_view()
        form = context["adminform"].form
        told = {setting.name: setting for setting in _settings(form, loader)}
        context |= {
            "title": "Policy",
            "heading": "Policy",
            "loader": loader,
            "sections": [(title, [told[name] for name in settings]) for title, settings in SECTIONS.items()],
            "has_errors": bool(form.errors),
            "changes": PolicyChange.objects.all()[:5] if request.user.has_perm("policy.view_policychange") else None,
        }
        return super().render_change_form(request, context, *args, obj=obj, **options)

    def save_model(self, request: HttpRequest, obj: Policy, form: ModelForm, change: bool) -> None:
        # Only what was edited: somebody else may have set another field since the page was opened.
        effective_policy.change(
            {name.upper(): form.cleaned_data[name] for name in form.changed_data}, user=request.user
        )

    def construct_change_message(
        self, request: HttpRequest, form: ModelForm, formsets: Any, add: bool = False
    ) -> str | list[Any]:
        """For the admin's own log: with the values, which its list of fields leaves out."""
        told = (f"{name.upper()} = {_shown_or_environment(form.cleaned_data[name])}" for name in form.changed_data)
        return (
            f"Set {', '.join(told)}."
            if form.changed_data
            else super().construct_change_message(request, form, formsets, add)
        )

    def response_change(self, request: HttpRequest, obj: Policy) -> HttpResponse:
        self.message_user(request, "Saved. loaderd works by it within a second.", messages.SUCCESS)
        return redirect("admin:policy_policy_change", 1)


def _settings(form: ModelForm, loader: LoaderView) -> Iterator[Setting]:
    for told in settings_in_force(loader):
        name, column = told["name"], told["name"].lower()
        yield Setting(
            name=name,
            unit=UNITS[name],
            description=told["description"],
            field=form[column] if column in form.fields else None,
            override="" if told["override"] is None else _shown(told["override"]),
            value=_shown(told["value"]),
            source=_SOURCES[told["source"]],
            without=_shown(told["environment"]),
            observed=None if told["observed"] is None else _shown(told["observed"]),
            observed_at=told["observed_at"],
            is_refused=told["override"] is not None and told["source"] != "policy",
        )


@admin.register(PolicyChange)
class PolicyChangeAdmin(ReadOnlyAdmin):
    list_display = ("setting", "shown_before", "shown_after", "actor", "when")
    list_filter = (choice_filter("setting", OVERRIDABLE), "at")
    search_fields = ("setting", "actor")
    search_help_text = "Setting, or who"
    fields = ("setting", "shown_before", "shown_after", "actor", "when")

    def heading(self, record: PolicyChange) -> str:
        return f"{record.setting}: {self.shown_before(record)} to {self.shown_after(record)}"

    @display(description="Before")
    def shown_before(self, change: PolicyChange) -> str:
        return _with_unit(change.setting, change.before) or "as the environment said"

    @display(description="After")
    def shown_after(self, change: PolicyChange) -> str:
        return _with_unit(change.setting, change.after) or "as the environment says"

    @display(description="When", ordering="at")
    def when(self, change: PolicyChange) -> SafeString:
        return moment(change.at)


def _with_unit(setting: str, value: str) -> str:
    unit = UNITS.get(setting, "")
    return format_html("{} {}", value, unit) if value and unit and "share" not in unit else value


def _shown_or_environment(value: Any) -> str:
    return "as the environment says" if value in (None, "") else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
