"""Answers that open a reply, or are all of it: `B`, `A、C`, "B. text", "dopamine"."""

import re

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, unanswered
from mingmoe_eval.metrics.answer_reading.letters import option_mark_at, statement_at
from mingmoe_eval.metrics.answer_reading.option_text import option_at
from mingmoe_eval.metrics.answer_reading.verdicts import judged

_BARE = re.compile(
    r"[\s*_`\"'“”‘’()\[\]{}【】「」<$#>.:-]{0,12}(?:选项|选|答案|options?\b|answer\b)?[\s:*(]{0,4}"
    r"(?P<letters>[A-Za-z](?:(?:[\s、,;/&+|.()*]{0,4}|\s?(?:and|和|与|及)\s?)[A-Za-z]){0,25})"
    r"(?:选项|项)?[\s*_`\"'“”‘’()\[\]{}【】「」<>$.。:、,;!-]{0,12}",
    re.IGNORECASE,
)
_LOWER_CASE_WORD_AND = re.compile(r"\band\b")
_LEADING_MARKS = re.compile(r"[\s*_`\"'“”‘’()\[\]【】「」>#$:•-]{0,24}(?:选项|options? )?")
_LOWER_CASE_LABEL = re.compile(r"[a-z](?=\s?[.:、)])")
LETTERED_LINE = re.compile(
    r"^[\s*_>(-]{0,8}(?:\d{1,2}[.)]\s?\*{0,2})?([A-Z])\*{0,2}[.:、)]", re.MULTILINE
)


def bare_letters(case: Case) -> Reading | None:
    """The whole reply, or its only line of bare letters if that comes first, is letters."""
    whole = _BARE.fullmatch(case.text)
    if whole is None:
        lines = [line for line in case.text.split("\n", 40)[:40] if line.strip()]
        bare_lines = [line for line in lines if _BARE.fullmatch(line)]
        # Two bare lines are headings of an analysis, not an answer.
        if len(bare_lines) != 1 or bare_lines[0] != lines[0]:
            return None
        whole = _BARE.fullmatch(lines[0])
    letters = _bare_list(case, whole["letters"]) if whole else None
    return case.decide(letters, "bare letters", case.text) if letters else None


def _bare_list(case: Case, stated: str) -> list[str] | None:
    stated = _LOWER_CASE_WORD_AND.sub(",", stated)
    letters = [letter for letter in stated if letter.isascii() and letter.isalpha()]
    if all(letter.isupper() for letter in letters):
        ordered = letters == sorted(set(letters))
        return letters if ordered or set(letters) <= set(case.options) else None
    # Small letters side by side may be a word: they must be options, in order.
    if not stated.islower():
        return None
    upper = [letter.upper() for letter in letters]
    in_order = upper == sorted(set(upper)) and set(upper) <= set(case.options)
    return upper if in_order or len(upper) == 1 else None


def whole_text(case: Case) -> Reading | None:
    """The whole reply is one option's text, with or without its letter."""
    marks = _LEADING_MARKS.match(case.text)
    start = marks.end() if marks else 0
    mark = option_mark_at(case, start)
    lower = _LOWER_CASE_LABEL.match(case.text, start)
    letters = mark.letters if mark else (lower.group().upper(),) if lower else ()
    if len(letters) == 1:
        words = case.options.get(letters[0])
        rest = case.text[start + 1 :].strip(" \t\n.。:、)(*_,;")
        if words and rest.lower() == words.lower():
            return case.decide(letters, "a letter with its text", case.text)
    found = option_at(case, start)
    if found and not case.text[found[1] :].strip(" \t\n.。!)*_\"'”"):
        return case.decide([found[0]], "the option's text", case.text)
    return None


def leading_letters(case: Case) -> Reading | None:
    """Letters that open the reply, unless they begin a walk through the options."""
    marks = _LEADING_MARKS.match(case.text)
    start = marks.end() if marks else 0
    if option_mark_at(case, start) is None:
        return None
    statement = statement_at(case, start)
    if statement is None or statement.by_text or (case.single and statement.hedged):
        return None
    verdict = judged(case)
    if not all(verdict.get(letter, True) for letter in statement.letters):
        return None
    if _walks_through_options(case, statement.letters[0]):
        return unanswered("goes through the options without deciding", case.text)
    return case.decide(statement.letters, "letters at the start", case.text[: statement.end])


def _walks_through_options(case: Case, first: str) -> bool:
    """Whether lettered lines repeat the options, from the first one on, instead of answering."""
    lettered = set(LETTERED_LINE.findall(case.text))
    starts_at_top = first == next(iter(case.options), "")
    return starts_at_top and len(lettered) > 1 and (case.single or lettered >= set(case.options))
