"""What people say of a model: where it shall lie, and the keys of its metadata.json, each at a field of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from django import forms

from loaderd import catalogue
from modelhub.registry.artifacts import Refused
from modelhub.registry.choices import ModelType
from modelhub.registry.metadata import parse_json
from modelhub.registry.uploads.inspecting import check_model_id

_KEY = re.compile(r'metadata\.json: "(?P<key>[a-z_]+)')
_FILE = re.compile(r"(?P<file>metadata|config)\.json ")


def _area(rows: int, *, is_code: bool = False) -> forms.Textarea:
    code = {"class": "mh-input mh-mono", "spellcheck": "false", "autocapitalize": "off"} if is_code else {}
    return forms.Textarea({"rows": rows, "class": "mh-input", **code})


def _line(**attributes: str) -> forms.TextInput:
    return forms.TextInput({"class": "mh-input", "autocomplete": "off", **attributes})


class MetadataForm(forms.Form):
    """The keys of metadata.json that have a meaning; others stay as they are. Empty: the key is left out.

    metadata: as it is now, or None where it could not be read. `changes()` has only what was edited.
    """

    name = forms.CharField(required=False, max_length=200, help_text="For people; else its id.", widget=_line())
    lineage = forms.CharField(
        required=False,
        max_length=200,
        help_text="The name that all its versions share; else its id without a suffix such as -v1.0.",
        widget=_line(),
    )
    version = forms.CharField(
        required=False, max_length=64, help_text="Such as 1.2.0; else the suffix of its id, else 1.0.0.", widget=_line()
    )
    framework = forms.ChoiceField(
        required=False,
        help_text="Only where its files leave it open.",
        widget=forms.Select({"class": "mh-input"}),
    )
    description = forms.CharField(
        required=False, max_length=10_000, help_text="What it is for, and what it was trained on.", widget=_area(3)
    )
    labels = forms.CharField(
        required=False, help_text="One a line, in the order of the model's classes; or JSON.", widget=_area(4)
    )
    sample_input = forms.CharField(
        required=False,
        label="Sample input",
        help_text="JSON: what the playground and the first check of its answer begin with.",
        widget=_area(4, is_code=True),
    )
    performance_metrics = forms.CharField(
        required=False,
        label="Performance metrics",
        help_text='JSON: {"accuracy": 0.92}; accuracy is a share from 0 to 1.',
        widget=_area(4, is_code=True),
    )
    canary = forms.CharField(
        required=False,
        help_text='JSON: {"inputs": ["good"], "predictions": ["positive"], "tolerance": 0.01}: what it must answer at '
        "each load. Without one, its first load records one.",
        widget=_area(5, is_code=True),
    )

    KEYS = (
        *("name", "lineage", "version", "framework", "description"),
        *("labels", "sample_input", "performance_metrics", "canary"),
    )
    JSON_KEYS = frozenset({"sample_input", "performance_metrics", "canary"})

    def __init__(self, data: Any = None, *, metadata: Mapping[str, Any] | None = None, **options: Any) -> None:
        shown = {key: _shown(key, (metadata or {}).get(key)) for key in self.KEYS}
        super().__init__(data, initial={**shown, **options.pop("initial", {})}, **options)
        choices = [("", "recognised by its files")]
        choices += [(entry.name, entry.label) for entry in catalogue.entries().values()]
        stated = shown["framework"]
        if stated and stated not in catalogue.entries():
            choices.append((stated, f"{stated}, which is not known"))
        self.fields["framework"].choices = choices
        for name, field in self.fields.items():
            field.widget.attrs.setdefault("aria-describedby", f"help-{name} error-{name}")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for key in self.JSON_KEYS | {"labels"}:
            text = cleaned.get(key) or ""
            if key in self.errors or not text.strip() or (key == "labels" and text.lstrip()[:1] not in ("[", "{")):
                continue
            try:
                parse_json(key, b'{"value": %b}' % text.encode())
            except Refused as refusal:
                self.add_error(key, str(refusal).removeprefix(f"{key} is "))
        return cleaned

    def changes(self) -> dict[str, Any]:
        """Key -> new value, None: to be left out. Of a valid form."""
        found = {}
        for key in self.KEYS:
            text = str(self.cleaned_data.get(key) or "").replace("\r\n", "\n").strip()
            if text != str(self.initial.get(key) or "").replace("\r\n", "\n").strip():
                found[key] = _value(key, text)
        return found

    def refuse(self, refusal: Refused, otherwise: str | None = None) -> None:
        """The refusal at the field that it speaks of; else at `otherwise`, None: above the form."""
        text = str(refusal)
        named, file = _KEY.match(text), _FILE.match(text)
        place = otherwise
        if named and named["key"] in self.fields:
            place = named["key"]
        elif named and "metadata" in self.fields:
            place = "metadata"
        elif file and file["file"] in self.fields:
            place = file["file"]
        self.add_error(place, text)

    def error_list(self) -> dict[str, list[str]]:
        """Field -> sentences; "" for those of no field."""
        found = {name: [str(error) for error in errors] for name, errors in self.errors.items()}
        if "__all__" in found:
            found[""] = found.pop("__all__")
        return found


class RegisterForm(MetadataForm):
    """Where the model shall lie. The files come beside it."""

    type = forms.ChoiceField(
        choices=[("", "choose"), *ModelType.choices],
        help_text="What it decides about its input; the folder of the store.",
        widget=forms.Select({"class": "mh-input"}),
    )
    model_id = forms.CharField(
        label="Model id",
        max_length=200,
        strip=False,
        help_text="The name of its folder and of its address. A suffix such as -v1.2 states its version.",
        widget=_line(placeholder="spam-sklearn-v1.0", spellcheck="false"),
    )

    files = forms.Field(required=False)  # they come beside the form; what is wrong with them is told here

    def clean_model_id(self) -> str:
        model_id: str = self.cleaned_data["model_id"]
        try:
            check_model_id(model_id)
        except Refused as refusal:
            raise forms.ValidationError(str(refusal)) from refusal
        return model_id


class DescribeForm(MetadataForm):
    """The fields, and both files as text. What a field was changed to counts before what its key has in the text."""

    metadata = forms.CharField(
        required=False,
        strip=False,
        label="metadata.json",
        help_text="All of it. A field that you change above counts before the same key here.",
        widget=_area(18, is_code=True),
    )
    config = forms.CharField(
        required=False,
        strip=False,
        label="config.json",
        help_text="The framework's own settings, where it has any. Wrong ones keep it from being loaded.",
        widget=_area(10, is_code=True),
    )
    seen = forms.CharField(widget=forms.HiddenInput)


def _shown(key: str, value: Any) -> str:
    """A key's value as its field shows it."""
    if value is None:
        return ""
    if key == "labels" and isinstance(value, list) and all(_is_plain(label) for label in value):
        return "\n".join(value)
    if isinstance(value, str) and key not in MetadataForm.JSON_KEYS:
        return value
    return json.dumps(value, indent=2, ensure_ascii=False)


def _is_plain(label: Any) -> bool:
    return isinstance(label, str) and bool(label) and label == label.strip() and "\n" not in label


def _value(key: str, text: str) -> Any:
    if not text:
        return None
    if key in MetadataForm.JSON_KEYS or (key == "labels" and text[0] in "[{"):
        return json.loads(text)
    return [line.strip() for line in text.split("\n") if line.strip()] if key == "labels" else text
