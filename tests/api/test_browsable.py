"""The API in a browser: in the admin's look, with forms that send what the API takes, errors that can be read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from modelhub.conf import config
from modelhub.lifecycle.models import LoaderStatus, Operation
from modelhub.policy.effective import change, effective
from modelhub.registry.models import Alias, Model, ModelVersion
from tests.api.conftest import FakeLoaderd, MakeVersion

HTML = {"Accept": "text/html"}


@pytest.fixture
def browser(admin_user: Any) -> Client:
    client = Client(headers=HTML)
    client.force_login(admin_user)
    return client


def forms_of(answer: Any) -> list[str]:
    """The methods that the page offers to send."""
    return re.findall(r'data-mh-sends="(\w+)"', answer.content.decode())


def raw_of(answer: Any, method: str) -> Any:
    form = next(sent["raw"] for sent in answer.context["forms"] if sent["method"] == method)
    return json.loads(form["_content"].value())


@pytest.mark.django_db
class TestLook:
    def test_it_stands_in_the_admins_frame_and_loads_nothing_from_elsewhere(
        self, browser: Client, make_version: MakeVersion
    ) -> None:
        make_version()
        page = browser.get("/api/models/").content.decode()
        assert 'href="/admin/"' in page
        assert "console/console.css" in page
        assert "bootstrap" not in page
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page.replace("http://testserver", ""))
        assert "<title>Model List | API |" in page

    def test_who_may_not_enter_the_admin_sees_no_sidebar(self, make_version: MakeVersion) -> None:
        make_version()
        client = Client(headers=HTML)
        client.force_login(User.objects.create_user("program"))
        page = client.get("/api/models/")
        assert page.status_code == 200
        assert 'id="mh-nav"' not in page.content.decode()

    def test_a_stranger_is_told_to_log_in(self, client: Client, db: None) -> None:
        answer = client.get("/api/models/", headers=HTML)
        assert answer.status_code == 401
        page = answer.content.decode()
        assert "/admin/login/?next=/api/models/" in page
        assert "not_authenticated" in page
        assert forms_of(answer) == []

    def test_an_error_is_told_in_words_with_its_details(self, browser: Client, make_version: MakeVersion) -> None:
        make_version("m")
        answer = browser.patch("/api/models/m/", '{"priority": 900, "<b>": 1}', content_type="application/json")
        page = answer.content.decode()
        assert answer.status_code == 400
        assert "400 Bad Request: invalid_input" in page
        assert '<dt class="mh-mono">&lt;b&gt;</dt>' in page
        assert "<b>" not in page

    def test_an_address_that_is_only_sent_to_says_so(self, browser: Client, make_version: MakeVersion) -> None:
        make_version("m")
        answer = browser.get("/api/models/m/load/")
        assert answer.status_code == 405
        assert "send it something below" in answer.content.decode()
        assert forms_of(answer) == ["POST"]

    def test_pages_of_a_list_are_linked(self, browser: Client, make_version: MakeVersion) -> None:
        for number in range(5):
            make_version(f"m{number}")
        page = browser.get("/api/models/?limit=2&offset=2").content.decode()
        assert 'rel="prev"' in page
        assert 'rel="next"' in page


@pytest.mark.django_db
class TestForms:
    @pytest.mark.parametrize(
        ("address", "methods"),
        [
            ("/api/models/sentiment-v1/", ["PATCH"]),
            ("/api/models/sentiment-v1/load/", ["POST"]),
            ("/api/models/sentiment-v1/unload/", ["POST"]),
            ("/api/models/sentiment-v1/activate/", ["POST"]),
            ("/api/models/sentiment-v1/predict/", ["POST"]),
            ("/api/models/sentiment-v1/approve/", ["POST"]),
            ("/api/models/discover/", ["POST"]),
            ("/api/models/optimize-memory/", ["POST"]),
            ("/api/lineages/sentiment/rollback/", ["POST"]),
            ("/api/lineages/sentiment/traffic/", ["PUT"]),
            ("/api/lineages/sentiment/aliases/candidate/", ["PUT"]),
            ("/api/policy/", ["PATCH"]),
        ],
    )
    def test_each_method_has_one_for_those_who_may_and_none_for_others(
        self, browser: Client, lineage: Model, address: str, methods: list[str]
    ) -> None:
        assert forms_of(browser.get(address)) == methods
        viewer = User.objects.create_user("vera", is_staff=True)
        viewer.groups.add(Group.objects.get(name="viewers"))
        client = Client(headers=HTML)
        client.force_login(viewer)
        assert forms_of(client.get(address)) == []

    def test_a_models_policy_is_filled_in(self, browser: Client, make_version: MakeVersion) -> None:
        make_version("m", priority=70, pinned=True)
        answer = browser.get("/api/models/m/")
        page = answer.content.decode()
        assert 'name="priority" type="number" step="any" value="70"' in page
        assert re.search(r'name="pinned" value="true" checked', page)
        assert raw_of(answer, "PATCH")["priority"] == 70
        # After it was sent the same fields are offered, not those of the answer.
        patched = browser.patch("/api/models/m/", '{"priority": 71}', content_type="application/json")
        assert 'name="priority" type="number" step="any" value="71"' in patched.content.decode()
        assert 'name="model_id"' not in patched.content.decode()

    def test_the_policys_raw_form_takes_no_setting_back_by_itself(self, browser: Client) -> None:
        change({"HANG_SECONDS": 9}, user=None)
        answer = browser.get("/api/policy/")
        assert raw_of(answer, "PATCH") == {}
        patched = browser.patch("/api/policy/", "{}", content_type="application/json")
        assert patched.status_code == 200
        assert effective().HANG_SECONDS == 9
        assert forms_of(patched) == ["PATCH"]
        assert 'name="HANG_SECONDS"' in patched.content.decode()

    def test_an_alias_is_set_where_the_answer_is_of_another_kind(self, browser: Client, lineage: Model) -> None:
        answer = browser.put(
            "/api/lineages/sentiment/aliases/next/", '{"model_id": "sentiment-v1"}', content_type="application/json"
        )
        assert answer.status_code == 200
        assert forms_of(answer) == ["PUT"]
        assert Alias.objects.get(name="next").version.model_id == "sentiment-v1"
        assert browser.delete("/api/lineages/sentiment/aliases/next/").status_code == 200  # a page, of the 204
        assert not Alias.objects.filter(name="next").exists()

    def test_traffic_is_set_and_filled_in(self, browser: Client, lineage: Model) -> None:
        body = '{"candidate_percent": 12.5, "shadow": true}'
        answer = browser.put("/api/lineages/sentiment/traffic/", body, content_type="application/json")
        page = answer.content.decode()
        assert 'name="candidate_percent" type="number" step="any" value="12.5"' in page
        assert re.search(r'name="shadow" value="true" checked', page)

    def test_a_form_sends_the_token_or_is_refused(self, admin_user: Any, lineage: Model) -> None:
        strict = Client(enforce_csrf_checks=True, headers=HTML)
        strict.force_login(admin_user)
        page = strict.get("/api/lineages/sentiment/traffic/").content.decode()
        token = re.search(r'id="mh-api" data-mh-csrf="(\w+)"', page)
        assert token
        address, body = "/api/lineages/sentiment/traffic/", '{"candidate_percent": 5}'
        refused = strict.put(address, body, content_type="application/json")
        assert (refused.status_code, forms_of(refused)) == (403, [])
        headers = {"X-CSRFToken": token[1]}
        assert strict.put(address, body, content_type="application/json", headers=headers).status_code == 200

    @pytest.mark.parametrize("is_form", [False, True], ids=["json", "form"])
    def test_a_body_that_is_too_long_is_refused_as_before(
        self, browser: Client, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch, is_form: bool
    ) -> None:
        make_version("m")
        monkeypatch.setattr(config(), "API_MAX_BODY_MB", 1)
        text = json.dumps(["x" * (2 << 20)])
        answer = (
            browser.post("/api/models/m/predict/", {"inputs": text})
            if is_form
            else browser.post("/api/models/m/predict/", f'{{"inputs": {text}}}', content_type="application/json")
        )
        assert answer.status_code == 413
        assert "API_MAX_BODY_MB" in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_plain_form_loads_with_its_reason(
    admin_user: Any, make_version: MakeVersion, loaderd: FakeLoaderd, loaderd_is_heard: LoaderStatus
) -> None:
    version: ModelVersion = make_version("m")
    loaderd.result = {"load_seconds": 0.1, "private_bytes": 1 << 20}
    strict = Client(enforce_csrf_checks=True, headers=HTML)
    strict.force_login(admin_user)
    page = strict.get("/api/models/m/load/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token
    answer = strict.post("/api/models/m/load/", {"csrfmiddlewaretoken": token[1], "reason": "a new release"})
    assert answer.status_code == 200
    operation = Operation.objects.get()
    assert (operation.version, operation.reason, operation.source) == (version, "a new release", "api")
