"""Two runs over the same docs, paired and tested task by task.

What is made again from the samples, with which test and which interval, and in which direction it
is better, the task's main metric says.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.comparison.comparability import (
    Difference,
    Pair,
    check_comparable,
    pair_samples,
    shared_tasks,
)
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.exams.cases import clusters_of
from mingmoe_eval.exams.records import folded_stem
from mingmoe_eval.metrics.metric import (
    Counted,
    Metric,
    mean_of_counts,
    tabulate_sides,
    total_of,
    units_of,
)
from mingmoe_eval.metrics.paired import PairedDifference, too_few
from mingmoe_eval.metrics.pooling import Stratum, moves_of, pooled_difference
from mingmoe_eval.metrics.resampling import paired_counts
from mingmoe_eval.metrics.significance import holm_adjusted, holm_levels, minimum_detectable
from mingmoe_eval.records import Better, Run, Sample, Unit
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
        identical: Every doc has the same answer and the same score on both sides.
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
    identical: bool = False
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
    """A group's main metric in both runs.

    Its test is that of the weighted sum of its leaf tasks' differences, stratified by task. It
    holds where the group is a plain mean of its members or one over all docs; else there is none.
    Groups are adjusted among themselves: their leaf tasks are another family.

    Attributes:
        members: Tasks and groups directly below it.
        paired: The difference with interval and chances; None where the group is no such mean.
        p_adjusted: Two-sided, after Holm's procedure over the groups; NaN without a test.
    """

    task: str
    members: tuple[str, ...]
    baseline: float
    candidate: float
    paired: PairedDifference | None = None
    p_adjusted: float = math.nan
    unit: Unit = "share"
    better: Better = "higher"

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference; None where there is no test."""
        return None if self.paired is None else self.paired.interval


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
        left_out: Shared leaf task -> why it cannot be compared doc by doc.
        strata: Leaf task -> what it brings into a test of several tasks together.
        seed: Of permutations and resamples.
    """

    baseline: str
    candidate: str
    alpha: float
    tasks: Mapping[str, TaskComparison]
    groups: Mapping[str, GroupComparison]
    allowed: tuple[Difference, ...] = ()
    marks: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    strata: Mapping[str, Stratum] = field(default_factory=dict, compare=False, repr=False)
    seed: int = SEED

    def together(
        self, weights: Mapping[str, float], *, level: float | None = None
    ) -> PairedDifference:
        """The weighted sum of some tasks' differences, for instance their mean.

        Args:
            weights: Of leaf tasks of this comparison; negative where less is better and the sum
                is to say how much better the candidate is.
            level: The confidence of the interval; the comparison's own if None.
        """
        return pooled_difference(
            [self.strata[task] for task in weights],
            list(weights.values()),
            level=1 - self.alpha if level is None else level,
            rng=_generator(self.seed, "\n".join(weights)),
        )


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
            any task in common.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha} is no error rate: give a number between 0 and 1")
    allowed = check_comparable(baseline, candidate, allow)
    untested, left_out = [], {}
    for task in shared_tasks(baseline, candidate):
        one = _compare_task(task, baseline, candidate, level=1 - alpha, seed=seed)
        if one is None:
            left_out[task] = "no doc has a number of its own on both sides"
        else:
            untested.append(one)
    if not untested:
        raise IncomparableRunsError(
            f"{', '.join(left_out)}: {baseline.name} and {candidate.name} have no scored doc in "
            "common"
        )
    comparison = Comparison(
        baseline=baseline.name,
        candidate=candidate.name,
        alpha=alpha,
        tasks={one.task: one for one in _with_holm(untested, alpha)},
        groups={},
        allowed=allowed,
        marks=tuple(dict.fromkeys((*baseline.marks, *candidate.marks))),
        left_out=left_out,
        strata=_strata(untested),
        seed=seed,
    )
    return replace(comparison, groups=_compare_groups(baseline, candidate, comparison))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Untested:
    """A task's comparison before its p-value has met those of the other tasks."""

    task: str
    metric: Metric
    pairs: Sequence[Pair]
    units: NDArray[np.int64]
    clusters: int | None
    paired: PairedDifference
    moves: NDArray[np.float64]
    failed: int
    notes: tuple[str, ...]


def _compare_task(
    task: str, baseline: Run, candidate: Run, *, level: float, seed: int
) -> _Untested | None:
    """One task; None where no doc has a number of its own on both sides."""
    metric = metric_of(baseline.leaves[task])
    all_pairs = pair_samples(baseline.samples.get(task, ()), candidate.samples.get(task, ()))
    pairs = [p for p in all_pairs if says(p.baseline, metric) and says(p.candidate, metric)]
    if not pairs:
        return None
    clusters = clusters_of([pair.baseline for pair in pairs])
    before, after = tabulate_sides(
        [
            [_counted(pair.answers[0], metric) for pair in pairs],
            [_counted(pair.answers[1], metric) for pair in pairs],
        ],
        clusters=clusters,
    )
    least, most = metric.range
    paired = too_few(
        metric.resampling.difference(
            before, after, metric, level=level, rng=_generator(seed, task)
        ),
        (least - most, most - least),
    )
    return _Untested(
        task=task,
        metric=metric,
        pairs=pairs,
        units=units_of(clusters, len(pairs)),
        clusters=before.units if before.clustered else None,
        paired=paired,
        moves=moves_of(paired_counts(before, after, metric)),
        failed=len(all_pairs) - len(pairs),
        notes=tuple(
            _notes(
                task, metric, len(pairs), (baseline, paired.baseline), (candidate, paired.candidate)
            )
        ),
    )


def _counted(answers: Sequence[Sample], metric: Metric) -> Counted:
    """What a doc adds; of several repeats the mean of what each adds, so that it weighs as one."""
    return mean_of_counts([metric.count(one) for one in answers if says(one, metric)])


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode("utf-8", "surrogatepass"))])


def _strata(untested: Sequence[_Untested]) -> dict[str, Stratum]:
    return {
        one.task: Stratum(
            paired=one.paired, docs=len(one.pairs), moves=one.moves, questions=questions
        )
        for one, questions in zip(untested, _questions(untested), strict=True)
    }


def _questions(untested: Sequence[_Untested]) -> list[NDArray[np.int64]]:
    """The number of the question that each unit of each task holds, equal where it is the same.

    Two forms of an exam, or its files of four and of five options, hold the same questions, and a
    model that loses one in the first will likely lose it in the second. Units that share a
    question in any way, also by way of a third, are one.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = [[name_of(pair.baseline) for pair in one.pairs] for one in untested]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(chain(*names)))}
    starts = np.cumsum([0, *(len(one.moves) for one in untested)])
    units = np.concatenate([s + one.units for s, one in zip(starts, untested, strict=False)])
    held = starts[-1] + np.array([numbers[name] for name in chain(*names)])
    nodes = int(starts[-1]) + len(numbers)
    links = coo_array((np.ones(len(units)), (units, held)), shape=(nodes, nodes))
    labels = connected_components(links, directed=False)[1].astype(np.int64)
    return [labels[start:end] for start, end in pairwise(starts)]


_GENERIC = 20
"""A shorter stem, such as "which of these is wrong?", says nothing of which question it is."""


def name_of(sample: Sample) -> str:
    """What a question is called in whichever task it stands: its stem, else its doc's id."""
    stem = sample.doc.get("question")
    folded = folded_stem(stem) if isinstance(stem, str) else ""
    return folded if len(folded) >= _GENERIC else sample.doc_id


def says(sample: Sample, metric: Metric) -> bool:
    """Whether a sample says anything of a metric; a failed one says nothing about the model."""
    return sample.score is not None or (sample.status != "failed" and metric.name in sample.counts)


def _notes(task: str, metric: Metric, docs: int, *sides: tuple[Run, float]) -> Iterator[str]:
    """Say where the samples do not add up to the number that the run itself reports."""
    for run, paired in sides:
        main = run.leaves[task].main
        value = paired if main.n == docs else _over_own_docs(run, task, metric)
        if not math.isclose(main.value, value, abs_tol=_ROUNDING):
            yield (
                f"{run.name} reports {main.value:.4f}; what is compared here is the mean of its "
                f"samples' scores, {value:.4f}"
            )


def _over_own_docs(run: Run, task: str, metric: Metric) -> float:
    """The metric over all docs of a run, of which the other one may lack some."""
    samples = run.samples[task]
    answers = (pair.answers[0] for pair in pair_samples(samples, samples))
    counted = [_counted(one, metric) for one in answers if any(says(s, metric) for s in one)]
    return float(metric.value(total_of(counted)))


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
            identical=all(_same_answer(pair, one.metric) for pair in one.pairs),
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


def _same_answer(pair: Pair, metric: Metric) -> bool:
    """Whether a doc went the same way on both sides, and not only earned as much."""
    mine, theirs = (
        [(one.score, one.answered or one.response, _counted([one], metric)) for one in answers]
        for answers in pair.answers
    )
    return mine == theirs


def _compare_groups(
    baseline: Run, candidate: Run, comparison: Comparison
) -> dict[str, GroupComparison]:
    groups = {
        name: GroupComparison(
            task=name,
            members=result.members,
            baseline=result.main.value,
            candidate=candidate.results[name].main.value,
            unit=result.main.unit,
            better=result.main.better,
            paired=_group_difference(name, baseline, candidate, comparison),
        )
        for name, result in baseline.results.items()
        if result.is_group and name in candidate.results and candidate.results[name].is_group
    }
    tested = {name: one.paired.tails.two_sided for name, one in groups.items() if one.paired}
    adjusted = dict(zip(tested, holm_adjusted(list(tested.values())), strict=True))
    return {
        name: replace(group, p_adjusted=adjusted.get(name, math.nan))
        for name, group in groups.items()
    }


def _group_difference(
    name: str, baseline: Run, candidate: Run, comparison: Comparison
) -> PairedDifference | None:
    """Of the leaf tasks below a group, weighted as the group weighs them.

    Where both ways of weighing give what the runs report (members that score alike, or are of one
    size) and neither run says which it is, the less certain one is taken.
    """
    reported = tuple(run.results[name].main.value for run in (baseline, candidate))
    said = {run.results[name].weight_by_size for run in (baseline, candidate)} - {None}
    fitting = []
    for by_size in (False, True):
        weights = _leaf_weights(name, baseline, candidate, comparison, by_size=by_size)
        if weights is None or (said and by_size not in said):
            continue
        pooled = comparison.together(weights)
        # Reported values are over all docs of a run, those here over the paired ones.
        if np.allclose((pooled.baseline, pooled.candidate), reported, rtol=0, atol=_ROUNDING):
            fitting.append(pooled)
    return max(fitting, key=lambda pooled: pooled.standard_error, default=None)


def _leaf_weights(
    name: str, baseline: Run, candidate: Run, comparison: Comparison, *, by_size: bool
) -> dict[str, float] | None:
    """How much each leaf task below a group weighs in it; None where one cannot be compared.

    A member that is a group itself counts once in a plain mean, weighed inside as it says, or
    plainly; by size, every doc below counts the same.
    """
    members = baseline.results[name].members
    if members != candidate.results[name].members:
        return None
    weights: dict[str, float] = {}
    for member in members:
        if member in comparison.tasks:
            below: dict[str, float] | None = {member: 1.0}
        elif member in baseline.results and member in candidate.results:
            inside = bool(baseline.results[member].weight_by_size)
            below = _leaf_weights(
                member, baseline, candidate, comparison, by_size=inside and not by_size
            )
        else:
            below = None
        if not below:
            return None
        for leaf, weight in below.items():
            weights[leaf] = weights.get(leaf, 0.0) + weight / len(members)
    if by_size:
        docs = {leaf: comparison.tasks[leaf].docs for leaf in weights}
        return {leaf: count / sum(docs.values()) for leaf, count in docs.items()}
    return weights
