"""Two runs over the same docs, paired and tested task by task.

What is made again from the samples, with which test and which interval, and in which direction it
is better, the task's main metric says.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mingmoe_eval.comparison.comparability import (
    Difference,
    Pair,
    check_comparable,
    pair_samples,
    shared_tasks,
)
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.metrics.metric import Metric, tabulate_sides
from mingmoe_eval.metrics.paired import PairedDifference
from mingmoe_eval.metrics.significance import holm_adjusted, holm_levels, minimum_detectable
from mingmoe_eval.metrics.uncertainty import two_sided_z
from mingmoe_eval.records import Better, Run, Sample, TaskResult, Unit
from mingmoe_eval.scoring import metric_of

SEED = 20_240_501
"""Of permutations and resamples, with the task's name: the same runs give the same numbers."""

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A doc whose score changed: from wrong to right or back, or by any amount where graded.

    A positive `change` is one for the better, whichever the direction of the task's metric.
    """

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
        unit: Of the main metric, as of every number here.
        better: Which direction of it is the better one.
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
    unit: Unit = "share"
    better: Better = "higher"
    gained: tuple[Flip, ...] = ()
    lost: tuple[Flip, ...] = ()
    failed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def p_worse(self) -> float:
        """One-sided, for "the candidate is worse"; 1 where no direction is known to be."""
        tails = self.paired.tails
        return {"higher": tails.lower, "lower": tails.higher}.get(self.better, 1.0)

    @property
    def p_better(self) -> float:
        """One-sided, for "the candidate is better"; 1 where no direction is known to be."""
        tails = self.paired.tails
        return {"higher": tails.higher, "lower": tails.lower}.get(self.better, 1.0)

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
    unit: Unit = "share"
    better: Better = "higher"


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


def compare(
    baseline: Run,
    candidate: Run,
    *,
    allow: frozenset[str] = frozenset(),
    alpha: float = 0.05,
    seed: int = SEED,
) -> Comparison:
    """Compare two runs, paired within each task by the content of its docs.

    Args:
        baseline: The run to compare with.
        candidate: The run in question.
        allow: Kinds of difference (`comparability.KINDS`) to override; they are recorded.
        alpha: The two-sided error rate over all leaf tasks together.
        seed: Of the permutations and resamples.

    Raises:
        UsageError: `alpha` is not between 0 and 1, or `allow` names no kind of difference.
        IncomparableRunsError: the runs differ in more than their model, or have no scored doc of
            some task in common.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha} is no error rate: give a number between 0 and 1")
    allowed = check_comparable(baseline, candidate, allow)
    untested = [
        _compare_task(task, baseline, candidate, level=1 - alpha, seed=seed)
        for task in shared_tasks(baseline, candidate)
    ]
    tasks = {comparison.task: comparison for comparison in _with_holm(untested, alpha)}
    return Comparison(
        baseline=baseline.name,
        candidate=candidate.name,
        alpha=alpha,
        tasks=tasks,
        groups=_compare_groups(baseline, candidate, tasks, level=1 - alpha),
        allowed=allowed,
        marks=tuple(dict.fromkeys((*baseline.marks, *candidate.marks))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Untested:
    """A task's comparison before its p-value has met those of the other tasks."""

    task: str
    metric: Metric
    pairs: Sequence[Pair]
    clusters: int | None
    paired: PairedDifference
    failed: int
    notes: tuple[str, ...]


def _compare_task(
    task: str, baseline: Run, candidate: Run, *, level: float, seed: int
) -> _Untested:
    metric = metric_of(baseline.leaves[task])
    all_pairs = pair_samples(baseline.samples.get(task, ()), candidate.samples.get(task, ()))
    pairs = [p for p in all_pairs if _says(p.baseline, metric) and _says(p.candidate, metric)]
    if not pairs:
        raise IncomparableRunsError(
            f"{task}: {baseline.name} and {candidate.name} have no scored doc in common"
        )
    before, after = tabulate_sides(
        [
            [metric.count(pair.baseline) for pair in pairs],
            [metric.count(pair.candidate) for pair in pairs],
        ],
        clusters=[pair.baseline.cluster for pair in pairs],
    )
    rng = np.random.default_rng([seed, zlib.crc32(task.encode("utf-8", "surrogatepass"))])
    paired = metric.resampling.difference(before, after, metric, level=level, rng=rng)
    return _Untested(
        task=task,
        metric=metric,
        pairs=pairs,
        clusters=before.units if before.clustered else None,
        paired=paired,
        failed=len(all_pairs) - len(pairs),
        notes=tuple(_notes(task, baseline, candidate, len(pairs), paired)),
    )


def _says(sample: Sample, metric: Metric) -> bool:
    """Whether a sample says anything of a metric; a failed one says nothing about the model."""
    return sample.score is not None or (sample.status != "failed" and metric.name in sample.counts)


def _notes(
    task: str, baseline: Run, candidate: Run, docs: int, paired: PairedDifference
) -> list[str]:
    """Say where the samples do not add up to the number that the run itself reports."""
    notes = []
    for run, value in ((baseline, paired.baseline), (candidate, paired.candidate)):
        main = run.leaves[task].main
        if main.n == docs and not math.isclose(main.value, value, abs_tol=_ROUNDING):
            notes.append(
                f"{run.name} reports {main.value:.4f}; what is compared here is the mean of its "
                f"samples' scores, {value:.4f}"
            )
    return notes


def _with_holm(untested: Sequence[_Untested], alpha: float) -> list[TaskComparison]:
    p_values = [comparison.paired.tails.two_sided for comparison in untested]
    adjusted, levels = holm_adjusted(p_values), holm_levels(p_values, alpha)
    return [
        TaskComparison(
            task=one.task,
            unit=one.metric.unit,
            better=one.metric.better,
            docs=len(one.pairs),
            clusters=one.clusters,
            paired=one.paired,
            p_adjusted=p_adjusted,
            alpha_left=level,
            minimum_detectable=minimum_detectable(one.paired.standard_error, alpha=level / 2),
            gained=_flips(one, sign=1),
            lost=_flips(one, sign=-1),
            failed=one.failed,
            notes=one.notes,
        )
        for one, p_adjusted, level in zip(untested, adjusted, levels, strict=True)
    ]


def _flips(one: _Untested, *, sign: int) -> tuple[Flip, ...]:
    """Docs whose score changed for the better (1) or the worse (-1), the largest change first."""
    flips = [
        Flip(
            doc_id=pair.baseline.doc_id,
            baseline_position=pair.baseline.position,
            candidate_position=pair.candidate.position,
            change=_merit(pair.candidate, one.metric) - _merit(pair.baseline, one.metric),
        )
        for pair in one.pairs
    ]
    chosen = [flip for flip in flips if flip.change * sign > 0]
    return tuple(sorted(chosen, key=lambda flip: -abs(flip.change)))


def _merit(sample: Sample, metric: Metric) -> float:
    """What a doc earned by itself, more of which is better; a cost counts against it."""
    if sample.score is not None:
        return sample.score
    return -sample.counts[metric.name] if metric.better == "lower" else sample.counts[metric.name]


def _compare_groups(
    baseline: Run, candidate: Run, tasks: Mapping[str, TaskComparison], *, level: float
) -> dict[str, GroupComparison]:
    return {
        name: GroupComparison(
            task=name,
            members=result.members,
            baseline=result.main.value,
            candidate=candidate.results[name].main.value,
            unit=result.main.unit,
            better=result.main.better,
            interval=_group_interval(result, candidate.results[name], tasks, level=level),
        )
        for name, result in baseline.results.items()
        if result.is_group and name in candidate.results and candidate.results[name].is_group
    }


def _group_interval(
    baseline: TaskResult,
    candidate: TaskResult,
    tasks: Mapping[str, TaskComparison],
    *,
    level: float,
) -> tuple[float, float] | None:
    """From the members' errors, taken as independent: sqrt(sum of (weight * error)^2)."""
    if baseline.members != candidate.members or any(m not in tasks for m in baseline.members):
        return None
    members = [tasks[member] for member in baseline.members]
    sides = np.array([(m.paired.baseline, m.paired.candidate) for m in members])
    errors = np.array([m.paired.standard_error for m in members])
    reported = (baseline.main.value, candidate.main.value)
    for sizes in (np.ones(len(members)), np.array([float(m.docs) for m in members])):
        weights = sizes / sizes.sum()
        if np.allclose(weights @ sides, reported, rtol=0, atol=_ROUNDING):
            reach = two_sided_z(level) * float(np.linalg.norm(weights * errors))
            change = reported[1] - reported[0]
            return change - reach, change + reach
    return None
