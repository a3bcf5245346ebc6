"""How `train` and `compose` show how far they are: on stderr, from one process alone."""

import os
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mingmoe_eval.cli.console import printable


class TrainingConsole:
    """A bar with the latest loss; silent in all but the first process of `accelerate launch`."""

    def __init__(self) -> None:
        quiet = os.environ.get("RANK", "0") != "0"
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.bar = self.progress.add_task("reading", total=None)

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

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """So many of all steps are done."""
        self.progress.update(self.bar, completed=step, total=steps)
        if loss is not None:
            self.progress.update(self.bar, description=f"loss {loss:.4f}")
            if not self.console.is_terminal:
                self.console.print(f"step {step} of {steps}: loss {loss:.4f}")
