"""The sample that writes: trained for a moment, read and asked as loaderd does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from samples.catalogue import ON_REQUEST, SAMPLES, sample
from samples.trainer import write_metadata
from tests.contract.cases import listed_files, load

QUICK_EPOCHS = 3


def test_it_is_made_only_where_it_is_named() -> None:
    (found,) = ON_REQUEST
    assert found not in SAMPLES
    assert sample("email-gpt-v1.0") is found


@pytest.mark.timeout(240)
def test_it_learns_and_holds_conversations(tmp_path: Path) -> None:
    import torch

    from loaderd import catalogue
    from loaderd.frameworks.base import Artifact
    from samples.email_writer import ASSISTANT, MAX_NEW_TOKENS, USER, train_email_gpt

    torch.set_num_threads(1)
    shares: list[float] = []
    trained = train_email_gpt(tmp_path, shares.append, epochs=QUICK_EPOCHS)
    measured = write_metadata(sample("email-gpt-v1.0"), trained, tmp_path, ("torch",), 1.0)
    assert measured["accuracy"] > 1.5 * measured["majority_class_accuracy"]
    assert shares == sorted(shares)

    config, metadata = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "metadata"))
    found = catalogue.detect(listed_files(tmp_path), config)
    assert found is not None
    assert (found[0].name, found[1].executes_code) == ("transformers", False)
    artifact = Artifact(
        "email-gpt-v1.0", tmp_path, found[1].name, listed_files(tmp_path), False, config=config, metadata=metadata
    )
    model = load(artifact, "transformers")
    generation = model.generation
    assert generation is not None
    asked = {"temperature": 0, "max_tokens": MAX_NEW_TOKENS}
    as_chat = generation.start({**asked, "messages": [{"role": "user", "content": " Late delivery "}]})
    as_text = generation.start({**asked, "prompts": [f"{USER}Late delivery{ASSISTANT}"]})
    told = {}
    while generation.has_work:
        told |= {event.writing: event.final for event in generation.step()}
    assert told[as_chat]["choices"] == told[as_text]["choices"]
    assert told[as_chat]["usage"]["completion_tokens"] > 0
