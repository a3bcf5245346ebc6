"""Which of a task's labels a reply states.

Nothing is guessed: a reply that names two labels, or none, or the one only to deny it, states no
label. Width and case do not matter, nor does what stands around a label.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mingmoe_eval.metrics.answer_reading.reply_text import fold, statement_text, visible_reply

_EDGES = " \t\n'\"“”‘’「」《》【】[](){}*_`.。,，;；:：!！?？、"
# What an answer is announced by; what stands behind it on its line is the label.
_CUE = re.compile(
    r"(?:\b(?:final answer|answer|label|category|class|classification|result)\b"
    r"|答案|标签|类别|分类|结果|判断)\s?(?:\b(?:is|would be)\b|=|:|为|是)\s?",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|no|without|neither|nor|rather than|cannot be|isn't|n't)\b[\w ]{0,12}"
    r"|不是|并非|不属于|排除|非|无)\s?$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class LabelReading:
    """The label that a reply states, and by which rule; or why it states none."""

    label: str | None
    rule: str


def read_label(reply: str, labels: Sequence[str], *, cut_off: bool = False) -> LabelReading:
    """Read one reply; never raises for any text.

    Args:
        reply: The raw reply.
        labels: The labels that can be given, in the spelling of the data.
        cut_off: Generation ended at its token limit: only what is announced as the answer counts.
    """
    visible = visible_reply(reply)
    text = statement_text(visible.text)[0]
    spelling = {_folded(label): label for label in labels}
    for line in reversed(list(_announced(text))):
        if named := _stated(line, spelling):
            return LabelReading(named, "an announced answer")
    if visible.cut_off or cut_off:
        return LabelReading(None, "cut off before an answer")
    lines = [line for line in text.split("\n") if line.strip(_EDGES)]
    for part, rule in ((text, "the whole reply"), *((line, "a line of its own") for line in lines)):
        if (label := spelling.get(_folded(part))) is not None:
            return LabelReading(label, rule)
    if named := _stated(text, spelling):
        return LabelReading(named, "the only label named")
    return LabelReading(None, "no one label is stated" if text else "an empty reply")


def _announced(text: str) -> Iterator[str]:
    for cue in _CUE.finditer(text):
        yield text[cue.end() :].partition("\n")[0][:400]


def _stated(text: str, spelling: dict[str, str]) -> str | None:
    """The one label that a text names without denying it."""
    if (whole := spelling.get(_folded(text))) is not None:
        return whole
    rest = _spaced(text)
    named = set()
    # The longest first: 相关 inside of 不相关 is not named.
    for folded in sorted(spelling, key=len, reverse=True):
        pattern = _pattern(folded)
        found = list(pattern.finditer(rest))
        if any(not _DENIED.search(rest, max(0, m.start() - 24), m.start()) for m in found):
            named.add(spelling[folded])
        rest = pattern.sub("\n", rest)
    return named.pop() if len(named) == 1 else None


def _pattern(folded: str) -> re.Pattern[str]:
    """The label as words of its own, where its ends are letters of an alphabet or digits."""
    before = r"(?<![a-z0-9])" if re.match("[a-z0-9]", folded) else ""
    behind = r"(?![a-z0-9])" if re.search("[a-z0-9]$", folded) else ""
    return re.compile(before + re.escape(folded) + behind)


def _folded(text: str) -> str:
    return _spaced(text).strip(_EDGES)


def _spaced(text: str) -> str:
    """One width, small letters, one blank between words."""
    return " ".join(fold(text).casefold().split())
