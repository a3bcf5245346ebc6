"""Small files that would take a machine's memory, or a process's stack: one message each."""

import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mingmoe_eval.cli import main
from mingmoe_eval.errors import DataError
from mingmoe_eval.exams.exam_tables import read_table
from mingmoe_eval.record_files import parse_rows
from mingmoe_eval.yaml_files import read_yaml

DEEP = {
    "brackets": "a: " + "[" * 100_000 + "]" * 100_000,
    "dashes": "- " * 100_000 + "x",
    "questions": "? " * 100_000 + "x",
    "braces": "{a: " * 50_000 + "1" + "}" * 50_000,
}
# Ten lists of nine, each of the one before: some three thousand million values.
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{later}: &{later} [{','.join([f'*{before}'] * 9)}]\n"
    for before, later in zip("abcdefghi", "bcdefghij", strict=True)
)


TAGGED = ("!!timestamp x", "!!bool x", "!!int x", "2024-13-45", "!!int {}")


@pytest.mark.parametrize("value", TAGGED)
def test_a_value_that_is_not_of_its_tag_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"a: {value}\n")
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [*DEEP.values(), ALIASES], ids=[*DEEP, "aliases"])
def test_yaml_that_is_endless_inside_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"nested|aliases stand for"):
        read_yaml(file)


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [*a]\n")
    with pytest.raises(ValueError, match="aliases stand for"):
        read_yaml(tmp_path / "a.yaml")


def test_aliases_and_lists_of_a_usual_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [1, 2]\nb: *a\nc:\n" + "- [[x]]\n" * 5_000)
    assert read_yaml(tmp_path / "a.yaml")["b"] == [1, 2]


@pytest.mark.parametrize("text", [DEEP["brackets"], "limit: " + "9" * 6_000, ALIASES])
@pytest.mark.parametrize(
    "command",
    [
        "tasks check .",
        "tasks --include-path .",
        "run --config x.yaml",
        "gate reports --baseline reports --policy x.yaml",
        "table reports --labels x.yaml",
        "table reports --pass-rule x.yaml",
        "report reports --pass-rule x.yaml",
    ],
)
def test_no_verb_ends_on_such_a_file(
    command: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.yaml", "_data.yaml"):
        Path(name).write_text(text)
    assert main(command.split()) == 2
    assert capsys.readouterr().err.count("rror: ") == 1


def test_a_parquet_file_whose_one_text_stands_for_every_row_is_refused() -> None:
    rows = 100_000
    once = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 20_000])
    written = io.BytesIO()
    pq.write_table(pa.table({"question": once}), written, compression="zstd")
    data = written.getvalue()
    assert len(data) < 5_000
    with pytest.raises(DataError, match="more than 256 MB when it is unpacked"):
        parse_rows(data, name="f", suffix=".parquet")


def test_many_rows_of_an_ordinary_parquet_file_are_read() -> None:
    rows = [{"question": f"{n} 药", "options": ["a", "b"]} for n in range(20_000)]
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    read = parse_rows(written.getvalue(), name="f", suffix=".parquet")
    assert [row.fields for row in read] == rows


def test_a_spreadsheet_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "exam.xlsx"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(300 * 2**20))
    with pytest.raises(DataError, match="when it is unpacked"):
        read_table(file, file.read_bytes(), None)
