"""One example of an original CBLUE file, ready to become a PromptCBLUE record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.promptcblue.answers import Answer
from mingmoe_eval.promptcblue.catalogue import TASKS
from mingmoe_eval.promptcblue.conversion.prompts import prompt_of
from mingmoe_eval.promptcblue.conversion.targets import target_of
from mingmoe_eval.promptcblue.measures import answer_tuples
from mingmoe_eval.promptcblue.parsing import parse_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What is asked and what is right; `slots` fill the task's prompt."""

    task: str
    sample_id: str
    slots: Mapping[str, str]
    answer: Answer
    choices: tuple[str, ...] | None = None

    def to_record(self) -> dict[str, Any] | None:
        """The record; None when the format cannot hold the answer, so that gold would be wrong."""
        task, choices = TASKS[self.task], self.choices or ()
        target = target_of(task, self.answer, choices)
        if not _same(parse_answer(task, target, choices), self.answer):
            return None
        return {
            "input": prompt_of(self.task, self.choices, **self.slots),
            "target": target,
            "answer_choices": None if self.choices is None else list(self.choices),
            "task_type": task.task_type,
            "task_dataset": self.task,
            "sample_id": self.sample_id,
        }


def _same(one: Answer, other: Answer) -> bool:
    """Equal to the scorer, for which a list of items is a set."""
    if isinstance(one, list) and isinstance(other, list):
        return answer_tuples(one) == answer_tuples(other)
    return one == other
