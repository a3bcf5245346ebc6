"""An exam that is one file: which column holds what, found by its name and told to the user.

People keep exams in spreadsheets: a title above the header, a header over two lines, options in
columns or in one cell, answers as letters, numbers or 对 and 错. Everything becomes the rows that
`conversion` reads. A column that could be two things, or a thing that no column is, is refused with
what is there; the user then names it.
"""

import difflib
import hashlib
import itertools
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
from mingmoe_eval.exams.fields import QUESTION_TYPES
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
        columns: Role (question, options, answer, type, subject, sheet, first) -> what the user says
            of it. `first` says which number as an answer means the first option.
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
        lacking=frozenset(lacking),
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column is which: role -> its place; the places of options by letter, or none.

    `passed_over`: role -> the names of columns that are called so too.
    """

    columns: Mapping[str, int]
    options: Mapping[str, int]
    header: Sequence[str]
    passed_over: Mapping[str, Sequence[str]]


_RIGHT = {"对", "正确", "√", "✓", "✔", "t", "true", "是", "y", "yes", "right"}
_WRONG = {"错", "错误", "×", "✗", "✘", "x", "f", "false", "否", "n", "no", "wrong"}


def _layout(table: Table, said: Mapping[str, str], path: Path) -> _Layout:
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
                if name not in taken and role in roles_called(name) and _has_cells(table, i)
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
    return _Layout(columns, options, table.header, passed_over)


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


def _rows(
    table: Table, layout: _Layout, first: str | None, path: Path
) -> tuple[list[Row], list[str]]:
    """The questions under the names that data sets use, and remarks on how they were read."""
    kept = [line for line in table.lines if any(text_in(cell) for cell in line.cells)]
    remarks = []
    if blank := len(table.lines) - len(kept):
        remarks.append(f"{blank} blank line{'s' * (blank > 1)} passed over")
    asked = [line for line in kept if _asks(line, layout)]
    if notes := [str(line.number) for line in kept if line not in asked]:
        listed = ", ".join(notes[:5]) + (", ..." if len(notes) > 5 else "")
        lines = "line" if len(notes) == 1 else "lines"
        remarks.append(f"{len(notes)} {lines} without question, options and answer ({listed})")
    kept = _with_options_below(asked, layout)
    counts_from = _counts_from(kept, layout, first, path)
    judged = 0
    rows = []
    shown = 0
    for line in kept:
        fields, is_judged = _fields(line, layout, counts_from)
        judged += is_judged
        hidden = _without_answer(fields["question"], fields["answer"])
        shown += hidden != fields["question"]
        rows.append(Row(line.number, {**fields, "question": hidden}))
    if shown:
        remarks.append(f"{shown} questions show their answer in brackets: it is taken out")
    if judged:
        remarks.append(f"{judged} questions are answered right or wrong: options A. 对 B. 错")
    if not rows:
        raise DataError(f"{path} has a header and no questions")
    return rows, remarks


def _with_columns(rows: Sequence[Row], table: Table, keep: Sequence[str], path: Path) -> list[Row]:
    if missing := [name for name in keep if name not in table.header]:
        named = ", ".join(name for name in table.header if name)
        raise DataError(f"{path} has no column {', '.join(missing)}: {named}")
    lines = {line.number: line for line in table.lines}
    places = {name: list(table.header).index(name) for name in keep}
    return [Row(row.number, {**row.fields, **_texts(lines[row.number], places)}) for row in rows]


def _texts(line: Line, places: Mapping[str, int]) -> dict[str, str]:
    return {name: text_in(cell_at(line, place)) for name, place in places.items()}


def _fields(line: Line, layout: _Layout, counts_from: int | None) -> tuple[dict[str, Any], bool]:
    question = text_in(cell_at(line, layout.columns["question"]))
    answer = _bare_answer(_by_heading(_answer_in(line, layout), layout))
    options: Any = {letter: text_in(cell_at(line, at)) for letter, at in layout.options.items()}
    if "options" in layout.columns:
        raw = cell_at(line, layout.columns["options"])
        options = raw if isinstance(raw, Mapping | list) else _one_line_each(text_in(raw))
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
    if isinstance(options, Mapping):
        answer = _without_its_text(answer, options)
    fields = {"question": question, "options": options, "answer": answer}
    for role, name in (("type", "question_type"), ("subject", "subject")):
        if role in layout.columns:
            fields[name] = text_in(cell_at(line, layout.columns[role]))
    if kind := _kind_called(str(fields.pop("question_type", ""))):
        fields["question_type"] = kind
    return fields, is_judged


_SIMPLIFIED = str.maketrans("單選題項複擇斷", "单选题项复择断")
# Short names, and the item types of medical exams: A asks for the best of five, B has one block of
# options for several questions, X has several right ones.
_KINDS = (
    (
        re.compile(r"单选|单项选择|判断题?|是非题?|(?:A[1-4](?:/A?[1-4])?|A型)(?:型?题)?型?"),
        "单选题",
    ),
    (re.compile(r"[多复](?:项|选|项选择|选题)|X(?:型|型题|题)"), "多选题"),
    (re.compile(r"B(?:1|型|1型)题?|配伍题?"), "配伍选择题"),
)


def _kind_called(said: str) -> str:
    """The kind of question that a sheet means; "" for the user's own word, which tells nothing."""
    name = unicodedata.normalize("NFKC", said).translate(_SIMPLIFIED)
    if name in QUESTION_TYPES:
        return name
    return next((kind for names, kind in _KINDS if names.fullmatch(name.upper())), "")


# "答案：B", "选AC", "B。", "A|C": the letters are the answer.
_BETWEEN_ANSWERS = r"[\s,，、;；/+和与及與|｜&＆.．]|and"
_AROUND_ANSWER = re.compile(
    r"(?:(?:正确|标准|参考|正確|標準|參考)?答案|answer|option|选项?|選項?)?\s*[:：]?\s*"
    rf"(?P<letters>[A-JＡ-Ｊ](?:(?:{_BETWEEN_ANSWERS})*[A-JＡ-Ｊ]){{0,9}})\s*[。.]?",
    re.IGNORECASE,
)


_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"


def _answer_in(line: Line, layout: _Layout) -> str:
    """The cell of the answer; "①③" is "1,3"."""
    text = text_in(cell_at(line, layout.columns["answer"]))
    if text and all(c in _CIRCLED for c in re.sub(r"[\s,，、;；]", "", text)):
        return ",".join(str(_CIRCLED.index(c) + 1) for c in text if c in _CIRCLED)
    return text


def _bare_answer(answer: str) -> str:
    match = _AROUND_ANSWER.fullmatch(answer)
    return re.sub(_BETWEEN_ANSWERS, "、", match["letters"], flags=re.I) if match else answer


def _by_heading(answer: str, layout: _Layout) -> str:
    """The letters of an answer that names columns of options by their headings: "option2"."""
    called = {layout.header[at].casefold(): letter for letter, at in layout.options.items()}
    names = [name.strip().casefold() for name in re.split("[,，、;；|]", answer)]
    return "、".join(called[n] for n in names) if all(n in called for n in names) else answer


def _without_its_text(answer: str, options: Mapping[str, Any]) -> str:
    """The letter of an answer that repeats its option: "C. 100～120次/分"."""
    match = re.fullmatch(r"([A-JＡ-Ｊ])\s*[.．、:：)）]?\s*(.+)", answer, re.DOTALL)
    letter = unicodedata.normalize("NFKC", match[1]) if match else ""
    return letter if match and str(options.get(letter, "")).strip() == match[2].strip() else answer


_ANSWER_IN_BRACKETS = re.compile(
    r"(?P<open>[（(])\s*(?P<letters>[A-JＡ-Ｊ][A-JＡ-Ｊ、,，\s]*)(?P<close>[）)])"
)


def _without_answer(question: str, answer: str) -> str:
    """The stem without an answer that its brackets show: "心脏位于（B）" would give it away."""

    def letters(text: str) -> set[str]:
        return set(unicodedata.normalize("NFKC", text).upper()) & set(ascii_uppercase)

    def hidden(match: re.Match[str]) -> str:
        shows = letters(match["letters"]) == letters(answer)
        return f"{match['open']}　{match['close']}" if shows else match[0]

    return _ANSWER_IN_BRACKETS.sub(hidden, question)


def _asks(line: Line, layout: _Layout) -> bool:
    """Whether a line has anything of a question: notes below a table have not."""
    roles = [layout.columns[r] for r in ("question", "answer", "options") if r in layout.columns]
    return any(text_in(cell_at(line, place)) for place in (*roles, *layout.options.values()))


_OPTION_BELOW = re.compile(r"\s*[(（]?(?P<letter>[A-JＡ-Ｊ])\s*[)）.．、:：]")


def _with_options_below(lines: Sequence[Line], layout: _Layout) -> list[Line]:
    """Questions whose options stand in the lines below, in the question's own column, put together.

    Such a line has no answer, and its letter goes on where the line before stopped.
    """
    if layout.options or "options" in layout.columns:
        return list(lines)
    at, key = layout.columns["question"], layout.columns["answer"]
    joined: list[Line] = []
    expected = "A"
    for line in lines:
        text = text_in(cell_at(line, at))
        mark = _OPTION_BELOW.match(text)
        letter = unicodedata.normalize("NFKC", mark["letter"]) if mark else ""
        if joined and letter == expected and not text_in(cell_at(line, key)):
            cells = list(joined[-1].cells)
            cells[at] = f"{text_in(cells[at])}\n{text}"
            joined[-1] = Line(joined[-1].number, cells)
            expected = chr(ord(letter) + 1)
        else:
            joined.append(line)
            expected = "A"
    return joined


# Options one after the other in a line: "A. 心 B. 肝 C. 脾", "A、心；B、肝".
_INLINE = re.compile(r"(?<![A-Za-z0-9])([A-J])\s*[.．、:：)）]\s*")


def _one_line_each(text: str) -> str:
    """One option a line, where a cell holds them one after the other."""
    text = _half_width_marks(text)
    if not _INLINE.search(text):
        # "①心 ②肝": numbers in circles are letters where there are no letters.
        found = [c for c in text if c in _CIRCLED]
        if len(found) >= 2 and "".join(found) == _CIRCLED[: len(found)]:
            for number, circle in enumerate(found):
                text = text.replace(circle, f"{ascii_uppercase[number]}. ")
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
    lines: Sequence[Line], layout: _Layout, first: str | None, path: Path
) -> int | None:
    """Which number means the first option, where answers are numbers.

    A 0 says 0; as many as a question has options says 1, and so does a number in a circle. Where
    none of them occurs, nobody can tell.
    """
    numbers: set[int] = set()
    from_one = False
    for line in lines:
        answer = _answer_in(line, layout)
        if _is_number(answer) and (options := _count_options(line, layout)):
            said = {int(digit) for digit in re.findall(r"\d+", answer)}
            numbers |= said
            circled = answer != text_in(cell_at(line, layout.columns["answer"]))
            from_one |= circled or options in said
    if not numbers:
        return None
    if first is not None:
        if first not in ("0", "1"):
            raise UsageError(f"--columns first={first}: the first option is number 0 or 1")
        return int(first)
    if (0 in numbers) != from_one:
        return int(from_one)
    raise DataError(
        f"{path}: the answers are numbers ({', '.join(map(str, sorted(numbers)))}), and nothing "
        "tells whether 0 or 1 is the first option: say --columns first=1 or first=0"
    )


def _count_options(line: Line, layout: _Layout) -> int:
    """How many options a line has, wherever it has them."""
    if layout.options:
        return sum(bool(text_in(cell_at(line, at))) for at in layout.options.values())
    if "options" in layout.columns:
        raw = cell_at(line, layout.columns["options"])
        if isinstance(raw, Mapping | list):
            return len(raw)
        shown = _one_line_each(text_in(raw))
    else:
        shown = _options_in_question(text_in(cell_at(line, layout.columns["question"])))[1]
    return sum(bool(part.strip()) for part in re.split(r"\n|\\n", shown))


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
            yield f"{role}: {layout.header[layout.columns[role]]}{_or(role, layout)}"
    yield f"{len(questions)} questions"
    yield from remarks


def _or(role: str, layout: _Layout) -> str:
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
