"""What the command prints: results to stdout, progress and notes to stderr."""

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.evaluation import Watch
from mingmoe_eval.exams.robustness import METRICS as ROBUSTNESS
from mingmoe_eval.records import JsonDict, MetricValue, Run, TaskResult


class StderrBar:
    """A progress bar with a time estimate, on stderr; plain lines where there is no terminal."""

    def __init__(self, description: str, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.bar = self.progress.add_task(description, total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self.console.print(f"note: {escape(printable(text))}", soft_wrap=True)


class ConsoleWatch(StderrBar, Watch):
    """How a run goes, on a bar that starts anew with each task."""

    def __init__(self) -> None:
        super().__init__("loading the model")

    def task_started(self, task: str, docs: int) -> None:
        """A task's requests are about to be built."""
        self.progress.reset(self.bar, description=task, total=docs)

    def requests_done(self, done: int, total: int) -> None:
        """So many of the current task's requests have an answer."""
        self.progress.update(self.bar, completed=done, total=total)

    def task_done(self, result: TaskResult) -> None:
        """A task is scored and saved."""
        line = f"{result.task}: {percent(result.main)} ({result.seconds:.1f} s)"
        self.console.print(line, soft_wrap=True)


def print_results(run: Run) -> None:
    """The results table on stdout, with everything that a number must not be read without."""
    # A pipe has no width of its own; a table cut to 80 columns would lose numbers.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if run.marks:
        console.print(
            f"NOT the benchmark: {', '.join(run.marks)}. These numbers are not comparable "
            "with published ones.",
            soft_wrap=True,
        )
    console.print(_results_table(run))
    for result in run.results.values():
        for note in result.notes:
            console.print(f"{result.task}: {escape(printable(note))}", soft_wrap=True)


def write_json(value: JsonDict, to: str) -> None:
    """Write JSON to a file, or to stdout for `-`."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    if to == "-":
        print(text)
        return
    try:
        Path(to).write_text(text + "\n", "utf-8")
    except OSError as error:
        raise RunStoreError(f"cannot write {to}: {error.strerror}") from error


def refuse_unwritable(to: str) -> None:
    """Stop before the work is done where `write_json` could not write its result."""
    if to == "-":
        return
    place = Path(to)
    if place.is_dir() or not os.access(place if place.exists() else place.parent, os.W_OK):
        raise RunStoreError(f"cannot write {to}: name a file in a folder that can be written")


def percent(value: MetricValue) -> str:
    """`61.3 [57.0, 65.4]`: a fraction as a percentage with its interval."""
    if value.n == 0:
        return "no doc scored"
    text = f"{100 * value.value:.1f}"
    if value.interval:
        low, high = value.interval
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def printable(text: str) -> str:
    """Text from outside, with control characters shown instead of obeyed by the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _results_table(run: Run) -> Table:
    table = Table(title=escape(printable(run.name)))
    table.add_column("task")
    for heading in ("score % [95 % interval]", "chance", "docs", "shots", "unanswered", "cut off"):
        table.add_column(heading, justify="right")
    table.add_column("remarks")
    for name, result in run.results.items():
        if result.is_group:
            table.add_section()
        table.add_row(
            f"{name} (group)" if result.is_group else name,
            percent(result.main),
            "" if result.chance is None else f"{100 * result.chance:.1f}",
            str(result.counts.docs),
            str(result.num_fewshot),
            str(result.counts.unanswered or ""),
            str(result.counts.truncated or ""),
            "; ".join(_remarks(run, result)),
        )
        for metric, value in _below(result).items():
            table.add_row(f"  {metric}", percent(value), "", str(value.n))
    return table


def _below(result: TaskResult) -> dict[str, MetricValue]:
    """What a group's number is made of, and what other orders of the options did to a task's."""
    return {
        metric: value
        for metric, value in result.metrics.items()
        if metric != result.main_metric and (result.is_group or metric in ROBUSTNESS)
    }


def _remarks(run: Run, result: TaskResult) -> list[str]:
    """What stands beside the number: marks, and everything that happened to its docs."""
    counts: list[tuple[int, str]] = [
        (result.counts.failed, "failed"),
        (result.counts.non_finite, "non-finite"),
        (result.counts.prompt_truncated, "prompts cut"),
        (result.counts.unusable, "rows unusable"),
    ]
    return [*run.marks_of(result.task), *(f"{n} {what}" for n, what in counts if n)]
