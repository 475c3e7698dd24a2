"""The policy's page: one record, every field with its unit and what is in force."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from modelhub.conf import Config, config
from modelhub.console.admin.policy import UNITS
from modelhub.lifecycle.models import LoaderStatus
from modelhub.policy.effective import change, effective
from modelhub.policy.models import OVERRIDABLE, Policy, PolicyChange

pytestmark = pytest.mark.django_db
PAGE = "/admin/policy/policy/1/change/"


def form(**values: Any) -> dict[str, Any]:
    """What the browser sends of a page on which these fields were filled in."""
    return {name.lower(): "" for name in OVERRIDABLE} | values


def test_each_setting_has_its_place_and_unit() -> None:
    assert sorted(UNITS) == sorted(OVERRIDABLE)


def test_the_list_is_the_page_and_looking_makes_no_record(admin_client: Client) -> None:
    response = admin_client.get(reverse("admin:policy_policy_changelist"), follow=True)
    assert response.redirect_chain == [(PAGE, 302)]
    assert not Policy.objects.exists()


def test_each_field_tells_unit_environment_and_what_is_in_force(admin_client: Client) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600}, user=None)
    page = re.sub(r"\s+", " ", admin_client.get(PAGE).content.decode())
    assert 'id="unit-MAX_MEMORY_USAGE_MB">MiB</span>' in page
    assert '<dt>In force</dt><dd><strong>600</strong> <span class="mh-subtle">by this policy</span></dd>' in page
    assert f"<dt>Otherwise</dt><dd>{config().MAX_MEMORY_USAGE_MB}</dd>" in page
    for name in OVERRIDABLE:
        assert f'for="id_{name.lower()}"' in page
        assert escape(Config.model_fields[name].description) in page


def test_what_loaderd_works_by_is_told_with_its_time(admin_client: Client) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600, "HANG_SECONDS": 9}, user=None)
    assert "has not said yet" in admin_client.get(PAGE).content.decode()
    limits = {"max_memory_bytes": 600 << 20, "hang_seconds": 30.0}
    LoaderStatus.objects.create(pk=1, pid=1, observed_at=timezone.now(), facts={"limits": limits})
    answer = admin_client.get(PAGE)
    told = {setting.name: setting for _, settings in answer.context["sections"] for setting in settings}
    assert (told["MAX_MEMORY_USAGE_MB"].observed, told["MAX_MEMORY_USAGE_MB"].differs) == ("600", False)
    assert (told["HANG_SECONDS"].observed, told["HANG_SECONDS"].differs) == ("30", True)
    assert answer.content.decode().count(">differs<") == 1


def test_an_override_that_does_not_count_any_more_is_told(admin_client: Client) -> None:
    Policy.objects.create(pk=1, sampling_rate=7.0)
    page = admin_client.get(PAGE).content.decode()
    assert "7 is set here and is not accepted any more" in page


def test_saving_sets_what_was_edited_and_tells_who(admin_client: Client, admin_user: Any) -> None:
    response = admin_client.post(PAGE, form(max_memory_usage_mb="600", sampling_rate="0"), follow=True)
    assert "within a second" in str(next(iter(response.context["messages"])))
    assert (effective().MAX_MEMORY_USAGE_MB, effective().SAMPLING_RATE) == (600, 0.0)
    changes = PolicyChange.objects.values_list("setting", "after", "user")
    assert set(changes) == {("MAX_MEMORY_USAGE_MB", "600", admin_user.pk), ("SAMPLING_RATE", "0.0", admin_user.pk)}
    assert "MAX_MEMORY_USAGE_MB = 600" in LogEntry.objects.get().get_change_message()


def test_an_old_page_does_not_undo_what_somebody_else_set(admin_client: Client) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600}, user=None)
    # The browser shows 600, and somebody sets 700 meanwhile: an edit of another field alone is written.
    old = form(max_memory_usage_mb="700", hang_seconds="9")
    change({"MAX_MEMORY_USAGE_MB": 700}, user=None)
    admin_client.post(PAGE, old)
    assert (effective().MAX_MEMORY_USAGE_MB, effective().HANG_SECONDS) == (700, 9.0)


@pytest.mark.parametrize(("chosen", "kept"), [("true", True), ("false", False)])
def test_a_switch_has_three_positions(admin_client: Client, chosen: str, kept: bool) -> None:
    admin_client.post(PAGE, form(cache_enabled=chosen))
    assert effective().CACHE_ENABLED is kept
    assert f'<option value="{chosen}" selected>' in admin_client.get(PAGE).content.decode()
    admin_client.post(PAGE, form(cache_enabled="unknown"))
    assert effective().CACHE_ENABLED is config().CACHE_ENABLED
    assert Policy.objects.get().cache_enabled is None


@pytest.mark.parametrize(
    ("field", "value"), [("sampling_rate", "2"), ("max_load_attempts", "0"), ("hang_seconds", "x")]
)
def test_a_bad_value_is_told_at_its_field(admin_client: Client, field: str, value: str) -> None:
    response = admin_client.post(PAGE, form(**{field: value}))
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == [field]
    assert not PolicyChange.objects.exists()
    error = response.context["adminform"].form.errors[field][0]
    assert f'id="error-{field.upper()}" role="alert">{escape(error)}' in response.content.decode()


def test_empty_takes_the_override_away(admin_client: Client) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600, "PERFORMANCE_LOG_LEVEL": "DEBUG"}, user=None)
    admin_client.post(PAGE, form())
    assert effective() is config()


def test_viewers_see_it_and_change_nothing(client: Client, django_user_model: Any) -> None:
    user = django_user_model.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_policy", "view_policychange"]))
    client.force_login(user)
    page = client.get(PAGE)
    assert page.status_code == 200
    assert "Save the policy" not in page.content.decode()
    assert 'name="max_memory_usage_mb"' not in page.content.decode()
    assert client.post(PAGE, form(max_memory_usage_mb="1")).status_code == 403
    assert client.get("/admin/policy/policychange/").status_code == 200


def test_the_changes_are_listed_and_cannot_be_touched(admin_client: Client) -> None:
    change({"MAX_MEMORY_USAGE_MB": 600}, user=None)
    row = PolicyChange.objects.get()
    page = admin_client.get("/admin/policy/policychange/").content.decode()
    assert "MAX_MEMORY_USAGE_MB" in page
    assert "as the environment said" in page
    assert admin_client.post(f"/admin/policy/policychange/{row.pk}/change/", {}).status_code == 403
    assert admin_client.post(f"/admin/policy/policychange/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.post("/admin/policy/policy/1/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get("/admin/policy/policy/2/change/").status_code == 302
