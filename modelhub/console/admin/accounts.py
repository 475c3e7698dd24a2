"""Users, groups and tokens in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import ForeignKey, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from knox.models import get_digest_token
from knox.settings import CONSTANTS
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from modelhub.accounts.models import ApiToken
from modelhub.console.templatetags.console import moment, state

User = get_user_model()
admin.site.unregister(User)
admin.site.unregister(Group)

# The session keeps a new token until its page is shown, once.
_NEW_TOKEN = "modelhub_new_token"  # noqa: S105 (a key of the session)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "first_name", "last_name", "shown_rights", "last_seen")

    @display(description="May")
    def shown_rights(self, user: Any) -> SafeString:
        if not user.is_active:
            return format_html('<span class="mh-tag">{}</span>', "not active")
        word = "all" if user.is_superuser else "the console" if user.is_staff else "the API only"
        return format_html('<span class="mh-tag{}">{}</span>', " mh-tag--accent" if user.is_superuser else "", word)

    @display(description="Last login", ordering="last_login")
    def last_seen(self, user: Any) -> SafeString:
        return moment(user.last_login)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    pass


class ExpiryFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("valid", "Valid"), ("expired", "Expired")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> QuerySet[ApiToken]:
        expired = queryset.filter(expiry__lte=timezone.now())
        match self.value():
            case "expired":
                return expired
            case "valid":
                return queryset.exclude(pk__in=expired.values("pk"))
        return queryset


@admin.register(ApiToken)
class ApiTokenAdmin(ModelAdmin):
    """The token itself is shown once, after it was made; afterwards only name and expiry can change.

    A token acts as its user. So only a superuser sees, and makes, tokens of others.
    """

    list_display = ("shown_name", "user", "prefix", "shown_state", "made", "expires")
    list_filter = (ExpiryFilter,)
    search_fields = ("name", "token_key", "user__username")
    search_help_text = "Name, beginning, or user"
    autocomplete_fields = ("user",)
    list_select_related = ("user",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ("revoke_selected",)
    change_form_template = "console/token/page.html"
    delete_confirmation_template = "console/token/revoke.html"

    @display(description="Name", ordering="name")
    def shown_name(self, token: ApiToken) -> str:
        return token.name or "without a name"

    @display(description="Begins with", ordering="token_key")
    def prefix(self, token: ApiToken) -> SafeString:
        return format_html('<span class="mh-mono">{}…</span>', token.token_key)

    @display(description="State")
    def shown_state(self, token: ApiToken) -> SafeString:
        return state("expired") if token.expiry and token.expiry <= timezone.now() else state("valid")

    @display(description="Made", ordering="created")
    def made(self, token: ApiToken) -> SafeString:
        return moment(token.created)

    @display(description="Expires", ordering="expiry")
    def expires(self, token: ApiToken) -> SafeString:
        if token.expiry is None:
            return format_html('<span class="mh-subtle">{}</span>', "never")
        return moment(token.expiry, "until" if token.expiry > timezone.now() else "ago")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        tokens: QuerySet[ApiToken] = super().get_queryset(request)
        return tokens if request.user.is_superuser else tokens.filter(user=request.user)

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return ("name", "user", "expiry") if obj is None else ("name", "user", "prefix", "made", "expiry")

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        return () if obj is None else ("user", "prefix", "made")

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # Autocomplete offers every user; a plain list can be narrowed to the one allowed.
        return ("user",) if request.user.is_superuser else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"user": request.user.pk, **super().get_changeform_initial_data(request)}

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField | None:
        if db_field.name == "user" and not request.user.is_superuser:
            kwargs["queryset"] = User.objects.filter(pk=request.user.pk)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=["name", "expiry"])
            return
        obj.digest, token = get_digest_token()
        obj.token_key = token[: CONSTANTS.TOKEN_KEY_LENGTH]
        obj.save(force_insert=True)
        request.session[_NEW_TOKEN] = {"pk": obj.pk, "token": token}

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        if self.has_view_or_change_permission(request, obj):
            return redirect("admin:accounts_apitoken_change", obj.pk)
        token = request.session.pop(_NEW_TOKEN)["token"]  # who may make tokens and see none
        note = format_html("The token of {} is <code>{}</code>. It is shown only now.", obj.user, token)
        messages.warning(request, note)
        return redirect("admin:index")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **options: Any
    ) -> HttpResponse:
        context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        if obj is not None:
            title = f"Token: {obj.name or 'without a name'}"
            context |= {"title": title, "heading": title}
            new = request.session.get(_NEW_TOKEN)
            if new is not None and new["pk"] == obj.pk:
                del request.session[_NEW_TOKEN]
                context["new_token"] = new["token"]
        response = super().render_change_form(request, context, *args, obj=obj, **options)
        if "new_token" in context:
            response.headers["Cache-Control"] = "no-store"
        return response

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        found: dict[str, Any] = super().get_actions(request)
        found.pop("delete_selected", None)  # revoke_selected says what it means
        return found

    @admin.action(description="Revoke selected tokens: programs that use them are refused", permissions=["delete"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        for token in queryset.select_related("user"):
            self.log_deletions(request, [token])
            token.delete()
            self.message_user(request, f"Revoked: {token.name or 'token'} of {token.user}.", messages.SUCCESS)
