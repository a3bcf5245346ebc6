"""A paper's table: rows, ranks, footnotes and caption, before any markup."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.metrics.showing import LESS_IS_BETTER, best_first
from mingmoe_eval.metrics.significance import LEGEND
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
from mingmoe_eval.records import Better, Run

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
    """A table without markup; footnotes are numbered from 0."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    doubt: Doubt


def make_table(runs: Sequence[Run], spec: TableSpec) -> PaperTable:
    """Put runs and published rows into one table.

    Raises:
        UsageError: no run, an unknown layout, source or baseline, runs that may not stand in a
            table, or a run without any of the columns; every offence is named.
    """
    layout = _layout(runs, spec)
    _refuse(runs, layout, spec)
    suffix = _suffix(layout, spec)
    tests = _tests(runs, spec)
    own = [
        run_cells(run, layout.columns, suffix=suffix, decimals=spec.decimals, against=test)
        for run, test in zip(runs, tests, strict=True)
    ]
    cited = [row for row in published_rows(spec.published) if _has_column(row, layout)]
    foreign = [published_cells(row, layout.columns, decimals=spec.decimals) for row in cited]
    if missing := _without_rows(spec.published, layout):
        raise UsageError(
            f"{', '.join(missing)}: nothing of it belongs to a column of layout {layout.name}; "
            "leave it out or choose another --layout"
        )
    passed = _passed(runs, spec)
    footnotes = _Footnotes()
    directions = [_direction(cells) for cells in zip(*own, *foreign, strict=True)]
    ranks = _ranks([*own, *foreign], directions)
    rows = [
        _row(run.name, cells, ranks[n], False, [*_run_notes(run, tests[n]), *passed[n]], footnotes)
        for n, (run, cells) in enumerate(zip(runs, own, strict=True))
    ]
    rows += [
        _row(row.model, cells, ranks[len(runs) + n], True, _published_notes(row), footnotes)
        for n, (row, cells) in enumerate(zip(cited, foreign, strict=True))
    ]
    return PaperTable(
        caption=" ".join(_caption(layout, spec, runs, tests, own, directions)),
        columns=tuple(map(_marked, layout.columns, directions)),
        rows=tuple(rows),
        footnotes=tuple(footnotes.texts),
        doubt=spec.doubt,
    )


class _Footnotes:
    """Footnotes in the order of their first use; equal texts share a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def numbers(self, texts: Sequence[str]) -> tuple[int, ...]:
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        return tuple(self.texts.index(text) for text in texts)


def _layout(runs: Sequence[Run], spec: TableSpec) -> Layout:
    if spec.layout == "generic":
        return generic_layout(runs)
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
    if test.refusal:
        notes.append(f"not tested against the baseline: {test.refusal}")
    if test.comparison and test.comparison.allowed:
        kinds = dict.fromkeys(difference.kind for difference in test.comparison.allowed)
        notes.append(f"tested although the runs differ in: {', '.join(kinds)}")
    return notes


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
) -> Iterator[str]:
    given = [cell for cells in own for cell in cells if cell.amount is not None]
    percent = "in %" if all(cell.unit == "share" for cell in given) else "in % if it is a share"
    yield f"{layout.title}; main metric of each column {percent}."
    if "lower" in directions:
        yield f"{LESS_IS_BETTER}: less is better."
    if layout.remark:
        yield layout.remark
    if spec.doubt == "interval":
        yield "In brackets: the 95 % interval."
    elif spec.doubt == "stderr":
        yield f"After ±: the standard error, half the width of the 95 % interval over {Z_95:.2f}."
    yield "Best of a column bold, second best underlined; doubtful cells are not ranked."
    suffix = _suffix(layout, spec)
    tasks = {column.task + suffix for column in layout.columns if column.tag is None}
    used = dict.fromkeys(name for test in tests for name in test.tests(tasks))
    if used and spec.baseline is not None:
        yield (
            f"{LEGEND} against {runs[spec.baseline].name}: "
            f"two-sided, paired by question ({', '.join(used)}), after Holm's procedure over all "
            "tasks of the runs."
        )
    if spec.published:
        yield "Cited rows were measured by others under their own conditions; see the notes."
