"""HuatuoGPT-o1's rules: the first and the last letter found, and always an answer.

The published number is the better of the two accuracies over a whole data set, so `read` gives
both letters as `first/last`; `exams.scoring` folds them.
Source: the scorer of github.com/FreedomIntelligence/HuatuoGPT-o1 (`match_choice`, `score`), read
in public copies of it.
"""

import difflib
import re
from collections.abc import Mapping

from mingmoe_eval.metrics.answer_reading.compat.mode import CompatMode

NAME = "o1-best-of-head-tail"

_FINAL_HEADING = "## Final Response\n\n"
_STRICT = re.compile(r"answer is\s*([A-N])")
_LOOSE = r"(?:[\u4e00-\u9fff]|\W|^)(?!A )([{letters}])(?:\W|[\u4e00-\u9fff]|$)"
_ALL_LETTERS = "ABCDEFGHIJKLMN"


def read(reply: str, options: Mapping[str, str], single: bool) -> str:
    """`first/last`: after the strict cue, else any letter alone, else by text, else by likeness."""
    text = reply.split(_FINAL_HEADING)[-1]
    loose = _LOOSE.format(letters=_ALL_LETTERS[: len(options)] or "A")
    letters = _STRICT.findall(text) or re.findall(loose, text)
    if letters:
        return f"{letters[0]}/{letters[-1]}"
    return _by_text(text.lower(), options) or _most_alike(text.lower(), options)


def correct(answered: str | None, gold: str) -> bool:
    """Whether the last letter is right; `head_and_tail` tells both apart."""
    return head_and_tail(answered, gold)[1]


def head_and_tail(answered: str | None, gold: str) -> tuple[bool, bool]:
    """Whether the first and whether the last letter is right."""
    first, _, last = (answered or "").partition("/")
    return first == gold, last == gold


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    named = {letter: words.lower() for letter, words in options.items() if words.lower() in text}
    if not named:
        return None
    # Both look for the latest place: "first" only in that it goes by each text's first occurrence.
    first = max(named, key=lambda letter: text.index(named[letter]))
    last = max(named, key=lambda letter: text.rindex(named[letter]))
    return f"{first}/{last}"


def _most_alike(text: str, options: Mapping[str, str]) -> str:
    def likeness(letter: str) -> float:
        return difflib.SequenceMatcher(None, options[letter].lower(), text).ratio()

    # The last of equally alike options, as in the script.
    best = max(reversed(list(options)), key=likeness)
    return f"{best}/{best}"


MODE = CompatMode(read, correct)
