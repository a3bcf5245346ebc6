"""What the cells of an exam's row mean: options, answer keys, kinds of question, faults of copying.

Data sets write each of them in many ways; every way becomes the same thing, or a RowFault.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal


class RowFault(ValueError):
    """Why one row cannot be used; its text is the reason that is reported."""


def options_from(value: Any, *, lettered: bool = False) -> dict[str, str]:
    """Options from one field: a mapping, a list of key and value, a list of texts, or lines.

    Blank options are dropped and the others keep their letters; one-character options are real
    options (single-character organ names) and stay.

    Args:
        value: The field.
        lettered: The file writes the letters into the texts of a list (`texts_are_lettered`).

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
        return _from_texts(value, lettered=lettered)
    raise RowFault("no options")


def texts_are_lettered(fields: Iterable[Any]) -> bool:
    """Whether lists of option texts bring their letters: `["A. x", "C. y"]`.

    One such list may be chance (`["E. coli", "K. pneumoniae"]`); a file whose lists nearly all look
    like that letters its options, and their places then mean nothing.
    """
    lists = [[text for text in value if text.strip()] for value in fields if _is_texts(value)]
    return bool(lists) and sum(_lettered(texts) is not None for texts in lists) >= 0.9 * len(lists)


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
        # Sets that end every option with a full stop leave "." where there is none.
        if text in ("", ".", "。"):
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


# "A. text", "(A) text", "A、text"; "A text" may be a word of the text ("A fistula") and is left.
_LETTERED = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])\s*[.、:)])\s*(.*)", re.DOTALL)


def _lettered(texts: Sequence[str]) -> list[tuple[str, str]] | None:
    """Letter and text of options that bring their letters; None where they do not.

    Letters must rise, and must not run further than two unused ones: `E. coli` and `K. pneumoniae`
    are names.
    """
    found = []
    for text in texts:
        match = _LETTERED.fullmatch(unicodedata.normalize("NFKC", text[:4]) + text[4:])
        if match is None:
            return None
        found.append((match[1] or match[2], match[3]))
    letters = [letter for letter, _ in found]
    rising = letters == sorted(set(letters))
    return (
        found if rising and letters and letters[-1] <= ascii_uppercase[len(letters) + 1] else None
    )


def _from_texts(texts: Sequence[Any], *, lettered: bool) -> dict[str, str]:
    """A list of texts: by their letters where the file letters them, else by their places."""
    cells = zip(ascii_uppercase, map(text_of, texts), strict=False)
    by_place = {letter: text for letter, text in cells if text}
    pairs = _lettered(list(by_place.values()))
    if lettered:
        if pairs is None:
            raise RowFault("an option without the letter that the file's other options bring")
        return usable_options(pairs)
    if pairs and [letter for letter, _ in pairs] != list(by_place) and not _are_species(pairs):
        letters = ", ".join(letter for letter, _ in pairs)
        raise RowFault(f"the options call themselves {letters}, their places say otherwise")
    return usable_options(by_place.items())


def _are_species(pairs: Iterable[tuple[str, str]]) -> bool:
    """`A. baumannii`, `B. fragilis`, `E. coli`: a genus cut to its letter."""
    return all(text[:1].isascii() and text[:1].islower() for _, text in pairs)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


# What sets call the letter and the text of an option: MedQA, MedXpertQA, HEAD-QA.
_PAIRS = (("key", "value"), ("letter", "content"), ("aid", "atext"))


def _from_pairs(items: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    for letter, text in _PAIRS:
        if all({letter, text} <= item.keys() for item in items):
            return [(_letter_of_id(item[letter]), item[text]) for item in items]
    raise RowFault("an option without `key` or `value`")


def _letter_of_id(name: Any) -> Any:
    """HEAD-QA numbers its options from 1."""
    number = isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= 26
    return ascii_uppercase[name - 1] if number else name


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
    if found and not any(text.strip() for _, text in found):
        return [(letter, letter) for letter, _ in found]  # places in a picture, called A to E
    return found


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
    """The letter of the one option whose text is `key`, or None.

    Up to width, case, blanks and the look-alikes of characters that PDFs bring (Kangxi radicals);
    but the same spelling counts first: "AA", "Aa" and "aa" are three genotypes.
    """
    for spelling in (str.strip, _folded):
        wanted = spelling(str(key))
        found = [letter for letter, text in options.items() if spelling(text) == wanted]
        if found:
            return found[0] if len(found) == 1 else None
    return None


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
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


Declares = Literal["one right option", "by question type", "how many are right", "nothing"]
"""What an exam tells the candidate about the number of right options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionType:
    """A kind of question: its name in results, and its label in a Chinese prompt."""

    name: str = ""
    label: str = ""
    single: bool
    shares_options: bool = False
    """Several questions in a row are asked over one block of options."""


_SINGLE = QuestionType(name="Single Choice", label="单项选择题", single=True)
_MULTIPLE = QuestionType(name="Multiple Choice", label="多项选择题", single=False)
_OPTIMAL = QuestionType(name="Optimal Choice", label="最佳选择题", single=True)
_MATCHED = QuestionType(
    name="Matched Selection", label="配伍选择题", single=True, shares_options=True
)
_INTEGRATED = QuestionType(name="Integrated Analysis", label="综合分析选择题", single=True)

# CMB writes Chinese types, the pharmacist exam English ones (its 2021 predecessor Chinese ones);
# the reshaped CMB records say it in `source`.
QUESTION_TYPES = {
    "单项选择题": _SINGLE,
    "单选题": _SINGLE,
    "cmb-single": _SINGLE,
    "多项选择题": _MULTIPLE,
    "多选题": _MULTIPLE,
    "Multiple Choice": _MULTIPLE,
    "最佳选择题": _OPTIMAL,
    "Optimal Choice": _OPTIMAL,
    "配伍选择题": _MATCHED,
    "Matched Selection": _MATCHED,
    "综合分析选择题": _INTEGRATED,
    "Integrated Analysis": _INTEGRATED,
}
"""What exams write, and the kind of question that it means."""


def question_type(fields: Mapping[str, Any], declares: Declares) -> QuestionType:
    """The kind of question that a row holds.

    Raises:
        RowFault: the row names a kind that we do not know.
    """
    if declares != "by question type":
        return QuestionType(single=declares == "one right option")
    text = text_of(fields.get("question_type")) or text_of(fields.get("source"))
    if not text:
        return QuestionType(single=False)
    if text not in QUESTION_TYPES:
        raise RowFault(f"an unknown question_type {text!r}")
    return QUESTION_TYPES[text]


_OPTION_LABEL = re.compile(r"(?<![A-Za-z])([A-E])\s*[.．、:：]")
_PICTURE = re.compile(r"如图|图示|见图|上图|下图|<img|\.(?:png|jpe?g|gif)\b", re.IGNORECASE)


def transcription_fault(stem: str, options: Mapping[str, str]) -> str | None:
    """What is wrong with a transcribed question, or None."""
    texts = {"question": stem, **{f"option {letter}": text for letter, text in options.items()}}
    for place, text in texts.items():
        if _holds_option_block(text):
            return f"the {place} holds a second block of options"
        if _PICTURE.search(text):
            return f"the {place} needs a picture"
        if "\ufffd" in text:
            return f"the {place} holds an unreadable character"
    return None


def _holds_option_block(text: str) -> bool:
    """Three labels in a row: one alone may be a blood group or a vitamin."""
    return "ABC" in "".join(_OPTION_LABEL.findall(text))
