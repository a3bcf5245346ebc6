"""The shapes that exam records come in, told apart by their fields.

A shape is where a file keeps the stem, the options and the key of a question. It is found from the
fields of the whole file; fields that fit none, or two that compete, are refused with the fields
listed. Nothing is told by the values of one row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from mingmoe_eval.errors import DataError
from mingmoe_eval.exams.answer_keys import is_blank_key, is_letters, key_letters, letter_of_text
from mingmoe_eval.exams.options import (
    RowFault,
    options_from,
    options_in_order,
    text_of,
    usable_options,
)
from mingmoe_eval.record_files import Row

Fields = Mapping[str, Any]
OptionReader = Callable[[Fields], dict[str, str]]
KeyReader = Callable[[Fields, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How to read a question's stem, options and key from a row; the readers raise RowFault."""

    stem: str
    options: OptionReader
    key: KeyReader


_STEMS = ("question", "Question", "QUESTION", "sent1")
_OPTIONS: dict[str, OptionReader] = {
    "options": lambda fields: options_from(fields.get("options")),  # MedQA, the reshaped sets
    "Options": lambda fields: options_from(fields.get("Options")),  # CMExam
    "option": lambda fields: options_from(fields.get("option")),  # CMB
    "choices": lambda fields: options_from(fields.get("choices")),  # MMLU on the hub
    # MMLU, CMMLU, C-Eval, the pharmacist exam; a Latin letter alone is an option column.
    "A": lambda fields: usable_options((c, fields.get(c)) for c in ascii_uppercase),
    "opa": lambda fields: options_in_order(fields.get(f"op{c}") for c in "abcd"),  # MedMCQA
    "ending0": lambda fields: options_in_order(fields.get(f"ending{i}") for i in range(4)),
}
_KEYS = ("answer_idx", "answer", "Answer", "cop", "label", "final_decision")
_YES_NO_MAYBE = {"A": "yes", "B": "no", "C": "maybe"}


def shape_of(rows: Sequence[Row], *, name: str, keyless: str) -> Shape:
    """The one shape that a file's records have.

    Args:
        rows: All rows of the file.
        name: What error messages call the file.
        keyless: What to do about records without a key, in words for the user.

    Raises:
        DataError: listing the fields, when no shape fits or two compete.
    """
    fields = {key for row in rows for key, value in row.fields.items() if value is not None}
    stems = [stem for stem in _STEMS if stem in fields]
    options = [marker for marker in _OPTIONS if marker in fields]
    keys = [key for key in _KEYS if key in fields]
    if keys == ["answer_idx", "answer"]:  # letter and text of one and the same option
        keys = ["answer_idx"]
    if keys == ["final_decision"] and not options:
        options = ["final_decision"]
    if len(stems) != 1 or len(options) != 1 or len(keys) > 1:
        raise DataError(_unknown(name, fields, stems, options, keys))
    if not keys:
        raise DataError(f"{name} has no answer key. {keyless}")
    if options == ["final_decision"]:
        return Shape(stems[0], lambda _: dict(_YES_NO_MAYBE), _decision)
    return Shape(stems[0], _OPTIONS[options[0]], _key_reader(keys[0], options[0], rows, name))


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


def _key_reader(key: str, options: str, rows: Sequence[Row], name: str) -> KeyReader:
    if key == "cop":
        return _index_reader(key, _cop_base(rows, name))
    if key == "label":
        return _index_reader(key, 0)  # GBaker/MedQA-USMLE-4-options-hf counts from 0
    if key == "answer" and options == "choices":
        return _index_reader(key, 0)  # cais/mmlu counts from 0
    if key == "answer_idx":
        return _letter_and_text
    return lambda fields, texts: _letters_or_text(fields.get(key), texts)


def _index_reader(key: str, first_index: int) -> KeyReader:
    def read(fields: Fields, options: Mapping[str, str]) -> str:
        value = fields.get(key)
        number = _whole_number(value)
        return key_letters(value if number is None else number, options, first_index=first_index)

    return read


def _letter_and_text(fields: Fields, options: Mapping[str, str]) -> str:
    """MedQA gives the right option's letter and its text: they must not speak of two options."""
    letters = key_letters(fields.get("answer_idx"), options)
    by_text = letter_of_text(fields.get("answer"), options)
    if by_text is not None and by_text not in letters:
        raise RowFault(f"answer_idx says {letters}, answer is the text of {by_text}")
    return letters


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
    if isinstance(value, str) and value.strip().lstrip("-").isascii():
        text = value.strip()
        return int(text) if text.lstrip("-").isdigit() and len(text) < 10 else None
    return value if isinstance(value, int) else None
