"""What the command prints to stdout and writes beside it: tables, remarks, JSON, pages.

A number is never shortened: a table that does not fit the terminal folds its words, and then stands
row by row, each number beside its heading.
"""

import os
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mingmoe_eval.cli.exits import printable
from mingmoe_eval.cost import Cost, price_of, task_costs, total_cost
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.exams.robustness import METRICS as ROBUSTNESS
from mingmoe_eval.json_files import dumps
from mingmoe_eval.metrics.calibration import is_selective
from mingmoe_eval.metrics.repeated import is_of_repeats
from mingmoe_eval.metrics.showing import LESS_IS_BETTER, with_interval
from mingmoe_eval.records import JsonDict, MetricValue, Run, TaskResult
from mingmoe_eval.whole_files import write_whole

RULE: tuple[str, ...] = ()
"""A row that stands for a line across the table."""


def print_table(
    title: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Collection[str] = (),
) -> None:
    """A table on stdout, as wide as the terminal at most; a pipe or a file has no width.

    Args:
        title: Stands above it.
        headings: One a column; all empty: they are left out.
        rows: The cells, or RULE. The first column and those of words stand to the left.
        words: Headings of the columns whose cells may be folded between words.
    """
    on_terminal = sys.stdout.isatty()
    console = Console(force_terminal=on_terminal, highlight=False)
    cells = [[printable(cell) for cell in row] for row in rows]
    most = console.width if on_terminal else None
    widths = _widths(headings, cells, words, most)
    if widths is None:
        headings, cells = _without_empty_columns(headings, cells)
        widths = _widths(headings, cells, words, most)
    if widths is None:
        _print_stacked(title, headings, cells, max(console.width, 20))
        return
    table = Table(title=Text(printable(title)), show_header=any(headings))
    for index, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        left = index == 0 or heading in words
        table.add_column(
            Text(heading), width=width, justify="left" if left else "right", overflow="fold"
        )
    for row in cells:
        if row:
            table.add_row(*map(Text, row))
        else:
            table.add_section()
    console.width = _with_frame(widths) if not on_terminal else console.width
    console.print(table)


def print_line(text: str) -> None:
    """One line on stdout, however long."""
    print(printable(text))


def print_results(run: Run) -> None:
    """The results table on stdout, with everything that a number must not be read without."""
    if run.marks:
        print_line(
            f"NOT the benchmark: {', '.join(run.marks)}. These numbers are not comparable "
            "with published ones."
        )
    alike = all(result.main.unit == "share" for result in run.results.values())
    score = "score % [95 % interval]" if alike else "score [95 % interval]"
    headings = (
        *("task", score, "chance", "docs", "shots", "unanswered", "cut off"),
        "remarks",
    )
    rows: list[Sequence[str]] = []
    for name, result in run.results.items():
        if result.is_group:
            rows.append(RULE)
        rows.append(
            (
                f"{name} (group)" if result.is_group else name,
                _score(result.main, alike),
                "" if result.chance is None else f"{100 * result.chance:.1f}",
                _docs(result),
                str(result.num_fewshot),
                str(result.counts.unanswered or ""),
                _share_of(result.counts.truncated, result.counts.docs),
                "; ".join(_remarks(run, result)),
            )
        )
        rows += [
            (f"  {metric}", _score(value, alike), "", str(value.n), *[""] * 4)
            for metric, value in result.metrics.items()
            # What a group's number is made of, and what other orders of the options, or several
            # draws, did to a task's.
            if metric != result.main_metric and (result.is_group or _was_asked_for(metric))
        ]
    print_table(run.name, headings, rows, words=("remarks",))
    for result in run.results.values():
        for note in result.notes:
            print_line(f"{result.task}: {note}")
    print_costs(run)


def print_costs(run: Run) -> None:
    """What the answers cost, task by task and for each right answer; nothing if nobody counted."""
    costs = task_costs(run, price_of(run))
    total = total_cost(costs.values())
    if total is None or not total.has_tokens:
        return
    headings = (
        *("task", "prompt tokens", "thought", "answer", "seconds"),
        f"cost {total.currency}".rstrip(),
        *(f"{what} a right answer" for what in ("tokens", "seconds", "cost")),
    )
    rows = [_cost_row(task, cost) for task, cost in costs.items()]
    if len(rows) > 1:
        rows += [RULE, _cost_row("all", total)]
    print_table("what the answers cost", *_without_empty_columns(headings, rows))
    if not total.timed:
        print_line(
            f"{run.timing['requests_from_store']:,.0f} of {run.timing['requests']:,.0f} requests "
            "were answered out of the store: the seconds are those of the others"
        )


def _cost_row(task: str, cost: Cost) -> Sequence[str]:
    each = cost.a_right_answer()
    thought = cost.thought_tokens
    # Where nobody counted the thoughts apart, all that was generated stands as the answer.
    answer = cost.generated_tokens if cost.answer_tokens is None else cost.answer_tokens
    return (
        task,
        f"{cost.prompt_tokens:,}",
        "" if not thought else f"{thought:,}",
        f"{answer:,}{'' if thought is not None or not answer else ' with thoughts'}",
        "" if cost.seconds is None else f"{cost.seconds:,.1f}",
        _amount(cost.money),
        *(_amount(each[name]) for name in ("tokens", "seconds", "money")),
    )


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def write_json(value: JsonDict, to: str) -> None:
    """Write JSON to a file, or to stdout for `-`."""
    text = dumps(value, indent=1)
    if to == "-":
        print(text)
    else:
        write_page(Path(to), text + "\n")


def write_page(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    try:
        # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
        write_whole(path, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunStoreError(f"cannot write {path}: {error.strerror}") from error


def refuse_unwritable(to: str) -> None:
    """Stop before the work is done where `write_json` could not write its result."""
    if to == "-":
        return
    place = Path(to)
    written = place if place.exists() and not place.is_file() else place.parent
    if place.is_dir() or not os.access(written, os.W_OK):
        raise RunStoreError(f"cannot write {to}: name a file in a folder that can be written")


def _share_of(count: int, docs: int) -> str:
    return f"{count} ({100 * count / docs:.1f} %)" if count else ""


def _docs(result: TaskResult) -> str:
    """How many docs, and how often each was asked."""
    docs, repeats = result.counts.docs, result.repeats
    return str(docs) if repeats == 1 else f"{docs // repeats} x {repeats}"


def _was_asked_for(metric: str) -> bool:
    return metric in ROBUSTNESS or is_of_repeats(metric) or is_selective(metric)


def _score(value: MetricValue, alike: bool) -> str:
    """A number with its interval, its unit where not all have the same, and its direction."""
    text = with_interval(value)
    if not value.n:
        return text
    percent = " %" if value.unit == "share" and not alike else ""
    return f"{text}{percent}{f' {LESS_IS_BETTER}' if value.better == 'lower' else ''}"


def _remarks(run: Run, result: TaskResult) -> list[str]:
    """What stands beside the number: marks, and everything that happened to its docs."""
    counts: list[tuple[int, str]] = [
        (result.counts.failed, "failed"),
        (result.counts.non_finite, "non-finite"),
        (result.counts.prompt_truncated, "prompts cut"),
        (result.counts.unusable, "rows unusable"),
        (result.counts.tied, "ties"),
    ]
    docs = max(result.counts.docs, 1)
    replies = ((result.counts.forced, "forced"), (result.counts.empty, "empty"))
    return [
        *run.marks_of(result.task),
        *(f"{n} {what}" for n, what in counts if n),
        *(f"{100 * n / docs:.1f} % {what}" for n, what in replies if n),
        *_letter_mass(result),
    ]


def _letter_mass(result: TaskResult) -> list[str]:
    """How much of the probability the letters compared hold; a share of 2e-8 is no "0.0 %"."""
    mass, low = (result.metrics.get(name) for name in ("letter_mass", "low_letter_mass"))
    if mass is None or low is None:
        return []
    held = f"{100 * mass.value:.1f} %" if mass.value >= 1e-3 else f"{mass.value:.1e}"
    return [f"letter mass {held}, low in {100 * low.value:.0f} %"]


def _widths(
    headings: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str], most: int | None
) -> list[int] | None:
    """How wide each column is, in terminal cells; None if the table cannot fit.

    Headings fold between words before anything else does, and cells only in columns of words.
    """
    widths, least = [], []
    for index, heading in enumerate(headings):
        cells = [row[index] for row in rows if row]
        widths.append(max(map(cell_len, [heading, *cells])))
        parts = heading.split()
        parts += [word for cell in cells for word in cell.split()] if heading in words else cells
        least.append(max(map(cell_len, parts), default=1))
    while most is not None and _with_frame(widths) > most:
        slack = [width - narrowest for width, narrowest in zip(widths, least, strict=True)]
        if max(slack) <= 0:
            return None
        widths[slack.index(max(slack))] -= 1
    return widths


def _without_empty_columns(
    headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    kept = [i for i in range(len(headings)) if any(row and row[i] for row in rows)]
    return [headings[i] for i in kept], [[row[i] for i in kept] if row else [] for row in rows]


def _with_frame(widths: Sequence[int]) -> int:
    # A blank on both sides of a cell, and a line between any two and at both ends.
    return sum(widths) + 3 * len(widths) + 1


def _print_stacked(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], width: int
) -> None:
    """Row by row: the first cell, and below it the others, each behind its heading."""

    def fold(text: str, indent: str) -> None:
        print(
            textwrap.fill(
                text,
                width,
                initial_indent=indent,
                subsequent_indent=indent + "  ",
                break_long_words=False,
                break_on_hyphens=False,  # they are signs of numbers
            )
        )

    fold(printable(title), "")
    for first, *others in filter(None, rows):
        fold(first.strip(), "")
        line = ""
        for heading, cell in zip(headings[1:], others, strict=True):
            if not cell:
                continue
            fact = f"{heading}: {cell}" if heading else cell
            if line and cell_len(line) + cell_len(fact) + 3 <= width:
                line += f"   {fact}"
                continue
            if line:
                print(line)
            line = f"  {fact}"
            if cell_len(line) > width:
                fold(f"{heading}:", "  ")
                fold(cell, "    ")
                line = ""
        if line:
            print(line)
