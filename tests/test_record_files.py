import io

import pyarrow
import pyarrow.parquet
import pytest

from mingmoe_eval.errors import DataError
from mingmoe_eval.record_files import parse_rows


def numbers_and_fields(data, suffix=".jsonl", **kwargs):
    rows = parse_rows(data, name="file", suffix=suffix, **kwargs)
    return [(row.number, dict(row.fields)) for row in rows]


def refusal(data, suffix=".jsonl"):
    with pytest.raises(DataError) as caught:
        parse_rows(data, name="file", suffix=suffix)
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}\n{"a": 2}',
        b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n',
    ],
    ids=["plain", "no last newline", "byte order mark and CRLF"],
)
def test_json_lines_are_numbered_from_one(data):
    assert numbers_and_fields(data) == [(1, {"a": 1}), (2, {"a": 2})]


def test_blank_lines_count_as_lines_but_not_as_records():
    assert numbers_and_fields(b'\n{"a": 1}\n  \n{"a": 2}\n') == [(2, {"a": 1}), (4, {"a": 2})]


def test_a_separator_inside_a_question_does_not_end_the_line():
    assert numbers_and_fields('{"q": "a\u2028b"}\n'.encode()) == [(1, {"q": "a\u2028b"})]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_an_array_of_records_is_read_whatever_the_file_is_called(suffix):
    assert numbers_and_fields(b'[{"a": 1},\n {"a": 2}]', suffix) == [(1, {"a": 1}), (2, {"a": 2})]


def test_a_json_file_may_hold_json_lines():
    assert numbers_and_fields(b'{"a": 1}\n{"a": 2}\n', ".json") == [(1, {"a": 1}), (2, {"a": 2})]


def test_the_keys_of_an_object_of_records_become_their_ids():
    read = numbers_and_fields(b'{"17": {"a": 1}, "18": {"a": 2}}', ".json")
    assert read == [(1, {"id": "17", "a": 1}), (2, {"id": "18", "a": 2})]


def test_an_object_of_plain_values_is_one_record():
    assert numbers_and_fields(b'{"17": "yes"}', ".json") == [(1, {"17": "yes"})]


def test_every_bad_line_is_listed_with_its_number():
    message = refusal(b'{"a": 1}\n{"a":\n[1]\n"x"\n{"a": "\xff"}\n{"a": "\\ud800"}\n')
    for expected in (
        "5 bad lines",
        "line 2: not JSON",
        "line 3: not a JSON object",
        "line 4: not a JSON object",
        "line 5: not UTF-8",
        "line 6: half a character",
    ):
        assert expected in message


def test_a_pair_of_surrogates_is_a_character():
    assert numbers_and_fields(b'{"a": "\\ud83d\\ude00"}') == [(1, {"a": "\U0001f600"})]


def test_nesting_beyond_the_parser_is_a_bad_line():
    assert "line 1: not JSON" in refusal(b'{"a": ' + b"[" * 200_000 + b"\n")


def test_a_number_beyond_the_parser_is_a_bad_line():
    assert "line 1: not JSON" in refusal(b'{"a": ' + b"9" * 10_000 + b"}\n")


def test_a_line_of_ten_megabytes_is_read():
    [(_, fields)] = numbers_and_fields(b'{"a": "' + b"x" * 10_000_000 + b'"}\n')
    assert len(fields["a"]) == 10_000_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_utf_16_is_refused(encoding, suffix):
    refusal("question,answer\nx,A\n".encode(encoding), suffix)


def test_utf_16_with_its_mark_is_refused_with_the_way_out():
    assert "iconv -f UTF-16 -t UTF-8" in refusal('{"a": 1}'.encode("utf-16"))


def test_a_broken_array_is_refused():
    assert "not valid JSON" in refusal(b'[{"a": 1},', ".json")


def test_strangers_in_an_array_are_listed():
    message = refusal(b'[{"a": 1}, 2, null]', ".json")
    assert "record 2: not a JSON object" in message
    assert "record 3: not a JSON object" in message


def test_csv_cells_may_hold_newlines_and_commas():
    data = b'Question,Answer\n"a,\nb",C\nd,E\n'
    assert numbers_and_fields(data, ".csv") == [
        (3, {"Question": "a,\nb", "Answer": "C"}),
        (4, {"Question": "d", "Answer": "E"}),
    ]


def test_a_csv_header_may_have_a_byte_order_mark_and_an_unnamed_column():
    data = b"\xef\xbb\xbf,Question\r\n0,a\r\n"
    assert numbers_and_fields(data, ".csv") == [(2, {"": "0", "Question": "a"})]


def test_a_csv_file_without_header_takes_the_one_that_is_given():
    header = ("question", "A", "B", "answer")
    assert numbers_and_fields(b"q,x,y,B\n", ".csv", header=header) == [
        (1, {"question": "q", "A": "x", "B": "y", "answer": "B"})
    ]


def test_a_header_in_the_file_wins_over_the_one_that_is_given():
    data = b"answer,question\nB,q\n"
    assert numbers_and_fields(data, ".csv", header=("question", "answer")) == [
        (2, {"answer": "B", "question": "q"})
    ]


def test_csv_rows_of_another_length_are_listed():
    message = refusal(b"question,answer\na\nb,C\nd,E,F\n", ".csv")
    assert "line 2: 1 cells, not 2" in message
    assert "line 4: 3 cells, not 2" in message


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"question,answer\na,\0B\n", "line 2: a NUL byte"),
        (b"question,answer\na,\xd0\xc4\n", "line 2: not UTF-8"),
        (b'question,answer\n"a,B\n', "unexpected end of data"),
        (b"question,question\na,B\n", "a column name comes twice"),
    ],
)
def test_faults_of_csv_files_are_named(data, fault):
    assert fault in refusal(data, ".csv")


def test_parquet_rows_are_read():
    sink = io.BytesIO()
    table = pyarrow.table({"question": ["a", "b"], "choices": [["x", "y"], ["z", None]]})
    pyarrow.parquet.write_table(table, sink)
    assert numbers_and_fields(sink.getvalue(), ".parquet") == [
        (1, {"question": "a", "choices": ["x", "y"]}),
        (2, {"question": "b", "choices": ["z", None]}),
    ]


def test_what_is_no_parquet_file_is_refused():
    assert "not a Parquet file" in refusal(b"PAR1 but no more", ".parquet")


@pytest.mark.parametrize("data", [b"0", b"null", b'"text"', b"true"])
def test_a_json_file_with_a_single_plain_value_is_refused(data):
    with pytest.raises(DataError, match=r"no record|not an object|not a JSON object"):
        parse_rows(data, name="f", suffix=".json")


def test_a_table_of_columns_is_read_row_by_row():
    data = b'{"question": {"0": "a?", "1": "b?"}, "answer": {"0": "A", "1": "B"}}'
    rows = parse_rows(data, name="file", suffix=".json")
    assert [row.fields for row in rows] == [
        {"question": "a?", "answer": "A"},
        {"question": "b?", "answer": "B"},
    ]


@pytest.mark.parametrize(
    "data",
    [
        b'{"question": {"0": "a?", "1": "b?"}, "answer": {"0": "A"}}',
        b'{"question": {"0": "a?"}, "answer": {"1": "A"}}',
        b'{"12": {"0": {"x": 1}}, "13": {"0": {"x": 2}}}',
    ],
)
def test_columns_of_unequal_rows_are_no_table(data):
    rows = parse_rows(data, name="file", suffix=".json")
    assert all("id" in row.fields for row in rows)
