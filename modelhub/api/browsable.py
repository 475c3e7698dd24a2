"""The API in a browser: in the admin's look, with a form for each method that the user may use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from rest_framework.renderers import BrowsableAPIRenderer, HTMLFormRenderer
from rest_framework.request import Request, clone_request


class FormRenderer(HTMLFormRenderer):
    template_pack = "rest_framework/horizontal/"


class BrowsableRenderer(BrowsableAPIRenderer):
    """DRF's, in templates/rest_framework/. The sidebar is shown to those who may enter the admin."""

    form_renderer_class = FormRenderer

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Mapping[str, Any]
    ) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        request: Request = renderer_context["request"]
        error = (
            data.get("error") if isinstance(data, dict) and renderer_context["response"].status_code >= 400 else None
        )
        patch_form = self.get_rendered_html_form(data, renderer_context["view"], "PATCH", request)
        return {
            **admin.site.each_context(request),
            **context,
            "is_nav_sidebar_enabled": bool(request.user and request.user.is_active and request.user.is_staff),
            "title": context["name"],
            "patch_form": patch_form,
            "error": error if isinstance(error, dict) else None,
            "forms": _forms(context, patch_form),
        }

    def get_rendered_html_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        if method in ("DELETE", "OPTIONS"):
            return super().get_rendered_html_form(data, view, method, request)
        # To the method that was just used DRF would offer the answer's fields, not those that can be sent.
        asked = clone_request(request, "GET")
        try:
            return super().get_rendered_html_form(data, view, method, asked)
        except (AttributeError, KeyError):  # what was answered is of another kind than what is sent
            return super().get_rendered_html_form(None, view, method, asked)

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Request) -> Any:
        try:
            form = super().get_raw_data_form(data, view, method, request)
        except (AttributeError, KeyError):
            form = super().get_raw_data_form(None, view, method, request)
        shown = getattr(data, "serializer", None)
        is_of_one = shown is not None and not getattr(shown, "many", False) and shown.instance is not None
        if method == "PATCH" and form and not is_of_one:
            # What is absent stays; DRF would offer every field with null, which takes every setting back.
            form.fields["_content"].initial = "{}"
        return form


def _forms(context: Mapping[str, Any], patch_form: Any) -> list[dict[str, Any]]:
    """What can be sent to this address: [{method, form, raw}]. A forbidden answer shows none."""
    if not context["display_edit_forms"]:
        return []
    offered = (
        ("POST", context["post_form"], context["raw_data_post_form"]),
        ("PUT", context["put_form"], context["raw_data_put_form"]),
        ("PATCH", patch_form, context["raw_data_patch_form"]),
    )
    return [{"method": method, "form": form, "raw": raw} for method, form, raw in offered if form or raw]
