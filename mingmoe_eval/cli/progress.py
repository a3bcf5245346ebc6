"""How far the work is, on stderr: a bar on a terminal, else a plain line every half minute."""

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mingmoe_eval.cli.exits import printable
from mingmoe_eval.metrics.showing import with_interval
from mingmoe_eval.model_opening import Watch
from mingmoe_eval.records import TaskResult

SECONDS_BETWEEN_LINES = 30.0


class WorkProgress:
    """What is being done, and how much of it; shown for as long as the block lasts."""

    def __init__(
        self,
        doing: str,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        interval: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        self._clock, self._interval = clock, interval
        self._ended = threading.Event()
        self._bar: Progress | None = None
        self._quiet = quiet
        # Not rich's own opinion: a CI that asks for colours is no terminal, and would keep the bar
        # in its log, drawn a hundred times.
        if sys.stderr.isatty() and not quiet:
            console = Console(stderr=True, highlight=False)
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
        self.begin(doing, None)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        elif not self._quiet:
            # A thread, for a model that loads or one long batch tells nothing meanwhile.
            threading.Thread(target=self._tell_until_the_end, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()

    def begin(self, doing: str, total: int | None) -> None:
        """Something else is being done from now on."""
        self._doing, self._done, self._total = doing, 0, total
        self._began = self._clock()
        self._first: tuple[float, int] | None = None
        if self._bar:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(printable(doing).replace("[", r"\["), total=total)

    def reach(self, done: int, total: int) -> None:
        """So much of it is done."""
        self._done, self._total = done, total
        if self._first is None:
            # What was there at once, from the store, says nothing of how fast the rest will come.
            self._first = (self._clock(), done)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self.say(f"note: {text}")

    def say(self, line: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self._quiet:
            return
        text = printable(line)
        if self._bar:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            # In one piece: the thread may have a line of its own to tell.
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def line(self) -> str:
        """`usmle: 120 of 400 (30 %), 4.0 a second, 1 min 10 s left`, as far as it is known."""
        now = self._clock()
        if not self._total:
            return f"{self._doing}: {_duration(now - self._began)} so far"
        parts = [f"{self._done} of {self._total} ({100 * self._done / self._total:.0f} %)"]
        since, before = self._first or (now, self._done)
        if now > since and self._done > before:
            rate = (self._done - before) / (now - since)
            left = (self._total - self._done) / rate
            parts += [f"{rate:.3g} a second", f"{_duration(left)} left"]
        else:
            parts.append(f"{_duration(now - self._began)} so far")
        return f"{self._doing}: {', '.join(parts)}"

    def _tell_until_the_end(self) -> None:
        while not self._ended.wait(self._interval):
            self.say(self.line())


class RunProgress(WorkProgress, Watch):
    """How a run goes; what is counted starts anew with each task."""

    def __init__(self) -> None:
        super().__init__("loading the model")

    def task_started(self, task: str, docs: int) -> None:
        """A task's requests are about to be built."""
        self.begin(task, docs)

    def requests_done(self, done: int, total: int) -> None:
        """So many of the current task's requests have an answer."""
        self.reach(done, total)

    def task_done(self, result: TaskResult) -> None:
        """A task is scored and saved."""
        self.say(f"{result.task}: {with_interval(result.main)} ({result.seconds:.1f} s)")


class TrainingProgress(WorkProgress):
    """How `train` and `compose` go, with the latest loss; told by the first process alone."""

    def __init__(self) -> None:
        super().__init__("reading", quiet=os.environ.get("RANK", "0") != "0")

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """So many of all steps are done."""
        if loss is not None:
            self._doing = f"loss {loss:.4f}"
            if self._bar:
                self._bar.update(self._bar.task_ids[0], description=self._doing)
            else:
                self.say(f"step {step} of {steps}: loss {loss:.4f}")
        self.reach(step, steps)


def _duration(seconds: float) -> str:
    """`8 s`, `1 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
