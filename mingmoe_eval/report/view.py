"""Runs as the page shows them: small frozen rows that a template or a chart walks through."""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mingmoe_eval.exams.robustness import METRICS as ORDER_METRICS
from mingmoe_eval.labels import Labels
from mingmoe_eval.metrics.repeated import is_of_repeats
from mingmoe_eval.metrics.showing import best_first, common_direction
from mingmoe_eval.pass_rules import PassRule, Verdict, verdicts_of
from mingmoe_eval.records import Better, MetricValue, Run, TaskResult
from mingmoe_eval.scoring import metric_of

ORDER_TAGS = ("option_order", "key_position")
"""The breakdowns that only a run with several orders of options has."""
_SHOWN_ELSEWHERE = (*ORDER_TAGS, "repeat")


@dataclass(frozen=True, slots=True)
class Column:
    """One run: how it is called on the page, and what a reader must know of all its numbers.

    Attributes:
        marks: Why its numbers are not the benchmark's, those of single tasks among them.
        head: Those of the marks that hold for every number of the run, for the head of a column.
    """

    position: int
    label: str
    model: str
    marks: tuple[str, ...]
    head: tuple[str, ...]
    incomplete: tuple[str, ...]
    is_baseline: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One number: its value, its doubt, and whether it is the best of its row.

    `marks` are those that neither its column nor its row bears already.
    """

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

    `metric` is what its numbers are called, where it is not the line's own name; `marks` are those
    that every run's number of it bears, beside the marks of its column.
    """

    name: str
    cells: tuple[Cell | None, ...]
    n: int
    better: Better = "unknown"
    metric: str = ""
    is_group: bool = False
    chance: float | None = None
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


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


def columns(runs: Sequence[Run], baseline: int, labels: Labels | None = None) -> tuple[Column, ...]:
    """The runs' columns; equal names are told apart by number."""
    called = labels or Labels()
    names = [called.model(run.name, run.spec.model) for run in runs]
    distinct = [
        name if names.count(name) == 1 else f"{name} ({names[: n + 1].count(name)})"
        for n, name in enumerate(names)
    ]
    return tuple(
        Column(
            position=n,
            label=distinct[n],
            model=run.spec.model,
            marks=run.marks,
            head=run.spec.marks,
            incomplete=run.incomplete,
            is_baseline=n == baseline,
        )
        for n, run in enumerate(runs)
    )


def first_numbers(run: Run, rows: Sequence[Row], most: int = 4) -> list[tuple[Row, Cell]]:
    """What a page about one run says first: its groups over all others, or else its first tasks."""
    below = {member for result in run.results.values() for member in result.members}
    groups = [row for row in rows if row.is_group and row.name not in below]
    chosen = (groups or rows)[:most]
    return [(row, row.cells[0]) for row in chosen if row.cells[0] and row.cells[0].metric.n]


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
        yield breakdown(task, tag, runs, [part.get(tag, {}) for part in parts])


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


_COUNTED = (
    "unanswered",
    "truncated",
    "forced",
    "empty",
    "prompt_truncated",
    "non_finite",
    "failed",
    "unusable",
    "tied",
)
"""Of `Counts`, what became of docs that earned no plain score or could not be used."""


def task_counts(runs: Sequence[Run], shown: Sequence[Column]) -> list[tuple[Column, TaskResult]]:
    """Every leaf task with docs that need attention, with a note, or with data that are short."""
    return [
        (column, result)
        for run, column in zip(runs, shown, strict=True)
        for result in run.leaves.values()
        if _counted(result) or result.notes or result.marks
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


def attention(
    counts: Sequence[tuple[Column, TaskResult]],
) -> list[tuple[Column, dict[str, int]]]:
    """Of each run that has such docs, how many over all tasks, by what became of them."""
    by_run: dict[int, tuple[Column, Counter[str]]] = {}
    for column, result in counts:
        of_run = by_run.setdefault(column.position, (column, Counter()))[1]
        of_run.update(_counted(result))
        of_run.update(
            {"short_data": int(bool(result.marks)), "with_notes": int(bool(result.notes))}
        )
    return [
        (
            column,
            {name: found[name] for name in (*_COUNTED, "short_data", "with_notes") if found[name]},
        )
        for column, found in by_run.values()
    ]


def attention_opens(counts: Sequence[tuple[Column, TaskResult]]) -> bool:
    """Whether something there makes a number another one: cut-offs, failures, other data."""
    weighty = {"truncated", "forced", "empty", "prompt_truncated", "failed", "unusable"}
    return any(result.marks or _counted(result).keys() & weighty for _, result in counts)


def _counted(result: TaskResult) -> dict[str, int]:
    counts = {name: getattr(result.counts, name) for name in _COUNTED}
    return {name: count for name, count in counts.items() if count}


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
    return (part for part in by_tag(runs, task) if part.tag not in _SHOWN_ELSEWHERE)


def _further_metrics(runs: Sequence[Run], task: str) -> Iterator[Breakdown]:
    metrics: list[dict[str, MetricValue]] = []
    for run in runs:
        result = run.results.get(task)
        elsewhere = {"score", result.main_metric, *ORDER_METRICS} if result else set()
        known = result.metrics if result else {}
        metrics.append(
            {n: v for n, v in known.items() if n not in elsewhere and not is_of_repeats(n)}
        )
    if any(metrics):
        yield breakdown(task, "", runs, metrics)


def breakdown(
    task: str, tag: str, runs: Sequence[Run], by_run: Sequence[Mapping[str, MetricValue]]
) -> Breakdown:
    """A row for each name that some run has a number of."""
    names = dict.fromkeys(name for values in by_run for name in values)
    rows = (_row(name, task, runs, [values.get(name) for values in by_run]) for name in names)
    return Breakdown(task, tag, tuple(rows))


def _row(name: str, task: str, runs: Sequence[Run], values: Sequence[MetricValue | None]) -> Row:
    known = [value for value in values if value is not None]
    better = common_direction(known)
    ranked = best_first((value.value for value in known), better)
    # With one value, "best" says nothing.
    best = ranked[0] if len(ranked) > 1 else math.nan
    own = [run.results[task].marks if task in run.results else () for run in runs]
    there = [marks for marks, value in zip(own, values, strict=True) if value is not None]
    shared = tuple(mark for mark in there[0] if all(mark in marks for marks in there))
    cells = tuple(
        None
        if value is None
        else Cell(value, tuple(m for m in marks if m not in shared), value.value == best)
        for value, marks in zip(values, own, strict=True)
    )
    n = max((value.n for value in known), default=0)
    return Row(name, cells, n, better, marks=shared)


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
            # A line of this table is one run's, and the name of the run bears its other marks.
            None if one is None else Cell(one, result.marks)
            for one in values
        ),
    )


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
