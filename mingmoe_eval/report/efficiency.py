"""What a score costs and how sure a model is of it, as the page shows them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mingmoe_eval.cost import Cost, price_of, task_costs, total_cost
from mingmoe_eval.exams.cases import clusters_of
from mingmoe_eval.metrics import calibration
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.records import MetricValue, Run, Sample
from mingmoe_eval.report.view import Cell, Column, Effort

COVERAGES = (1.0, 0.8, 0.5, 0.25)
"""At which the page tells the accuracy of the confident part."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one task's answers of one run cost; "" is all tasks."""

    task: str
    column: Column
    cost: Cost


@dataclass(frozen=True, slots=True)
class Place:
    """One run in a plot of score against what it takes.

    Attributes:
        column: The run.
        amount: What it takes, in the plot's unit.
        score: The mean of the main metrics of the tasks that all runs have.
        on_frontier: No run scores as much for less.
    """

    column: Column
    amount: float
    score: MetricValue
    on_frontier: bool


@dataclass(frozen=True, slots=True)
class Certainty:
    """How far one run's confidence and accuracy are apart in one task.

    Attributes:
        cells: The calibration error, the Brier score.
        by_chance: What the error of a perfectly calibrated model would be on average.
        selective: Accuracy at each of COVERAGES.
        bins: The questions by confidence.
    """

    task: str
    column: Column
    cells: tuple[Cell, ...]
    by_chance: float
    selective: tuple[Cell, ...]
    bins: tuple[calibration.Bin, ...]


def cost_rows(runs: Sequence[Run], shown: Sequence[Column], price: str | None) -> list[CostRow]:
    """Task by task what each run's answers cost, and all together where there are several."""
    costs = [task_costs(run, price_of(run, price)) for run in runs]
    tasks = dict.fromkeys(task for one in costs for task in one)
    rows = [
        CostRow(task, column, one[task])
        for task in tasks
        for column, one in zip(shown, costs, strict=True)
        if task in one and one[task].has_tokens
    ]
    for column, one in zip(shown, costs, strict=True):
        whole = total_cost(one.values())
        if whole is not None and whole.has_tokens and len(tasks) > 1:
            rows.append(CostRow("", column, whole))
    return rows


def frontiers(
    runs: Sequence[Run], shown: Sequence[Column], effort: Sequence[Effort], price: str | None
) -> dict[str, list[Place]]:
    """Score against tokens, seconds, money and active parameters, each where two runs say it.

    Tokens and seconds of an answer, money of a thousand answers, over the tasks of all runs whose
    scores are shares. Runs whose money is in other currencies are not set side by side.
    """
    shared = [
        task
        for task, result in runs[0].leaves.items()
        if all(task in run.leaves and run.leaves[task].main.unit == "share" for run in runs)
        and result.main.n
    ]
    if not shared or len(runs) < 2:
        return {}
    costs = []
    for run in runs:
        by_task = task_costs(run, price_of(run, price))
        costs.append(total_cost(by_task[task] for task in shared if task in by_task))
    scores = [mean_of_parts([run.leaves[task].main for task in shared]) for run in runs]
    currencies = {cost.currency for cost in costs if cost is not None and cost.money is not None}
    of_answers: dict[str, Callable[[Cost], float | None]] = {
        "tokens": lambda cost: cost.an_answer()["tokens"] or None,
        "seconds": lambda cost: cost.an_answer()["seconds"],
        "money": lambda cost: _thousand(cost.an_answer()["money"]),
    }
    if len(currencies) > 1:
        del of_answers["money"]
    amounts: dict[str, list[float | None]] = {
        kind: [None if cost is None else of(cost) for cost in costs]
        for kind, of in of_answers.items()
    }
    amounts["parameters"] = [_parameters(one) for one in effort]
    places = {kind: _places(shown, listed, scores) for kind, listed in amounts.items()}
    # Runs that all take as much have nothing to be weighed against.
    return {
        kind: listed for kind, listed in places.items() if len({one.amount for one in listed}) > 1
    }


def certainties(runs: Sequence[Run], shown: Sequence[Column]) -> list[Certainty]:
    """Every task whose letters were compared by log-likelihood, the runs of a task together."""
    tasks = dict.fromkeys(task for run in runs for task in run.samples)
    return [
        _certainty(run, column, task, asked)
        for task in tasks
        for run, column in zip(runs, shown, strict=True)
        if (asked := _weighed(run.samples.get(task, ())))
    ]


def _thousand(amount: float | None) -> float | None:
    return None if amount is None else 1000 * amount


def _parameters(one: Effort) -> float | None:
    """In billions: those that a token meets; of a model without experts all of them."""
    count = one.active_parameters or one.total_parameters
    return None if count is None else count / 1e9


def _places(
    shown: Sequence[Column], amounts: Sequence[float | None], scores: Sequence[MetricValue]
) -> list[Place]:
    known = [
        (column, amount, score)
        for column, amount, score in zip(shown, amounts, scores, strict=True)
        if amount is not None and not math.isnan(score.value)
    ]
    return [
        Place(
            column,
            amount,
            score,
            on_frontier=not any(
                (other < amount and value.value >= score.value)
                or (other <= amount and value.value > score.value)
                for _, other, value in known
            ),
        )
        for column, amount, score in known
    ]


def _weighed(samples: Sequence[Sample]) -> list[Sample]:
    return [
        sample
        for sample in samples
        if sample.log_likelihoods and not sample.variant and _is_choice(sample)
    ]


def _is_choice(sample: Sample) -> bool:
    """Of lm-eval's own tasks nobody knows which log-likelihood is which option's."""
    options = sample.doc.get("options")
    return isinstance(options, dict) and calibration.can_be_calibrated(sample)


def _certainty(run: Run, column: Column, task: str, asked: Sequence[Sample]) -> Certainty:
    marks, clusters = run.marks_of(task), clusters_of(asked)
    found = calibration.metrics(asked, clusters)
    return Certainty(
        task=task,
        column=column,
        cells=tuple(Cell(found[name], marks) for name in ("ece", "brier")),
        by_chance=calibration.error_by_chance(asked),
        selective=tuple(
            Cell(calibration.accuracy_at(part, asked, clusters), marks) for part in COVERAGES
        ),
        bins=tuple(calibration.reliability(asked)),
    )
