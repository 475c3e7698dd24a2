"""What is asked of a file: the fields of the API's form, each with what it shows. The API's serializer judges them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.forms.utils import ErrorDict
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from modelhub.jobs.formats import FORMATS
from modelhub.jobs.options import MAX_BATCH_ROWS

_DELIMITERS = ((",", "comma"), (";", "semicolon"), ("\t", "tabulator"), ("|", "|"), (" ", "space"), (":", "colon"))


def _line(**attributes: str) -> forms.TextInput:
    return forms.TextInput({"class": "mh-input", "autocomplete": "off", "spellcheck": "false", **attributes})


def _choice(label: str, choices: Iterable[tuple[str, str]], help_text: str) -> forms.CharField:
    """Takes anything: what is wrong with it is told by the serializer."""
    widget = forms.Select({"class": "mh-input"}, choices=choices)
    return forms.CharField(label=label, required=False, help_text=help_text, widget=widget, strip=False)


class PredictForm(forms.Form):
    """Shows what was typed, and what is wrong with each field. The file comes beside it."""

    MORE = (
        *("format", "delimiter", "header", "column", "scores", "prefix"),
        *("strict", "guard_formulas", "batch_size"),
    )

    model = forms.CharField(
        strip=False,
        help_text="A lineage, whose live version then answers, or the id of a model. Type a part of its name.",
        widget=_line(list="mh-models"),
    )
    version = forms.CharField(
        required=False,
        strip=False,
        label="Version or alias",
        help_text="Of the lineage. Empty: the one that is live when the job starts.",
        widget=_line(list="mh-versions", maxlength="64"),
    )
    output_format = _choice(
        "Result", [("", "in the file's format"), *((name, name) for name in FORMATS)], "Its rows, with the predictions."
    )
    format = _choice(
        "The file's format", [("", "by its name"), *((name, name) for name in FORMATS)], "Where its name does not tell."
    )
    delimiter = _choice("Delimiter", _DELIMITERS, "Between the fields of CSV, of the file and of the result.")
    header = _choice(
        "First line of CSV",
        [("true", "names the columns"), ("false", "is a row; the columns are 1, 2, …")],
        "What it is.",
    )
    column = forms.CharField(
        required=False,
        strip=False,
        label="Columns with the input",
        help_text="One a line, in the model's order. Empty: found by name.",
        widget=forms.Textarea({"rows": 3, "class": "mh-input mh-mono", "spellcheck": "false"}),
    )
    scores = _choice(
        "Scores",
        [("json", "as JSON in one column"), ("columns", "a column for each label"), ("none", "none")],
        "Of a classifier.",
    )
    prefix = forms.CharField(
        required=False,
        strip=False,
        label="Prefix of added columns",
        help_text="Empty: predicted_ where a name is taken, else none.",
        widget=_line(maxlength="64"),
    )
    strict = _choice(
        "A row that cannot be predicted",
        [("false", "gets an error; the others go on"), ("true", "ends the job (strict)")],
        "Such as one of the wrong type.",
    )
    guard_formulas = _choice(
        "Formulas in a CSV result",
        [("true", "are guarded with a '"), ("false", "are left as they are")],
        "Texts that a spreadsheet would run.",
    )
    batch_size = forms.CharField(
        required=False,
        label="Rows in one request",
        help_text="At most. Empty: as many as the model computes in a short while.",
        widget=forms.NumberInput({"class": "mh-input", "min": "1", "max": str(MAX_BATCH_ROWS)}),
    )
    file = forms.Field(required=False)  # it comes beside the form; what is wrong with it is told here

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, field in self.fields.items():
            field.widget.attrs["aria-describedby"] = f"help-{name} error-{name}"

    def full_clean(self) -> None:
        """Judges nothing."""
        self._errors = ErrorDict(renderer=self.renderer)
        self.cleaned_data = {}

    def refuse(self, errors: Mapping[str, Iterable[str]]) -> None:
        """Field -> sentences; of no field: above the form."""
        for name, told in errors.items():
            for sentence in told:
                self.add_error(name if name in self.fields else None, sentence)

    def error_list(self) -> dict[str, list[str]]:
        """Field -> sentences; "" for those of no field."""
        found = {name: [str(error) for error in errors] for name, errors in self.errors.items()}
        if "__all__" in found:
            found[""] = found.pop("__all__")
        return found

    @property
    def opens_more(self) -> bool:
        """Whether something under "More" is wrong."""
        return any(name in self.errors for name in self.MORE)


def as_api_form(typed: QueryDict, files: MultiValueDict[str, Any]) -> QueryDict:
    """What was typed as a client of the API would send it."""
    data = QueryDict(mutable=True)
    for name in PredictForm.base_fields:
        if name in typed and name not in ("file", "column"):
            data[name] = typed[name]
    data.setlist("column", [line for line in typed.get("column", "").splitlines() if line])
    data.update(files)
    return data
