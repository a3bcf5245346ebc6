"""The numbers of one row: what a run has for each column, or what a source prints."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mingmoe_eval.comparison import Comparison, compare
from mingmoe_eval.errors import IncomparableRunsError
from mingmoe_eval.metrics.significance import significance_marks
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.paper_table.layouts import Column
from mingmoe_eval.published import PublishedRow
from mingmoe_eval.records import MetricValue, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One number of a table.

    Attributes:
        percent: The value in %, or None where there is none.
        decimals: With how many decimals it is known; a cited value never gets more.
        interval: In %, or None.
        stars: Marks of significance against the baseline.
        suspect: Why a cited value cannot be right; such a cell is never ranked.
        remarks: What a reader must know of it.
    """

    percent: float | None = None
    decimals: int = 1
    interval: tuple[float, float] | None = None
    stars: str = ""
    suspect: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A run against the baseline: the comparison, or why there is none."""

    comparison: Comparison | None = None
    refusal: str = ""

    def stars(self, task: str) -> str:
        """The marks of a leaf task's adjusted p-value."""
        if self.comparison is None or task not in self.comparison.tasks:
            return ""
        return significance_marks(self.comparison.tasks[task].p_adjusted)

    def tests(self, tasks: Collection[str]) -> list[str]:
        """The names of the tests that these tasks went through."""
        compared = self.comparison.tasks if self.comparison else {}
        return [one.paired.test for task, one in compared.items() if task in tasks]


def tested(baseline: Run, run: Run, *, allow: frozenset[str]) -> Tested:
    """Test a run against the baseline, unless they differ in more than their model."""
    try:
        return Tested(comparison=compare(baseline, run, allow=allow))
    except IncomparableRunsError as error:
        offences = [line[4:] for line in str(error).splitlines() if line.startswith("  - ")]
        return Tested(refusal="; ".join(offences) or str(error))


def run_cells(
    run: Run, columns: Sequence[Column], *, suffix: str, decimals: int, against: Tested
) -> list[Cell]:
    """A run's cells; an average only where all its columns have a number."""
    values: dict[str, MetricValue] = {}
    for column in columns:
        if not column.is_average and (value := _value(run, column, suffix)):
            values[column.key] = value
    for column in columns:
        if column.is_average and all(key in values for key in column.mean_of):
            values[column.key] = mean_of_parts([values[key] for key in column.mean_of])
    return [
        _run_cell(
            values.get(column.key),
            decimals=decimals,
            # Parts and averages are not tested: the leaf tasks are.
            stars="" if column.tag else against.stars(column.task + suffix),
        )
        for column in columns
    ]


def published_cells(row: PublishedRow, columns: Sequence[Column], *, decimals: int) -> list[Cell]:
    """A published row's cells, with no more decimals than the source prints."""
    return [
        Cell(
            percent=row.values.get(column.key),
            decimals=min(decimals, row.decimals),
            suspect=row.suspect.get(column.key, ""),
            remarks=_only(row.remarks, column.key),
        )
        for column in columns
    ]


def _value(run: Run, column: Column, suffix: str) -> MetricValue | None:
    result = run.results.get(column.task + suffix)
    if result is None:
        return None
    value = (
        result.main
        if column.tag is None
        else result.breakdowns.get(column.tag, {}).get(column.part)
    )
    return value if value and value.n else None


def _run_cell(value: MetricValue | None, *, decimals: int, stars: str) -> Cell:
    if value is None:
        return Cell(decimals=decimals)
    interval = value.interval and (100 * value.interval[0], 100 * value.interval[1])
    return Cell(percent=100 * value.value, decimals=decimals, interval=interval, stars=stars)


def _only(remarks: Mapping[str, str], key: str) -> tuple[str, ...]:
    return (remarks[key],) if key in remarks else ()
