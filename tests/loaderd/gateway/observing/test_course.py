from __future__ import annotations

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from loaderd.frameworks.base import Signature, TensorSpec
from loaderd.gateway.observing.course import MAX_TEXT_CHARS, Course, cleaned
from loaderd.oip import request as oip_request
from loaderd.oip import response as oip_response

SIGNATURE = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("echo", "BYTES", (-1,)),))


def course() -> Course:
    return Course("public", "POST", "/v2/models/echo/infer", "/v2/models/{model}/infer", 0.0)


def answer(texts: list[str], request_id: str | None, *, binary: bool) -> tuple[bytes, int | None]:
    """As a model process writes it."""
    asked = {
        **({} if request_id is None else {"id": request_id}),
        "parameters": {"binary_data_output": binary},
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}],
    }
    request = oip_request.parse(orjson.dumps(asked), None, SIGNATURE)
    header_bytes, chunks = oip_response.build(request, {"echo": np.array(texts, dtype=object)}, SIGNATURE, "echo", "1")
    return b"".join(chunks), header_bytes


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=100) | st.none(),
    st.booleans(),
)
def test_id_and_items_are_read_out_of_an_answer(texts: list[str], request_id: str | None, binary: bool) -> None:
    noted = course()
    noted.answered(*answer(texts, request_id, binary=binary))
    assert noted.items == len(texts)
    assert noted.request_id in ("", cleaned(request_id or ""))
    if request_id and len(orjson.dumps(request_id)) < 500:
        assert noted.request_id == cleaned(request_id)


def test_what_an_output_holds_is_never_taken_for_an_id() -> None:
    for text in ('],"id":"stolen"}', 'x"}],"id":"stolen"}', '\\],"id":"stolen"}'):
        noted = course()
        noted.answered(*answer([text], None, binary=False))
        assert noted.request_id == ""


@given(st.binary(max_size=300))
def test_any_answer_may_come(body: bytes) -> None:
    course().answered(body, None)


def test_the_clients_own_header_goes_before_the_answers_id() -> None:
    noted = course()
    noted.request_id = "from the header"
    noted.answered(*answer(["a"], "from the body", binary=False))
    assert noted.request_id == "from the header"


@given(st.text(max_size=400))
def test_a_cleaned_text_is_one_bounded_line(text: str) -> None:
    clean = cleaned(text)
    assert len(clean) <= MAX_TEXT_CHARS
    assert len(clean.splitlines()) <= 1
    clean.encode()
    if text.isascii() and text.isprintable() and len(text) <= MAX_TEXT_CHARS:
        assert clean == text
