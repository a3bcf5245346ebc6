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
    requests = [
        Instance("loglikelihood", {}, (f"{item.question}\n", choice), place, (task, doc, place))
        for task, items in tasks.items()
        for doc, item in enumerate(items)
        for place, choice in enumerate(item.choices)
    ]
    scores = iter([value for value, _ in lm.loglikelihood(requests)])
    accuracy = {
        task: sum(_is_right(item, [next(scores) for _ in item.choices]) for item in items)
        / len(items)
        for task, items in tasks.items()
    }
    return Answers(accuracy, lm.routing, lm.model.loaded.description.parameters.active)


def _is_right(item: Item, scores: list[float]) -> bool:
    return item.choices[scores.index(max(scores))] == item.answer
