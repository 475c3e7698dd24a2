"""The playground's fragment: on a model's page, and without a script a page of its own.

What people type goes to the model and back into the form, nowhere else: it is neither logged nor kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from loaderd.errors import LoaderdError, ModelNotLoaded
from loaderd.states import ModelState
from modelhub.conf import config
from modelhub.console.advice import Way
from modelhub.console.playground.answers import Likeness, Shown, likeness, shown
from modelhub.console.playground.signature import Signature, Unfit, as_line, read, rows_in, texts_in
from modelhub.console.playground.snippets import Call, snippets
from modelhub.inference import client
from modelhub.lifecycle.observed import effective_status, loader_view
from modelhub.lifecycle.permissions import LOAD
from modelhub.registry.choices import Status
from modelhub.registry.models import ModelVersion

PREDICT = "registry.predict_modelversion"
MOST_TEXTS = 20
MOST_BESIDE = 50
_EVERYWHERE = ("0.0.0.0", "::", "")
_COLUMNS = (
    "pk",
    "model_id",
    "version",
    "signature",
    "status",
    "lineage_id",
    "autoload",
    "missing_since",
    "observed_at",
)


@dataclass(frozen=True, slots=True)
class Typed:
    """What stands in the form. problems: what does not fit, by the place of a text or the number of a line."""

    texts: Sequence[str] = ()
    rows: str = ""
    problems: Mapping[int, str] = field(default_factory=dict)
    focus: int | None = None

    @property
    def fields(self) -> list[tuple[int, str, str]]:
        """(place, text, problem) of every text."""
        return [(place, text, self.problems.get(place, "")) for place, text in enumerate(self.texts)]

    @property
    def told(self) -> list[str]:
        """The problems of the rows, with their lines."""
        return [f"Line {number}: {told}" if number else told for number, told in self.problems.items()]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one version said. items: one a input; none with an error. ways: what helps against it."""

    version: ModelVersion
    latency_ms: float | None = None
    items: Sequence[Shown] = ()
    likeness: Likeness = field(default_factory=Likeness)
    error: str = ""
    ways: Sequence[Way] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One input and what each version said to it. item: in short. answers: (version, what it said)."""

    number: int
    item: str
    answers: Sequence[tuple[ModelVersion, Shown]]

    @property
    def differs(self) -> bool:
        return any(answer.is_other for _, answer in self.answers)


@sensitive_post_parameters("text", "rows")
@require_http_methods(["GET", "POST"])
def playground(request: HttpRequest, pk: int) -> HttpResponse:
    """GET: the form with the model's own sample. POST: with what the model answers to what was typed; `do` says else:
    "add" and "remove-N" change the number of texts, "sample" fills the form anew."""
    if not request.user.has_perm(PREDICT):
        told = f"{request.user.get_username()} may not predict with models; an administrator can grant {PREDICT}."
        return HttpResponse(told, status=403, content_type="text/plain; charset=utf-8")
    version: Any = get_object_or_404(ModelVersion.objects.only(*_COLUMNS), pk=pk)
    signature = read(version.signature)
    context = {"version": version, "signature": signature, **_state(version, request.user)}
    if signature is None:
        return _answer(request, version, context)
    beside = _beside(version)
    chosen = _chosen(request.POST.get("beside", ""), beside)
    typed, items = _typed(request, signature)
    is_asked = request.method == "POST" and request.POST.get("do", "ask") == "ask"
    if is_asked and items:
        context |= _asked(request, items, [(version, signature), *chosen])
    door = _door(request)
    return _answer(
        request,
        version,
        {
            **context,
            "typed": typed,
            "beside": [other for other, _ in beside],
            "chosen": chosen[0][0].pk if chosen else None,
            "is_full": len(typed.texts) >= MOST_TEXTS,
            "snippets": snippets(Call(door, version.model_id, signature, items or [signature.sample])),
        },
    )


def _answer(request: HttpRequest, version: ModelVersion, context: Mapping[str, Any]) -> HttpResponse:
    shown = {**context, "action": reverse("console:playground", args=[version.pk])}
    if "HX-Request" in request.headers:
        response = render(request, "console/playground/fragment.html", shown)
    else:
        page = {**admin.site.each_context(request), "title": f"Playground: {version.model_id}", **shown}
        response = TemplateResponse(request, "console/playground/page.html", page)
    response.headers["Cache-Control"] = "no-store"
    return response


def _state(version: ModelVersion, user: Any) -> dict[str, Any]:
    """Whether it answers now, and the button that helps when it does not."""
    status = effective_status(version, loader_view())
    return {"status": status, "answers_now": status == ModelState.LOADED, "load": _load_way(version, user)}


def _load_way(version: ModelVersion, user: Any) -> Way | None:
    if not user.has_perm(LOAD):
        return None
    return Way(f"Load {version.model_id}", reverse("admin:registry_modelversion_load", args=[version.pk]))


def _beside(version: ModelVersion) -> list[tuple[ModelVersion, Signature]]:
    """The other versions of the lineage that answer now."""
    others = ModelVersion.objects.filter(lineage=version.lineage_id, status=Status.LOADED).exclude(pk=version.pk)
    read_ones = ((other, read(other.signature)) for other in others.only(*_COLUMNS)[:MOST_BESIDE])
    return [(other, signature) for other, signature in read_ones if signature is not None]


def _chosen(stated: str, beside: Sequence[tuple[ModelVersion, Signature]]) -> list[tuple[ModelVersion, Signature]]:
    return [(other, signature) for other, signature in beside if str(other.pk) == stated]


def _typed(request: HttpRequest, signature: Signature) -> tuple[Typed, list[Any]]:
    """What the form shows next, and the items in it; none where something does not fit."""
    do = request.POST.get("do", "ask")
    if request.method != "POST" or do == "sample":
        sample = signature.sample
        typed = Typed(texts=[str(sample)]) if signature.takes_text else Typed(rows=as_line(sample))
        return typed, [sample]
    if not signature.takes_text:
        return _typed_rows(request.POST.get("rows", ""), do, signature)
    texts = request.POST.getlist("text")[:MOST_TEXTS]
    if do == "add" and len(texts) < MOST_TEXTS:
        return Typed([*texts, ""], focus=len(texts)), []
    kind, _, place = do.partition("-")
    if kind == "remove" and place.isdecimal() and int(place) < len(texts) > 1:
        del texts[int(place)]
        return Typed(texts, focus=min(int(place), len(texts) - 1)), []
    try:
        return Typed(texts), list(texts_in(texts))
    except Unfit as unfit:
        return Typed(texts, problems=unfit.problems), []


def _typed_rows(rows: str, do: str, signature: Signature) -> tuple[Typed, list[Any]]:
    if do == "add":
        return Typed(rows="\n".join([*rows.splitlines(), as_line(signature.sample)]), focus=0), []
    try:
        return Typed(rows=rows), rows_in(rows, signature)
    except Unfit as unfit:
        return Typed(rows=rows, problems=unfit.problems), []


# Asking


def _asked(
    request: HttpRequest, items: Sequence[Any], versions: Sequence[tuple[ModelVersion, Signature]]
) -> dict[str, Any]:
    """The answers of one version or two, side by side."""
    said = [_ask(request, version, signature, items, versions[0][1]) for version, signature in versions]
    answered = []
    for at, (version, signature) in enumerate(versions):
        outcome = said[at]
        if isinstance(outcome, Answered):
            answered.append(outcome)
            continue
        other = said[1 - at] if len(said) > 1 else None
        others = other["predictions"] if isinstance(other, dict) else [None] * len(items)
        answers = [shown(one, signature, two) for one, two in zip(outcome["predictions"], others, strict=True)]
        vectors = [answer.vector for answer in answers if answer.vector]
        answered.append(Answered(version, outcome["latency_ms"], answers, likeness(vectors)))
    rows = [
        Row(number, _short(item), [(answer.version, answer.items[number - 1]) for answer in answered if answer.items])
        for number, item in enumerate(items, start=1)
    ]
    return {
        "answered": answered,
        "rows": rows if any(answer.items for answer in answered) else [],
        "are_two": len(answered) > 1,
        "differing": sum(row.differs for row in rows),
        "any_likeness": any(answer.likeness.rows for answer in answered),
    }


def _ask(
    request: HttpRequest, version: ModelVersion, signature: Signature, items: Sequence[Any], asked: Signature
) -> Answered | dict[str, Any]:
    """The door's answer, or why there is none. asked: the signature that the items were written for."""
    if not signature.takes_the_same(asked):
        takes = ", ".join(f"{tensor.name}: {tensor.words}" for tensor in signature.inputs)
        return Answered(version, error=f"{version.model_id} takes other inputs ({takes}), so it was not asked.")
    try:
        return client.predict(
            version.model_id,
            items,
            user=request.user.get_username(),
            timeout_seconds=client.time_limit_seconds(),
        )
    except LoaderdError as error:
        load = _load_way(version, request.user) if isinstance(error, ModelNotLoaded) else None
        return Answered(version, error=error.message, ways=[load] if load else [])


def _short(item: Any) -> str:
    text = item if isinstance(item, str) else as_line(item)
    return text if len(text) <= 160 else f"{text[:160]}…"


def _door(request: HttpRequest) -> str:
    """ "host:port" of the inference door, as a program on the reader's machine would call it."""
    host, port = config().INFERENCE_HOST, config().INFERENCE_PORT
    if host in _EVERYWHERE:
        host = request.get_host().rpartition(":")[0] or request.get_host()
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
