"""Each run against the baseline, as the page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from mingmoe_eval.comparison import Comparison, compare
from mingmoe_eval.errors import IncomparableRunsError
from mingmoe_eval.metrics.significance import significance_marks
from mingmoe_eval.records import Run
from mingmoe_eval.report.view import Column


@dataclass(frozen=True, slots=True)
class Compared:
    """A candidate against the baseline, or why that was refused."""

    column: Column
    comparison: Comparison | None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A cell's difference from the baseline."""

    difference: float
    stars: str = ""
    test: str = ""


def compare_all(
    runs: Sequence[Run], shown: Sequence[Column], *, allow: frozenset[str]
) -> list[Compared]:
    """Every run but the baseline, compared with it."""
    baseline = next(run for run, column in zip(runs, shown, strict=True) if column.is_baseline)
    return [
        _compared(baseline, run, column, allow)
        for run, column in zip(runs, shown, strict=True)
        if not column.is_baseline
    ]


def changes(compared: Sequence[Compared]) -> dict[tuple[str, int], Change]:
    """The difference of every task and group that was compared, by task and run."""
    found = {}
    for one in compared:
        if one.comparison is None:
            continue
        for task, leaf in one.comparison.tasks.items():
            found[task, one.column.position] = Change(
                leaf.paired.difference, significance_marks(leaf.p_adjusted), leaf.paired.test
            )
        for task, group in one.comparison.groups.items():
            found[task, one.column.position] = Change(group.candidate - group.baseline)
    return found


def _compared(baseline: Run, run: Run, column: Column, allow: frozenset[str]) -> Compared:
    try:
        return Compared(column, compare(baseline, run, allow=allow))
    except IncomparableRunsError as error:
        return Compared(column, None, str(error))
