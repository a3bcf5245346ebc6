"""Several tasks taken together: one difference over them, one test, one interval.

A task enters as a *stratum*: by how much each of its units (docs, or clusters of docs) moves the
task's metric. For a mean of scores that is the unit's difference over the number of docs; for
micro or macro F1 it is F(M + c/2) - F(M - c/2), where c is what the unit counts more on the
candidate's side and M the sum of counts half-way between both sides. Swapping the two sides of a
unit turns the sign of its move and leaves M alone, so that without a true difference the sign flip
of the moves is an exact test of any weighted sum over tasks, whatever metrics they have.

Units of several tasks that hold the same question, such as two forms of one exam, are right or
wrong together: they are flipped together, and their covariance widens the interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.metrics.draws import (
    PERMUTATIONS,
    Floats,
    PairedCounts,
    Tails,
    dense,
    swap_permutation,
)
from mingmoe_eval.metrics.paired import PairedDifference, mcnemar_exact, mirrored, too_few
from mingmoe_eval.metrics.uncertainty import two_sided_z

POOLED_TEST = "stratified sign flip"
_FEW_SIZES = 64  # of moves: then units of one size are drawn together, by the binomial
_CELLS = 4_000_000  # of counts at once


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stratum:
    """One task's part of a pooled difference.

    Attributes:
        paired: The task's own difference.
        docs: How many docs it has; by default a doc weighs the same in whichever task it is.
        moves: [units], by how much each unit moves the metric; they add up to the difference.
        questions: [units], which question a unit holds, the same number for the same one in all
            strata of a comparison.
        sign: -1 where less is better.
    """

    paired: PairedDifference
    docs: int
    moves: Floats
    questions: NDArray[np.int64]
    sign: int = 1


def moves_of(counts: PairedCounts) -> Floats:
    """By how much each unit moves the metric, [units]; see the module's docstring."""
    change = counts.candidate - counts.baseline
    baseline, candidate = counts.totals()
    middle = (baseline + candidate) / 2
    moves = np.zeros(counts.units)
    differing = np.flatnonzero(dense(abs(change).sum(axis=1)))
    rows = max(1, _CELLS // max(1, change.shape[1]))
    for start in range(0, len(differing), rows):
        some = differing[start : start + rows]
        half = dense(change[some]) / 2
        moves[some] = counts.value(middle + half) - counts.value(middle - half)
    return moves


def pooled_difference(
    strata: Sequence[Stratum],
    weights: Sequence[float],
    *,
    level: float,
    rng: np.random.Generator,
) -> PairedDifference:
    """The weighted sum of several tasks' differences, more of which is better.

    Args:
        strata: The tasks, one at least.
        weights: One a task, such as each task's share of the docs.
        level: The confidence of the interval.
        rng: Draws the flips.

    The standard error combines the tasks' own and the covariance of questions that they share:
    SE^2 = sum (w SE_t)^2 + sum over questions of ((sum r)^2 - sum r^2), with r a task's centred
    moves of one question, each weighted; shared questions never make it smaller.
    """
    weighted = [weight * one.sign for weight, one in zip(weights, strata, strict=True)]
    if len(strata) == 1 and abs(weighted[0]) == 1:
        alone = strata[0].paired
        there = replace(alone, interval=alone.interval_at(level), level=level)
        return there if weighted[0] > 0 else mirrored(there)
    questions, place = np.unique(
        np.concatenate([one.questions for one in strata]), return_inverse=True
    )
    moves = np.zeros(len(questions))
    together, apart = np.zeros(len(questions)), np.zeros(len(questions))
    variance, start = 0.0, 0
    for weight, one in zip(weighted, strata, strict=True):
        own = place[start : start + len(one.moves)]
        start += len(one.moves)
        moves += np.bincount(own, weight * one.moves, len(questions))
        centred = weight * (one.moves - one.moves.mean())
        rest = np.bincount(own, centred, len(questions))
        together += rest
        apart += rest * rest
        variance += (weight * one.paired.standard_error) ** 2
    error = math.sqrt(variance + max(0.0, float(together @ together - apart.sum())))
    baseline, candidate = (
        math.fsum(w * getattr(one.paired, side) for w, one in zip(weighted, strata, strict=True))
        for side in ("baseline", "candidate")
    )
    change = candidate - baseline
    shares = all(abs(one.paired.baseline) <= 1 >= abs(one.paired.candidate) for one in strata)
    furthest = math.fsum(map(abs, weighted)) if shares else math.inf

    def ends(level: float) -> tuple[float, float]:
        reach = two_sided_z(level) * error
        return max(-furthest, change - reach), min(furthest, change + reach)

    pooled = PairedDifference(
        baseline=baseline,
        candidate=candidate,
        standard_error=error,
        interval=ends(level),
        level=level,
        tails=sign_flip(moves, rng=rng),
        units=len(questions),
        test=POOLED_TEST,
        interval_method="normal, tasks' errors combined",
        ends=ends,
    )
    return too_few(pooled, (-furthest, furthest))


def sign_flip(
    moves: Floats, *, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> Tails:
    """The chances of a sum this low or high when each move goes either way like a fair coin.

    Exact (McNemar's) where all moves are of one size, and where all ways to flip are no more than
    `permutations`. Where they are of few sizes, how many of each go up is drawn at once from the
    binomial; else each unit has its coin.
    """
    moves = moves[moves != 0]
    if not len(moves):
        return Tails(lower=1.0, higher=1.0)
    # Shares of 1/480 reached in another order differ in the last bits: a tie counts as a tie.
    largest = float(np.abs(moves).max())
    sizes, times = np.unique(np.round(np.abs(moves) / largest, 9), return_counts=True)
    if len(sizes) == 1:
        return mcnemar_exact(int((moves < 0).sum()), int((moves > 0).sum()))
    if len(sizes) > _FEW_SIZES or 2 ** len(moves) <= permutations:  # of which the latter is exact
        column = moves[:, np.newaxis]
        counts = PairedCounts(
            baseline=np.zeros_like(column), candidate=column, value=lambda sums: sums[..., 0]
        )
        return swap_permutation(counts, rng=rng, permutations=permutations)
    observed = float(moves.sum()) / largest
    ups = rng.binomial(times, 0.5, size=(permutations, len(times)))
    sums = (2 * ups - times) @ sizes
    # The observed way counts as one of the draws, so that no chance is ever 0.
    return Tails(
        lower=(1 + int(np.count_nonzero(sums <= observed + 1e-7))) / (permutations + 1),
        higher=(1 + int(np.count_nonzero(sums >= observed - 1e-7))) / (permutations + 1),
    )
