"""The lines of an exam's table as questions: what their cells mean, whoever filled them.

Answers come as letters, numbers, 对 and 错, or whole options; options in columns, in one cell, in
the question's own cell or in the lines below it; cases and options that several questions share in
a line of their own. Everything becomes the rows that `conversion` reads. Which column is which,
`exam_files` says.
"""

import datetime
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mingmoe_eval.errors import DataError, UsageError, offence_list
from mingmoe_eval.exams.exam_tables import Line, Table, cell_at, text_in
from mingmoe_eval.exams.fields import QUESTION_TYPES, letter_of_text
from mingmoe_eval.record_files import Row
from mingmoe_eval.records import fingerprint


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is which: role -> its place; the places of options by letter, or none.

    `passed_over`: role -> the names of columns that are called so too.
    """

    columns: Mapping[str, int]
    options: Mapping[str, int]
    header: Sequence[str]
    passed_over: Mapping[str, Sequence[str]]


def rows_of(
    table: Table, layout: Layout, first: str | None, path: Path
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
    _refuse_dates(asked, layout, path)
    apart = _with_what_is_shared(asked, layout)
    if len(apart) < len(asked):
        remarks.append("cases and options that lines share stand with each of their questions")
    kept = _with_options_below(apart, layout)
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
    remarks += _doubts(rows)
    if not rows:
        raise DataError(f"{path} has a header and no questions")
    return rows, remarks


_PICTURE = re.compile(r"<img|!\[|\[(?:图片|image)|DISPIMG|[如下上]图|图示|图中", re.IGNORECASE)


def _doubts(rows: Sequence[Row]) -> Iterator[str]:
    """What a person should look at: questions about pictures, and those that stand twice."""
    if pictures := sum(bool(_PICTURE.search(row.fields["question"])) for row in rows):
        yield f"questions that speak of a picture, which no model is shown: {pictures}"
    keys: dict[str, set[str]] = {}
    for row in rows:
        asked = fingerprint([row.fields["question"], str(row.fields["options"])])
        keys.setdefault(asked, set()).add(row.fields["answer"])
    if again := len(rows) - len(keys):
        contrary = sum(len(answers) > 1 for answers in keys.values())
        with_others = f", {contrary} of them with another answer" if contrary else ""
        yield f"questions that stand there once more: {again}{with_others}"


def _refuse_dates(lines: Sequence[Line], layout: Layout, path: Path) -> None:
    """Refuse options that a spreadsheet program made dates of, beside options that are none.

    "1-2" becomes the second of January, and nothing in the file says what stood there.
    """
    offences = []
    for line in lines:
        cells = {letter: cell_at(line, place) for letter, place in layout.options.items()}
        dates = {n: c for n, c in cells.items() if isinstance(c, datetime.date | datetime.time)}
        if dates and len(dates) < sum(bool(text_in(cell)) for cell in cells.values()):
            listed = ", ".join(f"{letter} is {text_in(cell)}" for letter, cell in dates.items())
            offences.append(f"line {line.number}: {listed}")
    if offences:
        what = f"{path}: a spreadsheet program made dates of options such as 1-2; format their"
        raise DataError(offence_list(f"{what} columns as text, and type them again", offences))


_RIGHT = {"对", "正确", "√", "✓", "✔", "t", "true", "是", "y", "yes", "right"}
_WRONG = {"错", "错误", "×", "✗", "✘", "x", "f", "false", "否", "n", "no", "wrong"}


def _fields(line: Line, layout: Layout, counts_from: int | None) -> tuple[dict[str, Any], bool]:
    question = text_in(cell_at(line, layout.columns["question"]))
    if "context" in layout.columns and question:
        question = f"{text_in(cell_at(line, layout.columns['context']))}\n{question}".strip()
    answer = _bare_answer(_by_heading(_answer_in(line, layout), layout))
    options: Any = {letter: text_in(cell_at(line, at)) for letter, at in layout.options.items()}
    if "options" in layout.columns:
        raw = cell_at(line, layout.columns["options"])
        options = raw if isinstance(raw, Mapping | list) else _one_line_each(text_in(raw))
    is_judged = False
    if not options or (isinstance(options, Mapping) and not any(options.values())):
        question, found = _options_in_question(question)
        options = found or options
        folded = unicodedata.normalize("NFKC", answer).casefold()
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
    rf"(?P<letters>[A-JＡ-Ｊ](?:(?:{_BETWEEN_ANSWERS})*[A-JＡ-Ｊ]){{0,9}})\s*[。.、,，;；]?",
    re.IGNORECASE,
)


_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"


def _answer_in(line: Line, layout: Layout) -> str:
    """The cell of the answer; "①③" is "1,3"."""
    text = text_in(cell_at(line, layout.columns["answer"]))
    if text and all(c in _CIRCLED for c in re.sub(r"[\s,，、;；]", "", text)):
        return ",".join(str(_CIRCLED.index(c) + 1) for c in text if c in _CIRCLED)
    return text


def _bare_answer(answer: str) -> str:
    match = _AROUND_ANSWER.fullmatch(answer)
    return re.sub(_BETWEEN_ANSWERS, "、", match["letters"], flags=re.I) if match else answer


def _by_heading(answer: str, layout: Layout) -> str:
    """The letters of an answer that names columns of options by their headings: "option2"."""
    called = {layout.header[at].casefold(): letter for letter, at in layout.options.items()}
    names = [name.strip().casefold() for name in re.split("[,，、;；|]", answer)]
    return "、".join(called[n] for n in names) if all(n in called for n in names) else answer


def _without_its_text(answer: str, options: Mapping[str, Any]) -> str:
    """The letters of an answer that repeats its options: "C. 100～120次/分", "肝；胰"."""
    texts = [text.strip() for text in re.split(r"[;；、,，|\n]", answer) if text.strip()]
    letters = [letter_of_text(text, options) for text in texts]
    if len(texts) > 1 and None not in letters and letter_of_text(answer, options) is None:
        return "、".join(letter for letter in letters if letter)
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


def _asks(line: Line, layout: Layout) -> bool:
    """Whether a line has anything of a question: notes below a table have not."""
    roles = [layout.columns[r] for r in ("question", "answer", "options") if r in layout.columns]
    return any(text_in(cell_at(line, place)) for place in (*roles, *layout.options.values()))


# "（1～2题共用题干）", "(3-4题共用备选答案)": what the line holds belongs to the questions below.
_SHARED = re.compile(
    r"^\W{0,2}(?:第\s*)?(?P<first>\d{1,4})\s*[~～\-—–－至到]+\s*(?:第\s*)?(?P<last>\d{1,4})\s*[题題]?"
    r"\s*(?:共用|共享|共有)(?P<what>题干|題幹|备选答案|備選答案|选项|選項)\s*[)）】\]]?[:：。]?\s*"
)


def _with_what_is_shared(lines: Sequence[Line], layout: Layout) -> list[Line]:
    """Without the lines that say what the next ones share, and each of those with it."""
    at, key = layout.columns["question"], layout.columns["answer"]
    in_one = [layout.columns["options"]] if "options" in layout.columns else []
    spread = [*layout.options.values(), *in_one]
    apart: list[Line] = []
    case, shared, left = "", Line(0, []), 0
    for line in lines:
        text, bare = text_in(cell_at(line, at)), not text_in(cell_at(line, key))
        own = any(text_in(cell_at(line, place)) for place in spread)
        if bare and (mark := _SHARED.match(text)):
            of_case = mark["what"] in ("题干", "題幹")
            case, shared = (text[mark.end() :], Line(0, [])) if of_case else ("", line)
            left = max(0, int(mark["last"]) - int(mark["first"]) + 1)
        elif left and bare and not own and not case and not shared.cells:
            case = text  # the case stands in the line below the one that says who shares it
        elif left:
            left -= 1
            cells = list(line.cells)
            cells[at] = f"{case}\n{text}".strip()
            for place in spread if not own else ():
                cells[place] = cell_at(shared, place)
            apart.append(Line(line.number, cells))
        else:
            apart.append(line)
    return apart


_OPTION_BELOW = re.compile(r"\s*[(（]?(?P<letter>[A-JＡ-Ｊ])\s*[)）.．、:：]")


def _with_options_below(lines: Sequence[Line], layout: Layout) -> list[Line]:
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
        f"{letter}. {part.strip().rstrip('；;,，|｜').strip()}"
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
    lines: Sequence[Line], layout: Layout, first: str | None, path: Path
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


def _count_options(line: Line, layout: Layout) -> int:
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
