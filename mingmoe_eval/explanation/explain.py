"""A run beside a published table: column by column, same, compatible or not comparable, and why.

A published number is only comparable with one over the same questions, asked in the same form with
as many worked examples, and read by the same rules. What a source does not say stays unknown: it
is listed, and never taken for equal.
"""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.exams.cases import clusters_of
from mingmoe_eval.explanation.lists import ListFit, QuestionList, fits, lists_of, right_answers
from mingmoe_eval.metrics.answer_reading import DEFAULT, O1, head_and_tail
from mingmoe_eval.metrics.answer_reading.compat import MODES
from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.uncertainty import difference_of_parts, share
from mingmoe_eval.paper_table.layouts import LAYOUTS, SUFFIXES, Column
from mingmoe_eval.promptcblue.parsing import Profile
from mingmoe_eval.published import Protocol, PublishedRow, PublishedTable, published_tables
from mingmoe_eval.records import MetricValue, Run, Sample, TaskResult
from mingmoe_eval.repeats import questions
from mingmoe_eval.rescoring import rescore
from mingmoe_eval.task_catalog import TaskCatalog, load_catalog

Outcome = Literal["same", "compatible", "different", "not comparable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The run's number under one way of reading replies.

    `of_the_source`: whether the source's own scripts read so.
    """

    mode: str
    value: MetricValue
    of_the_source: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CellVerdict:
    """One published cell beside the run's number.

    Attributes:
        printed: The percentage, with its decimals.
        published: The same with its interval, where a number of questions is known.
        reading: The way of reading under which the two are compared.
        difference: The run's less the published one, taken as independent; None: not compared.
        reasons: Why, in sentences.
    """

    model: str
    printed: str
    published: MetricValue | None
    outcome: Outcome
    reading: str
    difference: MetricValue | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnExplanation:
    """One column of the published table that the run has a number for, or a part of one.

    Attributes:
        title: What the source calls it.
        task: The task here whose questions those are.
        form: In which form the run asked.
        lists: How the printed cells fit the lists of questions.
        over: The list that the published numbers are over, as far as can be known.
        own: The run's number over all its parts of the exam, whatever the published list.
        run_over: Those parts, with how many questions each.
        bounds: What the run's number could be over the published list, whatever it would answer to
            the parts that it lacks; None where it lacks none or nothing is known.
        readings: The run's number over those of its parts that the published list holds, under
            each way of reading; as the run stands first.
        cells: The published cells beside it.
        unknown: What nobody knows of how the source asked.
        rerun: What a run that can be compared needs.
    """

    title: str
    task: str
    form: str
    lists: tuple[ListFit, ...]
    over: QuestionList | None
    own: MetricValue
    run_over: Mapping[str, int]
    bounds: tuple[float, float] | None
    readings: tuple[Reading, ...]
    cells: tuple[CellVerdict, ...]
    unknown: tuple[str, ...]
    rerun: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A run beside one published table."""

    run: str
    citation: str
    note: str
    protocol: Protocol
    columns: tuple[ColumnExplanation, ...]


def explain_run(run: Run, key: str, *, model: str | None = None) -> list[Explanation]:
    """The run beside every table of a source that has something in common with it.

    Args:
        run: The run, samples included.
        key: The source's key, as `table --published` takes it.
        model: Only the published rows of models whose name holds this; None: all rows.

    Raises:
        UsageError: no such source or model, or nothing in common.
    """
    catalog, tables = load_catalog(), published_tables([key])
    names = [row.model for table in tables for row in table.rows]
    if model is not None and not any(model.lower() in name.lower() for name in names):
        raise UsageError(
            offence_list(f"{key} has no row of a model named {model!r}; it has", sorted(set(names)))
        )
    found = []
    for table in tables:
        rows = [row for row in table.rows if model is None or model.lower() in row.model.lower()]
        columns = tuple(_columns(run, table, rows, catalog)) if rows else ()
        if columns:
            found.append(
                Explanation(
                    run=run.name,
                    citation=table.citation,
                    note=table.note,
                    protocol=table.protocol,
                    columns=columns,
                )
            )
    if not found:
        known = sorted({key for table in tables for key in table.columns})
        raise UsageError(
            f"{run.name} has no task that {key} prints a number for: {', '.join(known)}"
        )
    return found


def _columns(
    run: Run, table: PublishedTable, rows: Sequence[PublishedRow], catalog: TaskCatalog
) -> Iterator[ColumnExplanation]:
    ours = {c.key: c for layout in LAYOUTS.values() for c in layout.columns if c.task and not c.tag}
    for key in table.columns:
        if key not in ours:
            continue
        lists = lists_of(ours[key].task, catalog)
        if not lists and ours[key].task in run.samples:
            yield _measured(run, table, rows, ours[key])
        leaves = dict.fromkeys(leaf for one in lists for leaf in one.parts)
        for form, suffix in SUFFIXES.items():
            held = [leaf for leaf in leaves if leaf + suffix in run.samples]
            if held:
                yield _column(run, table, rows, ours[key], lists, held, form)


def _column(
    run: Run,
    table: PublishedTable,
    rows: Sequence[PublishedRow],
    column: Column,
    lists: Sequence[QuestionList],
    held: Sequence[str],
    form: str,
) -> ColumnExplanation:
    suffix = SUFFIXES[form]
    found = _fits(table, column.key, lists)
    over = _published_list(found, lists)
    # Of the published list's parts those that the run has; else all that it has of the exam.
    within = [leaf for leaf in held if over is None or leaf in over.parts]
    tasks = [leaf + suffix for leaf in within or held]
    readings = _readings(run, tasks, table.protocol.reading.get(form, ()))
    counted = {leaf: _questions_of(run.results[leaf + suffix]) for leaf in held}
    missing = _missing(over, held)
    apart = tuple(_apart(run, tasks, form, table.protocol, over, held))
    return ColumnExplanation(
        title=_title(table.columns[column.key]),
        task=column.task,
        form=form,
        lists=tuple(found),
        over=over,
        own=_pooled(_part(run, [leaf + suffix for leaf in held])),
        run_over=counted,
        bounds=_bounds(readings[0].value, missing, over),
        readings=tuple(readings),
        cells=tuple(
            _cell(row, column.key, _places(row, column.key), over, readings, apart, run, tasks)
            for row in rows
            if column.key in row.values
        ),
        unknown=tuple(_unknown(table, rows, column.key)),
        rerun=tuple(_rerun(run, column.task, over, form, missing, table.protocol, apart)),
    )


def _measured(
    run: Run, table: PublishedTable, rows: Sequence[PublishedRow], column: Column
) -> ColumnExplanation:
    """A column of F1 or ROUGE: no count of right answers tells over which docs it was printed."""
    part = _part(run, [column.task])
    readings = [Reading(mode="as it stands", value=run.results[column.task].main)]
    for profile in get_args(Profile):
        value = rescore(part, profile=profile).results[column.task].main
        readings.append(
            Reading(mode=f"profile {profile}", value=value, of_the_source=profile == "official")
        )
    apart = [*_marks(run, [column.task]), f"the source: {table.note}"]
    apart.append("over which docs the number is cannot be told from it")
    return ColumnExplanation(
        title=_title(table.columns[column.key]),
        task=column.task,
        form="as the task asks",
        lists=(),
        over=None,
        own=readings[0].value,
        run_over={column.task: _questions_of(run.results[column.task])},
        bounds=None,
        readings=tuple(readings),
        cells=tuple(
            _measured_cell(row, column.key, readings[1], apart)
            for row in rows
            if column.key in row.values
        ),
        unknown=tuple(_unknown(table, rows, column.key)),
        rerun=(f"the source's own docs: {table.note}",),
    )


def _measured_cell(
    row: PublishedRow, key: str, official: Reading, apart: Sequence[str]
) -> CellVerdict:
    value = row.values[key]
    if value is None:
        why = ["no number could be read in the source"]
        return _verdict(row, "–", None, "not comparable", official, None, why)
    printed = f"{value:.{row.decimals}f}"
    reasons = list(apart)
    if official.value.interval is not None:
        low, high = (round(100 * end, row.decimals) for end in official.value.interval)
        where = "inside" if low <= value <= high else "outside"
        reasons.append(f"the printed number lies {where} the 95 % interval of this run's")
    return _verdict(row, printed, None, "not comparable", official, None, reasons)


def _title(facts: Mapping[str, str]) -> str:
    subset = f" ({facts['subset']})" if facts.get("subset") else ""
    return f"{facts['benchmark']}{subset}, {facts['metric']}"


def _places(row: PublishedRow, key: str) -> int:
    """With how many decimals a cell was printed; one that was copied may have fewer."""
    return min(row.decimals, 1) if "one decimal" in row.remarks.get(key, "") else row.decimals


def _fits(table: PublishedTable, key: str, lists: Sequence[QuestionList]) -> list[ListFit]:
    """Of all rows of the column, whichever of them are asked for: together they tell most."""
    cells = [
        (value, _places(row, key))
        for row in table.rows
        if (value := row.values.get(key)) is not None and key not in row.suspect
    ]
    return fits([value for value, _ in cells], [places for _, places in cells], lists)


def _published_list(found: Sequence[ListFit], lists: Sequence[QuestionList]) -> QuestionList | None:
    """The list that fits more cells than any other, where fits tell; else the one of the column."""
    telling = [fit for fit in found if fit.tells and fit.cells]
    if len(telling) > 1 and telling[0].fitting > telling[1].fitting:
        return telling[0].list
    return lists[0] if lists else None


def _missing(over: QuestionList | None, held: Sequence[str]) -> dict[str, int]:
    return {} if over is None else {p: n for p, n in over.parts.items() if p not in held}


def _bounds(
    value: MetricValue, missing: Mapping[str, int], over: QuestionList | None
) -> tuple[float, float] | None:
    """All of what is missing wrong, and all of it right."""
    if over is None or not missing or value.n + sum(missing.values()) != over.questions:
        return None
    right = value.value * value.n
    return right / over.questions, (right + sum(missing.values())) / over.questions


def _readings(run: Run, tasks: Sequence[str], official: Sequence[str]) -> list[Reading]:
    """The run as it stands, then read again in every way there is, where it has replies."""
    part = _part(run, tasks)
    readings = [Reading(mode=_own_mode(run, tasks), value=_pooled(part))]
    samples = [sample for task in tasks for sample in run.samples[task]]
    if any(s.log_likelihoods or s.response is None or not s.doc.get("options") for s in samples):
        return readings
    for mode in (DEFAULT, *MODES):
        if mode != readings[0].mode:
            again = rescore(part, reading=mode)
            value = _pooled(again, mode)
            readings.append(Reading(mode=mode, value=value, of_the_source=mode in official))
    return readings


def _part(run: Run, tasks: Sequence[str]) -> Run:
    said = run.provenance.get("tasks", {})
    return replace(
        run,
        provenance={**run.provenance, "tasks": {t: said[t] for t in tasks if t in said}},
        samples={task: run.samples[task] for task in tasks},
        results={task: run.results[task] for task in tasks},
    )


def _own_mode(run: Run, tasks: Sequence[str]) -> str:
    said = run.provenance.get("tasks", {})
    modes = {str(said.get(task, {}).get("reading") or DEFAULT) for task in tasks}
    return modes.pop() if len(modes) == 1 else "several"


def _questions_of(result: TaskResult) -> int:
    """How many docs a task has; its counts are of answers, of which a doc may have several."""
    return result.counts.docs // result.repeats


def _pooled(run: Run, mode: str | None = None) -> MetricValue:
    """Accuracy over the questions of all tasks together, each weighing the same."""
    asked: list[list[Sample]] = []
    clusters: list[tuple[str, str] | None] = []
    for task, samples in run.samples.items():
        usable = [s for s in samples if s.status != "failed" and not s.variant]
        of_task = questions(usable)
        asked += of_task
        shared = clusters_of([answers[0] for answers in of_task])
        clusters += [None if name is None else (task, name) for name in shared]

    def over(earned: Callable[[Sample], float]) -> MetricValue:
        means = [math.fsum(map(earned, answers)) / len(answers) for answers in asked]
        return ACCURACY.of([{"": (mean, 1.0)} for mean in means], clusters)

    if mode != O1:
        return over(lambda sample: sample.score or 0.0)
    # The source reports the better of the two accuracies over a whole data set.
    head = over(lambda sample: head_and_tail(sample.answered, sample.expected)[0])
    tail = over(lambda sample: head_and_tail(sample.answered, sample.expected)[1])
    return max(head, tail, key=lambda value: value.value)


def _apart(
    run: Run,
    tasks: Sequence[str],
    form: str,
    protocol: Protocol,
    over: QuestionList | None,
    held: Sequence[str],
) -> Iterator[str]:
    """Why no cell of the column can be compared with this run."""
    yield from _marks(run, tasks)
    if missing := _missing(over, held):
        lacking = ", ".join(f"{name} ({questions})" for name, questions in missing.items())
        assert over is not None  # else nothing is missing
        text = f"the published numbers are over the {over.questions:,} questions of {over.name}, "
        yield text + f"and this run lacks {lacking} of them"
    if protocol.form and form != protocol.form:
        yield f"the source asks in the form {protocol.form}, this run in the form {form}"


def _marks(run: Run, tasks: Sequence[str]) -> Iterator[str]:
    if run.spec.marks:
        yield f"this run is not over the benchmark: {', '.join(run.spec.marks)}"
    for task in tasks:
        for mark in run.results[task].marks:
            yield f"{task}: {mark}"


def _cell(
    row: PublishedRow,
    key: str,
    places: int,
    over: QuestionList | None,
    readings: Sequence[Reading],
    apart: Sequence[str],
    run: Run,
    tasks: Sequence[str],
) -> CellVerdict:
    value = row.values[key]
    reasons = list(apart)
    if value is None:
        reasons = ["no number could be read in the source"]
        return _verdict(row, "–", None, "not comparable", readings[0], None, reasons)
    printed = f"{value:.{places}f}"
    if key in row.suspect:
        reasons.append(f"the printed number is doubtful: {row.suspect[key]}")
    shots = {str(run.results[task].num_fewshot) for task in tasks}
    if row.n_shot is not None and shots != {row.n_shot}:
        reasons.append(f"{row.n_shot}-shot there, {', '.join(sorted(shots))}-shot here")
    published = None
    if over is not None:
        right = right_answers(value, places, over.questions)
        if right is None:
            reasons.append(
                f"{printed} % is no whole number of right answers of {over.questions:,} questions"
            )
        published = share(right or round(value * over.questions / 100), over.questions)
    if reasons or published is None:
        return _verdict(row, printed, published, "not comparable", readings[0], None, reasons)
    return _compared(row, printed, places, published, readings)


def _compared(
    row: PublishedRow,
    printed: str,
    places: int,
    published: MetricValue,
    readings: Sequence[Reading],
) -> CellVerdict:
    equal = [r for r in readings if f"{100 * r.value.value:.{places}f}" == printed]
    # Our own reading first, then the source's, then any other.
    ranked = sorted(equal, key=lambda r: (r is not readings[0], not r.of_the_source))
    chosen = next(iter(ranked), next((r for r in readings if r.of_the_source), readings[0]))
    difference = difference_of_parts(chosen.value, published)
    low, high = difference.interval or (-1.0, 1.0)
    how = f"read as {chosen.mode} reads"
    if equal:
        reasons = [f"{how}, this run has the printed number"]
        return _verdict(row, printed, published, "same", chosen, difference, reasons)
    if low <= 0 <= high:
        reasons = [f"{how}, the difference is within what chance makes of so many questions"]
        return _verdict(row, printed, published, "compatible", chosen, difference, reasons)
    reasons = [
        f"{how}, the difference is more than chance makes of so many questions: another model, "
        "prompt, form or decoding"
    ]
    return _verdict(row, printed, published, "different", chosen, difference, reasons)


def _verdict(
    row: PublishedRow,
    printed: str,
    published: MetricValue | None,
    outcome: Outcome,
    reading: Reading,
    difference: MetricValue | None,
    reasons: Sequence[str],
) -> CellVerdict:
    return CellVerdict(
        model=row.model,
        printed=printed,
        published=published,
        outcome=outcome,
        reading=reading.mode,
        difference=difference,
        reasons=tuple(reasons),
    )


def _unknown(table: PublishedTable, rows: Sequence[PublishedRow], key: str) -> Iterator[str]:
    protocol = table.protocol
    if "caveat" in table.columns[key]:
        yield table.columns[key]["caveat"]
    if protocol.form is None:
        yield "in which form it asked"
    if any(row.n_shot is None for row in rows):
        yield "with how many worked examples"
    if protocol.prompt is None:
        yield "with which prompt"
    if protocol.decoding is None:
        yield "how it generated"
    if not protocol.reading:
        yield "how it read replies"


def _rerun(
    run: Run,
    task: str,
    over: QuestionList | None,
    form: str,
    missing: Mapping[str, int],
    protocol: Protocol,
    apart: Sequence[str],
) -> Iterator[str]:
    wanted = (over.name if over else task) + SUFFIXES.get(protocol.form or form, "")
    if apart:
        only = f"  # new in it: {', '.join(missing)}" if missing and not run.spec.marks else ""
        named = shlex.join(["--tasks", wanted, "--model", run.spec.model])
        yield f"mingmoe-eval {named} --data-dir data/{only}"
    for mode in protocol.reading.get(form, ()):
        yield f"mingmoe-eval rescore RUN --reading {mode}"
