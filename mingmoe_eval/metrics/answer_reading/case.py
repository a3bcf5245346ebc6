"""One reply to read, and what a rule makes of it."""

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from mingmoe_eval.metrics.answer_reading.reply_text import fold

_LONGEST_QUOTE = 80
# A reply stuck in a loop can hold 100,000 cues or letters; the last ones decide.
_MOST_MATCHES = 400


@dataclass(frozen=True, slots=True)
class Reading:
    """The letters that a reply was read to give, by which rule, and from which words.

    `letters` are sorted, unique and among the options; None means unanswered.
    """

    letters: tuple[str, ...] | None
    rule: str
    quote: str = ""

    @property
    def answered(self) -> str | None:
        """The letters as one string, such as `AC`."""
        return None if self.letters is None else "".join(self.letters)


@dataclass(frozen=True, slots=True)
class Case:
    """A visible reply with the options it answers to; option texts are folded like the reply."""

    text: str
    options: Mapping[str, str]
    single: bool

    @classmethod
    def of(cls, text: str, options: Mapping[str, str], *, single: bool) -> Self:
        """The case of a visible reply; the full stop of an option's text is not part of it."""
        folded = {letter: fold(words).strip(" \t\n.。;,") for letter, words in options.items()}
        return cls(text, folded, single)

    def decide(self, letters: Sequence[str], rule: str, quote: str) -> Reading:
        """The reading of letters in the order in which the reply states them.

        A single-answer item keeps the first letter, as every official script does. A letter that
        is no option leaves the item unanswered: dropping it would turn `AF` into a right `A`.
        """
        stated = letters[:1] if self.single else letters
        if any(letter not in self.options for letter in stated):
            return unanswered("names a letter that is no option", quote)
        if self.single and len(set(letters)) > 1:
            rule += ", the first of several letters"
        return Reading(tuple(sorted(set(stated))), rule, shorten(quote))


def unanswered(why: str, quote: str = "") -> Reading:
    """A reading without letters, with its reason."""
    return Reading(None, why, shorten(quote))


def last_matches(pattern: re.Pattern[str], text: str) -> deque[re.Match[str]]:
    """The pattern's last matches in the text, in order: as many as any sane reply can hold."""
    return deque(pattern.finditer(text), maxlen=_MOST_MATCHES)


def shorten(text: str) -> str:
    """A text on one line, cut to what a report's table can show."""
    line = " ".join(text[: 4 * _LONGEST_QUOTE].split())
    return line if len(line) <= _LONGEST_QUOTE else line[: _LONGEST_QUOTE - 1] + "…"
