"""Docs drawn and swapped at random: what intervals of sums and tests of two models are made from.

A *unit* is what is exchangeable: a doc, or a cluster of docs that share a stem or a case, whose
counts are summed first. Every chance is one-sided, in a named direction of the difference,
candidate minus baseline.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]
"""From summed counts [..., columns] to the metric [...]."""

PERMUTATIONS = 10_000
BOOTSTRAPS = (2_000, 5_000)
"""Fewest and most: an end of the interval wanders by 0.05 and 0.03 standard errors with these."""

_CELLS = 40_000_000  # resamples times units: past 8,000 docs the resamples become fewer
_MOST_CELLS = 4_000_000  # in one block of draws: about 32 MB, whatever the number of docs


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """How likely chance alone gives a difference this low, or this high, without a true one."""

    lower: float
    higher: float

    @property
    def two_sided(self) -> float:
        """Twice the smaller tail, at most 1."""
        return min(1.0, 2 * min(self.lower, self.higher))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts:
    """A metric of both sides as one function of counts summed over units.

    Attributes:
        baseline: [units, columns], a dense array or a SciPy sparse one.
        candidate: The same shape, the same columns.
        value: From summed counts [..., columns] to the metric [...].
        of_clusters: Whether a unit is a cluster of docs.
    """

    baseline: Any
    candidate: Any
    value: Value
    of_clusters: bool = False

    @property
    def units(self) -> int:
        """How many exchangeable units there are."""
        return int(self.baseline.shape[0])

    @property
    def differing(self) -> int:
        """How many units the two sides differ in."""
        return len(np.flatnonzero(dense(abs(self.candidate - self.baseline).sum(axis=1))))

    def totals(self) -> tuple[Floats, Floats]:
        """The summed counts of either side, [columns] each."""
        return dense(self.baseline.sum(axis=0)), dense(self.candidate.sum(axis=0))

    def by_cluster(self, clusters: NDArray[np.int64]) -> "PairedCounts":
        """The same metric with clusters as units.

        Args:
            clusters: [units], the number of each unit's cluster, from 0 without gaps.
        """
        from scipy.sparse import csr_array

        size = len(clusters)
        members = csr_array((np.ones(size), (clusters, np.arange(size))))
        return PairedCounts(
            baseline=members @ self.baseline,
            candidate=members @ self.candidate,
            value=self.value,
            of_clusters=True,
        )


def swap_permutation(
    counts: PairedCounts, *, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> Tails:
    """Swap the two sides of each unit at random: the chances of a difference this low or high.

    For a mean of scores this is the sign-flip test of the differences, since a swap flips a sign;
    with clusters as units, the cluster sign-flip test. Where all ways to swap are no more than
    `permutations`, each is taken once and the chances are exact; else the observed way counts as
    one of the draws, so that no chance is ever 0.

    Source: E. W. Noreen, Computer-Intensive Methods for Testing Hypotheses (1989); A. Yeh, More
    accurate tests for the statistical significance of result differences, COLING 2000.
    """
    change = counts.candidate - counts.baseline
    change = change[np.flatnonzero(dense(abs(change).sum(axis=1)))]
    baseline, candidate = counts.totals()
    observed = counts.value(candidate) - counts.value(baseline)
    swappable = change.shape[0]
    exact = 2**swappable <= permutations
    low = high = 0 if exact else 1
    blocks = _all_subsets(swappable) if exact else _random_subsets(rng, permutations, swappable)
    for swaps in blocks:
        moved = dense(swaps @ change)
        difference = counts.value(candidate - moved) - counts.value(baseline + moved)
        # Equal sums reached in another order differ in the last bits; a tie counts as a tie.
        low += int(np.count_nonzero(difference <= observed + 1e-12))
        high += int(np.count_nonzero(difference >= observed - 1e-12))
    tried = 2**swappable if exact else permutations + 1
    return Tails(lower=low / tried, higher=high / tried)


def paired_bootstrap(
    counts: PairedCounts, *, rng: np.random.Generator, resamples: int | None = None
) -> Floats:
    """Differences of the metric over resamples of units, both sides of a unit drawn together.

    Args:
        counts: The metric, its units and their counts.
        rng: Where the draws come from.
        resamples: How many; by default as many as `BOOTSTRAPS` has for so many units.

    Returns:
        [resamples]. Its percentiles make the interval, its standard deviation the standard error.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993).
    """
    if resamples is None:
        resamples = int(np.clip(_CELLS // max(counts.units, 1), *BOOTSTRAPS))
    both = _side_by_side(counts.baseline, counts.candidate)
    drawn = []
    for weights in draws(counts.units, rng, resamples=resamples):
        baseline, candidate = np.split(dense(weights.astype(np.float64) @ both), 2, axis=-1)
        drawn.append(counts.value(candidate) - counts.value(baseline))
    return np.concatenate(drawn)


def draws(docs: int, rng: np.random.Generator, *, resamples: int) -> Iterator[NDArray[np.float32]]:
    """How often each doc comes up, [draws, docs], in chunks that add up to `resamples` draws."""
    size = max(1, min(resamples, _MOST_CELLS // docs))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        cells = rng.integers(docs, size=(rows, docs)) + docs * np.arange(rows)[:, None]
        counted = np.bincount(cells.ravel(), minlength=rows * docs)
        yield counted.reshape(rows, docs).astype(np.float32)


def resampled_sums(columns: Floats, rng: np.random.Generator, *, resamples: int) -> Floats:
    """Column sums of docs drawn with replacement.

    Args:
        columns: What each doc adds, [docs, columns].
        rng: Where the draws come from.
        resamples: How many times len(columns) docs are drawn.

    Returns:
        The sums, [resamples, columns].
    """
    drawn = draws(columns.shape[0], rng, resamples=resamples)
    return np.concatenate([chunk.astype(np.float64) @ columns for chunk in drawn])


def percentile_interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of resampled values (Efron's percentile interval)."""
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _random_subsets(rng: np.random.Generator, draws: int, size: int) -> Iterator[Floats]:
    """Fair coins as 0 and 1, [some draws, size] at a time."""
    for rows in _block_sizes(draws, size):
        coins = np.unpackbits(np.frombuffer(rng.bytes(rows * (-(-size // 8))), dtype=np.uint8))
        yield coins.reshape(rows, -1)[:, :size].astype(np.float64)


def _all_subsets(size: int) -> Iterator[Floats]:
    """Every way to choose among `size` units, [2 ** size, size]."""
    yield ((np.arange(2**size)[:, np.newaxis] >> np.arange(size)) & 1).astype(np.float64)


def _block_sizes(rows: int, columns: int) -> Iterator[int]:
    """Cut `rows` so that a block of [rows, columns] stays small."""
    step = max(1, _MOST_CELLS // max(columns, 1))
    for start in range(0, rows, step):
        yield min(step, rows - start)


def _side_by_side(left: Any, right: Any) -> Any:
    """Two arrays of counts as one, [units, 2 * columns], dense or sparse as they are."""
    if isinstance(left, np.ndarray):
        return np.hstack([left, right])
    from scipy.sparse import hstack

    return hstack([left, right], format="csr")


def dense(values: Any) -> Floats:
    """A plain array from what a product with a dense or a sparse one gives."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
