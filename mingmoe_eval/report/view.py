"""Runs as the page shows them: small frozen rows that a template or a chart walks through."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mingmoe_eval.comparison import Comparison, compare
from mingmoe_eval.errors import IncomparableRunsError
from mingmoe_eval.exams.robustness import METRICS as ORDER_METRICS
from mingmoe_eval.metrics.showing import best_first, common_direction
from mingmoe_eval.metrics.significance import significance_marks
from mingmoe_eval.pass_rules import PassRule, Verdict, verdicts_of
from mingmoe_eval.records import Better, MetricValue, Run, TaskResult, Unit
from mingmoe_eval.scoring import metric_of

ORDER_TAGS = ("option_order", "key_position")
"""The breakdowns that only a run with several orders of options has."""


@dataclass(frozen=True, slots=True)
class Column:
    """One run: how it is called on the page, and what a reader must know of all its numbers."""

    position: int
    label: str
    model: str
    marks: tuple[str, ...]
    incomplete: tuple[str, ...]
    is_baseline: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One number: its value, its doubt, and whether it is the best of its row."""

    metric: MetricValue
    marks: tuple[str, ...]
    best: bool = False

    @property
    def level(self) -> int:
        """The value in tenths, for shading; 0, which is no shade, for what is no share."""
        if self.metric.unit != "share" or not math.isfinite(self.metric.value):
            return 0
        return max(0, min(10, round(self.metric.value * 10)))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a task, or one part of a task, over the runs.

    `metric` is what its numbers are called, where it is not the line's own name.
    """

    name: str
    cells: tuple[Cell | None, ...]
    n: int
    better: Better = "unknown"
    metric: str = ""
    is_group: bool = False
    chance: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One task by one tag, a row for each of its values; without a tag, a row for each metric."""

    task: str
    tag: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Reordered:
    """One task of one run whose questions were asked under several orders of their options.

    Attributes:
        orders: What `--permute-options` asked for.
        questions: How many questions had several orders.
        cells: The main metric under the benchmark's own order, then `ORDER_METRICS`.
    """

    task: str
    is_group: bool
    column: Column
    orders: str
    questions: int
    cells: tuple[Cell | None, ...]


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
    unit: Unit
    better: Better
    stars: str = ""
    test: str = ""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run cost; None where the run does not say."""

    column: Column
    seconds: float | None
    prompt_tokens: int | None
    generated_tokens: int | None
    from_store: int | None
    total_parameters: int | None
    trainable_parameters: int | None
    active_parameters: int | None

    @property
    def tokens_per_second(self) -> float | None:
        """Prompt and generated tokens together; None where nothing was computed."""
        tokens = (self.prompt_tokens or 0) + (self.generated_tokens or 0)
        return tokens / self.seconds if tokens and self.seconds else None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting over the runs."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs disagree."""
        return len(set(self.values)) > 1


def columns(runs: Sequence[Run], baseline: int) -> tuple[Column, ...]:
    """The runs' columns; equal names are told apart by number."""
    names = [run.name for run in runs]
    labels = [
        name if names.count(name) == 1 else f"{name} ({names[: n + 1].count(name)})"
        for n, name in enumerate(names)
    ]
    return tuple(
        Column(n, labels[n], run.spec.model, run.marks, run.incomplete, n == baseline)
        for n, run in enumerate(runs)
    )


def headline(runs: Sequence[Run]) -> list[Row]:
    """The main metric of every task, groups first."""
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    rows = [_task_row(runs, task) for task in tasks]
    return sorted(rows, key=lambda row: not row.is_group)


def breakdowns(runs: Sequence[Run]) -> list[tuple[str, list[Breakdown]]]:
    """By task: its parts by every tag that some run split it by, then its further metrics.

    Without what orders of options make of it, which `reordered` shows.
    """
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    by_task = ((task, [*_plain_tags(runs, task), *_further_metrics(runs, task)]) for task in tasks)
    return [(task, parts) for task, parts in by_task if parts]


def by_tag(runs: Sequence[Run], task: str) -> Iterator[Breakdown]:
    """A task's parts by every tag that some run split it by."""
    parts = [run.results[task].breakdowns if task in run.results else {} for run in runs]
    for tag in dict.fromkeys(tag for part in parts for tag in part):
        yield _breakdown(task, tag, runs, [part.get(tag, {}) for part in parts])


def reordered(runs: Sequence[Run], shown: Sequence[Column]) -> list[Reordered]:
    """Every task that has the metrics of robustness, the runs of a task together."""
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    return [
        _reordered(run, column, run.results[task])
        for task in tasks
        for run, column in zip(runs, shown, strict=True)
        if task in run.results and ORDER_METRICS[0] in run.results[task].metrics
    ]


def order_breakdowns(runs: Sequence[Run]) -> list[tuple[str, list[Breakdown]]]:
    """By task: accuracy by the order of the options and by the place of the right one."""
    tasks = dict.fromkeys(task for run in runs for task in run.results)
    by_task = (
        (task, [part for part in by_tag(runs, task) if part.tag in ORDER_TAGS]) for task in tasks
    )
    return [(task, parts) for task, parts in by_task if parts]


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
                leaf.paired.difference,
                leaf.unit,
                leaf.better,
                significance_marks(leaf.p_adjusted),
                leaf.paired.test,
            )
        for task, group in one.comparison.groups.items():
            change = group.candidate - group.baseline
            found[task, one.column.position] = Change(change, group.unit, group.better)
    return found


def verdicts(
    runs: Sequence[Run], shown: Sequence[Column], rules: Sequence[PassRule]
) -> list[tuple[Column, Verdict]]:
    """What rules of exams make of the runs, rule by rule."""
    return [
        (column, verdict)
        for rule in rules
        for column, found in zip(shown, verdicts_of(runs, rule), strict=True)
        for verdict in found
    ]


def effort(runs: Sequence[Run], shown: Sequence[Column]) -> list[Effort]:
    """What each run cost."""
    return [_effort(run, column) for run, column in zip(runs, shown, strict=True)]


def settings(runs: Sequence[Run]) -> list[Setting]:
    """What was asked for and what made each run, as dotted names; what differs comes first."""
    flat = [dict(_flatten(_said(run))) for run in runs]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [Setting(name, tuple(one.get(name, "") for one in flat)) for name in names]
    return sorted(rows, key=lambda row: not row.differs)


def task_counts(runs: Sequence[Run], shown: Sequence[Column]) -> list[tuple[Column, TaskResult]]:
    """Every leaf task in which some doc earned no plain score or could not be used."""
    return [
        (column, result)
        for run, column in zip(runs, shown, strict=True)
        for result in run.leaves.values()
        if any(
            (
                result.counts.unanswered,
                result.counts.truncated,
                result.counts.prompt_truncated,
                result.counts.non_finite,
                result.counts.failed,
                result.counts.unusable,
                result.counts.tied,
            )
        )
        or result.notes
    ]


def without_texts(run: Run, tasks: Collection[str]) -> Run:
    """The run as tables may tell of it where the docs of some tasks are withheld.

    Why a row cannot be used is told with a piece of it: only how many there are stays.
    """
    if not tasks:
        return run
    facts = dict(run.provenance.get("tasks") or {})
    for task in tasks & facts.keys():
        unusable = facts[task].get("unusable") or ()
        facts[task] = {**facts[task], "unusable": [f"{len(unusable)} rows"] if unusable else []}
    results = {
        task: replace(
            result, notes=tuple(re.sub(r" \(line .*", "", n, flags=re.S) for n in result.notes)
        )
        if task in tasks
        else result
        for task, result in run.results.items()
    }
    return replace(run, provenance={**run.provenance, "tasks": facts}, results=results)


def registered_tasks(runs: Sequence[Run]) -> set[str]:
    """Tasks on data sets that only registered users may have."""
    return {
        task
        for run in runs
        for task, facts in dict(run.provenance.get("tasks") or {}).items()
        if facts.get("access") == "registered"
    }


def _task_row(runs: Sequence[Run], task: str) -> Row:
    results = [run.results.get(task) for run in runs]
    first = next(result for result in results if result)
    row = _row(task, task, runs, [result.main if result else None for result in results])
    return replace(
        row,
        metric="" if first.is_group else metric_of(first).title,
        is_group=first.is_group,
        chance=first.chance,
        notes=first.notes,
    )


def _plain_tags(runs: Sequence[Run], task: str) -> Iterator[Breakdown]:
    return (part for part in by_tag(runs, task) if part.tag not in ORDER_TAGS)


def _further_metrics(runs: Sequence[Run], task: str) -> Iterator[Breakdown]:
    metrics: list[dict[str, MetricValue]] = []
    for run in runs:
        result = run.results.get(task)
        elsewhere = {"score", result.main_metric, *ORDER_METRICS} if result else set()
        known = result.metrics if result else {}
        metrics.append({name: value for name, value in known.items() if name not in elsewhere})
    if any(metrics):
        yield _breakdown(task, "", runs, metrics)


def _breakdown(
    task: str, tag: str, runs: Sequence[Run], by_run: Sequence[Mapping[str, MetricValue]]
) -> Breakdown:
    names = dict.fromkeys(name for values in by_run for name in values)
    rows = (_row(name, task, runs, [values.get(name) for values in by_run]) for name in names)
    return Breakdown(task, tag, tuple(rows))


def _row(name: str, task: str, runs: Sequence[Run], values: Sequence[MetricValue | None]) -> Row:
    known = [value for value in values if value is not None]
    better = common_direction(known)
    ranked = best_first((value.value for value in known), better)
    # With one run, "best" says nothing.
    best = ranked[0] if len(values) > 1 and ranked else math.nan
    cells = tuple(
        None if value is None else Cell(value, run.marks_of(task), value.value == best)
        for value, run in zip(values, runs, strict=True)
    )
    return Row(name, cells, max((value.n for value in known), default=0), better)


def _reordered(run: Run, column: Column, result: TaskResult) -> Reordered:
    values = [result.main, *(result.metrics.get(name) for name in ORDER_METRICS)]
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


def _compared(baseline: Run, run: Run, column: Column, allow: frozenset[str]) -> Compared:
    try:
        return Compared(column, compare(baseline, run, allow=allow))
    except IncomparableRunsError as error:
        return Compared(column, None, str(error))


def _effort(run: Run, column: Column) -> Effort:
    model = run.provenance.get("model")
    parameters = model.get("parameters") if isinstance(model, Mapping) else None
    sizes: Mapping[str, Any] = parameters if isinstance(parameters, Mapping) else {}
    timing = run.timing
    return Effort(
        column=column,
        seconds=timing.get("seconds"),
        prompt_tokens=_whole(timing.get("prompt_tokens")),
        generated_tokens=_whole(timing.get("generated_tokens")),
        from_store=_whole(timing.get("requests_from_store")),
        total_parameters=_whole(sizes.get("total")),
        trainable_parameters=_whole(sizes.get("trainable")),
        active_parameters=_whole(sizes.get("active")),
    )


def _whole(value: Any) -> int | None:
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def _said(run: Run) -> dict[str, Any]:
    return {"spec": run.spec.to_json(), "provenance": run.provenance, "parent": run.parent}


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, "" if value is None else str(value)
