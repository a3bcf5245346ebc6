"""Two runs over the same docs, paired and tested task by task."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mingmoe_eval.comparison.comparability import (
    Pair,
    check_comparable,
    pair_samples,
    shared_tasks,
)
from mingmoe_eval.comparison.corpus import corpus_counts
from mingmoe_eval.comparison.findings import Comparison, Flip, GroupComparison, TaskComparison
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.metrics.multiple_tests import holm_adjusted, holm_levels
from mingmoe_eval.metrics.paired_difference import (
    Clusters,
    PairedDifference,
    count_difference,
    score_difference,
)
from mingmoe_eval.metrics.paired_tests import Floats, normal_quantile
from mingmoe_eval.metrics.power import minimum_detectable
from mingmoe_eval.records import Run, TaskResult

SEED = 20_240_501
"""Of permutations and resamples, with the task's name: the same runs give the same numbers."""

_ROUNDING = 1e-6


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
    pairs: Sequence[Pair]
    clusters: int | None
    paired: PairedDifference
    failed: int
    notes: tuple[str, ...]


def _compare_task(
    task: str, baseline: Run, candidate: Run, *, level: float, seed: int
) -> _Untested:
    all_pairs = pair_samples(baseline.samples.get(task, ()), candidate.samples.get(task, ()))
    pairs = [pair for pair in all_pairs if pair.scored]
    if not pairs:
        raise IncomparableRunsError(
            f"{task}: {baseline.name} and {candidate.name} have no scored doc in common"
        )
    clusters = _clusters(pairs)
    rng = np.random.default_rng([seed, zlib.crc32(task.encode("utf-8", "surrogatepass"))])
    counts = corpus_counts(baseline.leaves[task], pairs)
    if counts is not None:
        paired = count_difference(counts, clusters=clusters, level=level, rng=rng)
    else:
        before, after = _scores(pairs)
        paired = score_difference(before, after, clusters=clusters, level=level, rng=rng)
    return _Untested(
        task=task,
        pairs=pairs,
        clusters=None if clusters is None else int(clusters.max()) + 1,
        paired=paired,
        failed=len(all_pairs) - len(pairs),
        notes=tuple(_notes(task, baseline, candidate, len(pairs), paired)),
    )


def _scores(pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    """The scores of both sides, [docs] each."""
    both = np.array([(p.baseline.score, p.candidate.score) for p in pairs], dtype=np.float64)
    return both[:, 0], both[:, 1]


def _clusters(pairs: Sequence[Pair]) -> Clusters | None:
    """The number of each doc's cluster, or None where no two docs share one."""
    names = [
        ("doc", str(index)) if pair.baseline.cluster is None else ("cluster", pair.baseline.cluster)
        for index, pair in enumerate(pairs)
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) == len(pairs):
        return None
    return np.array([numbers[name] for name in names], dtype=np.int64)


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
            docs=len(one.pairs),
            clusters=one.clusters,
            paired=one.paired,
            p_adjusted=p_adjusted,
            alpha_left=level,
            minimum_detectable=minimum_detectable(one.paired.standard_error, alpha=level / 2),
            gained=_flips(one.pairs, sign=1),
            lost=_flips(one.pairs, sign=-1),
            failed=one.failed,
            notes=one.notes,
        )
        for one, p_adjusted, level in zip(untested, adjusted, levels, strict=True)
    ]


def _flips(pairs: Sequence[Pair], *, sign: int) -> tuple[Flip, ...]:
    """Docs whose score changed in one direction, the largest change first."""
    flips = [
        Flip(
            doc_id=pair.baseline.doc_id,
            baseline_position=pair.baseline.position,
            candidate_position=pair.candidate.position,
            change=(pair.candidate.score or 0.0) - (pair.baseline.score or 0.0),
        )
        for pair in pairs
        if pair.candidate.score != pair.baseline.score
    ]
    chosen = [flip for flip in flips if flip.change * sign > 0]
    return tuple(sorted(chosen, key=lambda flip: -abs(flip.change)))


def _compare_groups(
    baseline: Run, candidate: Run, tasks: Mapping[str, TaskComparison], *, level: float
) -> dict[str, GroupComparison]:
    return {
        name: GroupComparison(
            task=name,
            members=result.members,
            baseline=result.main.value,
            candidate=candidate.results[name].main.value,
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
            reach = normal_quantile((1 + level) / 2) * float(np.linalg.norm(weights * errors))
            change = reported[1] - reported[0]
            return change - reach, change + reach
    return None
