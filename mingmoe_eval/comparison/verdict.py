"""What two runs prove, task by task and together: better, worse, equivalent or undecided.

The regression gate, `compare` and the report ask the same functions, and so say the same.

Each leaf task gets one outcome, in this order, so that they cannot overlap:

1. equivalent: every answer is the same, or the paired 1 - 2 alpha interval of the difference lies
   inside the margin;
2. regressed or improved: the one-sided p-value is below alpha;
3. undecided: too few docs to tell.

So do all tasks together, by their difference over all docs. The pooled test and Holm's procedure
over the tasks share one alpha (`significance.with_pooled`).

Which direction is the worse one, the task's main metric says; where nobody knows, a task can only
be found equivalent or nothing. The margin is a share: a metric that is none is never equivalent,
but for the same answers, and is no part of the pooled difference.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mingmoe_eval.comparison.pairwise import Comparison, TaskComparison
from mingmoe_eval.metrics.paired import FEWEST, PairedDifference
from mingmoe_eval.metrics.showing import interval_shown, shown
from mingmoe_eval.metrics.significance import (
    POOLED_SHARE,
    docs_to_settle,
    false_discovery_adjusted,
    holm_levels,
    minimum_detectable,
    with_pooled,
)

MARGIN = 0.02
"""The largest difference that counts as none, unless told otherwise: two points."""

ALPHA = 0.05
"""The one-sided error rate over all tasks and the pooled test, unless told otherwise."""

Outcome = Literal["equivalent", "regressed", "improved", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVerdict:
    """What is known of one leaf task.

    Attributes:
        outcome: The verdict.
        comparison: The numbers behind it; their interval is the 1 - 2 alpha one.
        margin: The largest difference that counts as none here.
        p_worse: One-sided, for "the candidate is worse", adjusted for the number of tests.
        p_better: One-sided, for "the candidate is better", adjusted likewise.
        false_discovery: Benjamini and Hochberg's for "the candidate is worse", over the tasks.
        minimum_detectable: The smallest true drop that the docs show, with a power of 80 %, at the
            level that is left for this task.
        docs_to_settle: About how many docs would decide the task either way, with that power; None
            where the metric is no share, which the margin could be held against, or too few docs
            stand alone to say.
    """

    outcome: Outcome
    comparison: TaskComparison
    margin: float
    p_worse: float
    p_better: float
    false_discovery: float
    minimum_detectable: float
    docs_to_settle: int | None

    @property
    def task(self) -> str:
        """The task's name."""
        return self.comparison.task

    @property
    def hidden_loss(self) -> float:
        """The largest loss that the interval leaves possible, 0 at least; NaN without a direction.

        One-sided, at 1 - alpha, of this task alone.
        """
        low, high = self.comparison.paired.interval
        loss = {"higher": -low, "lower": high}.get(self.comparison.better, math.nan)
        return loss if math.isnan(loss) else max(0.0, loss)

    @property
    def too_few(self) -> bool:
        """Whether hardly any docs, or clusters of docs, stand behind it."""
        return self.comparison.paired.units < FEWEST

    @property
    def reason(self) -> str:
        """The verdict in words, with shares in points (hundredths)."""
        one, unit = self.comparison, self.comparison.unit
        change = change_shown(one.paired, unit)
        if one.identical:
            return "every answer is the same"
        if self.outcome == "equivalent":
            return f"{change} lies inside the margin"
        if self.outcome != "undecided":
            p = self.p_worse if self.outcome == "regressed" else self.p_better
            return f"{change}, adjusted one-sided p = {p:.2g} ({one.paired.test})"
        if self.too_few:
            units = f"{one.paired.units} {'docs' if one.clusters is None else 'clusters of docs'}"
            return f"{change}: too few to say ({units})"
        docs = f"{one.docs} doc{'s' if one.docs != 1 else ''}"
        points = " points" if unit == "share" else ""
        visible = f"{shown(self.minimum_detectable, unit)}{points}"
        text = f"{change}: {docs} show a drop from {visible} up"
        if not math.isnan(self.hidden_loss):
            text += f"; a loss of up to {shown(self.hidden_loss, unit)}{points} could be hiding"
        if self.docs_to_settle is None:
            return text
        return f"{text}; about {self.docs_to_settle} would settle it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What is known of several tasks taken together: of their difference over all docs.

    Attributes:
        outcome: The verdict.
        paired: The difference, more of which is better; its interval is the 1 - 2 alpha one.
        docs: How many docs it is over.
        tasks: Whose docs they are.
        margin: The largest difference that counts as none.
        p_worse: One-sided, adjusted: see `TaskVerdict`.
        p_better: One-sided, adjusted.
        identical: Every answer is the same.
    """

    outcome: Outcome
    paired: PairedDifference
    docs: int
    tasks: tuple[str, ...]
    margin: float
    p_worse: float
    p_better: float
    identical: bool

    @property
    def not_worse(self) -> bool:
        """Whether a loss of the margin or more is ruled out, at 1 - alpha."""
        return self.identical or self.paired.interval[0] > -self.margin

    @property
    def reason(self) -> str:
        """The verdict in words."""
        if self.identical:
            return f"every answer to the {self.docs:,} docs is the same"
        text = f"{change_shown(self.paired, 'share')} over all {self.docs:,} docs"
        if len(self.tasks) > 1:
            text += f" of {len(self.tasks)} tasks"
        if self.outcome == "equivalent":
            return f"{text} lies inside the margin of {100 * self.margin:g}"
        if self.outcome == "undecided":
            return text
        p = self.p_worse if self.outcome == "regressed" else self.p_better
        return f"{text}, adjusted one-sided p = {p:.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Every task's verdict, and that of all together; None where no task can be pooled."""

    tasks: tuple[TaskVerdict, ...]
    together: Together | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverallVerdict:
    """What two runs prove, in one word and one sentence.

    Attributes:
        outcome: `worse` where a task or the whole has certainly lost, `better` where one has
            gained, `mixed` where both happened; else what is known of the whole.
        tasks: Leaf task -> its verdict.
        together: All tasks with a share taken together; None where there is none.
        largest: The certain change of the largest size, in points; None where nothing is certain.
        hiding: The undecided task in which the largest loss could be hiding.
        not_compared: Task -> why nothing is known of it.
    """

    outcome: Literal["better", "worse", "mixed", "equivalent", "undecided"]
    baseline: str
    candidate: str
    margin: float
    alpha: float
    tasks: Mapping[str, TaskVerdict]
    together: Together | None
    largest: TaskVerdict | None
    hiding: TaskVerdict | None
    not_compared: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, its largest certain change, and what it leaves open."""
        parts = [f"{self.candidate} {_SAID[self.outcome]} {self.baseline}"]
        if self.together is not None:
            parts[0] += f": {self.together.reason}"
        if self.largest is not None and len(self.tasks) > 1:
            change = change_shown(self.largest.comparison.paired, self.largest.comparison.unit)
            parts.append(f"the largest certain change is {change} on {self.largest.task}")
        if self.hiding is not None:
            parts.append(hidden_sentence(self.hiding))
        if self.not_compared:
            parts.append(f"not compared: {', '.join(self.not_compared)}")
        return "; ".join(parts)


_SAID = {
    "better": "is better than",
    "worse": "is worse than",
    "mixed": "is better in some tasks and worse in others than",
    "equivalent": "is equivalent to",
    "undecided": "cannot be told from",
}


def overall_verdict(
    comparison: Comparison, *, margin: float = MARGIN, alpha: float = ALPHA
) -> OverallVerdict:
    """What two runs prove, whatever the level of the comparison's own intervals.

    Args:
        comparison: The two runs, doc by doc.
        margin: The largest difference that counts as none, as a fraction.
        alpha: The one-sided error rate over all tasks and the pooled test.
    """
    judgement = decide(comparison, margin=margin, alpha=alpha)
    verdicts, together = judgement.tasks, judgement.together
    certain = [one for one in verdicts if one.outcome in ("regressed", "improved")]
    found = {one.outcome for one in certain} | ({together.outcome} if together else set())
    outcome: Literal["better", "worse", "mixed", "equivalent", "undecided"]
    if {"regressed", "improved"} <= found:
        outcome = "mixed"
    elif "regressed" in found:
        outcome = "worse"
    elif "improved" in found:
        outcome = "better"
    elif together is not None:
        outcome = "equivalent" if together.outcome == "equivalent" else "undecided"
    else:
        same = all(one.outcome == "equivalent" for one in verdicts)
        outcome = "equivalent" if same and verdicts else "undecided"
    lacking = {d.task: d.text for d in comparison.allowed if d.kind == "tasks"}
    return OverallVerdict(
        outcome=outcome,
        baseline=comparison.baseline,
        candidate=comparison.candidate,
        margin=margin,
        alpha=alpha,
        tasks={one.task: one for one in verdicts},
        together=together,
        largest=max(
            (one for one in certain if one.comparison.unit == "share"),
            key=lambda one: abs(one.comparison.paired.difference),
            default=None,
        ),
        hiding=most_hidden(verdicts),
        not_compared={**comparison.left_out, **lacking},
    )


def decide(
    comparison: Comparison,
    names: Iterable[str] | None = None,
    *,
    margin: float,
    alpha: float,
    margins: Mapping[str, float] | None = None,
    pooled_share: float = POOLED_SHARE,
) -> Judgement:
    """A verdict for each of some tasks, and for all of them together.

    Args:
        comparison: The two runs, doc by doc.
        names: The leaf tasks in question, all if None: they are one family of tests.
        margin: The largest difference that counts as none.
        alpha: The one-sided error rate over all of these tests.
        margins: Margins of single tasks that have one of their own.
        pooled_share: Of alpha, what the pooled test has to itself; 1 where only the whole counts.
    """
    own = margins or {}
    compared = [
        _at_level(comparison.tasks[name], 1 - 2 * alpha)
        for name in (comparison.tasks if names is None else names)
    ]
    poolable = [c for c in compared if c.unit == "share" and c.better in ("higher", "lower")]
    pooled = _pooled(comparison, poolable, 1 - 2 * alpha)
    worse, better = [c.p_worse for c in compared], [c.p_better for c in compared]
    if pooled is None:
        whole_worse = whole_better = 1.0
        each_worse, each_better = with_pooled(1.0, worse)[1], with_pooled(1.0, better)[1]
    else:
        whole_worse, each_worse = with_pooled(pooled.tails.lower, worse, share=pooled_share)
        whole_better, each_better = with_pooled(pooled.tails.higher, better, share=pooled_share)
    # Of alpha, what the pooled test did not hand on is not there for single tasks.
    handed_on = pooled is not None and pooled.tails.lower <= pooled_share * alpha
    whole = len(compared) <= 1 or handed_on or pooled_share == 1
    levels = holm_levels(worse, alpha if whole else (1 - pooled_share) * alpha)
    discoveries = false_discovery_adjusted(worse)
    verdicts = tuple(
        _judged(one, own.get(one.task, margin), alpha, level, (p_worse, p_better), false_discovery)
        for one, level, p_worse, p_better, false_discovery in zip(
            compared, levels, each_worse, each_better, discoveries, strict=True
        )
    )
    if pooled is None:
        return Judgement(tasks=verdicts, together=None)
    identical = all(one.identical for one in poolable)
    return Judgement(
        tasks=verdicts,
        together=Together(
            outcome="equivalent"
            if identical
            else _outcome(pooled, whole_worse, whole_better, margin=margin, alpha=alpha),
            paired=pooled,
            docs=sum(one.docs for one in poolable),
            tasks=tuple(one.task for one in poolable),
            margin=margin,
            p_worse=whole_worse,
            p_better=whole_better,
            identical=identical,
        ),
    )


def most_hidden(verdicts: Iterable[TaskVerdict]) -> TaskVerdict | None:
    """The undecided task in which the largest loss could be hiding, of those in points."""
    open_ = [v for v in verdicts if v.outcome == "undecided" and v.comparison.unit == "share"]
    known = [one for one in open_ if not math.isnan(one.hidden_loss)]
    return max(known, key=lambda one: one.hidden_loss, default=None)


def hidden_sentence(verdict: TaskVerdict) -> str:
    """`up to 3.1 points could be lost on cmexam without these docs showing it`."""
    loss = shown(verdict.hidden_loss, verdict.comparison.unit)
    return f"a loss of up to {loss} points on {verdict.task} could still be hiding"


def change_shown(paired: PairedDifference, unit: Literal["share", "number", "unknown"]) -> str:
    """`-1.20 points [-2.10, -0.30]`."""
    points = " points" if unit == "share" else ""
    change = shown(paired.difference, unit, decimals=2, signed=True)
    return f"{change}{points} {interval_shown(paired.interval, unit, decimals=2, signed=True)}"


def _at_level(comparison: TaskComparison, level: float) -> TaskComparison:
    paired = comparison.paired
    if math.isclose(paired.level, level):
        return comparison
    there = replace(paired, interval=paired.interval_at(level), level=level)
    return replace(comparison, paired=there)


def _pooled(
    comparison: Comparison, poolable: Sequence[TaskComparison], level: float
) -> PairedDifference | None:
    """The difference over all docs, more of which is better; a lone task keeps its own numbers."""
    if not poolable:
        return None
    docs = sum(one.docs for one in poolable)
    signs = {"higher": 1, "lower": -1}
    weights = {one.task: signs[one.better] * one.docs / docs for one in poolable}
    return comparison.together(weights, level=level)


def _judged(
    one: TaskComparison,
    margin: float,
    alpha: float,
    level: float,
    p_values: tuple[float, float],
    false_discovery: float,
) -> TaskVerdict:
    p_worse, p_better = p_values
    settled = one.identical
    # Two points are a margin for shares; what they would be for a perplexity, nobody has said.
    held = margin if one.unit == "share" else 0.0
    outcome = _outcome(one.paired, p_worse, p_better, margin=held, alpha=alpha)
    return TaskVerdict(
        outcome="equivalent" if settled else outcome,
        comparison=one,
        margin=margin,
        p_worse=p_worse,
        p_better=p_better,
        false_discovery=false_discovery,
        minimum_detectable=minimum_detectable(one.paired.standard_error, alpha=level),
        docs_to_settle=docs_to_settle(
            one.paired.standard_error, one.docs, margin=margin, alpha=alpha, alpha_left=level
        )
        if one.unit == "share" and one.paired.units >= FEWEST
        else None,
    )


def _outcome(
    paired: PairedDifference, p_worse: float, p_better: float, *, margin: float, alpha: float
) -> Outcome:
    low, high = paired.interval
    if -margin < low and high < margin:
        return "equivalent"
    if p_worse < alpha:
        return "regressed"
    if p_better < alpha:
        return "improved"
    return "undecided"
