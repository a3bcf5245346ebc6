"""Rows of a file turned into questions; a row that cannot be used is reported, never mended.

A file's shape is where it keeps the stem, the options and the key of a question. It is found from
the fields of the whole file; fields that fit none, or two that compete, are refused with the fields
listed. Nothing is told by the values of one row.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.exams.benchmarks import Benchmark, Part
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.exams.fields import (
    QuestionType,
    RowFault,
    is_blank_key,
    is_letters,
    key_letters,
    letter_of_text,
    options_from,
    options_in_order,
    question_type,
    text_of,
    texts_are_lettered,
    transcription_fault,
    usable_options,
)
from mingmoe_eval.exams.japanese_exams import number_asked_for, with_options_apart
from mingmoe_eval.exams.records import Question
from mingmoe_eval.record_files import Row
from mingmoe_eval.records import fingerprint

Fields = Mapping[str, Any]
OptionReader = Callable[[Fields], dict[str, str]]
KeyReader = Callable[[Fields, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How to read a question's stem, options and key from a row; the readers raise RowFault."""

    stem: str
    options: OptionReader
    key: KeyReader
    fields: tuple[str, str] = ("", "")
    """The fields of the options and of the key, where each is one."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The questions of a file, and (row number, reason) of each row that gave none."""

    questions: tuple[Question, ...]
    unusable: tuple[tuple[int, str], ...]


def convert(rows: Sequence[Row], benchmark: Benchmark, *, name: str) -> Converted:
    """Turn the rows of one file into questions.

    Args:
        rows: All rows of the file.
        benchmark: What the file is said to hold.
        name: What error messages call the file.

    Raises:
        DataError: no known shape fits, the file is another data set's, or no row can be used.
    """
    if any("question_text" in row.fields for row in rows):
        rows = [Row(row.number, with_options_apart(row.fields)) for row in rows]
    shape = shape_of(rows, benchmark, name=name)
    questions: list[Question] = []
    unusable: list[tuple[int, str]] = []
    for row in rows:
        try:
            questions.append(_question(row.fields, shape, benchmark))
        except RowFault as fault:
            unusable.append((row.number, str(fault)))
    if not questions:
        reasons = [f"line {number}: {reason}" for number, reason in unusable]
        raise DataError(offence_list(f"{name}: no row can be used. {benchmark.keyless}", reasons))
    _refuse_more_options(questions, benchmark, name)
    return Converted(tuple(questions), tuple(unusable))


def rows_of_exam(rows: Sequence[Row], benchmark: Benchmark, *, name: str) -> list[Row]:
    """The rows of one exam, of a file that says which exam each row is of.

    Apollo's test files hold four exams each, told apart by `source` alone: a file of that name is
    no exam's. A `source` that names no exam that we know says nothing.

    Raises:
        DataError: rows name exams, and none of them this one.
    """
    exam_of = [_exam_called(row.fields.get("source")) for row in rows]
    if not any(exam_of):
        return list(rows)
    own = [
        row for row, exam in zip(rows, exam_of, strict=True) if exam and exam in benchmark.sources
    ]
    if not own:
        counts = Counter(str(row.fields.get("source")) for row in rows)
        held = ", ".join(f"{source} ({n:,})" for source, n in counts.most_common(8))
        raise DataError(f"{name} holds no row of {benchmark.name}, by its `source`: {held}")
    return own


def _exam_called(source: Any) -> str | None:
    """What a row's source names, if it is an exam that we know."""
    text = "-".join(str(source or "").casefold().replace("_", "-").split())
    return text if any(text in one.sources for one in benchmarks().values()) else None


def _question(fields: Fields, shape: Shape, benchmark: Benchmark) -> Question:
    stem = _OPTIONS_IN_STEM.split(text_of(fields.get(shape.stem)), maxsplit=1)[0].rstrip()
    if not stem:
        raise RowFault("no question text")
    options, answer = _options_and_key(fields, shape, benchmark, stem)
    kind = question_type(fields, benchmark.declares)
    choose = len(answer) if options and benchmark.declares == "how many are right" else 0
    context = _context(fields)
    if kind.single and len(answer) > 1:
        raise RowFault(f"the key is {answer}, but the question has one right option")
    if benchmark.needs_context and not context:
        raise RowFault("no abstract to go with the question")
    if benchmark.transcribed and (fault := transcription_fault(stem, options)):
        raise RowFault(fault)
    return Question(
        question=stem,
        options=options,
        answer=answer,
        single=kind.single or choose == 1 or not options,
        question_type=kind.label,
        context=context,
        tags=_tags(fields, benchmark, kind),
        cluster=fingerprint(dict(options)) if kind.shares_options else _case(fields),
        choose=choose,
        question_id=text_of(fields.get(benchmark.id_field)),
    )


def _options_and_key(
    fields: Fields, shape: Shape, benchmark: Benchmark, stem: str
) -> tuple[dict[str, str], str]:
    options_field, key_field = shape.fields
    if benchmark.calculations and not fields.get(options_field):
        key = fields.get(key_field)
        [said] = key if isinstance(key, list) and len(key) == 1 else [key]
        if number := number_asked_for(stem, text_of(said)):
            return {}, number
        raise RowFault(f"no options, and the key {key!r} is no number")
    options = shape.options(fields)
    return options, shape.key(fields, options)


def _case(fields: Fields) -> str | None:
    """What JMLE's questions on one case share: they stand or fall together."""
    group = fields.get("serial_group")
    return text_of(group.get("group_id")) if isinstance(group, Mapping) else None


def _context(fields: Fields) -> str:
    """PubMedQA's abstract without its conclusion; the hub has it one level down. JMLE's case."""
    if isinstance(group := fields.get("serial_group"), Mapping):
        return text_of(group.get("context_text"))
    passages: Any = fields.get("CONTEXTS")
    if passages is None and isinstance(nested := fields.get("context"), Mapping):
        passages = nested.get("contexts")
    return "\n".join(text_of(passage) for passage in passages or ())


def _tags(fields: Fields, benchmark: Benchmark, kind: QuestionType) -> dict[str, str]:
    cells = {tag: fields.get(field) for tag, field in benchmark.tag_fields.items()}
    read = {
        tag: str(cell).lower() if isinstance(cell, bool) else text_of(cell)
        for tag, cell in cells.items()
    }
    # CMExam writes 不符合, "does not apply", where an annotation has no value.
    known = {tag: text for tag, text in read.items() if text not in ("", "nan", "不符合")}
    return {**benchmark.tags, **known, **({"question_type": kind.name} if kind.name else {})}


def _refuse_more_options(questions: Sequence[Question], benchmark: Benchmark, name: str) -> None:
    """MedQA's 4-option and 5-option files share stems under other letters: never mix them up."""
    letters = (ord(letter) - ord("A") + 1 for q in questions for letter in q.options)
    most = max(letters, default=0)
    if benchmark.most_options is not None and most > benchmark.most_options:
        raise DataError(
            f"{name} has {most} options a question, {benchmark.name} has {benchmark.most_options}: "
            "this is another data set's file"
        )


# MedXpertQA repeats the options, which it also gives apart, at the end of the question.
_OPTIONS_IN_STEM = re.compile(r"\n\s*Answer Choices:\s*(?=\(A\))")

_STEMS = (
    *("question", "Question", "QUESTION", "sent1", "qtext"),
    *("problem_text", "question_text"),  # IgakuQA; JMLE2026-Bench
)
# One field holds them all: MedQA, the reshaped sets and most others; CMExam; CMB; MMLU on the hub;
# FrenchMedMCQA and HEAD-QA.
_OPTION_FIELDS = ("options", "Options", "option", "choices", "answers")
_OPTION_COLUMNS: dict[str, OptionReader] = {
    # MMLU, CMMLU, C-Eval, the pharmacist exam; a Latin letter alone is an option column.
    "A": lambda fields: usable_options((c, fields.get(c)) for c in ascii_uppercase),
    # MedMCQA has four, Medbullets up to five.
    "opa": lambda fields: options_in_order(fields.get(f"op{c}") for c in "abcde"),
    "op1": lambda fields: options_in_order(fields.get(f"op{i}") for i in range(1, 6)),  # CareQA
    "answer_a": lambda fields: options_in_order(fields.get(f"answer_{c}") for c in "abcde"),
    "ending0": lambda fields: options_in_order(fields.get(f"ending{i}") for i in range(4)),
}
_KEYS = (
    "answer_idx",
    "answer",
    "Answer",
    "answer_letter",
    "answer_index",
    "correct_answers",
    "cop",
    "label",
    "ra",
    "final_decision",
)
# Two fields that name one and the same option: the letter and its text (MedQA, Medbullets;
# SuperGPQA), the letter and its index (MMLU-Pro).
_LETTER_FIELDS: dict[tuple[str, ...], str] = {
    ("answer_idx", "answer"): "answer_idx",
    ("answer", "answer_letter"): "answer_letter",
    ("answer", "answer_index"): "answer",
}
_YES_NO_MAYBE = {"A": "yes", "B": "no", "C": "maybe"}


def shape_of(rows: Sequence[Row], benchmark: Benchmark, *, name: str) -> Shape:
    """The one shape that a file's records have.

    Args:
        rows: All rows of the file.
        benchmark: Says what a number as a key means, and what to do about records without one.
        name: What error messages call the file.

    Raises:
        DataError: listing the fields, when no shape fits or two compete.
    """
    fields = {key for row in rows for key, value in row.fields.items() if value is not None}
    stems = [stem for stem in _STEMS if stem in fields]
    options = [field for field in (*_OPTION_FIELDS, *_OPTION_COLUMNS) if field in fields]
    keys = [key for key in _KEYS if key in fields]
    pair = _LETTER_FIELDS.get(tuple(keys)) if len(keys) == 2 else None
    if keys == ["final_decision"] and not options:
        options = ["final_decision"]
    if fields >= _GPQA and len(stems) == 1:
        return Shape(stems[0], _options_by_chance, _correct_answer)
    if len(stems) != 1 or len(options) != 1 or (len(keys) > 1 and pair is None):
        raise DataError(_unknown(name, fields, stems, options, keys))
    if not keys:
        raise DataError(f"{name} has no answer key. {benchmark.keyless}")
    if options == ["final_decision"]:
        return Shape(stems[0], lambda _: dict(_YES_NO_MAYBE), _decision)
    if pair is not None:
        [other] = (key for key in keys if key != pair)
        read = _two_keys(pair, other)
    else:
        read = _key_reader(keys[0], options[0], rows, name, benchmark.key_counts_from)
    places = (options[0], pair or keys[0])
    return Shape(stems[0], _option_reader(options[0], rows), read, places)


# GPQA gives the right option and three wrong ones, and no order.
_CORRECT, _INCORRECT = "Correct Answer", tuple(f"Incorrect Answer {n}" for n in (1, 2, 3))
_GPQA = {_CORRECT, *_INCORRECT}


def _options_by_chance(fields: Fields) -> dict[str, str]:
    """An order that the texts themselves decide: the same in every copy, and for every reader."""
    texts = [text_of(fields.get(name)) for name in (_CORRECT, *_INCORRECT)]
    stem = text_of(fields.get("Question"))
    return options_in_order(sorted(texts, key=lambda text: fingerprint([stem, text])))


def _correct_answer(fields: Fields, options: Mapping[str, str]) -> str:
    letter = letter_of_text(text_of(fields.get(_CORRECT)), options)
    if letter is None:
        raise RowFault("the right option's text is another option's too, or blank")
    return letter


def _option_reader(field: str, rows: Sequence[Row]) -> OptionReader:
    if field in _OPTION_COLUMNS:
        return _OPTION_COLUMNS[field]
    lettered = texts_are_lettered(row.fields.get(field) for row in rows)
    return lambda fields: options_from(fields.get(field), lettered=lettered)


def _unknown(name: str, fields: set[str], *found: list[str]) -> str:
    parts = ("the question", "the options", "the key")
    faults = [
        f"{part} in {' and '.join(names)}" if names else f"no field for {part}"
        for part, names in zip(parts, found, strict=True)
        if len(names) != 1
    ]
    return (
        f"{name} is in no shape that is known for exams: {'; '.join(faults)}. "
        f"Its fields are: {', '.join(sorted(fields)) or 'none'}"
    )


def _key_reader(
    key: str, options: str, rows: Sequence[Row], name: str, counts_from: int | None
) -> KeyReader:
    if counts_from is not None:
        return _index_reader(key, counts_from)
    if key == "cop":
        return _index_reader(key, _cop_base(rows, name))
    if key in ("label", "correct_answers"):
        return _index_reader(key, 0)  # GBaker/MedQA-USMLE-4-options-hf; FrenchMedMCQA on the hub
    if key == "ra":
        return _index_reader(key, 1)  # HEAD-QA's `aid` of the right answer
    if key == "answer" and options == "choices":
        return _index_reader(key, 0)  # cais/mmlu counts from 0
    return lambda fields, texts: _letters_or_text(fields.get(key), texts)


def _index_reader(key: str, first_index: int) -> KeyReader:
    def read(fields: Fields, options: Mapping[str, str]) -> str:
        value = fields.get(key)
        # A list of numbers is read item by item.
        number = _whole_number(value)
        return key_letters(value if number is None else number, options, first_index=first_index)

    return read


def _two_keys(letter: str, other: str) -> KeyReader:
    """A letter, and the same option's text or index: they must not speak of two options."""

    def read(fields: Fields, options: Mapping[str, str]) -> str:
        letters = key_letters(fields.get(letter), options)
        second = fields.get(other)
        if other == "answer_index":
            named, means = key_letters(_whole_number(second), options, first_index=0), "counts to"
        else:
            named, means = letter_of_text(second, options) or letters, "is the text of"
        if named not in letters:
            raise RowFault(f"{letter} says {letters}, {other} {means} {named}")
        return letters

    return read


def _letters_or_text(key: Any, options: Mapping[str, str]) -> str:
    by_text = letter_of_text(key, options) if isinstance(key, str) else None
    if by_text is None or is_blank_key(key):
        return key_letters(key, options)
    if is_letters(key) and set(key.upper()) <= options.keys() and key.upper() != by_text:
        raise RowFault(f"the key {key!r} is a letter, and the text of option {by_text}")
    return by_text


def _decision(fields: Fields, options: Mapping[str, str]) -> str:
    decision = text_of(fields.get("final_decision"))
    if not decision:
        raise RowFault("no key")
    letter = letter_of_text(decision, options)
    if letter is None:
        raise RowFault(f"final_decision {decision!r} is not yes, no or maybe")
    return letter


def _cop_base(rows: Sequence[Row], name: str) -> int:
    """Which `cop` means option A: 1 in MedMCQA's GitHub files, 0 on the hub.

    Four options leave no doubt once a 0 or a 4 occurs. Where neither does, the records must say it
    themselves; nothing else in them tells the two releases apart.
    """
    stated = {row.fields["cop_base"] for row in rows if "cop_base" in row.fields}
    if stated in ({0}, {1}):
        return int(stated.pop())
    seen = {_whole_number(row.fields.get("cop")) for row in rows} - {None, -1}
    if not stated and (not seen or (0 in seen) != (4 in seen)):
        return 1 if 4 in seen else 0
    raise DataError(
        f"{name}: cannot tell whether `cop` counts from 0 (the hub's files) or from 1 (GitHub's): "
        f"its values are {', '.join(map(str, sorted(v for v in seen if v is not None)))}. "
        'Say it in every record, as "cop_base": 0 or "cop_base": 1'
    )


def _whole_number(value: Any) -> int | None:
    """An int, also one that a CSV file or a data frame wrote as "3" or 3.0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value) else None
    return value if isinstance(value, int) else None


# CMB repeats these in its key: they show a key that belongs to other questions.
_REPEATED = ("exam_type", "exam_class", "exam_subject", "question_type")

_IDS = ("id", "pmid", "pubid")


def join_key(rows: Sequence[Row], key_rows: Sequence[Row], part: Part, *, name: str) -> list[Row]:
    """The questions with their keys; where the key selects, without those that it does not name.

    Args:
        rows: The questions, with an `id` (PubMedQA: or a `pmid`, on the hub a `pubid`).
        key_rows: Records of `id` and `answer`, or one record that has an answer for each id.
        part: Says which field takes the key.
        name: What error messages call the key file.

    Raises:
        DataError: an id has two answers, or the key tells other facts of a question than it does.
    """
    keys = _by_id(key_rows, name)
    joined: list[Row] = []
    offences: list[str] = []
    for row in rows:
        key = keys.get(_id_of(row))
        if key is not None:
            offences += _contradictions(row, key)
            joined.append(Row(row.number, {**row.fields, part.key_field: key["answer"]}))
        elif not part.key_selects:
            joined.append(row)
    if offences:
        raise DataError(offence_list(f"{name} is the key of other questions", offences))
    return joined


def _by_id(key_rows: Sequence[Row], name: str) -> dict[str, dict[str, Any]]:
    records = [dict(row.fields) for row in key_rows]
    if len(records) == 1 and "answer" not in records[0]:
        records = [{"id": key, "answer": answer} for key, answer in records[0].items()]
    keys: dict[str, dict[str, Any]] = {}
    offences = []
    for record in records:
        if "answer" not in record or "id" not in record:
            raise DataError(f"{name}: a record without `id` or `answer`: {', '.join(record)}")
        known = keys.setdefault(str(record["id"]), record)
        if known["answer"] != record["answer"]:
            offences.append(f"id {record['id']}: {known['answer']} and {record['answer']}")
    if offences:
        raise DataError(offence_list(f"{name} has two answers for one id", offences))
    return keys


def _id_of(row: Row) -> str:
    return next((str(row.fields[name]) for name in _IDS if name in row.fields), "")


def _contradictions(row: Row, key: dict[str, Any]) -> list[str]:
    return [
        f"id {key['id']}: {field} is {row.fields[field]!r}, the key says {key[field]!r}"
        for field in _REPEATED
        if field in row.fields and field in key and row.fields[field] != key[field]
    ]
