"""What the regression gate says: of each task, and of the whole."""

from dataclasses import dataclass
from typing import Literal

from mingmoe_eval.comparison import Difference, TaskComparison
from mingmoe_eval.regression_gate.signals import Finding

Outcome = Literal["equivalent", "regressed", "improved", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVerdict:
    """What the gate says of one leaf task.

    Attributes:
        outcome: The verdict.
        comparison: The numbers behind it; their interval is the 1 - 2 alpha one.
        p_worse: One-sided, for "the candidate is worse", Holm-adjusted.
        p_better: One-sided, for "the candidate is better", Holm-adjusted.
        minimum_detectable: The smallest true drop that the docs show, with a power of 80 %, at the
            level that Holm's procedure leaves this task.
        docs_to_settle: About how many docs would decide the task either way, with that power.
    """

    outcome: Outcome
    comparison: TaskComparison
    p_worse: float
    p_better: float
    minimum_detectable: float
    docs_to_settle: int

    @property
    def task(self) -> str:
        """The task's name."""
        return self.comparison.task

    @property
    def reason(self) -> str:
        """The verdict in words, with its numbers in points (hundredths)."""
        paired = self.comparison.paired
        low, high = paired.interval
        change = f"{100 * paired.difference:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"
        if self.outcome == "undecided":
            return (
                f"{change}: {self.comparison.docs} docs show a drop from "
                f"{100 * self.minimum_detectable:.1f} points up; about {self.docs_to_settle} "
                "would settle it"
            )
        if self.outcome == "equivalent":
            return f"{change} lies inside the margin"
        p = self.p_worse if self.outcome == "regressed" else self.p_better
        return f"{change}, adjusted one-sided p = {p:.2g} ({paired.test})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says of a candidate.

    Attributes:
        margin: The largest difference that counts as none, as a fraction.
        alpha: The one-sided error rate over all leaf tasks.
        strict: Whether a task that stays undecided keeps the gate from passing.
        tasks: One verdict a leaf task, in the baseline's order.
        failures: Everything that fails the gate, regressed tasks among it.
        warnings: What a person should look at.
        marks: Why the numbers are not the benchmark's; empty when they are.
        allowed: Differences between the runs besides the model that were overridden.
    """

    baseline: str
    candidate: str
    margin: float
    alpha: float
    strict: bool
    tasks: tuple[TaskVerdict, ...]
    failures: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    marks: tuple[str, ...] = ()
    allowed: tuple[Difference, ...] = ()

    @property
    def undecided(self) -> tuple[str, ...]:
        """Tasks with too few docs to tell."""
        return tuple(verdict.task for verdict in self.tasks if verdict.outcome == "undecided")

    @property
    def outcome(self) -> Literal["passed", "failed", "undecided"]:
        """The whole in a word; undecided tasks count only when strict."""
        if self.failures:
            return "failed"
        return "undecided" if self.strict and self.undecided else "passed"

    @property
    def exit_status(self) -> int:
        """0 passed, 1 failed, 3 undecided (only when strict)."""
        return {"passed": 0, "failed": 1, "undecided": 3}[self.outcome]
