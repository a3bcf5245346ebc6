"""An exam that is one file: which column holds what, found by its name and told to the user.

People keep exams in spreadsheets: a title above the header, a header over two lines, options in
columns or in one cell, answers as letters, numbers or 对 and 错. Everything becomes the rows that
`conversion` reads. A column that could be two things, or a thing that no column is, is refused with
what is there; the user then names it.
"""

import datetime
import hashlib
import io
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import msgspec

from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.conversion import Converted, convert
from mingmoe_eval.exams.fields import QUESTION_TYPES
from mingmoe_eval.record_files import EXAM_SUFFIXES as SUFFIXES
from mingmoe_eval.record_files import SPREADSHEETS, Row, parse_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamFile:
    """An exam read from one file.

    Attributes:
        path: The file.
        name: What the task is called: the file's name without its suffix.
        benchmark: Its facts, as far as a file tells them.
        rows: Its questions, under the field names that data sets use.
        converted: The same as questions, with the rows that gave none.
        found: Which column holds what, one line a role, for the user to read.
        language: "zh" where most questions are Chinese, else "en".
        fingerprint: The SHA-256 of the file.
    """

    path: Path
    name: str
    benchmark: Benchmark
    rows: tuple[Row, ...]
    converted: Converted
    found: tuple[str, ...]
    language: str
    fingerprint: str


FORMS: Mapping[str, Literal["letters", "cot"]] = {"_ll": "letters", "_cot": "cot"}


def split_form(name: str) -> tuple[Path, Literal["direct", "letters", "cot"]] | None:
    """The file that a task's name is, and the form behind it: `exam.xlsx`, `exam.xlsx_ll`.

    None for a name that has no suffix of those that exams come in.
    """
    for ending, form in FORMS.items():
        if name.endswith(ending) and Path(name.removesuffix(ending)).suffix.lower() in SUFFIXES:
            return Path(name.removesuffix(ending)), form
    return (Path(name), "direct") if Path(name).suffix.lower() in SUFFIXES else None


def columns_said(text: str | None) -> dict[str, str]:
    """What `--columns role=NAME,role=NAME` says.

    Raises:
        UsageError: a part of it has another form.
    """
    said = {}
    for item in filter(None, (text or "").split(",")):
        role, equals, name = item.partition("=")
        if not equals or not role.strip() or not name.strip():
            raise UsageError(f"--columns {item!r}: write ROLE=NAME, for instance answer=答案")
        said[role.strip()] = name.strip()
    return said


def read_exam_file(
    path: Path, columns: Mapping[str, str] | None = None, *, keep: Sequence[str] = ()
) -> ExamFile:
    """Read an exam.

    Args:
        path: A spreadsheet, CSV, TSV, JSON, JSON Lines or Parquet file.
        columns: Role (question, options, answer, type, subject, sheet, first) -> what the user says
            of it. `first` says which number as an answer means the first option.
        keep: Further columns whose cells the rows are to have, under the columns' own names.

    Raises:
        MissingDataError: there is no such file.
        DataError: a role has no column, or two; or no row gives a question.
        UsageError: `columns` names a role or a column that there is not.
    """
    said = dict(columns or {})
    if unknown := sorted(said.keys() - _ROLES.keys() - {"sheet", "first"}):
        raise UsageError(
            f"--columns does not know {', '.join(unknown)}; it takes "
            f"{', '.join((*_ROLES, 'sheet', 'first'))}"
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    table = _table(path, data, said.pop("sheet", None))
    first = said.pop("first", None)
    layout = _layout(table, said, path)
    rows, remarks = _rows(table, layout, first, path)
    rows = _with_columns(rows, table, keep, path)
    name = _task_name(path)
    typed = any("question_type" in row.fields for row in rows)
    benchmark = Benchmark(
        name=name,
        folders=(),
        parts={},
        declares="by question type" if typed else "nothing",
        tag_fields={"subject": "subject"} if "subject" in layout.columns else {},
        keyless="Name the column of the answers with --columns answer=NAME",
    )
    converted = convert(rows, benchmark, name=str(path))
    if benchmark.declares == "nothing" and all(len(q.answer) == 1 for q in converted.questions):
        # Nobody who sits this exam would look for a second right option.
        benchmark = msgspec.structs.replace(benchmark, declares="one right option")
        converted = convert(rows, benchmark, name=str(path))
    return ExamFile(
        path=path,
        name=name,
        benchmark=benchmark,
        rows=tuple(rows),
        converted=converted,
        found=tuple(_told(layout, converted, remarks)),
        language=_language(converted),
        fingerprint=hashlib.sha256(data).hexdigest(),
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a table: its number as a spreadsheet shows it, and its cells by column."""

    number: int
    cells: Sequence[Any]


@dataclass(frozen=True, slots=True)
class _Table:
    """A header, one text a column, and the lines below it."""

    header: Sequence[str]
    lines: Sequence[_Line]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column is which: role -> its place; the places of options by letter, or none."""

    columns: Mapping[str, int]
    options: Mapping[str, int]
    header: Sequence[str]


# Names that people give to columns, folded: no case, width, blanks or punctuation.
_ROLES: Mapping[str, tuple[str, ...]] = {
    "question": (
        *("question", "questiontext", "stem", "questions", "prompt"),
        *("题干", "题目", "试题", "问题", "题目内容", "试题内容", "题干内容", "問題", "題目"),
    ),
    "options": ("options", "choices", "选项", "备选答案", "备选项", "候选项", "答案选项", "選項"),
    "answer": (
        *("answer", "answers", "key", "answerkey", "correct", "correctanswer", "correctoption"),
        *("gold", "label", "answeridx", "rightanswer"),
        *("答案", "正确答案", "标准答案", "参考答案", "正确选项", "正答", "正解", "正確答案"),
    ),
    "type": ("questiontype", "type", "题型", "试题类型", "题目类型", "类型"),
    "subject": ("subject", "category", "chapter", "科目", "章节", "学科", "专业", "知识点"),
}
# Roles without which there is no exam; options may be missing where answers are 对 and 错.
_NEEDED = ("question", "answer")

# "A", "选项A", "A选项", "option A", "choice_1", "选项一".
_OPTION_NAME = re.compile(
    r"(?:选项|備選|备选|option|choice|opt|op|ending|answer|候选)?(?P<mark>[a-z]|[0-9]{1,2}|[一二三四五六七八九十])(?:选项|项|option|choice)?"
)
_CHINESE_NUMBERS = "一二三四五六七八九十"

_RIGHT = {"对", "正确", "√", "✓", "✔", "t", "true", "是", "y", "yes", "right"}
_WRONG = {"错", "错误", "×", "✗", "✘", "x", "f", "false", "否", "n", "no", "wrong"}


def _table(path: Path, data: bytes, sheet: str | None) -> _Table:
    suffix = path.suffix.lower()
    if sheet is not None and suffix not in SPREADSHEETS:
        raise UsageError(f"--columns sheet={sheet}: {path} has no sheets")
    if suffix in SPREADSHEETS:
        return _with_header(_sheet_lines(path, data, sheet), path)
    if suffix in (".csv", ".tsv"):
        return _with_header(_text_lines(path, data), path)
    rows = parse_rows(data, name=str(path), suffix=suffix)
    header = list(dict.fromkeys(str(name) for row in rows for name in row.fields))
    return _Table(
        header, [_Line(row.number, [row.fields.get(name) for name in header]) for row in rows]
    )


def _sheet_lines(path: Path, data: bytes, sheet: str | None) -> list[_Line]:
    import pandas as pd

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
            f"exam, for instance --columns sheet={next(iter(filled))}"
        )
    if not filled:
        raise DataError(f"{path} holds nothing")
    [frame] = filled.values()
    return [_Line(n, list(cells)) for n, cells in enumerate(frame.itertuples(index=False), 1)]


def _text_lines(path: Path, data: bytes) -> list[_Line]:
    import csv

    text = _decoded(path, data)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [_Line(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _decoded(path: Path, data: bytes) -> str:
    """UTF-8, or GB 18030, in which Chinese spreadsheet programs save CSV files."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path} is neither UTF-8 nor GB 18030; save it as UTF-8")


def _with_header(lines: Sequence[_Line], path: Path) -> _Table:
    """Find the header among the first lines: titles stand above it, and it may take two lines.

    A header is a line in which some cell names the question or the answer. Where options have a
    merged cell above their letters, the letters stand in the next line.
    """
    width = max((len(line.cells) for line in lines), default=0)
    for at, line in enumerate(lines[:15]):
        names = [_text(cell) for cell in line.cells] + [""] * (width - len(line.cells))
        folded = [_folded(name) for name in names]
        if sum(any(name in _ROLES[role] for name in folded) for role in _NEEDED) == 0:
            continue
        if sum(bool(name) for name in folded) < 2:
            continue  # a title such as "答案"
        below = [_text(cell) for cell in lines[at + 1].cells] if at + 1 < len(lines) else []
        below += [""] * (width - len(below))
        if _is_second_line(names, below):
            return _Table([b or a for a, b in zip(names, below, strict=True)], lines[at + 2 :])
        return _Table(names, lines[at + 1 :])
    shown = " | ".join(_text(cell)[:20] for cell in (lines[0].cells if lines else ()))
    raise DataError(
        f"{path}: no line among the first 15 names a question or an answer. The first line is: "
        f"{shown or 'empty'}. Give the columns names such as 题干 and 答案, or question and answer"
    )


def _is_second_line(names: Sequence[str], below: Sequence[str]) -> bool:
    """Whether the line below the header goes on with it: letters under a merged cell of options."""
    marks = [_option_letter(text) for text in below]
    letters = [mark for mark in marks if mark]
    under_blank = sum(bool(text) and not name for name, text in zip(names, below, strict=True))
    return len(letters) >= 2 and letters[0] == "A" and under_blank >= 1


def _layout(table: _Table, said: Mapping[str, str], path: Path) -> _Layout:
    named = [name for name in table.header if name]
    columns: dict[str, int] = {}
    doubts: list[str] = []
    for role, known in _ROLES.items():
        if role in said:
            places = [i for i, name in enumerate(table.header) if name == said[role]]
            if not places:
                raise UsageError(f"{path} has no column {said[role]!r}: {', '.join(named)}")
        else:
            taken = set(said.values())
            places = [
                i
                for i, name in enumerate(table.header)
                if name not in taken and _folded(name) in known and _has_cells(table, i)
            ]
        if len(places) > 1:
            names = ", ".join(table.header[i] for i in places)
            doubts.append(
                f"{role}: it could be {names}; say --columns {role}={table.header[places[0]]}"
            )
        elif places:
            columns[role] = places[0]
    if not table.lines:
        raise DataError(f"{path} has a header and no questions")
    options = _option_columns(table, columns) if "options" not in columns else {}
    for role in _NEEDED:
        if role not in columns and not any(d.startswith(role) for d in doubts):
            doubts.append(f"{role}: no column is called so; say --columns {role}=NAME")
    if doubts:
        listed = "\n".join(f"  - {doubt}" for doubt in doubts)
        raise DataError(f"{path}: its columns are not clear\n{listed}\nColumns: {', '.join(named)}")
    return _Layout(columns, options, table.header)


def _has_cells(table: _Table, place: int) -> bool:
    return any(_text(_cell(line, place)) for line in table.lines)


def _option_columns(table: _Table, columns: Mapping[str, int]) -> dict[str, int]:
    """Columns of single options, called by letters or numbers: A, B and so on without a gap."""
    free = [i for i in range(len(table.header)) if i not in columns.values()]
    found: dict[str, int] = {}
    for i in free:
        letter = _option_letter(table.header[i])
        if letter and letter not in found:
            found[letter] = i
    # A column "X" after "A" to "E" is something else.
    run = list(itertools.takewhile(found.__contains__, ascii_uppercase))
    return {letter: found[letter] for letter in run} if len(run) >= 2 else {}


def _option_letter(name: str) -> str | None:
    match = _OPTION_NAME.fullmatch(_folded(name))
    if match is None:
        return None
    mark = match["mark"]
    if mark.isalpha() and mark.isascii():
        return mark.upper()
    number = int(mark) if mark.isdigit() else _CHINESE_NUMBERS.index(mark) + 1
    return ascii_uppercase[number - 1] if 1 <= number <= 26 else None


def _rows(
    table: _Table, layout: _Layout, first: str | None, path: Path
) -> tuple[list[Row], list[str]]:
    """The questions under the names that data sets use, and remarks on how they were read."""
    kept = [line for line in table.lines if any(_text(cell) for cell in line.cells)]
    remarks = []
    if blank := len(table.lines) - len(kept):
        remarks.append(f"{blank} blank lines passed over")
    counts_from = _counts_from(kept, layout, first, path)
    judged = 0
    rows = []
    for line in kept:
        fields, is_judged = _fields(line, layout, counts_from)
        judged += is_judged
        rows.append(Row(line.number, fields))
    if judged:
        remarks.append(f"{judged} questions are answered right or wrong: options A. 对 B. 错")
    if not rows:
        raise DataError(f"{path} has a header and no questions")
    return rows, remarks


def _with_columns(rows: Sequence[Row], table: _Table, keep: Sequence[str], path: Path) -> list[Row]:
    if missing := [name for name in keep if name not in table.header]:
        named = ", ".join(name for name in table.header if name)
        raise DataError(f"{path} has no column {', '.join(missing)}: {named}")
    cells = {line.number: line for line in table.lines}
    places = {name: list(table.header).index(name) for name in keep}
    return [
        Row(
            row.number,
            {**row.fields, **{n: _text(_cell(cells[row.number], at)) for n, at in places.items()}},
        )
        for row in rows
    ]


def _fields(line: _Line, layout: _Layout, counts_from: int | None) -> tuple[dict[str, Any], bool]:
    question = _text(_cell(line, layout.columns["question"]))
    answer = _text(_cell(line, layout.columns["answer"]))
    options: Any = {letter: _text(_cell(line, at)) for letter, at in layout.options.items()}
    if "options" in layout.columns:
        raw = _cell(line, layout.columns["options"])
        options = raw if isinstance(raw, Mapping | list) else _one_line_each(_text(raw))
    is_judged = False
    if not options or (isinstance(options, Mapping) and not any(options.values())):
        question, found = _options_in_question(question)
        options = found or options
        folded = answer.casefold()
        if not found and folded in _RIGHT | _WRONG:
            options, is_judged = {"A": "对", "B": "错"}, True
            answer = "A" if folded in _RIGHT else "B"
    if counts_from is not None and _is_number(answer):
        answer = _letter_of_number(answer, counts_from)
    fields = {"question": question, "options": options, "answer": answer}
    for role, name in (("type", "question_type"), ("subject", "subject")):
        if role in layout.columns:
            fields[name] = _text(_cell(line, layout.columns[role]))
    if fields.get("question_type") not in QUESTION_TYPES:
        fields.pop("question_type", None)  # the user's own word for it: nothing follows from it
    return fields, is_judged


# Options one after the other in a line: "A. 心 B. 肝 C. 脾", "A、心；B、肝".
_INLINE = re.compile(r"(?<![A-Za-z0-9])([A-J])\s*[.．、:：)）]\s*")


def _one_line_each(text: str) -> str:
    """One option a line, where a cell holds them one after the other."""
    text = _half_width_marks(text)
    if "\n" in text:
        return text
    marks = list(_INLINE.finditer(text))
    letters = "".join(mark[1] for mark in marks)
    if len(marks) < 2 or letters != ascii_uppercase[: len(letters)]:
        return text
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = (text[mark.end() : end] for mark, end in zip(marks, ends, strict=True))
    return "\n".join(
        f"{letter}. {part.strip().rstrip('；;,，').strip()}"
        for letter, part in zip(letters, parts, strict=True)
    )


def _options_in_question(question: str) -> tuple[str, str]:
    """A question and the options that stand in the same cell below it, if they do."""
    text = _half_width_marks(question)
    marks = list(_INLINE.finditer(text))
    for at in range(len(marks)):
        letters = "".join(mark[1] for mark in marks[at:])
        if len(letters) >= 2 and letters == ascii_uppercase[: len(letters)]:
            start = marks[at].start()
            return text[:start].strip(), _one_line_each(text[start:].replace("\n", " "))
    return question, ""


def _half_width_marks(text: str) -> str:
    """Full-width letters as ASCII, so that "Ａ．" begins an option like "A."."""
    return re.sub("[Ａ-Ｚ]", lambda match: unicodedata.normalize("NFKC", match[0]), text)


def _counts_from(
    lines: Sequence[_Line], layout: _Layout, first: str | None, path: Path
) -> int | None:
    """Which number means the first option, where answers are numbers.

    A 0 says 0, the number of options says 1. Where neither occurs, nobody can tell.
    """
    numbers = {
        int(digit)
        for line in lines
        for answer in [_text(_cell(line, layout.columns["answer"]))]
        if _is_number(answer)
        for digit in re.findall(r"\d+", answer)
    }
    if not numbers or (not layout.options and "options" not in layout.columns):
        return None
    if first is not None:
        if first not in ("0", "1"):
            raise UsageError(f"--columns first={first}: the first option is number 0 or 1")
        return int(first)
    most = len(layout.options) or max(numbers)
    if 0 in numbers and most not in numbers:
        return 0
    if 0 not in numbers and most in numbers:
        return 1
    raise DataError(
        f"{path}: the answers are numbers ({', '.join(map(str, sorted(numbers)))}), and nothing "
        "tells whether 0 or 1 is the first option: say --columns first=1 or first=0"
    )


def _is_number(answer: str) -> bool:
    return bool(re.fullmatch(r"\d+(?:\s*[,，、;；]\s*\d+)*", answer))


def _letter_of_number(answer: str, counts_from: int) -> str:
    places = [int(digit) - counts_from for digit in re.findall(r"\d+", answer)]
    return "".join(ascii_uppercase[place] if 0 <= place < 26 else "?" for place in places)


def _told(layout: _Layout, converted: Converted, remarks: Sequence[str]) -> Iterator[str]:
    """What was found, in the words of the file."""
    questions = converted.questions
    yield f"question: {layout.header[layout.columns['question']]}"
    if layout.options:
        letters = list(layout.options)
        first, last = (layout.header[layout.options[end]] for end in (letters[0], letters[-1]))
        yield f"options: {first} to {last}"
    elif "options" in layout.columns:
        yield f"options: {layout.header[layout.columns['options']]}"
    else:
        yield "options: below each question, in the same cell"
    several = sum(len(question.answer) > 1 for question in questions)
    many = f", {several} of {len(questions)} with several letters" if several else ""
    yield f"answer: {layout.header[layout.columns['answer']]}{many}"
    for role in ("type", "subject"):
        if role in layout.columns:
            yield f"{role}: {layout.header[layout.columns[role]]}"
    yield f"{len(questions)} questions"
    yield from remarks


def _language(converted: Converted) -> str:
    chinese = sum(bool(re.search("[\u4e00-\u9fff]", q.question)) for q in converted.questions)
    return "zh" if 2 * chinese >= len(converted.questions) else "en"


def _task_name(path: Path) -> str:
    """The file's name as a task's: what lm-eval and globs give a meaning becomes an underscore."""
    return re.sub(r"[\s,*?\[\]/\\]+", "_", path.stem).strip("_") or "exam"


def _cell(line: _Line, place: int) -> Any:
    return line.cells[place] if place < len(line.cells) else None


def _text(value: Any) -> str:
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
        return ",".join(map(_text, value))
    return "" if str(value) == "NaT" else str(value).strip()


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold()
