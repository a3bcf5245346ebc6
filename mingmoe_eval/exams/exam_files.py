"""An exam that is one file: which column holds what, found by its name and told to the user.

People keep exams in spreadsheets: a title above the header, a header over two lines. A column that
could be two things, or a thing that no column is, is refused with what is there; the user then
names it. What the lines below the header mean, `exam_lines` says.
"""

import difflib
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

import msgspec

from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.conversion import Converted, convert
from mingmoe_eval.exams.exam_lines import Layout, rows_of
from mingmoe_eval.exams.exam_tables import (
    NEEDED,
    ROLES,
    Line,
    Table,
    called_best,
    cell_at,
    option_letter,
    read_table,
    roles_called,
    say_columns,
    sheet_names,
    text_in,
)
from mingmoe_eval.json_files import texts_by_name
from mingmoe_eval.record_files import EXAM_SUFFIXES as SUFFIXES
from mingmoe_eval.record_files import Row


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
        lacking: What `--columns` says of the file and it has not: such is meant for other files.
    """

    path: Path
    name: str
    benchmark: Benchmark
    rows: tuple[Row, ...]
    converted: Converted
    found: tuple[str, ...]
    language: str
    fingerprint: str
    lacking: frozenset[str] = frozenset()


def _meant(path: Path) -> str:
    """What may have been meant by a file that is not there."""
    if "，" in str(path):
        return "; several tasks are separated by ',', not by '，'"
    beside = path.parent
    there = [one.name for one in beside.iterdir()] if beside.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"; did you mean {beside / near[0]}?" if near else ""


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
    """What `--columns role=NAME,role=NAME` says, or the same as a JSON object.

    Raises:
        UsageError: a part of it has another form.
    """
    if text is not None and text.startswith("{"):  # for names with a comma
        return texts_by_name(text, "--columns")
    said = {}
    for item in filter(None, (text or "").split(",")):
        role, equals, name = item.partition("=")
        if not equals or not role.strip() or not name.strip():
            raise UsageError(f"--columns {item!r}: write ROLE=NAME, for instance answer=答案")
        said[role.strip()] = name.strip()
    return said


def read_exam_file(
    path: Path,
    columns: Mapping[str, str] | None = None,
    *,
    keep: Sequence[str] = (),
    one_of_several: bool = False,
) -> ExamFile:
    """Read an exam.

    Args:
        path: A spreadsheet, CSV, TSV, JSON, JSON Lines or Parquet file.
        columns: Role (question, context, options, answer, type, subject, sheet, first) -> what the
            user says of it. `first` says which number as an answer means the first option.
        keep: Further columns whose cells the rows are to have, under the columns' own names.
        one_of_several: `columns` speaks of several files: a column or a sheet that this one lacks
            is another's.

    Raises:
        MissingDataError: there is no such file.
        DataError: a role has no column, or two; or no row gives a question.
        UsageError: `columns` names a role or a column that there is not.
    """
    said = dict(columns or {})
    if unknown := sorted(said.keys() - ROLES.keys() - {"sheet", "first"}):
        raise UsageError(
            f"--columns does not know {', '.join(unknown)}; it takes "
            f"{', '.join((*ROLES, 'sheet', 'first'))}"
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such file{_meant(path)}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    lacking = set()
    sheet = said.pop("sheet", None)
    if one_of_several and sheet is not None and sheet not in sheet_names(path, data):
        lacking, sheet = {"sheet"}, None
    table = read_table(path, data, sheet)
    first = said.pop("first", None)
    if one_of_several:
        lacking |= {role for role, name in said.items() if name not in table.header}
        said = {role: name for role, name in said.items() if role not in lacking}
    layout = _layout(table, said, path)
    rows, remarks = rows_of(table, layout, first, path)
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
        lacking=frozenset(lacking),
    )


def _layout(table: Table, said: Mapping[str, str], path: Path) -> Layout:
    named = [name for name in table.header if name]
    columns: dict[str, int] = {}
    doubts: list[str] = []
    passed_over: dict[str, list[str]] = {}
    for role in ROLES:
        if role in said:
            places = [i for i, name in enumerate(table.header) if name == said[role]]
            if not places:
                raise UsageError(f"{path} has no column {said[role]!r}: {', '.join(named)}")
        else:
            taken = set(said.values())
            places = [
                i
                for i, name in enumerate(table.header)
                if name not in taken and role in roles_called(name) and _can_be(role, table, i)
            ]
        if len(places) > 1 and role not in NEEDED and role != "options":
            # Only what a table is parted by: one of them is better than no exam.
            best, *others = called_best(role, places, table.header)
            columns[role] = best
            passed_over[role] = [table.header[i] for i in others]
        elif len(places) > 1:
            names = ", ".join(table.header[i] for i in places)
            way_out = say_columns(role, table.header[places[0]])
            doubts.append(f"{role}: it could be {names}; say {way_out}")
        elif places:
            columns[role] = places[0]
    if not table.lines:
        raise DataError(f"{path} has a header and no questions")
    options = _option_columns(table, columns) if "options" not in columns else {}
    if "options" in columns and (spread := _under_one_heading(table, columns["options"])):
        options = dict(zip(ascii_uppercase, spread, strict=False))
        del columns["options"]
    for role in NEEDED:
        if role not in columns and not any(d.startswith(role) for d in doubts):
            doubts.append(f"{role}: no column is called so; say --columns {role}=NAME")
    if doubts:
        listed = "\n".join(f"  - {doubt}" for doubt in doubts)
        raise DataError(f"{path}: its columns are not clear\n{listed}\nColumns: {', '.join(named)}")
    return Layout(columns, options, table.header, passed_over)


_LONG = 8
"""A column of cases has longer texts; one that says "yes" or "no" is a mark."""


def _can_be(role: str, table: Table, place: int) -> bool:
    if role != "context":
        return _has_cells(table, place)
    cells = (cell_at(line, place) for line in table.lines)
    return any(isinstance(cell, str) and len(cell) > _LONG for cell in cells)


def _has_cells(table: Table, place: int) -> bool:
    return any(text_in(cell_at(line, place)) for line in table.lines)


def _under_one_heading(table: Table, place: int) -> list[int]:
    """The columns below a heading of options that is merged over them and has no letters below."""
    followers = itertools.takewhile(
        lambda at: not table.header[at] and _has_cells(table, at),
        range(place + 1, len(table.header)),
    )
    spread = [place, *followers]
    return spread if len(spread) >= 2 else []


def _option_columns(table: Table, columns: Mapping[str, int]) -> dict[str, int]:
    """Columns of single options, called by letters or numbers: A, B and so on without a gap."""
    free = [i for i in range(len(table.header)) if i not in columns.values()]
    found: dict[str, int] = {}
    for i in free:
        letter = option_letter(table.header[i])
        if letter and letter not in found:
            found[letter] = i
    # A column "X" after "A" to "E" is something else.
    run = list(itertools.takewhile(found.__contains__, ascii_uppercase))
    return {letter: found[letter] for letter in run} if len(run) >= 2 else {}


def _with_columns(rows: Sequence[Row], table: Table, keep: Sequence[str], path: Path) -> list[Row]:
    if missing := [name for name in keep if name not in table.header]:
        named = ", ".join(name for name in table.header if name)
        raise DataError(f"{path} has no column {', '.join(missing)}: {named}")
    lines = {line.number: line for line in table.lines}
    places = {name: list(table.header).index(name) for name in keep}
    return [Row(row.number, {**row.fields, **_texts(lines[row.number], places)}) for row in rows]


def _texts(line: Line, places: Mapping[str, int]) -> dict[str, str]:
    return {name: text_in(cell_at(line, place)) for name, place in places.items()}


def _told(layout: Layout, converted: Converted, remarks: Sequence[str]) -> Iterator[str]:
    """What was found, in the words of the file."""
    questions = converted.questions
    yield f"question: {layout.header[layout.columns['question']]}"
    if "context" in layout.columns:
        yield f"context: {layout.header[layout.columns['context']]}{_or('context', layout)}"
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
            yield f"{role}: {layout.header[layout.columns[role]]}{_or(role, layout)}"
    yield f"{len(questions)} questions"
    yield from remarks


def _or(role: str, layout: Layout) -> str:
    """The other columns that could be meant, and how to take one of them."""
    if not (others := layout.passed_over.get(role)):
        return ""
    return f", not {', '.join(others)} ({say_columns(role, others[0])} takes it)"


def _language(converted: Converted) -> str:
    chinese = sum(bool(re.search("[\u4e00-\u9fff]", q.question)) for q in converted.questions)
    return "zh" if 2 * chinese >= len(converted.questions) else "en"


def _task_name(path: Path) -> str:
    """The file's name as a task's: what lm-eval and globs give a meaning becomes an underscore."""
    return re.sub(r"[\s,*?\[\]/\\]+", "_", path.stem).strip("_") or "exam"
