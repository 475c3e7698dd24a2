"""The admin of what the program alone writes: lists, and a page for each record that tells it in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import display_for_value, label_for_field, lookup_field
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from modelhub.console.templatetags.console import UNKNOWN, moment
from modelhub.console.templatetags.records import in_json, short
from modelhub.registry.models import ModelVersion

NOTHING = format_html('<span class="mh-subtle">{}</span>', UNKNOWN)
Fact = tuple[str, Any]


class ReadOnlyAdmin(ModelAdmin):
    """Lists and pages to be read; nobody adds, changes or deletes.

    A page shows `fields` with their values; a subclass has more in a template of its own (`change_form_template`), and
    in what `shown()` gives it.
    """

    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    change_form_template = "console/record/page.html"
    fields: Sequence[str] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def heading(self, record: Any) -> str:
        """What the page is called."""
        return str(record)

    def facts(self, record: Any) -> list[Fact]:
        """(name, value) of `fields`."""
        return [(_label(name, self), self._told(name, record)) for name in self.fields]

    def shown(self, request: HttpRequest, record: Any) -> dict[str, Any]:
        """What the page's template has beside heading and facts."""
        return {}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **options: Any
    ) -> HttpResponse:
        if obj is not None:
            heading = self.heading(obj)
            context |= {"title": heading, "heading": heading, "facts": self.facts(obj)}
            context |= self.shown(request, obj)
        return super().render_change_form(request, context, *args, obj=obj, **options)

    def _told(self, name: str, record: Any) -> Any:
        field, _, value = lookup_field(name, record, self)
        if isinstance(value, SafeString):
            return value
        if value in (None, "", {}, []):
            return NOTHING
        if isinstance(value, datetime):
            return moment(value)
        if isinstance(value, dict | list):
            return in_json(value)
        if isinstance(value, ModelVersion):
            return model_link(value)
        if field is not None and getattr(field, "flatchoices", None):
            return dict(field.flatchoices).get(value, value)
        return display_for_value(value, UNKNOWN)


def _label(name: str, model_admin: ModelAdmin) -> str:
    label = str(label_for_field(name, model_admin.model, model_admin))
    return label[:1].upper() + label[1:]


def because(reason: str) -> SafeString:
    """A reason as a list shows it; a dash without one."""
    return short(reason) if reason else NOTHING


def model_link(version: ModelVersion | None, otherwise: str = "") -> SafeString:
    """A link to the model's page; without a model what is said otherwise, or a dash."""
    if version is None:
        return format_html("{}", otherwise) if otherwise else NOTHING
    url = reverse("admin:registry_modelversion_change", args=[version.pk])
    return format_html('<a class="mh-link mh-break" href="{}">{}</a>', url, version.model_id)
