"""Run by run, task by task: the rules of the regression gate."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mingmoe_eval.comparison import Comparison, Difference, TaskComparison, compare
from mingmoe_eval.comparison.comparability import shared_tasks
from mingmoe_eval.errors import IncomparableRunsError, UsageError, offence_list
from mingmoe_eval.metrics.showing import interval_shown, shown
from mingmoe_eval.metrics.significance import (
    docs_to_settle,
    holm_adjusted,
    holm_levels,
    minimum_detectable,
)
from mingmoe_eval.records import Run
from mingmoe_eval.regression_gate.signals import (
    Finding,
    Tolerances,
    bad_samples,
    missing_parts,
    unscored_tasks,
    unusable_tasks,
)

SUSPICIOUS_GAIN = 0.10
"""A gain of this many points in one step is more often a changed prompt or a leak than a feat."""

SIGNALS_SHARE = 0.1
"""Of alpha: what the looks at unanswered and truncated docs may err at most, all together.

The scores have the whole of alpha to themselves; the exact tests, and the tolerances on top of
them, keep both together below alpha (benchmarks/regression_gate.md)."""

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
        docs_to_settle: About how many docs would decide the task either way, with that power; None
            where the metric is no share, which the margin could be held against.
    """

    outcome: Outcome
    comparison: TaskComparison
    p_worse: float
    p_better: float
    minimum_detectable: float
    docs_to_settle: int | None

    @property
    def task(self) -> str:
        """The task's name."""
        return self.comparison.task

    @property
    def reason(self) -> str:
        """The verdict in words, with shares in points (hundredths)."""
        paired = self.comparison.paired
        unit = self.comparison.unit
        points = " points" if unit == "share" else ""
        difference = shown(paired.difference, unit, decimals=2, signed=True)
        interval = interval_shown(paired.interval, unit, decimals=2, signed=True)
        change = f"{difference}{points} {interval}"
        if self.outcome == "undecided":
            visible = f"{shown(self.minimum_detectable, unit)}{points}"
            text = f"{change}: {self.comparison.docs} docs show a drop from {visible} up"
            if self.docs_to_settle is None:
                return text
            return f"{text}; about {self.docs_to_settle} would settle it"
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


def judge(
    baseline: Run,
    candidate: Run,
    *,
    margin: float = 0.02,
    alpha: float = 0.05,
    strict: bool = False,
    largest_allowed_gain: float | None = None,
    tolerances: Tolerances | None = None,
    allow: frozenset[str] = frozenset(),
    allow_marked: bool = False,
) -> Verdict:
    """Judge a candidate against a baseline.

    Args:
        baseline: The run to hold the candidate against; must be complete.
        candidate: The run in question.
        margin: The largest difference that counts as none, as a fraction.
        alpha: The one-sided error rate over all leaf tasks together.
        strict: Keep the gate from passing while a task is undecided.
        largest_allowed_gain: Fail on a significant gain beyond this; by default only warn.
        tolerances: How much worse the candidate's samples may be.
        allow: Kinds of difference between the runs to override, as for `compare`.
        allow_marked: Judge runs whose numbers are not the benchmark's (sample, limit, ...).

    Raises:
        UsageError: margin or alpha make no sense, or a run is marked.
        IncomparableRunsError: the runs differ in more than their model, share no task, or the
            baseline is incomplete.
    """
    _check_rules(margin, alpha)
    _check_runs(baseline, candidate, allow_marked=allow_marked)
    unusable = unusable_tasks(candidate, shared_tasks(baseline, candidate))
    comparison = _compare_usable(baseline, candidate, unusable, alpha=alpha, allow=allow)
    compared = [] if comparison is None else list(comparison.tasks.values())
    verdicts = decide(compared, margin=margin, alpha=alpha)
    bad, odd = bad_samples(
        baseline, candidate, tolerances or Tolerances(), alpha=SIGNALS_SHARE * alpha
    )
    gains, jumps = _gains(verdicts, largest_allowed_gain)
    return Verdict(
        baseline=baseline.name,
        candidate=candidate.name,
        margin=margin,
        alpha=alpha,
        strict=strict,
        tasks=tuple(verdicts),
        failures=(
            *_regressions(verdicts),
            *missing_parts(baseline, candidate),
            *unscored_tasks(candidate, unusable),
            *bad,
            *gains,
        ),
        warnings=(*jumps, *odd, *_remarks(baseline, candidate, compared)),
        marks=tuple(dict.fromkeys((*baseline.marks, *candidate.marks))),
        allowed=() if comparison is None else _overridden(comparison, allow),
    )


def decide(
    comparisons: Sequence[TaskComparison], *, margin: float, alpha: float
) -> list[TaskVerdict]:
    """One verdict a task.

    Args:
        comparisons: All leaf tasks, with intervals at 1 - 2 alpha: they are Holm's family.
        margin: The largest difference that counts as none.
        alpha: The one-sided error rate over all of them.
    """
    worse = [comparison.p_worse for comparison in comparisons]
    better = [comparison.p_better for comparison in comparisons]
    return [
        TaskVerdict(
            outcome=_outcome(comparison, p_worse, p_better, margin=margin, alpha=alpha),
            comparison=comparison,
            p_worse=p_worse,
            p_better=p_better,
            minimum_detectable=minimum_detectable(comparison.paired.standard_error, alpha=level),
            docs_to_settle=docs_to_settle(
                comparison.paired.standard_error,
                comparison.docs,
                margin=margin,
                alpha=alpha,
                alpha_left=level,
            )
            if comparison.unit == "share"
            else None,
        )
        for comparison, p_worse, p_better, level in zip(
            comparisons,
            holm_adjusted(worse),
            holm_adjusted(better),
            holm_levels(worse, alpha),
            strict=True,
        )
    ]


def _outcome(
    comparison: TaskComparison, p_worse: float, p_better: float, *, margin: float, alpha: float
) -> Outcome:
    low, high = comparison.paired.interval
    # Two points are a margin for shares; what they would be for a perplexity, nobody has said.
    if comparison.unit == "share" and -margin < low and high < margin:
        return "equivalent"
    if p_worse < alpha:
        return "regressed"
    if p_better < alpha:
        return "improved"
    return "undecided"


def _check_rules(margin: float, alpha: float) -> None:
    if not 0 < margin < 1:
        raise UsageError(f"margin {margin} is no fraction between 0 and 1 (0.02 is two points)")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha {alpha} is no one-sided error rate between 0 and 0.5")


def _check_runs(baseline: Run, candidate: Run, *, allow_marked: bool) -> None:
    marked = [f"{run.name}: {', '.join(run.marks)}" for run in (baseline, candidate) if run.marks]
    if marked and not allow_marked:
        raise UsageError(
            offence_list("the regression gate refuses numbers that are not the benchmark's", marked)
            + "\nRun on the whole test data, or pass --allow-marked (every output will say so)"
        )
    if baseline.incomplete:
        raise IncomparableRunsError(
            f"the baseline {baseline.name} is incomplete ({', '.join(baseline.incomplete)}) and "
            "cannot serve as one; finish it with --resume, or choose another"
        )


def _compare_usable(
    baseline: Run,
    candidate: Run,
    unusable: Iterable[str],
    *,
    alpha: float,
    allow: frozenset[str],
) -> Comparison | None:
    """Compare what both have; what the candidate lacks is a failure of its own, not a refusal."""
    left_out = set(unusable)
    kept = {task: result for task, result in candidate.results.items() if task not in left_out}
    usable = replace(candidate, results=kept)
    if left_out and not shared_tasks(baseline, usable):
        return None
    # A two-sided rate of 2 alpha gives the 1 - 2 alpha intervals that the verdicts need.
    return compare(baseline, usable, allow=allow | {"tasks"}, alpha=2 * alpha)


def _overridden(comparison: Comparison, allow: frozenset[str]) -> tuple[Difference, ...]:
    return tuple(difference for difference in comparison.allowed if difference.kind in allow)


def _regressions(verdicts: Iterable[TaskVerdict]) -> Iterator[Finding]:
    for verdict in verdicts:
        if verdict.outcome == "regressed":
            yield Finding(kind="regressed", task=verdict.task, text=f"regressed, {verdict.reason}")


def _gains(
    verdicts: Iterable[TaskVerdict], largest_allowed: float | None
) -> tuple[list[Finding], list[Finding]]:
    """Jumps upwards: those that fail, and those worth a warning."""
    failures, warnings = [], []
    for verdict in verdicts:
        gain = abs(verdict.comparison.paired.difference)
        text = f"gained {verdict.reason}"
        finding = Finding(kind="gain", task=verdict.task, text=text)
        if verdict.outcome != "improved" or verdict.comparison.unit != "share":
            continue
        if largest_allowed is not None and gain > largest_allowed:
            failures.append(finding)
        elif gain > SUSPICIOUS_GAIN:
            warnings.append(finding)
    return failures, warnings


def _remarks(
    baseline: Run, candidate: Run, compared: Iterable[TaskComparison]
) -> Iterator[Finding]:
    for task in candidate.leaves:
        if task not in baseline.leaves:
            yield Finding(kind="new", task=task, text="the baseline lacks this task: not judged")
    for comparison in compared:
        if comparison.better in ("neither", "unknown"):
            text = "nobody says in which direction its metric is better: no difference can fail it"
            yield Finding(kind="direction", task=comparison.task, text=text)
        for note in comparison.notes:
            yield Finding(kind="note", task=comparison.task, text=note)
