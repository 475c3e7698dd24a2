"""Models are tried out in a form of their signature; the same requests work from a shell, Python and tritonclient."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from loaderd.errors import InvalidInput, LoaderdError, LoaderUnreachable, ModelNotLoaded
from modelhub.conf import config
from modelhub.console.playground import answers
from modelhub.console.playground.signature import Signature, Unfit, read, rows_in, texts_in
from modelhub.console.playground.snippets import MOST_ARGUMENT_BYTES, Call, as_curl, as_python, as_tritonclient
from modelhub.inference import client as inference
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion
from tests.console.conftest import MakeVersion
from tests.loaderd.gateway.conftest import Served, serving
from tests.loaderd.gateway.door import TOKEN

pytestmark = pytest.mark.django_db
DIALOG = {"HX-Request": "true"}
SECONDS = 60

TEXT = {
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
    ],
    "labels": ["bad", "so-so", "good"],
    "sample_input": {"inputs": ["Charged twice\n\nAgain & again"]},
}
ROWS = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    "labels": None,
    "sample_input": {"inputs": [[0.1, 0.2, 0.3]]},
}
EMBEDDING = {**TEXT, "labels": None, "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 32]}]}
PAIR = {
    "inputs": [
        {"name": "a", "datatype": "FP64", "shape": [-1]},
        {"name": "b", "datatype": "INT64", "shape": [-1, 2]},
    ],
    "outputs": [{"name": "sum", "datatype": "FP64", "shape": [-1]}],
    "labels": None,
    "sample_input": {"inputs": [{"a": 1.5, "b": [1, 2]}]},
}


class Gateway:
    """Answers in place of loaderd's door. asked: (model_id, inputs, user)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Any], str]] = []
        self.answers: dict[str, Any] = {}

    def predict(self, model_id: str, inputs: Any, *, user: str, timeout_seconds: float) -> dict[str, Any]:
        assert timeout_seconds > 0
        self.asked.append((model_id, list(inputs), user))
        answer = self.answers[model_id]
        if isinstance(answer, LoaderdError):
            raise answer
        return {"model_id": model_id, "version": "1", "predictions": [answer] * len(inputs), "latency_ms": 3.14}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    gateway = Gateway()
    monkeypatch.setattr(inference, "predict", gateway.predict)
    return gateway


def url(version: ModelVersion) -> str:
    return reverse("console:playground", args=[version.pk])


def show(client: Client, version: ModelVersion) -> str:
    response = client.get(url(version), headers=DIALOG)
    assert response.status_code == 200
    return str(response.content.decode())


def send(client: Client, version: ModelVersion, **form: Any) -> str:
    response = client.post(url(version), {"do": "ask", **form}, headers=DIALOG)
    assert response.status_code == 200
    return str(response.content.decode())


def scores(bad: float, middling: float, good: float) -> dict[str, Any]:
    named = {"bad": bad, "so-so": middling, "good": good}
    label = max(named, key=lambda name: named[name])
    return {"label": label, "score": named[label], "scores": named}


class TestForm:
    def test_a_text_model_begins_with_its_sample_as_it_was(
        self, operator: Client, loaderd: Any, make_loaded: MakeVersion
    ) -> None:
        shown = show(operator, make_loaded(signature=TEXT))
        assert "<html" not in shown
        assert ">\nCharged twice\n\nAgain &amp; again</textarea>" in shown
        assert "text: one text" in shown

    def test_inputs_are_added_and_removed_and_keep_what_was_typed(
        self, operator: Client, loaderd: Any, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded(signature=TEXT)
        shown = send(operator, version, do="add", text=["one"])
        assert re.findall(r">\n([^<]*)</textarea>", shown) == ["one", ""]
        assert shown.count("autofocus") == 1
        shown = send(operator, version, do="remove-0", text=["one", "two"])
        assert re.findall(r">\n([^<]*)</textarea>", shown) == ["two"]
        assert "remove-0" not in shown, "the last one stays"
        shown = send(operator, version, do="remove-7", text=["one", "two"])
        assert re.findall(r">\n([^<]*)</textarea>", shown) == ["one", "two"]
        shown = send(operator, version, do="add", text=["x"] * 20)
        assert shown.count("<textarea") == 20
        assert 'value="add"' not in shown
        assert "Charged twice" in send(operator, version, do="sample", text=["x", "y"])

    def test_rows_say_shape_and_kind_and_take_an_example(
        self, operator: Client, loaderd: Any, make_loaded: MakeVersion
    ) -> None:
        version = make_loaded(signature=ROWS)
        shown = show(operator, version)
        assert ">\n[0.1, 0.2, 0.3]</textarea>" in shown
        assert "One input a line: 3 numbers (FP32) in brackets." in shown
        shown = send(operator, version, do="add", rows="[1, 2, 3]")
        assert ">\n[1, 2, 3]\n[0.1, 0.2, 0.3]</textarea>" in shown

    def test_several_inputs_are_objects(self, operator: Client, loaderd: Any, make_loaded: MakeVersion) -> None:
        shown = unescape(show(operator, make_loaded(signature=PAIR)))
        assert '{"a": 1.5, "b": [1, 2]}</textarea>' in shown
        assert "a (one number (FP64)), b (2 whole numbers (INT64))" in shown

    def test_before_the_first_load_it_leads_to_the_load(
        self, operator: Client, viewer: Client, loaderd: Any, make_version: MakeVersion
    ) -> None:
        version = make_version()
        shown = show(operator, version)
        assert "is known after its first load" in shown
        assert reverse("admin:registry_modelversion_load", args=[version.pk]) in shown
        assert "<form" not in shown
        assert operator.post(url(version), {"text": "x"}, headers=DIALOG).status_code == 200

    def test_what_is_not_loaded_is_said_before_anybody_asks(
        self, operator: Client, loaderd: Any, make_version: MakeVersion
    ) -> None:
        version = make_version(signature=TEXT)
        assert "mail-v1 is unloaded" in show(operator, version)
        ModelVersion.objects.update(autoload=True)
        assert "the next prediction loads it" in show(operator, version)
        ModelVersion.objects.update(status=Status.LOADED)
        assert "is unloaded" not in show(operator, version)
        loaderd.delete()
        assert "mail-v1 is unreachable" in show(operator, version)

    def test_without_a_script_it_is_a_page(self, operator: Client, loaderd: Any, make_loaded: MakeVersion) -> None:
        version = make_loaded(signature=TEXT)
        page = operator.get(url(version)).content.decode()
        assert "<html" in page
        assert "Playground: mail-v1" in page
        assert "csrfmiddlewaretoken" in page

    def test_it_costs_a_fixed_number_of_queries(
        self, operator: Client, loaderd: Any, make_loaded: MakeVersion, django_assert_num_queries: Any
    ) -> None:
        version = make_loaded(signature=TEXT)
        for count in (1, 9):
            for number in range(count):
                make_loaded(f"beside-{count}-{number}", signature=TEXT)
            with django_assert_num_queries(7):  # session, user, 2 of permissions, the model, those beside it, loaderd
                show(operator, version)


class TestWrongInput:
    def test_an_empty_text_is_told_at_its_place_and_nobody_is_asked(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        shown = send(operator, make_loaded(signature=TEXT), text=["fine", "  \r\n"])
        assert 'id="mh-text-error-1"' in shown
        assert 'id="mh-text-error-0"' not in shown
        assert gateway.asked == []

    def test_a_wrong_row_is_told_with_its_line(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        shown = send(operator, make_loaded(signature=ROWS), rows="[1, 2, 3]\n\n[1, 2]\n<b>")
        assert "Line 3: 2 values, and the model takes 3 there." in shown
        assert "Line 4: This is not JSON at character 1" in shown
        assert "&lt;b&gt;</textarea>" in shown
        assert gateway.asked == []

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("7", "must be 3 numbers (FP32) in brackets, not 7"),
            ('[1, "2", 3]', "value 2 must be a number, not a text"),
            ("[1, true, 3]", "value 2 must be a number, not true or false"),
            ("[1, null, 3]", "value 2 must be a number, not null"),
            ("[1, NaN, 3]", "NaN is no number of JSON"),
            ("[1, 1e999, 3]", "value 2 must be a number"),
            ("[[1], 2, 3]", "value 1 must be a number, not a list"),
            ('{"z": 1}', 'lacks "x" and has "z", which the model does not take'),
            ("[" * 100_000, "nested too deep"),
        ],
    )
    def test_every_way_to_be_wrong_is_named(self, line: str, told: str) -> None:
        with pytest.raises(Unfit, match=re.escape(told)):
            rows_in(line, signature(ROWS))

    @pytest.mark.parametrize(
        ("datatype", "value", "told"),
        [
            ("INT64", "1.5", "must be a whole number, not 1.5"),
            ("UINT8", "-1", "must not be negative"),
            ("BOOL", "1", "must be true or false, not 1"),
            ("BYTES", "1", "must be a text in quotes, not 1"),
        ],
    )
    def test_each_datatype_takes_its_own_values(self, datatype: str, value: str, told: str) -> None:
        of = signature({**ROWS, "inputs": [{"name": "x", "datatype": datatype, "shape": [-1, 1]}]})
        with pytest.raises(Unfit, match=re.escape(told)):
            rows_in(f"[{value}]", of)

    @pytest.mark.parametrize(
        ("datatype", "value"), [("INT64", 7), ("FP32", 7), ("BOOL", True), ("BYTES", "x"), ("UINT64", 2**63)]
    )
    def test_and_takes_what_is_right(self, datatype: str, value: Any) -> None:
        of = signature({**ROWS, "inputs": [{"name": "x", "datatype": datatype, "shape": [-1, 1]}]})
        assert rows_in(json.dumps([value]), of) == [[value]]

    def test_rows_of_any_length_must_be_equally_long(self) -> None:
        of = signature({**ROWS, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]})
        assert rows_in("[1]\n[2]", of) == [[1], [2]]
        with pytest.raises(Unfit, match=r"Input 2 has the shape \[2\] and the first one \[1\]"):
            rows_in("[1]\n[1, 2]", of)

    def test_lines_end_as_they_do_in_python(self) -> None:
        assert texts_in(["a\r\nb"]) == ["a\nb"]


class TestAnswers:
    def test_labels_have_bars_with_whole_percents_the_likeliest_first(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        gateway.answers["mail-v1"] = scores(0.0012, 0.128, 0.8708)
        version = make_loaded(signature=TEXT)
        shown = send(operator, version, text=["I love it\r\nreally", "me too"])
        assert gateway.asked == [("mail-v1", ["I love it\nreally", "me too"], "olaf")]
        assert "2 inputs answered" in shown
        assert "3.1 ms" in shown
        assert re.findall(r'class="mh-number">([^<]+?)\s*</span>', shown)[:3] == ["87 %", "13 %", "&lt; 1 %"]
        assert 'style="width: 87.08%"' in shown
        assert "1. I love it" in shown

    def test_only_the_first_labels_are_shown(self) -> None:
        named = {str(number): number / 100 for number in range(1, 9)}
        shown = answers.shown({"label": "8", "score": 0.08, "scores": named}, signature(TEXT))
        assert [score.label for score in shown.scores] == ["8", "7", "6", "5", "4"]
        assert shown.more == 3

    def test_a_decision_function_is_no_percentage(self) -> None:
        of = signature({**TEXT, "outputs": [{"name": "scores", "datatype": "FP64", "shape": [-1, 3]}]})
        shown = answers.shown({"label": "good", "score": 2.5, "scores": {"good": 2.5, "bad": -3.0}}, of)
        assert [(score.shown, score.percent) for score in shown.scores] == [
            ("2.50", pytest.approx(83.3, abs=0.1)),
            ("-3.00", 0.0),
        ]

    def test_several_labels_are_all_named(self) -> None:
        said = {**scores(0.9, 0.1, 0.8), "labels": ["bad", "good"]}
        shown = answers.shown(said, signature(TEXT))
        assert list(shown.labels) == ["bad", "good"]
        assert [score.is_chosen for score in shown.scores] == [True, True, False]

    @pytest.mark.parametrize(
        ("share", "told"), [(0.0, "0 %"), (0.001, "< 1 %"), (0.504, "50 %"), (0.999, "> 99 %"), (1.0, "100 %")]
    )
    def test_percents_never_lie_about_nothing_and_all(self, share: float, told: str) -> None:
        assert answers.percent(share) == told

    def test_embeddings_are_told_by_dimension_and_likeness(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        gateway.answers["mail-v1"] = {"output": [0.5] * 4 + [0.0] * 28}
        shown = send(operator, make_loaded(signature=EMBEDDING), text=["a", "b"])
        assert "Embedding of 32 numbers, length 1.000" in shown
        assert "0.5000, 0.5000" in shown
        assert "Cosine similarity" in shown
        assert shown.count("1.000</td>") == 4

    def test_likeness_is_the_cosine(self) -> None:
        found = answers.likeness([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]])
        assert list(found.rows[0][1]) == [1.0, 0.0, -1.0, None]
        assert answers.likeness([[1.0]]).rows == ()
        assert answers.likeness([[1.0], [1.0, 2.0]]).rows == ()

    @pytest.mark.parametrize(
        ("prediction", "rows"),
        [
            ({"output": 3.14159265}, [("output", "3.14159")]),
            ({"output": [1, 2]}, [("output", "[1, 2]")]),
            ({"outputs": {"sum": 4.5, "both": [1, 2]}}, [("sum", "4.5"), ("both", "[1, 2]")]),
            ({"output": [{"word": "Ada"}]}, [("output", '[{"word": "Ada"}]')]),
            ({"output": None}, [("output", "null")]),
        ],
    )
    def test_anything_else_is_a_table(self, prediction: dict[str, Any], rows: list[tuple[str, str]]) -> None:
        assert list(answers.shown(prediction, signature(ROWS)).rows) == rows

    def test_what_models_say_is_escaped_and_cut(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        gateway.answers["mail-v1"] = {"output": "<script>" + "x" * 3000}
        shown = send(operator, make_loaded(signature=ROWS), rows="[1, 2, 3]")
        assert "&lt;script&gt;" in shown
        assert "<script>" not in shown
        assert "(3008 characters)" in shown

    def test_inputs_are_not_logged(
        self,
        operator: Client,
        loaderd: Any,
        gateway: Gateway,
        make_loaded: MakeVersion,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        gateway.answers["mail-v1"] = InvalidInput("no")
        send(operator, make_loaded(signature=TEXT), text=["a very secret sentence"])
        assert "secret sentence" not in caplog.text


class TestErrors:
    def test_what_is_not_loaded_can_be_loaded_from_here(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_version: MakeVersion
    ) -> None:
        version = make_version(signature=TEXT)
        gateway.answers["mail-v1"] = ModelNotLoaded("mail-v1 is not loaded.")
        shown = send(operator, version, text=["x"])
        assert "mail-v1 is not loaded." in shown
        assert "No answer" in shown
        load = reverse("admin:registry_modelversion_load", args=[version.pk])
        assert shown.count(f'data-mh-dialog="{load}"') == 2

    @pytest.mark.parametrize("error", [InvalidInput("Item 0 is <odd>."), LoaderUnreachable("loaderd is away.")])
    def test_others_are_told_in_place(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion, error: LoaderdError
    ) -> None:
        gateway.answers["mail-v1"] = error
        shown = send(operator, make_loaded(signature=TEXT), text=["x"])
        assert unescape(error.message) in unescape(shown)
        assert "<odd>" not in shown

    def test_who_may_not_predict_is_refused(self, viewer: Client, gateway: Gateway, make_loaded: MakeVersion) -> None:
        version = make_loaded(signature=TEXT)
        for method in (viewer.get, viewer.post):
            for headers in (DIALOG, {}):
                assert method(url(version), headers=headers).status_code == 403
        assert gateway.asked == []

    def test_nobody_is_asked_without_the_token(self, admin: Client, gateway: Gateway, make_loaded: MakeVersion) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.get(username="ada"))
        assert client.post(url(make_loaded(signature=TEXT)), {"text": "x"}, headers=DIALOG).status_code == 403
        assert gateway.asked == []


class TestSideBySide:
    def test_loaded_versions_of_the_lineage_are_offered(
        self, operator: Client, loaderd: Any, make_loaded: MakeVersion, make_version: MakeVersion
    ) -> None:
        version = make_loaded("mail-v1", signature=TEXT)
        assert "Beside it" not in show(operator, version)
        make_loaded("mail-v2", signature=TEXT)
        make_version("mail-v3", signature=TEXT)
        make_loaded("other-v1", lineage="other", signature=TEXT)
        shown = show(operator, version)
        assert "mail-v2" in shown
        assert "mail-v3" not in shown
        assert "other-v1" not in shown

    def test_both_are_asked_and_what_differs_is_marked(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        version, other = make_loaded("mail-v1", signature=TEXT), make_loaded("mail-v2", signature=TEXT)
        gateway.answers = {"mail-v1": scores(0.1, 0.2, 0.7), "mail-v2": scores(0.8, 0.2, 0.0)}
        shown = send(operator, version, text=["x"], beside=other.pk)
        assert [asked[0] for asked in gateway.asked] == ["mail-v1", "mail-v2"]
        assert "1 input answered; 1 differs" in shown
        assert "mh-play__item--differs" in shown
        assert shown.count("otherwise than the other version") == 4, "two labels, on both sides"
        gateway.answers["mail-v2"] = scores(0.12, 0.2, 0.68)
        shown = send(operator, version, text=["x"], beside=other.pk)
        assert "none decided otherwise" in shown
        assert "otherwise than the other version" not in shown

    def test_one_that_fails_leaves_the_other_one_its_answer(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        version, other = make_loaded("mail-v1", signature=TEXT), make_loaded("mail-v2", signature=TEXT)
        gateway.answers = {"mail-v1": InvalidInput("Not that."), "mail-v2": scores(0.8, 0.2, 0.0)}
        shown = send(operator, version, text=["x"], beside=other.pk)
        assert "Not that." in shown
        assert "80 %" in shown
        assert "mh-play__item--differs" not in shown

    def test_one_that_takes_other_inputs_is_not_asked(
        self, operator: Client, loaderd: Any, gateway: Gateway, make_loaded: MakeVersion
    ) -> None:
        version, other = make_loaded("mail-v1", signature=TEXT), make_loaded("mail-v2", signature=ROWS)
        gateway.answers = {"mail-v1": scores(0.8, 0.2, 0.0)}
        shown = send(operator, version, text=["x"], beside=other.pk)
        assert "mail-v2 takes other inputs (x: 3 numbers (FP32)), so it was not asked." in shown
        assert len(gateway.asked) == 1

    @pytest.mark.parametrize(
        ("one", "other", "is_same"),
        [
            ({"label": "a", "score": 0.9}, {"label": "a", "score": 0.5}, True),
            ({"label": "a", "labels": ["a"]}, {"label": "a", "labels": ["a", "b"]}, False),
            ({"output": [1.0, 2.0]}, {"output": [1.0005, 2.0]}, True),
            ({"output": [1.0, 2.0]}, {"output": [1.0, 2.1]}, False),
            ({"output": [1.0]}, {"output": [1.0, 2.0]}, False),
            ({"output": "x"}, {"outputs": {"y": "x"}}, False),
            ({"output": True}, {"output": True}, True),
        ],
    )
    def test_alike_is_what_the_shadows_comparison_takes_for_alike(self, one: Any, other: Any, is_same: bool) -> None:
        assert answers.same(one, other) is is_same


def signature(stored: dict[str, Any]) -> Signature:
    found = read(stored)
    assert found is not None
    return found


ASKED = {
    "classifier": ["good!!!!!", 'it\'s "quoted" $HOME `x`\nnew line, Größe 😀', "</textarea>\\n"],
    "double": [[0.1, -2.5], [3, 4]],
    "pair": [{"a": 1.5, "b": [1, 2]}, {"a": 2, "b": [3, 4]}],
}
EXPECTED = {
    "classifier": ["positive", "negative", "negative"],
    "double": [[0.2, -5.0], [6.0, 8.0]],
    "pair": [4.5, 9.0],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The real door in front of real model processes."""
    with serving(tmp_path_factory.mktemp("door"), *ASKED) as served:
        yield served


class TestSnippets:
    """What is copied works at the real door."""

    @pytest.fixture
    def copied(
        self, served: Served, operator: Client, loaderd: Any, make_loaded: MakeVersion, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str], dict[str, str]]:
        """Asks a kind of model in the playground; {name of a tab: what it holds}."""
        monkeypatch.setattr(config(), "INFERENCE_PORT", served.door.port)
        monkeypatch.setattr(type(config()), "gateway_socket", property(lambda _: served.door.unix_path))

        def copied(kind: str) -> dict[str, str]:
            model = served.models[f"{kind}-v1"]
            version = make_loaded(f"{kind}-v1", lineage=kind, signature=model.signature)
            items = ASKED[kind]
            if kind == "classifier":
                shown = send(operator, version, text=[str(item).replace("\n", "\r\n") for item in items])
            else:
                shown = send(operator, version, rows="\n".join(map(json.dumps, items)))
            assert f"{len(items)} inputs answered" in shown
            found = re.findall(r'<pre [^>]*id="mh-code-(\w+)"[^>]*>(.*?)</pre>', shown, re.DOTALL)
            return {name: unescape(code) for name, code in found}

        return copied

    def run(self, command: list[str], code: str) -> str:
        done = subprocess.run(
            [*command, code],
            env={"MODELHUB_TOKEN": TOKEN, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @pytest.mark.parametrize("kind", ASKED)
    def test_curl(self, copied: Callable[[str], dict[str, str]], kind: str) -> None:
        (first, *_) = json.loads(self.run(["sh", "-c"], copied(kind)["curl"]))["outputs"]
        expected: Any = EXPECTED[kind]
        if kind == "double":
            assert first["data"] == pytest.approx([value for row in expected for value in row])
        else:
            assert first["data"] == expected

    @pytest.mark.parametrize("kind", ASKED)
    @pytest.mark.parametrize("library", ["httpx", "requests"])
    def test_python(self, copied: Callable[[str], dict[str, str]], kind: str, library: str) -> None:
        code = copied(kind)["python"].replace("import httpx ", f"import {library} as httpx ")
        lines = self.run([sys.executable, "-c"], code).splitlines()
        assert lines[0].split()[0] == {"classifier": "label", "double": "y", "pair": "sum"}[kind]
        if kind == "classifier":
            assert str(EXPECTED[kind]) in lines[0]

    @pytest.mark.parametrize("kind", ASKED)
    def test_tritonclient(self, copied: Callable[[str], dict[str, str]], kind: str) -> None:
        told = self.run([sys.executable, "-c"], copied(kind)["triton"])
        if kind == "classifier":
            assert "[b'positive' b'negative' b'negative']" in told
        elif kind == "pair":
            assert "sum [4.5 9. ]" in told
        else:
            assert re.search(r"y \[\[ 0\.2 +-5\. +\]\n +\[ 6\. +8\. +\]\]", told), told

    def test_a_body_that_no_argument_can_hold_is_piped(self, served: Served) -> None:
        items = ["x!" * MOST_ARGUMENT_BYTES]
        of = signature(served.models["classifier-v1"].signature)
        code = as_curl(Call(f"127.0.0.1:{served.door.port}", "classifier-v1", of, items))
        assert "--data-binary @-" in code
        script = subprocess.run(
            ["sh", "-s"],
            input=code,
            env={"MODELHUB_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert json.loads(script.stdout)["outputs"][0]["data"] == ["negative"], script.stderr

    @pytest.mark.parametrize(
        ("datatype", "dtype", "value"),
        [
            ("BOOL", "bool", True),
            ("UINT8", "uint8", 200),
            ("INT32", "int32", -7),
            ("UINT64", "uint64", 2**63),
            ("FP16", "float16", 0.5),
            ("FP64", "float64", 0.1),
            ("BYTES", "object", 'a "b" \\ \n c'),
        ],
    )
    def test_every_datatype_is_written_as_its_library_reads_it(self, datatype: str, dtype: str, value: Any) -> None:
        described = {"name": "in put", "datatype": datatype, "shape": [-1, 2]}
        of = signature({**ROWS, "inputs": [described], "sample_input": None})
        call = Call("127.0.0.1:8001", "a b/c", of, [[value, value]])
        assert call.url == "http://127.0.0.1:8001/v2/models/a%20b%2Fc/infer"
        body = json.loads(as_curl(call).partition("--data-raw '")[2].rstrip("'\n").replace("'\"'\"'", "'"))
        assert body == call.body == {"inputs": [{**described, "shape": [1, 2], "data": [[value, value]]}]}
        compile(as_python(call), "python", "exec")
        code = as_tritonclient(call)
        compile(code, "triton", "exec")
        assert f'dtype="{dtype}"' in code
        assert f'triton.InferInput("in put", [1, 2], "{datatype}")' in code
        written = code.partition("np.array(")[2].partition(", dtype=")[0]
        assert eval(written) == [[value, value]]

    def test_a_door_that_is_open_to_all_is_called_by_the_pages_host(
        self, operator: Client, loaderd: Any, make_loaded: MakeVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(config(), "INFERENCE_HOST", "0.0.0.0")
        shown = show(operator, make_loaded(signature=TEXT))
        assert f"http://testserver:{config().INFERENCE_PORT}/v2/models/mail-v1/infer" in shown
        monkeypatch.setattr(config(), "INFERENCE_HOST", "::1")
        assert f"http://[::1]:{config().INFERENCE_PORT}/v2/" in show(operator, ModelVersion.objects.get())
