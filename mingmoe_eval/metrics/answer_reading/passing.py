"""The last resorts: a refusal, and a letter that the reply mentions in passing."""

import re

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, last_matches, unanswered
from mingmoe_eval.metrics.answer_reading.letters import option_mark_at
from mingmoe_eval.metrics.answer_reading.opening import LETTERED_LINE
from mingmoe_eval.metrics.answer_reading.verdicts import judged

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
_SHORT_REPLY = 200
_MARK_BEFORE = re.compile(r"(?:\*\*|选项|\b(?:option|choice)\s?\(?)$", re.IGNORECASE)
_TERM_BEFORE = re.compile(
    r"(?:维生素|维|乙?肝炎?|抗原|因子|蛋白|补体|甲型|血型|亚型|型|组|vitamin|hepatitis|types?|group|class"
    r"|grade|stage|factor|protein|complement|influenza|strep\w*|blood|phase|haemoglobin|hemoglobin"
    r"|immunoglobulin|amphotericin|polymyxin|/|cytochrome|coenzyme|plan"
    r"|figure|table|part|section|phospholipase)[\s-]{0,2}$",
    re.IGNORECASE,
)
# Of a letter that is named only to be turned down, the reply does not say what is right instead.
_REJECTED_BEFORE = re.compile(
    r"(?:不是|并非|(?:排|剔)?除了?|(?:不|别|勿|莫)(?:应该?|应当|能|可以?|要|宜|会|该)?选择?"
    r"|\b(?:not|cannot|except)|n['’]t)(?:答案|选项|\s(?:be|choose|pick|select|option))?[\s(*]{0,3}$",
    re.IGNORECASE,
)


def refusal(case: Case) -> Reading | None:
    """A reply that declines to answer leaves the item unanswered."""
    found = _REFUSAL.search(case.text)
    return unanswered("a refusal", case.text[found.start() :]) if found else None


def only_letter(case: Case) -> Reading | None:
    """The only option letter, or run of letters, that the reply mentions."""
    verdict = judged(case)
    found: dict[tuple[str, ...], str] = {}
    for token in last_matches(_STAND_ALONE, case.text):
        mark = option_mark_at(case, token.start())
        if mark is None or not _may_be_answer(case, token.start(), mark.letters):
            continue
        if not all(verdict.get(letter, True) for letter in mark.letters):
            continue
        found.setdefault(mark.letters, case.text[max(0, token.start() - 20) : mark.end])
        if len(found) > 1:
            return unanswered("mentions several options without deciding", case.text)
    if not found:
        return None
    [(letters, quote)] = found.items()
    return case.decide(letters, "the only letter in the reply", quote)


def _may_be_answer(case: Case, position: int, letters: tuple[str, ...]) -> bool:
    """Whether letters can be meant as the answer; in a long reply they must be marked."""
    before = case.text[max(0, position - 20) : position]
    marked = len(case.text) <= _SHORT_REPLY or _MARK_BEFORE.search(before)
    return bool(
        marked
        and set(letters) <= set(case.options)
        and not _TERM_BEFORE.search(before)
        and not _REJECTED_BEFORE.search(before)
        and not _opens_discussion(case, position)
    )


def _opens_discussion(case: Case, position: int) -> bool:
    """Whether a line that opens with a letter goes on to say more than that option's own text."""
    line_start = case.text.rfind("\n", 0, position) + 1
    lettered = LETTERED_LINE.match(case.text, line_start)
    if lettered is None or lettered.start(1) != position:
        return False
    line = case.text[lettered.end() : case.text.find("\n", position) + 1 or None]
    return line.strip(" \t\n.。*;").lower() != case.options.get(lettered[1], "").lower()
