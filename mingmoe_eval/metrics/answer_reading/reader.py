r"""Read the answer to a multiple-choice item out of a free-text reply.

The rules, in order; the first that reads something, or that finds the reply unanswerable, decides:

1. the whole reply is one option's text, with or without its letter
2. the whole reply, or its first line, is letters: `B`, `(A)`, `A、C`
3. the last answer cue that states letters or an option's text: 故选B, the answer is, \boxed{B}
4. an option named as the answer: B是正确答案; else verdicts on the options: A正确 B错误, "B: false"
5. a concluding word with letters that end its sentence: 因此B。 "therefore, C."
6. letters, then an option's text, that open the reply: "B. text", "Yes, because"
7. a refusal leaves the item unanswered
8. options quoted by their text anywhere
9. the only letter in the reply

Otherwise the item is unanswered, never guessed. See `case.Case.decide` for single-answer items
that name several letters and for letters that are no option.
"""

import re
from collections.abc import Callable, Mapping

from mingmoe_eval.metrics.answer_reading.case import Case, Reading, unanswered
from mingmoe_eval.metrics.answer_reading.compat import compat_mode
from mingmoe_eval.metrics.answer_reading.cues import announced, concluded
from mingmoe_eval.metrics.answer_reading.opening import bare_letters, leading_letters, whole_text
from mingmoe_eval.metrics.answer_reading.option_text import leading_text, mentioned_text
from mingmoe_eval.metrics.answer_reading.passing import only_letter, refusal
from mingmoe_eval.metrics.answer_reading.reply_text import visible_reply
from mingmoe_eval.metrics.answer_reading.verdicts import named_as_answer, verdicts

DEFAULT = "default"

_NEXT_QUESTION = re.compile(
    r"\n[\s*#]{0,6}(?:题目|问题|下一题|question|q)\s?\d{0,4}\s?[.:]", re.IGNORECASE
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


_RULES: tuple[Callable[[Case], Reading | None], ...] = (
    whole_text,
    bare_letters,
    announced,
    named_as_answer,
    verdicts,
    concluded,
    leading_letters,
    leading_text,
    refusal,
    mentioned_text,
    only_letter,
)
