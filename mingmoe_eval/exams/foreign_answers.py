"""Answers that a model gave elsewhere, read from a file: a reply or letters a question.

A file is one record a question, in any format that data sets come in. What its columns hold is told
by their names; names that are not known are given as `column=field`.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mingmoe_eval.errors import DataError, MissingDataError, UsageError, offence_list
from mingmoe_eval.exams.fields import is_blank_key, is_letters
from mingmoe_eval.json_files import JsonFault, parse
from mingmoe_eval.record_files import SUFFIXES, Row, parse_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignAnswer:
    """One question as a file has it; None where the file does not say.

    Attributes:
        number: The record's place in the file.
        id: What the file calls the question.
        question: Its text, or as much of it as the file holds.
        key: The right answer: sorted letters, or a text such as "yes" or "3.14".
        reply: What the model wrote; the first where it was asked several times.
        more_replies: The others.
        letters: The answer that was read there: sorted letters, or a text; "" for none.
        prompt_tokens: Of the prompt.
        generated_tokens: Of the reply.
        seconds: How long it took.
    """

    number: int
    id: str | None = None
    question: str | None = None
    key: str | None = None
    reply: str | None = None
    more_replies: tuple[str, ...] = ()
    letters: str | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0


# The first name that a file has counts. A dot goes one level down.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "realidx", "doc_id", "qid", "index"),
    # A whole prompt has the question in it; MING's files have nothing else.
    "question": ("question", "Question", "question_text", "additional_info.question", "prompt"),
    "key": (
        *("answer_idx", "gold", "key", "label", "correct_answer", "answer_letter"),
        *("additional_info.answer_idx", "additional_info.answer"),
    ),
    "reply": (
        *("reply", "response", "raw_response", "output", "text", "generated_text"),
        *("model_output", "model_answer", "generation", "completion"),
    ),
    "letters": ("letters", "predicted_answer", "predicted", "prediction", "pred", "answer_choice"),
    "prompt_tokens": ("prompt_tokens", "token_usage.prompt_tokens", "usage.prompt_tokens"),
    "generated_tokens": (
        "generated_tokens",
        "completion_tokens",
        "token_usage.completion_tokens",
        "usage.completion_tokens",
    ),
    "seconds": ("seconds", "time_elapsed", "latency"),
}
"""What a column can hold, and the names by which it is known."""


def read_answers(path: Path, columns: Mapping[str, str] | None = None) -> list[ForeignAnswer]:
    """The answers in a file.

    Args:
        path: JSON Lines, JSON, CSV or Parquet; or a folder of MIRAGE's predictions, one file a
            question.
        columns: By field of ForeignAnswer, the column that holds it, where its name does not tell.

    Raises:
        UsageError: a column is named that the file lacks, or for a field that there is not.
        DataError: there is neither a reply nor letters, or a value cannot be what it should be.
    """
    rows = _rows(path)
    named = _columns(rows, columns or {}, path)
    if not {"reply", "letters"} & named.keys():
        there = ", ".join(sorted({name for row in rows for name in row.fields}))
        raise DataError(
            f"{path}: no column holds a reply or letters; say which one does, for instance "
            f"--columns reply=NAME. Its columns are: {there}"
        )
    return [_answer(row, named, path) for row in rows]


def answer_files(path: Path) -> list[Path]:
    """The file, or those of the folder, in the order of their names."""
    return sorted(path.glob("*.json")) if path.is_dir() else [path]


def _rows(path: Path) -> list[Row]:
    if path.is_dir():
        return _mirage_rows(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: answers are read from {', '.join(SUFFIXES)} files")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    rows = parse_rows(data, name=str(path), suffix=path.suffix)
    if not rows:
        raise DataError(f"{path} holds no records")
    return rows


def _mirage_rows(folder: Path) -> list[Row]:
    """MIRAGE's predictions: `test_<id>.json`, a list of replies, of which the first counts.

    https://github.com/Teddy-XiongGZ/MIRAGE, src/evaluate.py. A reply is JSON, more or less, that
    ends with `answer_choice`; where the model gave none, the list is empty.
    """
    rows, offences = [], []
    for number, file in enumerate(answer_files(folder), start=1):
        try:
            replies = parse(file.read_bytes())
            if not isinstance(replies, list) or not all(isinstance(r, str) for r in replies):
                raise JsonFault("not a list of replies")
        except (JsonFault, OSError) as error:
            offences.append(f"{file.name}: {error}")
            continue
        _, _, name = file.stem.partition("_")
        rows.append(Row(number, {"id": name or file.stem, "reply": "".join(replies[:1])}))
    if offences:
        raise DataError(offence_list(f"{folder}: {len(offences)} bad files", offences))
    if not rows:
        raise DataError(f"{folder} holds no predictions (one .json a question)")
    return rows


def _columns(rows: Sequence[Row], given: Mapping[str, str], path: Path) -> dict[str, str]:
    if unknown := sorted(given.keys() - COLUMNS.keys()):
        raise UsageError(
            f"--columns does not know {', '.join(unknown)}; it takes {', '.join(COLUMNS)}"
        )
    known = [name for name in given.values() if not any(_has(row, name) for row in rows)]
    if known:
        raise UsageError(f"{path} has no column {', '.join(map(repr, known))}")
    found = dict(given)
    for field, names in COLUMNS.items():
        if field not in found and (
            name := next((n for n in names if any(_has(row, n) for row in rows)), None)
        ):
            found[field] = name
    return found


def _has(row: Row, name: str) -> bool:
    return _cell(row.fields, name) is not None


def _cell(record: Mapping[str, Any], name: str) -> Any:
    if name in record:
        value = record[name]
    else:
        outer, _, inner = name.partition(".")
        below = record.get(outer)
        value = below.get(inner) if inner and isinstance(below, Mapping) else None
    # A data frame's word for an empty cell.
    return None if isinstance(value, float) and math.isnan(value) else value


def _answer(row: Row, named: Mapping[str, str], path: Path) -> ForeignAnswer:
    cells = {field: _cell(row.fields, column) for field, column in named.items()}
    facts: dict[str, Any] = {"number": row.number}
    for field in fields(ForeignAnswer):
        value = cells.get(field.name)
        if value is None:
            continue
        if field.name == "reply" and _is_texts(value):
            value, facts["more_replies"] = value[0], tuple(value[1:])
        try:
            facts[field.name] = _READ.get(field.name, str)(value)
        except (TypeError, ValueError) as error:
            place = f"{path}, record {row.number}"
            raise DataError(f"{place}: {named[field.name]} is {value!r}: {error}") from error
    if "letters" in named and "letters" not in facts:
        facts["letters"] = ""  # nothing was read of this reply
    return ForeignAnswer(**facts)


def names_letters(text: str) -> bool:
    """Whether an answer is letters of options; "yes" and "no" are words, and so is any other word.

    Letters that stand side by side are those of ten options at most.
    """
    letters = [char for char in text.upper() if char.isalpha()]
    together = len(letters) == len(text.strip()) > 1
    return is_letters(text) and not (together and not set(letters) <= set("ABCDEFGHIJ"))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _as_answer(value: Any) -> str:
    """Letters sorted, each once; any other answer as its text: JMLE asks for numbers too."""
    items = value if isinstance(value, list | tuple) else [value]
    texts = [str(item).strip() for item in items if not is_blank_key(item)]
    narrow = [unicodedata.normalize("NFKC", text) for text in texts]
    if all(map(names_letters, narrow)):
        return "".join(sorted({c for c in "".join(narrow).upper() if c.isalpha()}))
    return ",".join(texts)


def _number(value: Any) -> float:
    """A number, also one in a CSV file, where an empty cell says nothing."""
    return 0.0 if isinstance(value, str) and not value.strip() else float(value)


def _count(value: Any) -> int:
    number = _number(value)
    if isinstance(value, bool) or not number.is_integer() or number < 0:
        raise ValueError("a number of tokens is a whole number from 0 up")
    return int(number)


_READ: Mapping[str, Any] = {
    "key": _as_answer,
    "letters": _as_answer,
    "prompt_tokens": _count,
    "generated_tokens": _count,
    "seconds": _number,
}


def refuse_doubles(answers: Sequence[ForeignAnswer], path: Path) -> None:
    """Refuse a file that answers a question twice: which answer counts would be a guess.

    Raises:
        DataError: naming every id that comes twice.
    """
    seen: set[str] = set()
    twice = []
    for answer in answers:
        if answer.id is not None and answer.id in seen:
            twice.append(f"id {answer.id}, record {answer.number}")
        seen |= {answer.id} if answer.id is not None else set()
    if twice:
        raise DataError(offence_list(f"{path} answers questions twice", twice))
