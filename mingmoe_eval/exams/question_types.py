"""What exams call their kinds of question, and what each kind promises about its key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mingmoe_eval.exams.options import RowFault, text_of

Declares = Literal["one right option", "by question type", "nothing"]
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
_BY_TEXT = {
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
    if text not in _BY_TEXT:
        raise RowFault(f"an unknown question_type {text!r}")
    return _BY_TEXT[text]
