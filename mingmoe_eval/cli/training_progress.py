"""How `train` and `compose` show how far they are: on stderr, from one process alone."""

import os

from mingmoe_eval.cli.console import StderrBar


class TrainingConsole(StderrBar):
    """A bar with the latest loss; silent in all but the first process of `accelerate launch`."""

    def __init__(self) -> None:
        super().__init__("reading", quiet=os.environ.get("RANK", "0") != "0")

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """So many of all steps are done."""
        self.progress.update(self.bar, completed=step, total=steps)
        if loss is not None:
            self.progress.update(self.bar, description=f"loss {loss:.4f}")
            if not self.console.is_terminal:
                self.console.print(f"step {step} of {steps}: loss {loss:.4f}")
