"""Run by run, task by task: the rules of the regression gate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from mingmoe_eval.comparison import Comparison, Difference, TaskComparison, compare
from mingmoe_eval.comparison.comparability import shared_tasks
from mingmoe_eval.comparison.verdict import (
    ALPHA,
    MARGIN,
    OverallVerdict,
    TaskVerdict,
    Together,
    overall_verdict,
)
from mingmoe_eval.errors import IncomparableRunsError, UsageError, offence_list
from mingmoe_eval.records import Run
from mingmoe_eval.regression_gate.signals import (
    Finding,
    Tolerances,
    bad_samples,
    missing_parts,
    unjudged_tasks,
    unscored_tasks,
    unusable_tasks,
)

SUSPICIOUS_GAIN = 0.10
"""A gain of this many points in one step is more often a changed prompt or a leak than a feat."""

SIGNALS_SHARE = 0.1
"""Of alpha: what the looks at unanswered and truncated docs may err at most, all together.

The scores have the whole of alpha to themselves; the exact tests, and the tolerances on top of
them, keep both together below alpha (benchmarks/regression_gate.md)."""

ALL_TASKS = "all tasks together"
"""What findings, and the test case of a JUnit file, call the pooled difference."""

FALSE_DISCOVERIES = 0.1
"""Of undecided tasks that a warning calls suspect, this share at most is expected to be well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says of a candidate.

    Attributes:
        margin: The largest difference that counts as none, as a fraction.
        alpha: The one-sided error rate over all leaf tasks and their pooled difference.
        strict: Whether the gate passes only where a loss of the margin over all docs is ruled out.
        overall: What the two runs prove, as every output of them says it; None where no task could
            be compared.
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
    overall: OverallVerdict | None
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
    def together(self) -> Together | None:
        """All tasks taken together; None where none could be compared in points."""
        return None if self.overall is None else self.overall.together

    @property
    def not_worse(self) -> bool:
        """Whether a loss of the margin or more is ruled out, over all docs.

        Of tasks that are no shares, and so no part of the pooled difference, none may be undecided.
        """
        pooled = self.together.tasks if self.together else ()
        rest = [task for task in self.undecided if task not in pooled]
        return not rest and (self.together is None or self.together.not_worse)

    @property
    def outcome(self) -> Literal["passed", "failed", "undecided"]:
        """The whole in a word; what is undecided counts only when strict."""
        if self.failures:
            return "failed"
        return "undecided" if self.strict and not self.not_worse else "passed"

    @property
    def exit_status(self) -> int:
        """0 passed, 1 failed, 3 undecided (only when strict)."""
        return {"passed": 0, "failed": 1, "undecided": 3}[self.outcome]


def judge(
    baseline: Run,
    candidate: Run,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
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
        alpha: The one-sided error rate over all leaf tasks and their pooled difference.
        strict: Keep the gate from passing until a loss of the margin, over all docs of all tasks,
            is ruled out.
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
    unusable, unjudged = unusable_tasks(baseline, candidate, shared_tasks(baseline, candidate))
    comparison = _compare_usable(baseline, candidate, unusable, alpha=alpha, allow=allow)
    overall = None
    if comparison is not None:
        overall = overall_verdict(comparison, margin=margin, alpha=alpha)
    verdicts = [] if overall is None else list(overall.tasks.values())
    compared = [verdict.comparison for verdict in verdicts]
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
        overall=overall,
        tasks=tuple(verdicts),
        failures=(
            *_regressions(verdicts, overall),
            *missing_parts(baseline, candidate),
            *unscored_tasks(candidate, unusable),
            *bad,
            *gains,
        ),
        warnings=(
            *_suspects(verdicts),
            *jumps,
            *odd,
            *unjudged_tasks(unjudged),
            *_remarks(baseline, candidate, compared),
        ),
        marks=tuple(dict.fromkeys((*baseline.marks, *candidate.marks))),
        allowed=() if comparison is None else _overridden(comparison, allow),
    )


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


def _regressions(
    verdicts: Iterable[TaskVerdict], overall: OverallVerdict | None
) -> Iterator[Finding]:
    for verdict in verdicts:
        if verdict.outcome == "regressed":
            yield Finding(kind="regressed", task=verdict.task, text=f"regressed, {verdict.reason}")
    together = None if overall is None else overall.together
    # A lone task is all tasks, and has said so itself.
    if together is not None and together.outcome == "regressed" and len(together.tasks) > 1:
        yield Finding(kind="regressed", task=ALL_TASKS, text=f"regressed, {together.reason}")


def _suspects(verdicts: Iterable[TaskVerdict]) -> Iterator[Finding]:
    """Undecided tasks that a laxer look, at false discoveries, takes for worse: a warning only."""
    for verdict in verdicts:
        if verdict.outcome == "undecided" and verdict.false_discovery <= FALSE_DISCOVERIES:
            text = f"probably worse (Benjamini-Hochberg {verdict.false_discovery:.2g}), "
            yield Finding(kind="suspect", task=verdict.task, text=text + verdict.reason)


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
