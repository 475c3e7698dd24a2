"""Tensors survive the way through JSON and through bytes, and what does not fit is refused by name."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from loaderd.errors import InvalidInput
from loaderd.oip import datatypes

NUMERIC = sorted(set(datatypes.NUMPY_TYPES) - {"BYTES", "BF16"})
shapes = npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


@st.composite
def tensors(draw: st.DrawFn, finite: bool = False) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(NUMERIC))
    elements = {"allow_nan": False, "allow_infinity": False} if finite and datatype.startswith("FP") else {}
    return datatype, draw(npst.arrays(datatypes.NUMPY_TYPES[datatype], shapes, elements=elements or None))


@settings(deadline=None)
@given(tensors())
def test_numbers_survive_the_way_through_bytes(tensor: tuple[str, np.ndarray]) -> None:
    datatype, array = tensor
    raw = bytes(datatypes.to_binary(array, datatype))
    back = datatypes.from_binary("x", datatype, array.shape, memoryview(raw))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@settings(deadline=None)
@given(tensors(finite=True))
def test_numbers_survive_the_way_through_json(tensor: tuple[str, np.ndarray]) -> None:
    datatype, array = tensor
    text = orjson.dumps(datatypes.to_json(array, datatype), option=orjson.OPT_SERIALIZE_NUMPY)
    back = datatypes.from_json("x", datatype, array.shape, orjson.loads(text))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@settings(deadline=None)
@given(st.lists(st.text()))
def test_texts_survive_both_ways(texts: list[str]) -> None:
    array = np.array([*texts, None], dtype=object)[:-1]
    raw = memoryview(bytes(datatypes.to_binary(array, "BYTES")))
    assert [element.decode() for element in datatypes.from_binary("t", "BYTES", array.shape, raw)] == texts
    assert list(datatypes.from_json("t", "BYTES", array.shape, datatypes.to_json(array, "BYTES"))) == texts


@settings(deadline=None)
@given(st.lists(st.binary()))
def test_bytes_are_laid_out_as_the_real_client_does_it(elements: list[bytes]) -> None:
    array = np.array([*elements, None], dtype=object)[:-1]
    ours = bytes(datatypes.to_binary(array, "BYTES"))
    theirs = serialize_byte_tensor(array)
    assert ours == (theirs.item() if theirs.size else b"")
    assert list(deserialize_bytes_tensor(ours)) == elements


@settings(deadline=None)
@given(npst.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False)))
def test_bf16_is_the_real_clients(array: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        theirs = array.astype(ml_dtypes.bfloat16)
    assert bytes(datatypes.to_binary(array, "BF16")) == theirs.tobytes()
    back = datatypes.from_binary("x", "BF16", array.shape, memoryview(theirs.tobytes()))
    np.testing.assert_array_equal(back, theirs.astype(np.float32))


def test_bf16_keeps_what_is_no_number() -> None:
    raw = memoryview(bytes(datatypes.to_binary(np.array([np.nan], dtype=np.float32), "BF16")))
    assert np.isnan(datatypes.from_binary("x", "BF16", (1,), raw)).all()


@settings(deadline=None)
@given(npst.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_bf16_says_the_same_in_json_as_in_bytes(array: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        rounded = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    read = datatypes.from_json("x", "BF16", array.shape, array.tolist())
    np.testing.assert_array_equal(read, rounded)
    np.testing.assert_array_equal(datatypes.to_json(array, "BF16"), rounded.ravel())


def test_what_is_no_number_is_null_in_json() -> None:
    for datatype in ("FP16", "BF16", "FP32", "FP64"):
        array = np.array([np.nan, np.inf, -np.inf, 0.5], dtype=datatypes.NUMPY_TYPES[datatype])
        text = orjson.dumps(datatypes.to_json(array, datatype), option=orjson.OPT_SERIALIZE_NUMPY)
        assert text == b"[null,null,null,0.5]"


json_numbers = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_lists = st.recursive(
    st.lists(json_numbers | st.none() | st.text(max_size=2), min_size=1, max_size=4),
    lambda rows: st.lists(rows, min_size=1, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([*NUMERIC, "BF16"]), json_lists)
def test_what_is_packed_is_what_numpy_reads(datatype: str, data: list[object]) -> None:
    """The short way takes what the long one takes, and nothing else."""
    packed = None if datatype == "BOOL" else datatypes._packed(datatypes._CODES[datatype], data)
    try:
        read = datatypes._looked_through("x", datatype, data)
    except InvalidInput:
        assert packed is None
        return
    if packed is not None:
        short = np.frombuffer(packed, dtype=datatypes.NUMPY_TYPES[datatype])
        np.testing.assert_array_equal(short, read.ravel())


def test_many_numbers_are_packed_piece_by_piece() -> None:
    numbers = np.random.default_rng(0).integers(-(2**31), 2**31, 40_000)
    read = datatypes.from_json("x", "INT64", (200, 200), numbers.tolist())
    np.testing.assert_array_equal(read, numbers.reshape(200, 200))
    assert read.flags.writeable


def test_whole_numbers_keep_every_digit() -> None:
    numbers = [0, 2**64 - 1, 2**63, 2**53 + 1]
    assert datatypes.from_json("x", "UINT64", (4,), numbers).tolist() == numbers
    assert datatypes.from_json("x", "INT64", (2,), [-(2**63), 2**63 - 1]).tolist() == [-(2**63), 2**63 - 1]


def test_nested_data_counts_as_flat() -> None:
    nested = datatypes.from_json("x", "INT32", (2, 2), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(nested, datatypes.from_json("x", "INT32", (2, 2), [1, 2, 3, 4]))
    assert datatypes.from_json("t", "BYTES", (2, 1), [["a"], ["b"]]).tolist() == [["a"], ["b"]]


def test_a_binary_tensor_can_be_written_to_and_is_aligned() -> None:
    raw = b"?" + np.arange(4, dtype="<f8").tobytes()
    array = datatypes.from_binary("x", "FP64", (4,), memoryview(raw)[1:])
    assert array.flags.writeable
    assert array.flags.aligned


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "sentence"),
    [
        ("FP32", (2,), [1.0], 'Input "x" has 1 elements and its shape [2] needs 2.'),
        ("FP32", (2,), ["1", "2"], 'Input "x" is FP32: its "data" must hold numbers only.'),
        ("FP32", (2,), [True, False], 'Input "x" is FP32: its "data" must hold numbers only.'),
        ("FP32", (2,), [1.0, None], 'Input "x" is FP32: its "data" must hold numbers only.'),
        ("INT64", (1,), [1.5], 'Input "x" is INT64: its "data" must hold whole numbers only.'),
        ("UINT8", (2,), [1, 256], 'Input "x" holds 256, outside UINT8 (0 to 255).'),
        ("UINT8", (2,), [1, -1], 'Input "x" holds -1, outside UINT8 (0 to 255).'),
        ("INT64", (2,), [-1, 2**63], f'Input "x" holds {2**63}, outside INT64'),
        ("INT64", (1,), [2.0**70], 'Input "x" is INT64: its "data" must hold whole numbers only.'),
        ("INT32", (2,), [[1], "2"], 'Input "x" is ragged'),
        ("FP64", (2,), [[1.0], {"a": 1}], 'Input "x" is ragged'),
        ("BOOL", (1,), [1], 'Input "x" is BOOL: its "data" must hold booleans only.'),
        ("FP32", (3,), [[1.0], [2.0, 3.0]], 'Input "x" is ragged'),
        ("FP32", (3,), None, 'Input "x" needs its "data" as a JSON array.'),
        ("BYTES", (2,), ["a", 1], 'Input "x" is BYTES: each element of its "data" must be a string.'),
        ("BYTES", (2,), [["a"], "b"], 'Input "x" is BYTES: each element of its "data" must be a string.'),
    ],
)
def test_it_refuses_json_that_does_not_fit(datatype: str, shape: tuple[int, ...], data: object, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        datatypes.from_json("x", datatype, shape, data)
    assert refused.value.message.startswith(sentence)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "sentence"),
    [
        ("FP32", (2,), b"1234", 'Input "x" has 4 bytes; FP32 of shape [2] needs 8.'),
        ("BF16", (2,), b"12345678", 'Input "x" has 8 bytes; BF16 of shape [2] needs 4.'),
        ("BYTES", (2,), b"\1\0\0\0a", 'Input "x" has 5 bytes, too few for 2 elements.'),
        ("BYTES", (1,), b"\7\0\0\0a", 'Input "x" ends within element 0 of 1.'),
        ("BYTES", (2,), b"\4\0\0\0abcd", 'Input "x" ends within element 1 of 2.'),
        ("BYTES", (1,), b"\1\0\0\0ab", 'Input "x" has 1 bytes behind its 1 elements.'),
        ("BYTES", (1 << 30,), b"abcd", f'Input "x" has 4 bytes, too few for {1 << 30} elements.'),
    ],
)
def test_it_refuses_bytes_that_do_not_fit(datatype: str, shape: tuple[int, ...], raw: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        datatypes.from_binary("x", datatype, shape, memoryview(raw))
    assert refused.value.message == sentence
