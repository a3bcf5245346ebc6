"""Every run against the baseline, as the page shows it: what changed, and what chance explains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mingmoe_eval.comparison import (
    Comparison,
    Difference,
    GroupComparison,
    OverallVerdict,
    TaskVerdict,
    compare,
    overall_verdict,
)
from mingmoe_eval.comparison.comparability import find_differences
from mingmoe_eval.errors import IncomparableRunsError
from mingmoe_eval.metrics.showing import is_gain
from mingmoe_eval.metrics.significance import significance_marks
from mingmoe_eval.records import Better, Run, Unit
from mingmoe_eval.report.view import Column


@dataclass(frozen=True, slots=True)
class Compared:
    """A candidate against the baseline, or the differences for which that was refused.

    Attributes:
        verdict: What the two prove, as the gate and `compare` say it.
        changes: By task and group.
    """

    column: Column
    comparison: Comparison | None = None
    verdict: OverallVerdict | None = None
    changes: Mapping[str, "Change"] = field(default_factory=dict)
    refusal: tuple["Reason", ...] = ()
    allowed: tuple["Reason", ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """A difference besides the model, with all tasks that it is said of; of none, the runs'."""

    text: str
    kind: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A difference from the baseline, of one task or one group.

    Attributes:
        interval: Its own, as if it were the only one; None where there is none.
        p_adjusted: One-sided, in the direction of the change, over all tests of its family; NaN
            without a test.
        p_alone: The same before.
    """

    difference: float
    interval: tuple[float, float] | None
    unit: Unit
    better: Better
    p_adjusted: float
    p_alone: float
    test: str

    @property
    def stars(self) -> str:
        """What the adjusted test found; without any, chance explains the difference."""
        return significance_marks(self.p_adjusted)

    @property
    def tone(self) -> str:
        """The style of a certain change: for the better or for the worse; "" for any other."""
        if not self.stars:
            return ""
        return {True: "up", False: "down", None: ""}[is_gain(self.difference, self.better)]


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
    return {
        (task, one.column.position): change
        for one in compared
        for task, change in one.changes.items()
    }


def _compared(baseline: Run, run: Run, column: Column, allow: frozenset[str]) -> Compared:
    try:
        comparison = compare(baseline, run, allow=allow)
    except IncomparableRunsError as error:
        refused = [one for one in find_differences(baseline, run) if one.kind not in allow]
        return Compared(column, refusal=_reasons(refused) or (Reason(str(error), "", ()),))
    verdict = overall_verdict(comparison)
    level = 1 - 2 * verdict.alpha
    groups = {name: _group_change(one, level) for name, one in comparison.groups.items()}
    tasks = {name: _task_change(one) for name, one in verdict.tasks.items()}
    return Compared(
        column, comparison, verdict, {**groups, **tasks}, allowed=_reasons(comparison.allowed)
    )


def _reasons(differences: Sequence[Difference]) -> tuple[Reason, ...]:
    """Each text once, whatever the number of tasks."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for one in differences:
        tasks.setdefault((one.text, one.kind), []).append(one.task)
    return tuple(Reason(text, kind, tuple(names)) for (text, kind), names in tasks.items())


def _task_change(verdict: TaskVerdict) -> Change:
    one = verdict.comparison
    return Change(
        difference=one.paired.difference,
        interval=one.paired.interval,
        unit=one.unit,
        better=one.better,
        p_adjusted=min(verdict.p_worse, verdict.p_better),
        p_alone=min(one.p_worse, one.p_better),
        test=one.paired.test,
    )


def _group_change(group: GroupComparison, level: float) -> Change:
    paired = group.paired
    return Change(
        difference=group.candidate - group.baseline,
        interval=paired.interval_at(level) if paired else None,
        unit=group.unit,
        better=group.better,
        # Holm's procedure over two-sided p-values, each twice the smaller one-sided one.
        p_adjusted=group.p_adjusted / 2,
        p_alone=paired.tails.two_sided / 2 if paired else math.nan,
        test=paired.test if paired else "",
    )
