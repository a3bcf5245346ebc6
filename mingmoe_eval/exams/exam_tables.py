"""A file as a table: its header found wherever it stands, and the lines below it.

Spreadsheets have titles above the header, headers over two lines, cells that are merged. What the
columns hold, `exam_files` says; here stand the names by which a header is known.
"""

import datetime
import io
import json
import math
import re
import shlex
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mingmoe_eval.errors import DataError, UsageError
from mingmoe_eval.record_files import SPREADSHEETS, parse_rows, refuse_bomb


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: its number as a spreadsheet shows it, and its cells by column."""

    number: int
    cells: list[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A header, one text a column, and the lines below it."""

    header: Sequence[str]
    lines: Sequence[Line]


def read_table(path: Path, data: bytes, sheet: str | None) -> Table:
    """The table in a file.

    Args:
        path: Its name, whose suffix tells its format.
        data: Its bytes.
        sheet: Which sheet of a spreadsheet; None where it has one with content.

    Raises:
        DataError: it cannot be read, or no line is a header, or several sheets could be meant.
        UsageError: there is no such sheet.
    """
    suffix = path.suffix.lower()
    if sheet is not None and suffix not in SPREADSHEETS:
        raise UsageError(f"--columns sheet={sheet}: {path} has no sheets")
    if suffix in SPREADSHEETS:
        return _with_header(_sheet_lines(path, data, sheet), path)
    if suffix in (".csv", ".tsv"):
        return _text_table(path, data, "\t" if suffix == ".tsv" else ",;")
    rows = parse_rows(data, name=str(path), suffix=suffix)
    header = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    return Table(
        header, [Line(row.number, [row.fields.get(name) for name in header]) for row in rows]
    )


# Names that people give to columns, folded: no case, width, blanks or punctuation.
ROLES: Mapping[str, tuple[str, ...]] = {
    "question": (
        *("question", "questiontext", "stem", "questions", "prompt"),
        *("题干", "题目", "试题", "问题", "题目内容", "试题内容", "题干内容", "问题内容"),
        *("題幹", "題目", "試題", "問題", "題目內容", "試題內容", "題幹內容"),
    ),
    "context": (
        *("context", "case", "vignette", "passage", "病例", "病例摘要", "案例", "材料"),
        *("共用题干", "共享题干", "公共题干", "共用題幹"),
    ),
    "options": (
        *("options", "choices", "选项", "备选答案", "备选项", "候选项", "答案选项", "选项内容"),
        *("選項", "備選答案", "選項內容"),
    ),
    "answer": (
        *("answer", "answers", "key", "answerkey", "correct", "correctanswer", "correctoption"),
        *("gold", "label", "answeridx", "rightanswer"),
        *("答案", "正确答案", "标准答案", "参考答案", "正确选项", "正答", "正解"),
        *("正確答案", "標準答案", "參考答案", "正確選項"),
    ),
    "type": (
        *("题型", "試題類型", "题目类型", "试题类型", "questiontype", "題型", "題目類型"),
        *("类型", "type"),
    ),
    "subject": (
        *("subject", "科目", "学科", "學科", "专业", "專業", "category", "章节", "章節", "chapter"),
        "知识点",
    ),
}


# Roles without which there is no exam; options may be missing where answers are 对 and 错.
NEEDED = ("question", "answer")


# "A", "选项A", "A选项", "option A", "choice_1", "选项一".
_OPTION_NAME = re.compile(
    r"(?:选项|選項|備選|备选|option|choice|opt|op|ending|answer|候选|备选答案|答案|備選答案)?"
    r"(?P<mark>[a-z]|[0-9]{1,2}|[一二三四五六七八九十])(?:选项|選項|项|項|option|choice)?"
)


_CHINESE_NUMBERS = "一二三四五六七八九十"


def sheet_names(path: Path, data: bytes) -> list[str]:
    """What a spreadsheet's sheets are called; none of a file that has no sheets, or is damaged."""
    import python_calamine

    if path.suffix.lower() not in SPREADSHEETS:
        return []
    try:
        return list(python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)).sheet_names)
    except Exception:  # whatever it is, `read_table` says it
        return []


def say_columns(role: str, name: str) -> str:
    """The option that says what a column is, as one types it."""
    said = f"{role}={name}" if "," not in name else json.dumps({role: name}, ensure_ascii=False)
    return f"--columns {shlex.quote(said) if _NEEDS_QUOTES.search(said) else said}"


# What a shell reads as something else; letters of all languages it leaves alone.
_NEEDS_QUOTES = re.compile(r"[^\w=.:+@%/-]")


def _sheet_lines(path: Path, data: bytes, sheet: str | None) -> list[Line]:
    import pandas as pd

    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            refuse_bomb(str(path), data, sum(part.file_size for part in archive.infolist()))
    try:
        frames = pd.read_excel(
            io.BytesIO(data), sheet_name=None, header=None, dtype=object, engine="calamine"
        )
    except Exception as error:  # whatever the reader of spreadsheets makes of a damaged file
        raise DataError(f"{path} is no spreadsheet that can be read: {error}") from error
    names = [str(name) for name in frames]
    if sheet is not None and sheet not in names:
        raise UsageError(f"{path} has no sheet {sheet!r}; it has {', '.join(names)}")
    frames = {name: frame for name, frame in frames.items() if sheet in (None, str(name))}
    filled = {name: frame for name, frame in frames.items() if not frame.empty}
    if len(filled) > 1:
        raise DataError(
            f"{path} has several sheets with content: {', '.join(filled)}. Say which one is the "
            f"exam, for instance {say_columns('sheet', next(iter(filled)))}"
        )
    if not filled:
        raise DataError(f"{path} holds nothing")
    [(name, frame)] = filled.items()
    lines = [Line(n, list(cells)) for n, cells in enumerate(frame.itertuples(index=False), 1)]
    for (top, left), (bottom, _) in _merged(data, str(name)):
        # Downwards alone: a title or a heading over several columns stands in the first of them.
        for line in lines[top + 1 : bottom + 1]:
            if left < len(line.cells) and not text_in(line.cells[left]):
                line.cells[left] = lines[top].cells[left]
    return lines


def _merged(data: bytes, sheet: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The merged cells of a sheet, each from (row, column) to (row, column), counted from 0.

    What stands in such a cell holds for all of its rows: a subject, or options that several
    questions share. Formats that do not tell have none.
    """
    import python_calamine

    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        ranges = getattr(book.get_sheet_by_name(sheet), "merged_cell_ranges", None)
    except Exception:  # whatever a format without such cells leads to: the cells are read already
        return []
    return [] if ranges is None else list(ranges)


def _text_table(path: Path, data: bytes, delimiters: str) -> Table:
    """With the first of the delimiters that finds a header.

    Where "," is the decimal sign, spreadsheet programs part cells by ";".
    """
    text = _decoded(path, data)
    faults: list[DataError] = []
    for delimiter in delimiters:
        try:
            return _with_header(_text_lines(path, text, delimiter), path)
        except DataError as fault:
            faults.append(fault)
    raise faults[0]


def _text_lines(path: Path, text: str, delimiter: str) -> list[Line]:
    import csv

    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [Line(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _decoded(path: Path, data: bytes) -> str:
    """UTF-8, or GB 18030, in which Chinese spreadsheet programs save CSV files."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "gb18030" or not _is_of_one_byte(text):
            return text
    raise DataError(f"{path} is neither UTF-8 nor GB 18030; save it as UTF-8")


def _is_of_one_byte(text: str) -> bool:
    """Whether what was read as Chinese are accents of Latin words: "réponse" becomes "r閜onse"."""
    chinese = len(_CHINESE.findall(text))
    return len(_IN_A_WORD.findall(text)) > chinese / 2


_CHINESE = re.compile("[\u3400-\u9fff]")
_IN_A_WORD = re.compile("(?<=[A-Za-z])[\u3400-\u9fff](?=[a-z])")


def _with_header(lines: Sequence[Line], path: Path) -> Table:
    """Find the header among the first lines: titles stand above it, and it may take two lines.

    A header is a line in which some cell names the question or the answer. Where options have a
    merged cell above their letters, the letters stand in the next line.
    """
    width = max((len(line.cells) for line in lines), default=0)
    for at, line in enumerate(lines[:15]):
        names = [text_in(cell) for cell in line.cells] + [""] * (width - len(line.cells))
        roles = {role for name in names for role in roles_called(name)}
        if not roles.intersection(NEEDED):
            continue
        if _filled(names) < 2:
            continue  # a title such as "答案"
        below = [text_in(cell) for cell in lines[at + 1].cells] if at + 1 < len(lines) else []
        below += [""] * (width - len(below))
        if _is_second_line(names, below):
            return Table([b or a for a, b in zip(names, below, strict=True)], lines[at + 2 :])
        # The same names once more, in another language, are no question.
        again = sum(bool(roles_called(name) or option_letter(name)) for name in below)
        return Table(names, lines[at + (2 if again >= 3 and again == _filled(below) else 1) :])
    shown = " | ".join(text_in(cell)[:20] for cell in (lines[0].cells if lines else ()))
    raise DataError(
        f"{path}: no line among the first 15 names a question or an answer. The first line is: "
        f"{shown or 'empty'}. Give the columns names such as 题干 and 答案, or question and answer"
    )


def _is_second_line(names: Sequence[str], below: Sequence[str]) -> bool:
    """Whether the line below the header goes on with it: letters under a merged cell of options."""
    marks = [option_letter(text) for text in below]
    letters = [mark for mark in marks if mark]
    under_blank = sum(bool(text) and not name for name, text in zip(names, below, strict=True))
    return len(letters) >= 2 and letters[0] == "A" and under_blank >= 1


# What import forms write behind a name: "题干（必填）", "正确答案*".
_REMARK = re.compile(r"[（(【\[][^）)】\]]{2,}[）)】\]]|\*")


def roles_called(name: str) -> list[str]:
    """The roles that a column of this name can have."""
    called = {_folded(name), _folded(_REMARK.sub("", name))}
    return [role for role, known in ROLES.items() if called.intersection(known)]


def called_best(role: str, places: Sequence[int], header: Sequence[str]) -> list[int]:
    """Columns that are called as a role is, the best first: in the order in which it has names."""

    def rank(place: int) -> int:
        called = {_folded(header[place]), _folded(_REMARK.sub("", header[place]))}
        return min(n for n, known in enumerate(ROLES[role]) if known in called)

    return sorted(places, key=rank)


def _filled(cells: Sequence[str]) -> int:
    return sum(bool(cell) for cell in cells)


def option_letter(name: str) -> str | None:
    """The letter of the option that a column of this name holds; None for other columns."""
    match = _OPTION_NAME.fullmatch(_folded(_REMARK.sub("", name)))
    if match is None:
        return None
    mark = match["mark"]
    if mark.isalpha() and mark.isascii():
        return mark.upper()
    number = int(mark) if mark.isdigit() else _CHINESE_NUMBERS.index(mark) + 1
    return ascii_uppercase[number - 1] if 1 <= number <= 26 else None


def cell_at(line: Line, place: int) -> Any:
    """A cell of a line; None behind its end."""
    return line.cells[place] if place < len(line.cells) else None


def text_in(value: Any) -> str:
    """A cell as a person reads it: 2.0 is "2", a blank is ""."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat()
    if isinstance(value, list | tuple):
        return ",".join(map(text_in, value))
    return "" if str(value) == "NaT" else str(value).strip()


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold()
