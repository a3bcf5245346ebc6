"""A verdict on each option: "A. 正确 B. 错误", "（A对）", "A and C are correct", "B: false"."""

import re
from collections.abc import Iterator

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, last_matches, unanswered
from mingmoe_eval.metrics.answer_reading.letters import option_mark_at

_RIGHT = (
    r"正确|对(?![于照比应症抗称着])|符合|当选|应选|√|✓|✔|✅|☑|true\b|correct\b|right\b"
    r"|(?:the\s)?(?:best|correct|right|most appropriate|most likely)"
    r"(?:\s(?:answer|choice|option))?\b"
)
_WRONG = (
    r"错|不正确|不对|不符合|不当选|不应选|不选|排除|×|✗|✘|❌|✕"
    r"|false\b|incorrect\b|wrong\b|ruled out\b"
    r"|not (?:the )?(?:(?:correct|right|best) )?(?:answer|true|correct|right|best|appropriate)\b"
    r"|不是(?:本题)?的?(?:最?(?:正确|佳|合适|恰当)的?(?:答案|选择|选项)?|答案)"
)
_VERDICT = rf"(?:(?P<wrong>{_WRONG})|(?P<right>{_RIGHT}))"
_COPULA = (
    r"(?:的?(?:说法|描述|叙述|表述)?(?:都|均|也)?(?:是|为)?(?:最|完全)?"
    r"|\b(?:is|are)\s(?:also\s)?(?:the\s)?)"
)
# Latin words need a copula or a mark before them: "A correct diagnosis" is no verdict on A.
_CHINESE_AFTER_LETTERS = re.compile(
    r"(?:选项|两?项|三项)?[\s*_\"”’)\]]{0,4}[.:、,(—–-]{0,2}\s?" + _COPULA + r"\s?" + _VERDICT
)
_LATIN_AFTER_LETTERS = re.compile(
    r"[*_\"”’)\]]{0,4}(?:\s?[.:(—–-]{1,2}[\s*]{0,4}(?:is\s)?|\s(?:is|are)\s(?:also\s)?)" + _VERDICT,
    re.IGNORECASE,
)
_AFTER_OPTION_TEXT = re.compile(
    r"[\s*_.:,;(（—–→=-]{0,8}" + _COPULA + r"\s?" + _VERDICT, re.IGNORECASE
)
_AT_CLAUSE_END = re.compile(
    r"(?:[:(,—–→-]\s?\*{0,2}(?:故|应|所以|因此)?|\s(?:is|are)\s)"
    + _COPULA
    + _VERDICT
    + r"(?:题意|要求|的)?[\s*_.)]{0,6}$",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[;。\n]|$")
_LETTERS = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]"
    r"(?:\)?(?:\s?(?:、|,|/|&|和|与|及|and)\s?(?:and\s)?(?:选项|option\s)?)?\(?[A-Z]){0,25}"
    r"(?![A-Za-z0-9])"
)
# "A错，为本题正确答案", as explanations put it where a wrong statement was asked for.
_NAMED = re.compile(
    r"(?:选项|项)?(?:错误?|对|正确|不正确)?,?(?:故|因此)?[为是](?:本题)?的?(?:最?(?:正确|佳|合适|恰当|优)的?)?"
    r"(?:答案|选择|选项)"
    r"|\s(?:is|are)\s(?:the\s)?(?:correct\s|right\s|best\s)?answers?\b",
    re.IGNORECASE,
)
_TEXT_FOLLOWS = re.compile(r"(?:选项|项)?[)\]*]{0,3}\s?[.:、]?[\s*]{0,4}")
_UNDECIDED = re.compile(r"吗|么|\?")
_LONGEST_CLAUSE = 300


def named_as_answer(case: Case) -> Reading | None:
    """The options of which the reply says that they are the answer: "B是正确答案"."""
    named = [mark for mark in last_matches(_LETTERS, case.text) if _names(case, mark)]
    if not named:
        return None
    letters = [letter for mark in named for letter in mark.group() if "A" <= letter <= "Z"]
    # A single-answer item goes by the last, as with any other cue.
    stated = letters[-1:] if case.single else letters
    return case.decide(stated, "named as the answer", case.text[named[-1].start() :])


def _names(case: Case, mark: re.Match[str]) -> bool:
    named = _NAMED.match(case.text, mark.end())
    return bool(named) and not _UNDECIDED.match(case.text, named.end() if named else 0)


def verdicts(case: Case) -> Reading | None:
    """The options that the reply calls right; of two verdicts on one option the later counts.

    Without a right one, a single-answer item whose other options are all called wrong is read by
    elimination. When all options but one are called right, the item asked for the wrong one
    ("which is false?"), and the odd one out is the answer; this needs three options or more.
    """
    verdict = judged(case)
    right = [letter for letter in verdict if verdict[letter]]
    wrong = [letter for letter in verdict if not verdict[letter]]
    quote = ", ".join(f"{letter} {'right' if verdict[letter] else 'wrong'}" for letter in verdict)
    if case.single and len(right) != 1:
        return _of_single_item(case, right, wrong, quote)
    return case.decide(right, "verdicts on the options", quote) if right else None


def judged(case: Case) -> dict[str, bool]:
    """The options that the reply gives a verdict on: True for right, False for wrong."""
    return {letter: right for letter, right in _verdicts_given(case) if letter in case.options}


def _of_single_item(case: Case, right: list[str], wrong: list[str], quote: str) -> Reading | None:
    everything = len(case.options)
    if len(wrong) == 1 and len(right) == everything - 1 >= 2:
        return case.decide(wrong, "the odd one out of the verdicts", quote)
    if right:
        return unanswered("calls several options right", quote)
    left = [letter for letter in case.options if letter not in wrong]
    if len(left) == 1 and everything > 1:
        return case.decide(left, "all other options are called wrong", quote)
    return None


def _verdicts_given(case: Case) -> Iterator[tuple[str, bool]]:
    for mark in last_matches(_LETTERS, case.text):
        verdict = _verdict_after(case, mark)
        if verdict and not _UNDECIDED.match(case.text, verdict.end()):
            right = verdict["wrong"] is None
            yield from ((letter, right) for letter in mark.group() if "A" <= letter <= "Z")


def _verdict_after(case: Case, mark: re.Match[str]) -> re.Match[str] | None:
    """The verdict that belongs to the letters of `mark`, if there is one.

    An option's own text is skipped first: "E. 对氨基水杨酸" does not call E 对.
    """
    follows = _TEXT_FOLLOWS.match(case.text, mark.end())
    start = follows.end() if follows else mark.end()
    words = case.options.get(mark.group(), "")
    if words and case.text[start : start + len(words)].lower() == words.lower():
        start += len(words)
        behind = _AFTER_OPTION_TEXT.match(case.text, start)
    else:
        behind = _directly_after(case, mark.end())
    return behind or _at_clause_end(case, mark, start)


def _directly_after(case: Case, end: int) -> re.Match[str] | None:
    latin = _LATIN_AFTER_LETTERS.match(case.text, end)
    chinese = _CHINESE_AFTER_LETTERS.match(case.text, end)
    return chinese if chinese and not chinese.group().isascii() else latin


def _at_clause_end(case: Case, mark: re.Match[str], start: int) -> re.Match[str] | None:
    """The verdict at the end of a clause that opens with a letter: "B项药物起效快，正确；"."""
    before = case.text[max(0, mark.start() - 8) : mark.start()].rstrip(" \t*_(->选项")
    if (before and before[-1] not in "\n;。:") or option_mark_at(case, mark.start()) is None:
        return None
    clause = _CLAUSE_END.search(case.text, start, start + _LONGEST_CLAUSE)
    return _AT_CLAUSE_END.search(case.text, start, clause.start()) if clause else None
