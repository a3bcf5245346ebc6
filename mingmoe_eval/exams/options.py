"""Options in every form that data sets give them, as texts by letter."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any


class RowFault(ValueError):
    """Why one row cannot be used; its text is the reason that is reported."""


def options_from(value: Any) -> dict[str, str]:
    """Options from one field: a mapping, a list of key and value, a list of texts, or lines.

    Blank options are dropped and the others keep their letters; one-character options are real
    options (single-character organ names) and stay.

    Raises:
        RowFault: the options cannot be told apart, or fewer than two are left.
    """
    if isinstance(value, str):
        return usable_options(_from_lines(value))
    if isinstance(value, Mapping):
        if value.keys() == {"key", "value"}:  # a list of pairs, as Arrow turns it on its side
            return usable_options(zip(value["key"], value["value"], strict=True))
        return usable_options(value.items())
    if isinstance(value, Sequence):
        if value and all(isinstance(item, Mapping) for item in value):
            return usable_options(_from_pairs(value))
        return options_in_order(value)
    raise RowFault("no options")


def options_in_order(texts: Iterable[Any]) -> dict[str, str]:
    """Options that have no letters of their own: the first is A."""
    return usable_options(zip(ascii_uppercase, texts, strict=False))


def usable_options(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Texts by letter, in the order of the letters, without the blank ones.

    Raises:
        RowFault: a key is no letter or comes twice, a text is no text, or fewer than two are left.
    """
    options: dict[str, str] = {}
    for key, value in pairs:
        letter = str(key).strip().strip("()（）.").upper()
        text = text_of(value)
        if not text:
            continue
        if len(letter) != 1 or letter not in ascii_uppercase:
            raise RowFault(f"an option is called {key!r}, which is no letter")
        if letter in options:
            raise RowFault(f"two options are called {letter}")
        options[letter] = text
    if len(options) < 2:
        raise RowFault(f"{len(options) or 'no'} option{'' if len(options) == 1 else 's'}")
    return dict(sorted(options.items()))


def text_of(value: Any) -> str:
    """A cell as text without blanks around it; None and NaN are blank, a number is its digits.

    Raises:
        RowFault: the cell is something that has no one spelling as text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowFault(f"{value!r} where a text should be")


def _from_pairs(items: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    if any(not {"key", "value"} <= item.keys() for item in items):
        raise RowFault("an option without `key` or `value`")
    return [(item["key"], item["value"]) for item in items]


# "A text" (CMExam), "(A) text" (the reshaped sets), "A. text"; an empty option is a lone letter.
_MARKER = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])(?=[\s.．、:：]|$))[.．、:：]?")


def _from_lines(text: str) -> list[tuple[str, str]]:
    """One option a line, the lines parted by a newline or by a backslash and an n.

    A line without a letter goes on with the option before it.
    """
    found: list[tuple[str, str]] = []
    for line in re.split(r"\r?\n|\\n", text):
        marker = _MARKER.match(line)
        if marker:
            letter = marker[1] or marker[2]
            if found and letter <= found[-1][0]:
                order = "".join(known for known, _ in found) + letter
                raise RowFault(f"options out of order or a second block of them: {order}")
            found.append((letter, line[marker.end() :]))
        elif found:
            letter, before = found[-1]
            found[-1] = (letter, f"{before}\n{line}")
        elif line.strip():
            raise RowFault(f"the options begin with {line.strip()[:20]!r}, not with a letter")
    return found
