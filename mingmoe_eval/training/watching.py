"""The seam through which training and composition tell how far they are."""

from typing import Protocol


class TrainingWatch(Protocol):
    """Told of what happens; a command shows it, a script may pass it over."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """So many of all steps are done; with the loss where one was computed."""


class Silence:
    """A watch that passes everything over."""

    def note(self, text: str) -> None:
        """Passes it over."""

    def step_done(self, step: int, steps: int, loss: float | None) -> None:
        """Passes it over."""
