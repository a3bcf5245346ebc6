"""Answer keys in every form that data sets give them, as sorted letters."""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from mingmoe_eval.exams.options import RowFault

_BLANK = {"", "nan", "null", "none", "无答案"}
_LETTERS = re.compile(r"[(\[]?[A-Za-z](?:[\s,、;/()]*[A-Za-z])*[)\]]?\.?")


def key_letters(key: Any, options: Mapping[str, str], *, first_index: int | None = None) -> str:
    """The letters of the right options, each once and sorted.

    Args:
        key: Letters ("AC", "C,A", "(A)", a list of them), or a number.
        options: Text by letter.
        first_index: Which number means the first option; None where numbers mean nothing.

    Raises:
        RowFault: there is no key, it cannot be read, or it names an option that is not there.
    """
    letters = _letters(key, first_index)
    if strangers := sorted(letters - options.keys()):
        there = ", ".join(options)
        raise RowFault(f"the key {''.join(strangers)} is not among the options {there}")
    return "".join(sorted(letters))


def letter_of_text(key: Any, options: Mapping[str, str]) -> str | None:
    """The letter of the one option whose text is `key`, up to case and blanks, or None."""
    wanted = _folded(str(key))
    found = [letter for letter, text in options.items() if _folded(text) == wanted]
    return found[0] if len(found) == 1 else None


def is_blank_key(key: Any) -> bool:
    """True where a data set left the key out or withheld it."""
    if key is None or (isinstance(key, float) and math.isnan(key)) or key == []:
        return True
    return isinstance(key, str) and key.strip().lower() in _BLANK


def is_letters(key: Any) -> bool:
    """True for a text that can only be a run of option letters, however they are parted."""
    return isinstance(key, str) and bool(_LETTERS.fullmatch(_half_width(key)))


def _letters(key: Any, first_index: int | None) -> set[str]:
    if is_blank_key(key):
        raise RowFault("no key")
    if isinstance(key, list | tuple):
        return set().union(*(_letters(item, first_index) for item in key))
    if isinstance(key, int) and not isinstance(key, bool):
        return {_letter_at(key, first_index)}
    if is_letters(key):
        return set(re.findall("[A-Z]", _half_width(key).upper()))
    raise RowFault(f"the key {key!r} is not made of option letters")


def _letter_at(number: int, first_index: int | None) -> str:
    if first_index is None:
        raise RowFault(f"the key {number}: nothing says whether 0 or 1 is the first option")
    position = number - first_index
    if number == -1 and first_index == 0:
        raise RowFault("no key (-1 stands for a withheld one)")
    if not 0 <= position < 26:
        raise RowFault(f"the key {number} is not among the options")
    return chr(ord("A") + position)


def _half_width(key: str) -> str:
    return unicodedata.normalize("NFKC", key).strip()


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
