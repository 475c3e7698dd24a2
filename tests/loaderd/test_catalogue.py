"""Which framework a directory's files belong to."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from loaderd import catalogue
from loaderd.errors import UnknownFramework

BERT = {"model_type": "bert", "architectures": ["BertModel"]}


@pytest.mark.parametrize(
    ("paths", "config", "expected"),
    [
        (["model.pkl", "metadata.json"], {}, ("sklearn", "pickle")),
        (["model.joblib"], {}, ("sklearn", "joblib")),
        (["model.skops", "model.pkl"], {}, ("sklearn", "skops")),
        (["pytorch_model.bin", "tokenizer.json", "config.json"], BERT, ("transformers", "torch-weights")),
        (["model.safetensors", "pytorch_model.bin", "config.json"], BERT, ("transformers", "safetensors")),
        (["model-00001-of-00002.safetensors", "config.json"], BERT, ("transformers", "safetensors")),
        (["model.safetensors", "label_encoder.pkl", "config.json"], BERT, ("transformers", "safetensors")),
        (["model.keras", "tokenizer.pkl"], {}, ("tensorflow", "keras")),
        (["saved_model.pb", "variables/variables.index"], {}, ("tensorflow", "saved-model")),
        (["1/saved_model.pb"], {}, ("tensorflow", "saved-model")),
        (["model.h5"], {}, ("tensorflow", "h5")),
        (["model.pkl", "table.h5"], {}, ("sklearn", "pickle")),
        (["tf_model.h5", "config.json"], BERT, None),
        (["model.safetensors"], {}, None),
        (["deep/down/saved_model.pb"], {}, None),
        (["old/model.pkl", "metadata.json"], {}, None),
        (["metadata.json"], {}, None),
    ],
)
def test_files_tell_the_framework(
    paths: list[str], config: dict[str, object], expected: tuple[str, str] | None
) -> None:
    found = catalogue.detect(paths, config)
    assert (found and (found[0].name, found[1].name)) == expected


def test_an_unknown_format_counts_as_one_that_runs_code() -> None:
    assert catalogue.format_executes_code("sklearn", "from-the-future")
    assert not catalogue.format_executes_code("sklearn", "skops")


def test_an_unknown_framework_is_answered_with_those_that_exist() -> None:
    with pytest.raises(UnknownFramework, match="'caffe'; known are sklearn, tensorflow, transformers"):
        catalogue.entry("caffe")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of installed packages."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points)
    catalogue.entries.cache_clear()
    yield points
    catalogue.entries.cache_clear()


def test_a_package_that_cannot_be_imported_is_left_out(
    installed: list[EntryPoint], caplog: pytest.LogCaptureFixture
) -> None:
    installed.append(EntryPoint("caffe", "no_such_package:ENTRY", catalogue.ENTRY_POINT_GROUP))
    assert sorted(catalogue.entries()) == ["sklearn", "tensorflow", "transformers"]
    assert "The framework 'caffe' cannot be imported from no_such_package:ENTRY" in caplog.text


def test_a_package_whose_entry_is_none_is_told(installed: list[EntryPoint]) -> None:
    installed.append(EntryPoint("caffe", "json:dumps", catalogue.ENTRY_POINT_GROUP))
    with pytest.raises(UnknownFramework, match="'caffe' .* names json:dumps, which is no FrameworkEntry"):
        catalogue.entries()
