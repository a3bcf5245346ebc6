"""Files of records, read whole or not at all: JSON Lines, JSON, CSV and Parquet."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.json_files import JsonFault, lone_surrogate, parse, parse_lines

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
EXAM_SUFFIXES = (*SPREADSHEETS, ".tsv", *SUFFIXES)
"""What an exam may come as, whose columns are looked for; `exams.exam_files` reads these."""


_LEAST_UNPACKED, _MOST_PACKED = 256 * 2**20, 100
"""So many bytes are always taken, and so many times those of the file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as its file has it; `number` is its line, or its position where lines say nothing.

    Both count from 1. A CSV record that runs over several lines has the number of its last one.
    """

    number: int
    fields: Mapping[str, Any]


def parse_rows(data: bytes, *, name: str, suffix: str, header: Sequence[str] = ()) -> list[Row]:
    """The records in a file's bytes; blank lines, a byte order mark and CRLF are passed over.

    Args:
        data: The whole file.
        name: What error messages call it.
        suffix: One of SUFFIXES. A `.json` file may hold an array, one object a key, or JSON Lines.
        header: Column names for a CSV file that comes without any.

    Raises:
        DataError: listing every line that cannot be read.
    """
    if suffix == ".parquet":
        return _parquet_rows(data, name)
    _refuse_wide_encodings(data, name)
    data = data.removeprefix(b"\xef\xbb\xbf")
    if suffix == ".csv":
        return _csv_rows(data, name, header)
    whole = _whole_json(data, name, suffix)
    return _json_lines(data, name) if whole is None else whole


def _refuse_wide_encodings(data: bytes, name: str) -> None:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(
            f"{name} is UTF-16; save it as UTF-8, for instance with "
            "`iconv -f UTF-16 -t UTF-8 OLD > NEW`"
        )


def _whole_json(data: bytes, name: str, suffix: str) -> list[Row] | None:
    """The records of a file that is one JSON value, or None for one that is JSON Lines."""
    is_array = data.lstrip()[:1] == b"["
    if not is_array and suffix != ".json":
        return None
    try:
        value = parse(data)
    except JsonFault as error:
        if is_array:
            raise DataError(f"{name} is not valid JSON: {error}") from error
        return None
    if isinstance(value, dict):
        value = _keyed_records(value)
    if not isinstance(value, list):
        raise DataError(f"{name} holds one value that is no record")
    rows = [Row(number, record) for number, record in enumerate(value, 1)]
    halved = b"\\ud" in data or b"\\uD" in data
    faults = [
        f"record {row.number}: {fault}"
        for row in rows
        if (fault := _fault(row.fields, may_be_halved=halved))
    ]
    if faults:
        raise DataError(offence_list(f"{name}: {len(faults)} bad records", faults))
    return rows


def _keyed_records(value: dict[str, Any]) -> list[Any]:
    """One object a record, or one a column.

    PubMedQA's files have one a PubMed number, which becomes the record's `id`. Medbullets' have one
    a column, from row number to cell, as a data frame writes itself.
    """
    if _is_table(value):
        numbers = next(iter(value.values()))
        return [{name: cells[number] for name, cells in value.items()} for number in numbers]
    if value and all(isinstance(record, dict) for record in value.values()):
        return [{"id": key, **record} for key, record in value.items()]
    return [value]


def _is_table(value: dict[str, Any]) -> bool:
    columns = list(value.values())
    if not columns or not all(isinstance(cells, dict) and cells for cells in columns):
        return False
    numbers = list(columns[0])
    return all(number.isdigit() for number in numbers) and all(
        list(cells) == numbers and not any(isinstance(cell, dict) for cell in cells.values())
        for cells in columns
    )


def _json_lines(data: bytes, name: str) -> list[Row]:
    rows: list[Row] = []
    offences: list[str] = []
    halved = b"\\ud" in data or b"\\uD" in data
    for number, value in parse_lines(data):
        if fault := _fault(value, may_be_halved=halved):
            offences.append(f"line {number}: {fault}")
        else:
            rows.append(Row(number, value))
    return _all_or_nothing(rows, offences, name)


def _fault(value: Any, *, may_be_halved: bool) -> str:
    """What is wrong with a record; empty when nothing is."""
    if isinstance(value, JsonFault):
        return str(value)
    if not isinstance(value, dict):
        return "not a JSON object"
    if may_be_halved and lone_surrogate(value):
        return "half a character (a lone surrogate), which no tokenizer can take"
    return ""


def _csv_rows(data: bytes, name: str, header: Sequence[str]) -> list[Row]:
    text = _csv_text(data, name)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    offences: list[str] = []
    columns: Sequence[str] = ()
    for cells in _cells(reader, offences):
        if not columns:
            columns = header if header and not _is_header(cells) else cells
            if columns is cells:
                continue
        if len(cells) == len(columns):
            rows.append(Row(reader.line_num, dict(zip(columns, cells, strict=True))))
        else:
            offences.append(f"line {reader.line_num}: {len(cells)} cells, not {len(columns)}")
    if len(set(columns)) < len(columns):
        offences.insert(0, f"line 1: a column name comes twice: {', '.join(columns)}")
    return _all_or_nothing(rows, offences, name)


def _csv_text(data: bytes, name: str) -> str:
    offences = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if b"\0" in line:
            offences.append(f"line {number}: a NUL byte")
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            offences.append(f"line {number}: not UTF-8")
    if offences:
        raise DataError(offence_list(f"{name}: {len(offences)} bad lines", offences))
    return data.decode("utf-8")


def _cells(reader: Any, offences: list[str]) -> Iterator[list[str]]:
    """The lines that have cells; a CSV fault ends the reading: what follows cannot be trusted."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            offences.append(f"line {reader.line_num}: {error}")
            return
        if any(cell.strip() for cell in cells):
            yield cells


def _is_header(cells: Sequence[str]) -> bool:
    return any(cell.strip().lower() == "question" for cell in cells)


def _parquet_rows(data: bytes, name: str) -> list[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    most = most_unpacked(data)
    records: list[Any] = []
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        left = most - sum(group.total_byte_size for group in groups)
        # A dictionary's one long text may stand for every row: few of them at a time.
        largest = max([1, *(group.total_byte_size for group in groups)])
        batches = file.iter_batches(batch_size=min(max(most // largest, 4), 4096))
        while left >= 0 and (batch := next(batches, None)) is not None:
            records += (rows := batch.to_pylist())
            left -= _text_size(rows)  # a batch's own size counts what a dictionary holds once
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a Parquet file: {error}") from error
    refuse_bomb(name, data, most - left)
    return [Row(number, record) for number, record in enumerate(records, 1)]


def _text_size(value: Any) -> int:
    """Characters and bytes in a value, however deep; a number counts as one."""
    if isinstance(value, dict):
        return sum(map(_text_size, value.values()))
    if isinstance(value, list):
        return sum(map(_text_size, value))
    return len(value) if isinstance(value, str | bytes) else 1


def most_unpacked(data: bytes) -> int:
    """How many bytes a packed file may be when it is unpacked."""
    return max(_LEAST_UNPACKED, _MOST_PACKED * len(data))


def refuse_bomb(name: str, data: bytes, unpacked: int) -> None:
    """Refuse a file that would take the machine's memory.

    Raises:
        DataError: it is larger unpacked than `most_unpacked` of it.
    """
    if unpacked > (most := most_unpacked(data)):
        raise DataError(
            f"{name} has {len(data):,} bytes, and more than {most // 2**20:,} MB when it is "
            "unpacked: no set of questions or records is packed so tightly"
        )


def _all_or_nothing(rows: list[Row], offences: list[str], name: str) -> list[Row]:
    if offences:
        raise DataError(offence_list(f"{name}: {len(offences)} bad lines", offences))
    return rows
