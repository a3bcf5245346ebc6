"""What other orders of the options did to each task, as the page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from mingmoe_eval.exams.robustness import METRICS
from mingmoe_eval.records import Run, TaskResult
from mingmoe_eval.report.view import ORDER_TAGS, Breakdown, Cell, Column, by_tag


@dataclass(frozen=True, slots=True)
class Reordered:
    """One task of one run whose questions were asked under several orders of their options.

    Attributes:
        orders: What `--permute-options` asked for.
        questions: How many questions had several orders.
        cells: The main metric under the benchmark's own order, then `METRICS`.
    """

    task: str
    is_group: bool
    column: Column
    orders: str
    questions: int
    cells: tuple[Cell | None, ...]


def reordered(runs: Sequence[Run], shown: Sequence[Column]) -> list[Reordered]:
    """Every task that has the metrics of robustness, the runs of a task together."""
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    return [
        _reordered(run, column, run.results[task])
        for task in tasks
        for run, column in zip(runs, shown, strict=True)
        if task in run.results and METRICS[0] in run.results[task].metrics
    ]


def order_breakdowns(runs: Sequence[Run]) -> list[tuple[str, list[Breakdown]]]:
    """By task: accuracy by the order of the options and by the place of the right one."""
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    by_task = (
        (task, [part for part in by_tag(runs, task) if part.tag in ORDER_TAGS]) for task in tasks
    )
    return [(task, parts) for task, parts in by_task if parts]


def _reordered(run: Run, column: Column, result: TaskResult) -> Reordered:
    values = [result.main, *(result.metrics.get(name) for name in METRICS)]
    consistency = result.metrics.get("consistency")
    return Reordered(
        task=result.task,
        is_group=result.is_group,
        column=column,
        orders=run.spec.permute_options or "",
        questions=consistency.n if consistency else 0,
        cells=tuple(
            None if one is None else Cell(one, run.marks_of(result.task)) for one in values
        ),
    )
