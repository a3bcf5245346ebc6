"""What only repeats tell of a task, and its score against the budget of thought, for the page.

The curve of a run lies in its folder since `budget` made it; a curve of other scores than the run
has now, as where it was resumed since, is named and not shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.json_files import JsonFault, as_record
from mingmoe_eval.metrics.repeated import is_of_repeats
from mingmoe_eval.records import JsonDict, MetricValue, Run, TaskResult
from mingmoe_eval.report.view import Breakdown, Cell, Column, breakdown, by_tag
from mingmoe_eval.run_store import CURVE_FILE

REPEAT_TAG = "repeat"
"""The breakdown that only a run with repeats has."""

# Of as many draws as there were.
_OF_ALL = ("pass@", "majority@")
_OTHERS = (
    *("always_right", "agreement", "tied_votes"),
    *("variance_questions", "variance_sampling", "sampling_share"),
)


@dataclass(frozen=True, slots=True)
class Repeated:
    """One task of one run whose questions were asked several times.

    Attributes:
        cells: The score, within all draws, by their vote, then the others that repeats tell; None
            where the task has no such number.
        lowest: The score of the repeat that has the least.
        highest: Of the one that has the most.
    """

    task: str
    is_group: bool
    column: Column
    repeats: int
    cells: tuple[Cell | None, ...]
    lowest: MetricValue | None
    highest: MetricValue | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What k draws earn in one task of one run; `vote`: by their majority, else if one is right."""

    task: str
    column: Column
    k: int
    vote: bool
    value: MetricValue


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One task's score at one budget; None: as the run itself was asked. What `budget` writes."""

    task: str
    budget: int | None
    value: float
    interval: tuple[float, float] | None = None
    unit: str = "share"
    n: int = 0
    docs: int = 0
    forced: int = 0
    cut_off: int = 0
    empty: int = 0
    tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Budgeted:
    """One point of one run's curve, as a line of a table."""

    column: Column
    point: CurvePoint
    cell: Cell

    def share(self, name: str) -> float:
        """Of all replies, those that are `forced`, `empty` or `cut_off`."""
        return float(getattr(self.point, name)) / max(self.point.docs, 1)


def repeated(runs: Sequence[Run], shown: Sequence[Column]) -> list[Repeated]:
    """Every task, and group, whose questions were asked several times, the runs of a task together.

    A group has the means of its tasks, and nothing that only repeats tell.
    """
    return [
        _repeated(run, column, run.results[task])
        for task in _tasks(runs)
        for run, column in zip(runs, shown, strict=True)
        if task in run.results and run.results[task].repeats > 1
    ]


def repeat_breakdowns(runs: Sequence[Run]) -> list[tuple[str, list[Breakdown]]]:
    """By task: the score of each repeat, then each number that only repeats tell, for every k."""
    tables = []
    for task in _tasks(runs):
        by_run: list[Mapping[str, MetricValue]] = [
            {n: v for n, v in run.results[task].metrics.items() if is_of_repeats(n)}
            if task in run.results
            else {}
            for run in runs
        ]
        parts = [part for part in by_tag(runs, task) if part.tag == REPEAT_TAG]
        if any(by_run):
            parts.append(breakdown(task, "", runs, by_run))
        if parts:
            tables.append((task, parts))
    return tables


def attempts(runs: Sequence[Run], shown: Sequence[Column]) -> list[Attempt]:
    """Of each task what one draw earns, and what several do."""
    return [
        attempt
        for task in _tasks(runs)
        for run, column in zip(runs, shown, strict=True)
        if task in run.results
        for attempt in _attempts(run.results[task], column)
    ]


def curves(
    runs: Sequence[Run], shown: Sequence[Column], found: Sequence[JsonDict | None]
) -> tuple[list[Budgeted], list[tuple[Column, str]]]:
    """Every point, by task, run and budget; and the (run, task) whose curve is of another score.

    Args:
        runs: The runs.
        shown: Their columns.
        found: Of each run what `run_store.load_curve` gives.

    Raises:
        RunStoreError: a curve that is damaged or hand-edited.
    """
    kept: list[Budgeted] = []
    stale: list[tuple[Column, str]] = []
    by_run = [_points(one, column) for one, column in zip(found, shown, strict=True)]
    for task in dict.fromkeys(point.task for points in by_run for point in points):
        for run, column, points in zip(runs, shown, by_run, strict=True):
            mine = sorted(
                (point for point in points if point.task == task),
                key=lambda point: (point.budget is None, point.budget),
            )
            if mine and not _is_of(run, mine[-1]):
                stale.append((column, task))
                continue
            kept += [Budgeted(column, point, _cell(run, point)) for point in mine]
    return kept, stale


def _tasks(runs: Sequence[Run]) -> dict[str, None]:
    return dict.fromkeys(task for run in runs for task in run.results)


def _repeated(run: Run, column: Column, result: TaskResult) -> Repeated:
    names = [*(f"{one}{result.repeats}" for one in _OF_ALL), *_OTHERS]
    values = [result.main, *(result.metrics.get(name) for name in names)]
    by_repeat = [v for v in result.breakdowns.get(REPEAT_TAG, {}).values() if v.n]
    return Repeated(
        task=result.task,
        is_group=result.is_group,
        column=column,
        repeats=result.repeats,
        cells=tuple(None if value is None else Cell(value, result.marks) for value in values),
        lowest=min(by_repeat, key=lambda v: v.value, default=None),
        highest=max(by_repeat, key=lambda v: v.value, default=None),
    )


def _attempts(result: TaskResult, column: Column) -> Iterator[Attempt]:
    told = {n: v for n, v in result.metrics.items() if n.startswith(_OF_ALL)}
    if not told:
        return
    for vote in (False, True):
        yield Attempt(result.task, column, 1, vote, result.main)
        for name, value in told.items():
            kind, _, k = name.partition("@")
            if (kind == "majority") == vote:
                yield Attempt(result.task, column, int(k), vote, value)


def _points(found: JsonDict | None, column: Column) -> list[CurvePoint]:
    try:
        points = [] if found is None else found["points"]
        return as_record(list[CurvePoint], points, of="points")
    except (JsonFault, LookupError, TypeError) as error:
        raise RunStoreError(
            f"{CURVE_FILE} of {column.label} is damaged or hand-edited ({error}); make it again "
            "with `mingmoe-eval budget`, or remove it"
        ) from error


def _is_of(run: Run, whole: CurvePoint) -> bool:
    result = run.results.get(whole.task)
    return result is not None and abs(result.main.value - whole.value) < 1e-9


def _cell(run: Run, point: CurvePoint) -> Cell:
    stated = run.results[point.task].main
    value = MetricValue(
        value=point.value,
        n=point.n,
        interval=point.interval,
        metric=stated.metric,
        unit=stated.unit,
        better=stated.better,
    )
    return Cell(value, run.marks_of(point.task))
