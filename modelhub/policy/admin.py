"""The policy in the admin: one page with every setting that changes at run time, and the list of its changes."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Field
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.admin import ModelAdmin

from modelhub.choice_filter import choice_filter
from modelhub.conf import Config, config
from modelhub.policy import effective as effective_policy
from modelhub.policy.effective import effective
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange
from modelhub.read_only_admin import ReadOnlyAdmin

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
    "Alerts": {
        "ALERT_LOAD_TIME_SECONDS": "seconds",
        "ALERT_MEMORY_USAGE_PERCENT": "%",
        "ALERT_ERROR_RATE_PERCENT": "%",
    },
    "Metrics and logs": {
        "METRICS_RETENTION_DAYS": "days",
        "SAMPLING_RATE": "share, 0 to 1",
        "PERFORMANCE_LOG_LEVEL": "",
    },
}
UNITS = {name: unit for settings in SECTIONS.values() for name, unit in settings.items()}


@admin.register(Policy)
class PolicyAdmin(ModelAdmin):
    """There is one record, so its list is its page. It is made when it is saved first."""

    fieldsets = [(title, {"fields": [name.lower() for name in settings]}) for title, settings in SECTIONS.items()]
    warn_unsaved_form = True

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
        """Each field tells its unit, what the environment says, and what is in force now."""
        in_force = effective()

        def field_of(column: Field[Any, Any], **options: Any) -> Any:
            name = column.name.upper()
            if name not in UNITS:
                return self.formfield_for_dbfield(column, request=request, **options)
            unit = UNITS[name]
            field = self.formfield_for_dbfield(
                column,
                request=request,
                label=f"{name} ({unit})" if unit else name,
                help_text=(
                    f"{Config.model_fields[name].description} In force: {_shown(getattr(in_force, name))}. "
                    f"Environment: {_shown(getattr(config(), name))}; empty leaves it in force."
                ),
                **options,
            )
            if field is not None and not getattr(field, "choices", None):
                field.widget.attrs["placeholder"] = _shown(getattr(config(), name))
            return field

        return super().get_form(request, obj, change, **{**kwargs, "formfield_callback": field_of})

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


@admin.register(PolicyChange)
class PolicyChangeAdmin(ReadOnlyAdmin):
    list_display = ("at", "setting", "shown_before", "shown_after", "actor")
    list_filter = (choice_filter("setting", OVERRIDABLE), "at")
    search_fields = ("setting", "actor")
    search_help_text = "Setting, or who"

    @admin.display(description="Before")
    def shown_before(self, change: PolicyChange) -> str:
        return change.before or "as the environment said"

    @admin.display(description="After")
    def shown_after(self, change: PolicyChange) -> str:
        return change.after or "as the environment says"


def _shown_or_environment(value: Any) -> str:
    return "as the environment says" if value in (None, "") else _shown(value)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
