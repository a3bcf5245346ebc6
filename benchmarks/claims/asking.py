"""Asks a checkpoint the test items through the project's own engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from benchmarks.claims.tasks import Item
from mingmoe_eval.engine import CheckpointLM


@dataclass(frozen=True, slots=True)
class Answers:
    """The share of right answers by task; of a mixture its routing; numbers that a token uses."""

    accuracy: dict[str, float]
    routing: dict[str, Any] | None
    active: int


def ask(checkpoint: Path, tasks: Mapping[str, Sequence[Item]]) -> Answers:
    """Each answer is the choice with the greatest log-likelihood; of equals, the first."""
    lm = CheckpointLM(checkpoint, dtype="float32", device="cpu")
    scores = choice_scores(lm, tasks)
    accuracy = {
        task: sum(map(is_right, items, scores[task])) / len(items) for task, items in tasks.items()
    }
    return Answers(accuracy, lm.routing, lm.model.loaded.description.parameters.active)


def choice_scores(
    lm: CheckpointLM, tasks: Mapping[str, Sequence[Item]]
) -> dict[str, list[list[float]]]:
    """The log-likelihood of each choice of each item, by task, in their order."""
    requests = [
        Instance("loglikelihood", {}, (f"{item.question}\n", choice), place, (task, doc, place))
        for task, items in tasks.items()
        for doc, item in enumerate(items)
        for place, choice in enumerate(item.choices)
    ]
    scores = iter([value for value, _ in lm.loglikelihood(requests)])
    return {
        task: [[next(scores) for _ in item.choices] for item in items]
        for task, items in tasks.items()
    }


def is_right(item: Item, scores: Sequence[float]) -> bool:
    """Whether the answer is the first of the choices with the greatest score."""
    return item.choices[scores.index(max(scores))] == item.answer
