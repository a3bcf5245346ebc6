"""What a comparison of two runs says: frozen records, from doc to task to whole."""

from collections.abc import Mapping
from dataclasses import dataclass

from mingmoe_eval.comparison.comparability import Difference
from mingmoe_eval.metrics.paired_difference import PairedDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A doc whose score changed: from wrong to right or back, or by any amount where graded."""

    doc_id: str
    baseline_position: int
    candidate_position: int
    change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """One leaf task in both runs.

    Attributes:
        task: The task's name.
        docs: How many docs were paired and scored on both sides.
        clusters: How many clusters they come in, or None where docs stand alone.
        paired: The difference of the main metric, with interval and chances.
        p_adjusted: The two-sided p-value after Holm's procedure over the leaf tasks.
        alpha_left: The two-sided level at which Holm's procedure tests this task.
        minimum_detectable: The smallest true difference that the docs show at that level with a
            power of 80 %.
        gained: Docs that the candidate answers better, the largest change first.
        lost: Docs that it answers worse, the largest change first.
        failed: Paired docs left out because one of the sides failed.
        notes: What the number must not be read without.
    """

    task: str
    docs: int
    clusters: int | None
    paired: PairedDifference
    p_adjusted: float
    alpha_left: float
    minimum_detectable: float
    gained: tuple[Flip, ...] = ()
    lost: tuple[Flip, ...] = ()
    failed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def p_value(self) -> float:
        """Two-sided, not adjusted for the number of tasks."""
        return self.paired.tails.two_sided


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupComparison:
    """A group's main metric in both runs; never tested, since its members are.

    The interval rests on the members' errors and holds where the group is a plain or a
    size-weighted mean of them; else there is none.
    """

    task: str
    members: tuple[str, ...]
    baseline: float
    candidate: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate against a baseline.

    Attributes:
        baseline: The baseline's name.
        candidate: The candidate's name.
        alpha: The two-sided error rate over all leaf tasks; intervals are at 1 - alpha.
        tasks: Leaf task -> its comparison.
        groups: Group -> its two values.
        allowed: Differences besides the model that were overridden.
        marks: Why the numbers are not the benchmark's; empty when they are.
    """

    baseline: str
    candidate: str
    alpha: float
    tasks: Mapping[str, TaskComparison]
    groups: Mapping[str, GroupComparison]
    allowed: tuple[Difference, ...] = ()
    marks: tuple[str, ...] = ()
