"""A paper's table: rows, ranks, footnotes and caption, before any markup."""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.labels import Labels
from mingmoe_eval.metrics.showing import LESS_IS_BETTER, best_first
from mingmoe_eval.metrics.significance import LEGEND
from mingmoe_eval.paper_table.costs import cost_columns
from mingmoe_eval.paper_table.layouts import (
    LAYOUTS,
    SUFFIXES,
    Cell,
    Column,
    Form,
    Layout,
    Tested,
    generic_layout,
    published_cells,
    run_cells,
    tested,
)
from mingmoe_eval.pass_rules import PassRule, verdicts_of
from mingmoe_eval.published import PublishedRow, published_rows
from mingmoe_eval.records import Better, Counts, Run
from mingmoe_eval.scoring import metric_of

Doubt = Literal["none", "interval", "stderr"]

Z_95 = 1.959963984540054
"""The normal quantile that a 95 % interval reaches to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """What a table should show.

    Attributes:
        layout: One of LAYOUTS, or `generic`: every task of the runs.
        form: Which form of the tasks; forms are never mixed in one table.
        published: Keys of published results to cite.
        doubt: What stands behind each of our numbers.
        decimals: Of our numbers; a cited one never gets more than its source prints.
        baseline: The run that the others are tested against, by its place; None: no tests.
        allow: Kinds of difference between runs that the tests may pass over.
        allow_marked: Whether runs on samples or parts of the data may stand in the table.
        pass_rules: Rules of exams; the verdict on a run stands in a note to its row.
        tasks: Only the columns of these tasks, by name or glob; none: all of them.
        columns: Only the columns of these keys or headings, by name or glob, in this order.
        rows: Only the published rows of these models, by name, part of a name or glob.
        labels: What to call models, tasks and columns, by their names.
        caption: What the caption begins with, in place of the layout's title.
        label: What LaTeX calls the table in references.
        width: How wide a paper's text is, in points: wider tables are split.
        costs: What the answers cost, a column each: kinds of `costs.KINDS`.
        price: What tokens and time cost, in the words of `--price`; default: as each run was told.
    """

    layout: str = "generic"
    form: Form = "direct"
    published: tuple[str, ...] = ()
    doubt: Doubt = "none"
    decimals: int = 1
    baseline: int | None = 0
    allow: frozenset[str] = frozenset()
    allow_marked: bool = False
    pass_rules: tuple[PassRule, ...] = ()
    tasks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""
    costs: tuple[str, ...] = ()
    price: str | None = None
    label: str = ""
    width: float = 345.0
    """Of LaTeX's article in one column; 455 in two columns of ACL's style, 516 in IEEE's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCell:
    """A cell as it is printed: its number, its place in the column, its footnotes."""

    cell: Cell
    rank: int = 0  # 1: the best of its column, 2: the second best, 0: neither
    notes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model."""

    label: str
    cells: tuple[TableCell, ...]
    cited: bool
    notes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """A table without markup; footnotes are numbered from 0.

    `label` and `width` are LaTeX's: see `TableSpec`.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    doubt: Doubt
    label: str = ""
    width: float = 345.0


def make_table(runs: Sequence[Run], spec: TableSpec) -> PaperTable:
    """Put runs and published rows into one table.

    Raises:
        UsageError: no run, an unknown layout, source or baseline, runs that may not stand in a
            table, or a run without any of the columns; every offence is named.
    """
    names = Labels.of_runs(runs, spec.labels)
    layout = _chosen_columns(_layout(runs, spec, names), spec)
    _refuse(runs, layout, spec)
    suffix = _suffix(layout, spec)
    tests = _tests(runs, spec)
    own = [
        run_cells(run, layout.columns, suffix=suffix, decimals=spec.decimals, against=test)
        for run, test in zip(runs, tests, strict=True)
    ]
    cited = [row for row in _cited(spec) if _has_column(row, layout)]
    if missing := _without_rows(spec.published, layout):
        raise UsageError(
            f"{', '.join(missing)}: nothing of it belongs to a column of layout {layout.name}; "
            "leave it out or choose another --layout"
        )
    passed = _passed(runs, spec)
    foreign = [published_cells(row, layout.columns, decimals=spec.decimals) for row in cited]
    filled = [row for row, cells in zip(cited, foreign, strict=True) if _any(cells)]
    empty = [row for row in cited if row not in filled]
    kept = [n for n, cells in enumerate(zip(*own, *foreign, strict=True)) if _any(cells)]
    gone = [column for n, column in enumerate(layout.columns) if n not in kept]
    own = [[cells[n] for n in kept] for cells in own]
    foreign = [[cells[n] for n in kept] for cells in foreign if _any(cells)]
    shown = replace(layout, columns=tuple(layout.columns[n] for n in kept))
    priced, amounts = cost_columns(
        runs, [column.task + suffix for column in shown.columns], spec.costs, spec.price
    )
    own = [[*cells, *more] for cells, more in zip(own, amounts, strict=True)]
    foreign = [[*cells, *[Cell()] * len(priced)] for cells in foreign]
    footnotes = _Footnotes()
    directions = [_direction(cells) for cells in zip(*own, *foreign, strict=True)]
    ranks = _ranks([*own, *foreign], directions)
    rows = [
        _row(
            names.model(run.name, run.spec.model),
            cells,
            ranks[n],
            False,
            [*_run_notes(run, tests[n]), *passed[n]],
            footnotes,
        )
        for n, (run, cells) in enumerate(zip(runs, own, strict=True))
    ]
    rows += [
        _row(
            names.model(row.model),
            cells,
            ranks[len(runs) + n],
            True,
            _published_notes(row),
            footnotes,
        )
        for n, (row, cells) in enumerate(zip(filled, foreign, strict=True))
    ]
    left_out = _left_out(gone, empty, names)
    return PaperTable(
        caption=" ".join(
            [
                *_caption(shown, spec, runs, tests, own, directions, ranked=any(map(any, ranks))),
                *left_out,
            ]
        ),
        columns=tuple(
            _marked(_named(column, names), better)
            for column, better in zip((*shown.columns, *priced), directions, strict=True)
        ),
        rows=tuple(rows),
        footnotes=tuple(footnotes.texts),
        doubt=spec.doubt,
        label=spec.label,
        width=spec.width,
    )


def _any(cells: Iterable[Cell]) -> bool:
    return any(cell.amount is not None for cell in cells)


def _chosen_columns(layout: Layout, spec: TableSpec) -> Layout:
    """The layout's columns that `tasks` and `columns` leave, in the order that `columns` gives.

    Raises:
        UsageError: one of them names no column; all such are named.
    """
    suffix, chosen = _suffix(layout, spec), list(layout.columns)
    unknown = [
        pattern
        for pattern, names in (
            *((p, [c.task + suffix for c in chosen if c.task]) for p in spec.tasks),
            *((p, [n for c in chosen for n in (c.key, c.heading)]) for p in spec.columns),
        )
        if not any(_matches(name, pattern) for name in names)
    ]
    if unknown:
        known = ", ".join(dict.fromkeys(column.key for column in layout.columns))
        raise UsageError(
            f"layout {layout.name} has no column for {', '.join(map(repr, unknown))}; it has "
            f"{known}"
        )
    if spec.tasks:
        chosen = [c for c in chosen if any(_matches(c.task + suffix, p) for p in spec.tasks)]
    if spec.columns:
        found = [
            column
            for pattern in spec.columns
            for column in chosen
            if _matches(column.key, pattern) or _matches(column.heading, pattern)
        ]
        chosen = list(dict.fromkeys(found))
    return replace(layout, columns=tuple(chosen))


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name.lower(), pattern.lower())


def _cited(spec: TableSpec) -> list[PublishedRow]:
    """The published rows that `rows` leaves.

    Raises:
        UsageError: one of `rows` is no model of the sources; the message lists those there are.
    """
    rows = published_rows(spec.published)
    if not spec.rows:
        return rows

    def means(row: PublishedRow, pattern: str) -> bool:
        return _matches(row.model, pattern) or pattern.lower() in row.model.lower()

    if unknown := [p for p in spec.rows if not any(means(row, p) for row in rows)]:
        raise UsageError(
            offence_list(
                f"no published row for {', '.join(map(repr, unknown))}; the sources have",
                list(dict.fromkeys(row.model for row in rows)) or ["none: name some --published"],
            )
        )
    return [row for row in rows if any(means(row, pattern) for pattern in spec.rows)]


def _named(column: Column, names: Labels) -> Column:
    """The column under the user's name for it: for its key, its task or its heading."""
    known = [n for n in (column.key, column.task, column.heading) if n and n in names.given]
    # A part's or an average's task is not the column itself.
    usable = [n for n in known if n != column.task or (column.tag is None and not column.mean_of)]
    return replace(column, heading=names.given[usable[0]]) if usable else column


def _left_out(
    columns: Sequence[Column], rows: Sequence[PublishedRow], names: Labels
) -> Iterator[str]:
    """What would have been all dashes, so that nobody takes it for forgotten."""
    if columns:
        headings = [_named(column, names) for column in columns]
        listed = ", ".join(
            f"{c.section}: {c.heading}" if c.section else c.heading for c in headings
        )
        yield f"Left out, as no row has a number there: {listed}."
    if rows:
        listed = ", ".join(f"{names.model(row.model)} ({row.note})" for row in rows)
        yield f"Left out, as no number could be read: {listed}."


class _Footnotes:
    """Footnotes in the order of their first use; equal texts share a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def numbers(self, texts: Sequence[str]) -> tuple[int, ...]:
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        return tuple(self.texts.index(text) for text in texts)


def _layout(runs: Sequence[Run], spec: TableSpec, names: Labels) -> Layout:
    if spec.layout == "generic":
        return generic_layout(runs, names)
    if spec.layout not in LAYOUTS:
        raise UsageError(
            f"no layout named {spec.layout!r}; there are: {', '.join([*LAYOUTS, 'generic'])}"
        )
    return LAYOUTS[spec.layout]


def _suffix(layout: Layout, spec: TableSpec) -> str:
    """What the tasks' names end with; a generic layout has their whole names."""
    return "" if layout.name == "generic" else SUFFIXES[spec.form]


def _refuse(runs: Sequence[Run], layout: Layout, spec: TableSpec) -> None:
    if not runs:
        raise UsageError("a table needs at least one run")
    if spec.baseline is not None and not 0 <= spec.baseline < len(runs):
        raise UsageError(
            f"run number {spec.baseline + 1} cannot be the baseline: there are {len(runs)} runs"
        )
    offences = [offence for run in runs for offence in _offences(run, layout, spec)]
    if offences:
        raise UsageError(offence_list("these runs cannot stand in a table", offences))


def _offences(run: Run, layout: Layout, spec: TableSpec) -> Iterator[str]:
    if run.incomplete:
        yield f"{run.name} is incomplete: {', '.join(run.incomplete)}; finish or repeat it"
    if run.marks and not spec.allow_marked:
        yield f"{run.name} is not on the benchmark ({', '.join(run.marks)}): --allow-marked"
    suffix = _suffix(layout, spec)
    wanted = {column.task + suffix for column in layout.columns if column.task}
    if not wanted & set(run.results):
        yield f"{run.name} has no task of layout {layout.name}, for instance {min(wanted)}"


def _tests(runs: Sequence[Run], spec: TableSpec) -> list[Tested]:
    if spec.baseline is None:
        return [Tested() for _ in runs]
    baseline = runs[spec.baseline]
    return [
        Tested() if run is baseline else tested(baseline, run, allow=spec.allow) for run in runs
    ]


def _passed(runs: Sequence[Run], spec: TableSpec) -> list[list[str]]:
    """By run, what the rules of exams make of it."""
    by_rule = [verdicts_of(runs, rule) for rule in spec.pass_rules]
    return [[str(one) for found in by_rule for one in found[n]] for n in range(len(runs))]


def _has_column(row: PublishedRow, layout: Layout) -> bool:
    return any(column.key in row.values for column in layout.columns)


def _without_rows(keys: Sequence[str], layout: Layout) -> list[str]:
    return [k for k in keys if not any(_has_column(row, layout) for row in published_rows([k]))]


def _direction(cells: Sequence[Cell]) -> Better:
    """In which direction a column is better; unknown where its numbers differ in it or in unit."""
    kinds = {(cell.unit, cell.better) for cell in cells if cell.amount is not None}
    return kinds.pop()[1] if len(kinds) == 1 else "unknown"


def _marked(column: Column, better: Better) -> Column:
    if better != "lower":
        return column
    return replace(column, heading=f"{column.heading} {LESS_IS_BETTER}")


def _ranks(rows: Sequence[Sequence[Cell]], directions: Sequence[Better]) -> list[list[int]]:
    """The best and the second best of each column, as printed; equal ones share a rank."""
    ranks = [[0] * len(cells) for cells in rows]
    for column, better in enumerate(directions):
        shown = [_shown(cells[column]) for cells in rows]
        best = best_first((value for value in shown if value is not None), better)
        if sum(value is not None for value in shown) < 2:
            continue
        for line, value in enumerate(shown):
            if value is not None and value in best[:2]:
                ranks[line][column] = best.index(value) + 1
    return ranks


def _shown(cell: Cell) -> float | None:
    """The value that competes: as printed, and none that its source cannot mean."""
    if cell.amount is None or cell.suspect:
        return None
    # What is no share is printed to some digits that matter, however small it is.
    return round(cell.amount, cell.decimals) if cell.unit == "share" else cell.amount


def _row(
    label: str,
    cells: Sequence[Cell],
    ranks: Sequence[int],
    cited: bool,
    notes: Sequence[str],
    footnotes: _Footnotes,
) -> Row:
    row_notes = footnotes.numbers(notes)
    return Row(
        label=label,
        cells=tuple(
            TableCell(
                cell=cell,
                rank=rank,
                notes=footnotes.numbers(
                    [*([f"doubtful: {cell.suspect}"] if cell.suspect else []), *cell.remarks]
                ),
            )
            for cell, rank in zip(cells, ranks, strict=True)
        ),
        cited=cited,
        notes=row_notes,
    )


def _run_notes(run: Run, test: Tested) -> list[str]:
    notes = [f"not the benchmark: {', '.join(run.marks)}"] if run.marks else []
    notes += _reply_notes(run)
    if test.refusal:
        notes.append(f"not tested against the baseline: {test.refusal}")
    if test.comparison and test.comparison.allowed:
        kinds = dict.fromkeys(difference.kind for difference in test.comparison.allowed)
        notes.append(f"tested although the runs differ in: {', '.join(kinds)}")
    return notes


def _reply_notes(run: Run) -> list[str]:
    """Shares of replies that were not whole, where thoughts have a budget or 1 % were cut off."""
    counts = sum((result.counts for result in run.leaves.values()), Counts())
    if not counts.forced and counts.truncated <= 0.01 * counts.docs:
        return []
    shares = (
        (counts.truncated, "cut off"),
        (counts.forced, "with their thought closed at its budget"),
        (counts.empty, "without an answer"),
    )
    told = (f"{100 * n / counts.docs:.1f} % {what}" for n, what in shares if n)
    return [f"of {counts.docs:,} replies {', '.join(told)}"]


def _published_notes(row: PublishedRow) -> list[str]:
    shots = "" if row.n_shot is None else f"; {row.n_shot}-shot"
    return [f"{row.citation}: {row.note}{shots}"]


def _caption(
    layout: Layout,
    spec: TableSpec,
    runs: Sequence[Run],
    tests: Sequence[Tested],
    own: Sequence[Sequence[Cell]],
    directions: Sequence[Better],
    *,
    ranked: bool,
) -> Iterator[str]:
    given = [cell for cells in own for cell in cells if cell.amount is not None]
    percent = "in %" if all(cell.unit == "share" for cell in given) else "in % if it is a share"
    yield f"{spec.caption or _title(layout)}{'' if spec.caption.endswith(('.', '。')) else ':'}"
    yield f"{_metric(layout, spec, runs)} {percent}."
    if data := _data(layout, spec, runs):
        yield data
    if "lower" in directions:
        yield f"{LESS_IS_BETTER}: less is better."
    if layout.remark:
        yield layout.remark
    if spec.doubt == "interval":
        yield "In brackets: the 95 % interval."
    elif spec.doubt == "stderr":
        yield f"After ±: the standard error, half the width of the 95 % interval over {Z_95:.2f}."
    if ranked:
        yield "Best of a column bold, second best underlined; doubtful cells are not ranked."
    suffix = _suffix(layout, spec)
    tasks = {column.task + suffix for column in layout.columns if column.tag is None}
    used = dict.fromkeys(name for test in tests for name in test.tests(tasks))
    if used and spec.baseline is not None:
        yield (
            f"{LEGEND} against {runs[spec.baseline].name}: "
            f"two-sided, paired by question ({', '.join(used)}), after Holm's procedure over all "
            "tasks of each run, and over their groups; averages and parts are not tested."
        )
    if spec.costs:
        yield "Costs are of the tasks shown; tokens are the generated ones, thoughts included."
    if spec.published:
        yield "Cited rows were measured by others under their own conditions; see the notes."


def _title(layout: Layout) -> str:
    """The layout's own, or what the tasks are."""
    if layout.name != "generic":
        return layout.title
    headings = [column.heading for column in layout.columns]
    return f"Results on {', '.join(headings)}" if len(headings) <= 4 else f"{len(headings)} tasks"


def _metric(layout: Layout, spec: TableSpec, runs: Sequence[Run]) -> str:
    """What all columns' numbers are called, if they are called alike."""
    suffix = _suffix(layout, spec)
    titles = {
        "accuracy" if run.results[task].suite == "choice" else metric_of(run.results[task]).title
        for run in runs
        for column in layout.columns
        if (task := column.task + suffix) in run.results
    }
    return titles.pop() if len(titles) == 1 else "main metric of each column"


def _data(layout: Layout, spec: TableSpec, runs: Sequence[Run]) -> str:
    """Over how many docs our numbers are, and that they are not the benchmark's."""
    suffix = _suffix(layout, spec)
    counts: dict[str, set[int]] = {}
    for column in layout.columns:
        for run in runs:
            if column.task and column.tag is None and column.task + suffix in run.results:
                name = f"{column.section} {column.heading}".strip()
                counts.setdefault(name, set()).add(run.results[column.task + suffix].main.n)
    if not counts:
        return ""
    alike = sorted({n for numbers in counts.values() for n in numbers})
    if len(alike) == 1:
        said = f"{alike[0]:,}" + (" a column" if len(counts) > 1 else "")
    elif len(counts) > _MOST_COUNTS:
        said = f"from {alike[0]:,} to {alike[-1]:,} a column"
    else:
        said = "; ".join(
            f"{name} {' or '.join(f'{n:,}' for n in sorted(numbers))}"
            for name, numbers in counts.items()
        )
    text = f"Questions of our runs: {said}."
    marks = dict.fromkeys(mark for run in runs for mark in run.spec.marks)
    return text + (f" Not the benchmark: {', '.join(marks)}." if marks else "")


_MOST_COUNTS = 6  # columns whose numbers of questions a caption lists one by one
