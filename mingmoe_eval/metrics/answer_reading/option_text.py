"""Options named by their text instead of their letter."""

import re
from collections.abc import Iterator

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, last_matches, unanswered

_ASCII_WORD = re.compile(r"[A-Za-z0-9]")
_LEADING_MARKS = re.compile(r"[\s*_`\"'“”‘’()\[\]【】「」>#$:.-]{0,24}")
_NEGATED = re.compile(
    r"(?:不是|并非|不选|不属于|不包括|不考虑|排除|而非|除了?|\bnot\b|\bexcept\b|\brules? out\b"
    r"|\brather than\b|\bunlike\b|\bexcludes?\b)[^\n。.;,]{0,12}$",
    re.IGNORECASE,
)
_ANOTHER_FOLLOWS = re.compile(r"\s?(?:、|/|和|与|及|或|(?:and|or)\b)")
# "A. penicillin" names the option by its letter; whether that is an answer is for other rules.
# With a blank alone it must open a clause: "has a pneumothorax" holds no letter.
_LETTERED = re.compile(
    r"(?:\b[a-z][\s*]{0,2}[.:、)]"
    r"|(?:^|[\n。.;,:(]|选项?|\b(?:option|choice))[ \t*]{0,3}[a-z][ \t*])[.:、)\s*]{0,3}$"
)
# Shorter texts ("no", "肝") turn up in any prose: they count only where an answer is expected.
_SHORTEST_CHINESE = 2
_SHORTEST_ASCII = 4


def option_at(case: Case, position: int) -> tuple[str, int] | None:
    """The letter of the longest option whose text stands at `position`, and where it ends.

    Texts that are option letters themselves (a question on blood groups) are left to the letters.
    """
    best: tuple[str, int] | None = None
    for letter, words in case.options.items():
        end = position + len(words)
        stands = (
            words
            and (best is None or end > best[1])
            and case.text[position:end].lower() == words.lower()
            and _ends_word(case.text, end)
            and not _looks_like_letters(case, words)
        )
        if stands:
            best = (letter, end)
    return best


def leading_text(case: Case) -> Reading | None:
    """The option whose text opens the reply: "Yes, because ..."."""
    marks = _LEADING_MARKS.match(case.text)
    found = option_at(case, marks.end() if marks else 0)
    if found is None:
        return None
    letter, end = found
    if not case.single or _ANOTHER_FOLLOWS.match(case.text, end):
        return None
    return case.decide([letter], "the option's text at the start", case.text[:end])


def mentioned_text(case: Case) -> Reading | None:
    """The options whose texts the reply mentions anywhere, without a negation before them.

    A single-answer item must mention exactly one; texts that contain other options' texts are
    matched first, so that "动脉硬化" does not also count as "硬化".
    """
    mentions = dict(_mentions(case))
    if not mentions:
        return None
    if case.single and len(mentions) > 1:
        return unanswered("mentions several options without deciding", " ".join(mentions.values()))
    return case.decide(sorted(mentions), "the option's text", " ".join(mentions.values()))


def _mentions(case: Case) -> Iterator[tuple[str, str]]:
    lowered = case.text.lower()
    present = {
        words.lower(): letter
        for letter, words in case.options.items()
        if _long_enough(words) and words.lower() in lowered
    }
    if not present:
        return
    longest_first = sorted(present, key=len, reverse=True)
    for match in last_matches(re.compile("|".join(map(re.escape, longest_first))), lowered):
        if not _starts_word(lowered, match.start()) or not _ends_word(lowered, match.end()):
            continue
        if _LETTERED.search(lowered, max(0, match.start() - 12), match.start()):
            continue
        if not _NEGATED.search(lowered, max(0, match.start() - 30), match.start()):
            yield present[match.group()], match.group()


def _looks_like_letters(case: Case, words: str) -> bool:
    return list(words) == sorted(set(words)) and set(words) <= set(case.options)


def _long_enough(words: str) -> bool:
    return len(words) >= (_SHORTEST_ASCII if words.isascii() else _SHORTEST_CHINESE)


def _starts_word(text: str, start: int) -> bool:
    return start == 0 or not (_ASCII_WORD.match(text[start]) and _ASCII_WORD.match(text[start - 1]))


def _ends_word(text: str, end: int) -> bool:
    return end >= len(text) or not (
        _ASCII_WORD.match(text[end]) and _ASCII_WORD.match(text[end - 1])
    )
