r"""Read the answer to a multiple-choice item out of a free-text reply.

The rules, in order; the first that reads something, or that finds the reply unanswerable, decides:

1. the whole reply is one option's text, with or without its letter
2. the whole reply, or its first line, is letters: `B`, `(A)`, `A、C`
3. the last answer cue that states letters or an option's text: 故选B, the answer is, \boxed{B}
4. verdicts on the options: A正确 B错误, "B: false"
5. a concluding word with letters that end its sentence: 因此B。 "therefore, C."
6. letters, then an option's text, that open the reply: "B. text", "Yes, because"
7. a refusal leaves the item unanswered
8. options quoted by their text anywhere
9. the only letter in the reply

Otherwise the item is unanswered, never guessed. See `case.Case.decide` for single-answer items
that name several letters and for letters that are no option.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, last_matches, unanswered
from mingmoe_eval.metrics.answer_reading.compat import compat_mode
from mingmoe_eval.metrics.answer_reading.cues import announced, concluded
from mingmoe_eval.metrics.answer_reading.letters import option_mark_at, statement_at
from mingmoe_eval.metrics.answer_reading.option_text import leading_text, mentioned_text, option_at
from mingmoe_eval.metrics.answer_reading.reply_text import visible_reply
from mingmoe_eval.metrics.answer_reading.verdicts import judged, verdicts

DEFAULT = "default"

_BARE = re.compile(
    r"[\s*_`\"'“”‘’()\[\]{}【】「」<$#>.:-]{0,12}(?:选项|选|答案|options?\b|answer\b)?[\s:*(]{0,4}"
    r"(?P<letters>[A-Za-z](?:(?:[\s、,;/&+|.()*]{0,4}|\s?(?:and|和|与|及)\s?)[A-Za-z]){0,25})"
    r"(?:选项|项)?[\s*_`\"'“”‘’()\[\]{}【】「」<>$.。:、,;!-]{0,12}",
    re.IGNORECASE,
)
_LOWER_CASE_WORD_AND = re.compile(r"\band\b")
_LEADING_MARKS = re.compile(r"[\s*_`\"'“”‘’()\[\]【】「」>#$:-]{0,24}(?:选项|options? )?")
_LETTERED_LINE = re.compile(
    r"^[\s*_>(-]{0,8}(?:\d{1,2}[.)]\s?\*{0,2})?([A-Z])\*{0,2}[.:、)]", re.MULTILINE
)
_NEXT_QUESTION = re.compile(
    r"\n[\s*#]{0,6}(?:题目|问题|下一题|question|q)\s?\d{0,4}\s?[.:]", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"无法(?:直接)?(?:回答|确定|判断|给出|提供|作答|选择|得出)|不能(?:回答|提供|确定|作答|判断)"
    r"|抱歉|对不起|作为(?:一个|一名)?(?:AI|人工智能|语言模型)|信息不足|不知道|不清楚|我不确定"
    r"|\bI(?:['’]m| am) (?:sorry|unable|not able|not sure|an AI)"
    r"|\bI (?:can ?not|can['’]t|could not|do not|don['’]t) "
    r"(?:answer|provide|determine|know|give|help)"
    r"|\b(?:cannot|can['’]t) be (?:determined|answered)|\bunable to (?:answer|determine)"
    r"|\bas an AI\b|\b(?:not enough|insufficient) information",
    re.IGNORECASE,
)
_STAND_ALONE = re.compile(r"(?<![A-Za-z0-9'’-])[A-Z]{1,26}(?![A-Za-z0-9])")
_TERM_BEFORE = re.compile(
    r"(?:维生素|维|乙?肝炎?|抗原|因子|蛋白|补体|甲型|血型|亚型|型|组|vitamin|hepatitis|types?|group|class"
    r"|grade|stage|factor|protein|complement|influenza|strep\w*|blood|phase|haemoglobin|hemoglobin"
    r"|immunoglobulin|cytochrome|coenzyme|plan|figure|table|part|section|phospholipase)[\s-]{0,2}$",
    re.IGNORECASE,
)


def read_answer(
    reply: str, options: Mapping[str, str], *, single: bool, mode: str = DEFAULT
) -> Reading:
    """Read the option letters that a reply gives; takes any string, and never raises for one.

    Args:
        reply: The raw reply, thinking blocks included.
        options: Option texts by letter, `A` to `Z`, gaps allowed.
        single: Whether the item has exactly one right answer.
        mode: `default`, or the name of an official script's rules (see `compat`). Such a mode
            sees the reply as it is; use `compat_mode` for the string that the script compares.
    """
    if mode != DEFAULT:
        return _as_mode_reads(reply, options, single, mode)
    visible = visible_reply(reply)
    if not visible.text:
        return unanswered("the reasoning was cut off" if visible.cut_off else "the reply is empty")
    case = Case.of(visible.text, options, single=single)
    reading = _before_next_question(case) or _by_rules(case)
    if reading is not None:
        return reading
    if visible.cut_off:
        return unanswered("the reasoning was cut off", visible.text)
    return unanswered("no answer found", visible.text)


def _as_mode_reads(reply: str, options: Mapping[str, str], single: bool, mode: str) -> Reading:
    raw = compat_mode(mode).read(reply, options, single)
    letters = tuple(sorted({letter for letter in raw or "" if letter in options}))
    return Reading(letters or None, f"as {mode} reads", raw or "")


def _before_next_question(case: Case) -> Reading | None:
    """The answer that stands before the model runs on into a question of its own making."""
    run_on = _NEXT_QUESTION.search(case.text)
    if run_on is None:
        return None
    head = _by_rules(Case(case.text[: run_on.start()], case.options, case.single))
    return head if head is not None and head.letters is not None else None


def _by_rules(case: Case) -> Reading | None:
    readings = (rule(case) for rule in _RULES)
    return next((reading for reading in readings if reading is not None), None)


def _bare_letters(case: Case) -> Reading | None:
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


def _whole_text(case: Case) -> Reading | None:
    marks = _LEADING_MARKS.match(case.text)
    start = marks.end() if marks else 0
    mark = option_mark_at(case, start)
    if mark is not None and len(mark.letters) == 1:
        words = case.options.get(mark.letters[0])
        rest = case.text[mark.end :].strip(" \t\n.。:、)(*_,;")
        if words and rest.lower() == words.lower():
            return case.decide(mark.letters, "a letter with its text", case.text)
    found = option_at(case, start)
    if found and not case.text[found[1] :].strip(" \t\n.。!)*_\"'”"):
        return case.decide([found[0]], "the option's text", case.text)
    return None


def _leading_letters(case: Case) -> Reading | None:
    marks = _LEADING_MARKS.match(case.text)
    start = marks.end() if marks else 0
    if option_mark_at(case, start) is None:
        return None
    statement = statement_at(case, start)
    if statement is None or statement.by_text or _calls_wrong(case, statement.letters):
        return None
    if _walks_through_options(case, statement.letters[0]):
        return unanswered("goes through the options without deciding", case.text)
    return case.decide(statement.letters, "letters at the start", case.text[: statement.end])


def _opens_discussion(case: Case, position: int) -> bool:
    """Whether a line that opens with a letter goes on to say more than that option's own text."""
    line_start = case.text.rfind("\n", 0, position) + 1
    lettered = _LETTERED_LINE.match(case.text, line_start)
    if lettered is None or lettered.start(1) != position:
        return False
    line = case.text[lettered.end() : case.text.find("\n", position) + 1 or None]
    return line.strip(" \t\n.。*;").lower() != case.options.get(lettered[1], "").lower()


def _calls_wrong(case: Case, letters: Iterable[str]) -> bool:
    verdict = judged(case)
    return not all(verdict.get(letter, True) for letter in letters)


def _walks_through_options(case: Case, first: str) -> bool:
    """Whether lettered lines repeat the options, from the first one on, instead of answering."""
    lettered = set(_LETTERED_LINE.findall(case.text))
    starts_at_top = first == next(iter(case.options))
    return starts_at_top and len(lettered) > 1 and (case.single or lettered >= set(case.options))


def _refusal(case: Case) -> Reading | None:
    refusal = _REFUSAL.search(case.text)
    return unanswered("a refusal", case.text[refusal.start() :]) if refusal else None


def _only_letter(case: Case) -> Reading | None:
    found: dict[tuple[str, ...], str] = {}
    for token in last_matches(_STAND_ALONE, case.text):
        mark = option_mark_at(case, token.start())
        if mark is None or not set(mark.letters) <= set(case.options):
            continue
        if _TERM_BEFORE.search(case.text, max(0, token.start() - 20), token.start()):
            continue
        if _opens_discussion(case, token.start()):
            continue
        found.setdefault(mark.letters, case.text[max(0, token.start() - 20) : mark.end])
        if len(found) > 1:
            return unanswered("mentions several options without deciding", case.text)
    if not found:
        return None
    [(letters, quote)] = found.items()
    if _calls_wrong(case, letters):
        return None
    return case.decide(letters, "the only letter in the reply", quote)


_RULES: tuple[Callable[[Case], Reading | None], ...] = (
    _whole_text,
    _bare_letters,
    announced,
    verdicts,
    concluded,
    _leading_letters,
    leading_text,
    _refusal,
    mentioned_text,
    _only_letter,
)
