"""The schema is valid and whole, the pages need no other host, and docs/api.md names each endpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from modelhub.api.serializers.errors import WORDING
from modelhub.conf import PROJECT_DIR
from modelhub.registry.models import ModelVersion

DOCS = (PROJECT_DIR / "docs" / "api.md").read_text()


@pytest.fixture
def schema() -> dict[str, Any]:
    return SchemaGenerator().get_schema(request=None, public=True)


@pytest.fixture
def browser(loaded: ModelVersion) -> Client:
    browser = Client(headers={"Accept": "text/html"})
    browser.force_login(User.objects.create_superuser("boss"))
    return browser


def test_it_is_made_without_a_warning_and_valid(tmp_path: Path) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))


def test_every_answer_but_success_has_the_one_error_shape(schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            told = operation["responses"]
            assert {"401", "500", "503"} <= set(told), f"{method} {path}"
            for status in set(told) & {str(status) for status in WORDING}:
                content = told[status]["content"]["application/json"]["schema"]
                assert content == {"$ref": "#/components/schemas/Error"}, f"{method} {path} {status}"


def test_paths_are_as_the_specification_writes_them(schema: dict[str, Any]) -> None:
    assert {
        ("/api/models/", "get"),
        ("/api/models/{model_id}", "get"),
        ("/api/models/{model_id}/load", "post"),
        ("/api/models/{model_id}/unload", "post"),
        ("/api/models/{model_id}/performance", "get"),
        ("/api/models/health", "get"),
        ("/api/models/metrics", "get"),
        ("/api/models/optimize-memory", "post"),
        ("/api/models/{model_id}/activate", "post"),
        ("/api/lineages/", "get"),
        ("/api/lineages/{name}/rollback", "post"),
        ("/api/lineages/{name}/history", "get"),
    } <= {(path, method) for path, operations in schema["paths"].items() for method in operations}


def test_docs_have_a_heading_for_each_endpoint(schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in DOCS, f"{method} {path}"


def test_docs_name_each_code_of_an_error() -> None:
    from loaderd import errors

    codes = {
        cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.LoaderdError)
    }
    missing = {code for code in codes if f"`{code}`" not in DOCS}
    assert not missing


@pytest.mark.parametrize("address", ["/api/models/", "/api/models", "/api/models/health", "/api/models/health/"])
def test_a_slash_at_the_end_makes_no_difference(browser: Client, address: str) -> None:
    assert browser.get(address).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "/api/",
        "/api/docs/",
        "/api/docs/?script=",
        "/api/models/",
        "/api/models/?limit=1",
        "/api/models/sentiment-model-v1",
        "/api/models/health",
        "/api/operations/",
        "/api/lineages/",
        "/api/lineages/sentiment-model-v1",
        "/api/lineages/sentiment-model-v1/traffic",
        "/api/alerts/",
        "/api/policy",
        "/api/policy/changes",
    ],
)
def test_pages_open_and_need_no_other_host(browser: Client, address: str) -> None:
    answer = browser.get(address)
    assert answer.status_code == 200
    page = answer.content.decode()
    assert not re.search(r"""<(?:script|link|img)[^>]+(?:src|href)=["'](?:https?:)?//""", page)
    for asset in re.findall(r"""(?:src|href)=["']/static/([^"'?]+)["']""", page):
        assert finders.find(asset), asset


@pytest.mark.parametrize(
    ("address", "fields"),
    [
        ("models/sentiment-model-v1/predict", ["inputs"]),
        ("models/sentiment-model-v1/load", ["reason", "dry_run"]),
        ("models/sentiment-model-v1/activate", ["reason", "allow_gap", "dry_run"]),
        ("models/sentiment-model-v1/approve", ["digest"]),
        ("models/sentiment-model-v1/forget-canary", ["reason"]),
        ("models/optimize-memory", ["reason", "dry_run"]),
        ("lineages/sentiment-model-v1/rollback", ["to", "reason", "allow_gap"]),
        ("lineages/sentiment-model-v1/traffic", ["candidate_percent", "shadow"]),
        ("lineages/sentiment-model-v1/aliases/stable", ["model_id"]),
    ],
)
def test_the_browsable_api_has_a_form_for_each_action(browser: Client, address: str, fields: list[str]) -> None:
    page = browser.get(f"/api/{address}").content.decode()
    for field in fields:
        assert re.search(rf'<(?:input|textarea|select)[^>]*name="{field}"', page), field
    assert "Lists are not currently supported" not in page


def test_settings_and_policies_are_patched_from_a_page(browser: Client) -> None:
    for address, field in (("policy", "MAX_MEMORY_USAGE_MB"), ("models/sentiment-model-v1", "keep_alive_seconds")):
        page = browser.get(f"/api/{address}").content.decode()
        assert 'data-mh-method="PATCH"' in page, address
        assert field in page
