from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loaderd.gateway.observing.context import MAX_STATE_CHARS, TraceContext, of_headers, parse, valid_state

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"

hex_digits = "0123456789abcdef"
trace_ids = st.integers(1, 2**128 - 1)
span_ids = st.integers(1, 2**64 - 1)
flags = st.integers(0, 255)


@given(trace_ids, span_ids, flags)
def test_what_a_caller_writes_is_read(trace_id: int, span_id: int, flag: int) -> None:
    read = parse(f"00-{trace_id:032x}-{span_id:016x}-{flag:02x}")
    assert read == TraceContext(trace_id, span_id, bool(flag & 1), bool(flag & 2))
    assert read.hex_trace_id == f"{trace_id:032x}"


@given(
    st.integers(1, 254), trace_ids, span_ids, flags, st.text(string.ascii_letters + string.digits + "-", max_size=60)
)
def test_of_a_later_version_what_is_known_is_read(version: int, trace: int, span: int, flag: int, more: str) -> None:
    known = f"{version:02x}-{trace:032x}-{span:016x}-{flag:02x}"
    expected = TraceContext(trace, span, bool(flag & 1), bool(flag & 2))
    assert parse(known) == expected
    assert parse(f"{known}-{more}") == expected
    if more:
        assert parse(known + more.replace("-", "x")) is None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01x",
        f"01-{TRACE}-{SPAN}-01-{'x' * 300}",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
    ],
)
def test_what_is_no_parent_is_as_if_it_had_not_been_sent(header: str) -> None:
    assert parse(header, "a=b") is None


@given(st.text(max_size=80) | st.text("0123456789abcdefABCDEF-", min_size=50, max_size=60))
@example("\ud800")
def test_nothing_that_is_sent_is_an_error(header: str) -> None:
    read = parse(header, header)
    assert read is None or (read.trace_id and read.span_id)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_nothing_in_headers_is_an_error(parent: bytes, state: bytes) -> None:
    of_headers({b"traceparent": parent, b"tracestate": state})


def test_headers() -> None:
    assert of_headers({}) is None
    assert of_headers({b"tracestate": b"a=b"}) is None
    read = of_headers({b"traceparent": PARENT.encode(), b"tracestate": b"rojo=00f067aa0ba902b7, congo=t61"})
    assert read == TraceContext(int(TRACE, 16), int(SPAN, 16), True, state="rojo=00f067aa0ba902b7,congo=t61")


keys = st.from_regex(r"\A[a-z][a-z0-9_\-*/]{0,20}\Z")
values = st.text("".join(sorted(set(map(chr, range(0x21, 0x7F))) - {",", "="})), min_size=1, max_size=8)


@given(st.dictionaries(keys, values, min_size=1, max_size=16))
def test_a_state_of_good_members_stays(members: dict[str, str]) -> None:
    state = ",".join(f"{key}={value}" for key, value in members.items())
    assert valid_state(state) == (state if len(state) <= MAX_STATE_CHARS else "")
    assert valid_state(state.replace(",", " ,\t,")) in (state, "")


@pytest.mark.parametrize(
    "state",
    [
        ",,",
        "a",
        "a=",
        "=b",
        "A=b",
        "a=b,a=c",
        "a=b=c",
        "a=b,\n",
        "a=b\x00",
        "a=ü",
        ",".join(f"k{number}=v" for number in range(33)),
        "a=" + "x" * 257,
        "tenant@system@x=1",
        "a=" + "x" * MAX_STATE_CHARS,
    ],
)
def test_a_state_that_is_not_valid_is_left_out_and_the_parent_stays(state: str) -> None:
    read = parse(PARENT, state)
    assert read is not None
    assert read.state == ""


def test_a_tenants_key_is_valid() -> None:
    assert valid_state("fw529a3039@dt=FfAAA, 0tenant@system=2") == "fw529a3039@dt=FfAAA,0tenant@system=2"
