"""One metric, two models, the same docs: the difference with its doubt.

Which test and which interval depends on the kind of metric:

| metric | clusters | test | interval |
|---|---|---|---|
| share of right answers | none | exact McNemar | Bonett-Price |
| mean of graded scores | none | sign flip | paired bootstrap |
| mean of any scores | yes | cluster sign flip | cluster-robust t |
| function of summed counts (F1) | either | swap permutation | paired bootstrap |
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.metrics.paired_tests import (
    Floats,
    PairedCounts,
    Tails,
    bonett_price,
    mcnemar_exact,
    normal_quantile,
    paired_bootstrap,
    swap_permutation,
)

Clusters = NDArray[np.int64]
SIGN_FLIP = "sign flip"
FEW = 10
"""With fewer units that differ, their spread says too little of how far the next ones would go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """A metric on both sides, and what is known of the difference.

    Attributes:
        baseline: The metric of the baseline over the paired docs.
        candidate: The metric of the candidate over the paired docs.
        standard_error: Of the difference; where few units differ, at least `smallest_error(units)`.
        interval: Of the difference, two-sided, at `level`.
        level: The confidence of the interval, for instance 0.95.
        tails: The chances of such a difference, or a larger one, without a true one.
        units: How many docs, or clusters of docs, are exchangeable.
        test: What gave `tails`.
        interval_method: What gave `interval`.
    """

    baseline: float
    candidate: float
    standard_error: float
    interval: tuple[float, float]
    level: float
    tails: Tails
    units: int
    test: str
    interval_method: str

    @property
    def difference(self) -> float:
        """Candidate minus baseline."""
        return self.candidate - self.baseline


def smallest_error(units: int) -> float:
    """The standard error that even two identical answer sheets leave.

    Bonett and Price's for no flip at all, sqrt(2) / (units + 2): a handful of docs on which two
    models happen to agree must not pass for certainty, whatever the metric.
    """
    return math.sqrt(2) / (units + 2)


def _least_error(units: PairedCounts) -> float:
    """A floor under an error estimated from units of which hardly any differ; else none."""
    return smallest_error(units.units) if units.differing < FEW else 0.0


def right_wrong_difference(
    lost: int, gained: int, docs: int, *, baseline_right: int, level: float
) -> PairedDifference:
    """The difference of two shares of right answers, from the flips alone."""
    change = (gained - lost) / docs
    variance = ((gained + lost) / docs - change**2) / max(docs - 1, 1)
    return PairedDifference(
        baseline=baseline_right / docs,
        candidate=(baseline_right + gained - lost) / docs,
        standard_error=max(math.sqrt(max(variance, 0.0)), smallest_error(docs)),
        interval=bonett_price(lost, gained, docs, level=level),
        level=level,
        tails=mcnemar_exact(lost, gained),
        units=docs,
        test="exact McNemar",
        interval_method="Bonett-Price",
    )


def score_difference(
    baseline: Floats,
    candidate: Floats,
    *,
    clusters: Clusters | None,
    level: float,
    rng: np.random.Generator,
) -> PairedDifference:
    """The difference of two means of per-doc scores.

    Args:
        baseline: [docs], the baseline's scores.
        candidate: [docs], the candidate's, in the same order.
        clusters: [docs], the number of each doc's cluster, or None where docs stand alone.
        level: The confidence of the interval.
        rng: Draws the permutations and the resamples.
    """
    if clusters is None and _right_or_wrong(baseline) and _right_or_wrong(candidate):
        return right_wrong_difference(
            int(np.count_nonzero(baseline > candidate)),
            int(np.count_nonzero(candidate > baseline)),
            len(baseline),
            baseline_right=int(baseline.sum()),
            level=level,
        )
    counts = _mean_counts(baseline, candidate)
    if clusters is None:
        return replace(
            count_difference(counts, clusters=None, level=level, rng=rng), test=SIGN_FLIP
        )
    return _clustered_mean(counts, candidate - baseline, clusters, level=level, rng=rng)


def count_difference(
    counts: PairedCounts, *, clusters: Clusters | None, level: float, rng: np.random.Generator
) -> PairedDifference:
    """The difference of any metric that is a function of summed counts."""
    units = counts if clusters is None else counts.by_cluster(clusters)
    resampled = paired_bootstrap(units, rng=rng)
    least_error = _least_error(units)
    error = max(float(resampled.std(ddof=1)), least_error)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    baseline, candidate = (float(units.value(total)) for total in units.totals())
    change = candidate - baseline
    if least_error:
        reach = normal_quantile((1 + level) / 2) * least_error
        low, high = min(low, change - reach), max(high, change + reach)
    return PairedDifference(
        baseline=baseline,
        candidate=candidate,
        standard_error=error,
        interval=(float(low), float(high)),
        level=level,
        tails=swap_permutation(units, rng=rng),
        units=units.units,
        test="swap permutation" + (" of clusters" if clusters is not None else ""),
        interval_method="paired bootstrap over " + ("docs" if clusters is None else "clusters"),
    )


def cluster_robust_error(differences: Floats, clusters: Clusters) -> float:
    """The standard error of a mean whose docs come in clusters.

    sqrt(G / (G - 1) * sum over clusters (sum of residuals)^2) / n, with G clusters and n docs:
    Miller's formula (arXiv:2411.00640, section 2.2) with the usual small-sample factor, as
    statsmodels has it by default.
    """
    residuals = np.bincount(clusters, weights=differences - differences.mean())
    count = len(residuals)
    return math.sqrt(count / max(count - 1, 1) * float(residuals @ residuals)) / len(differences)


def _clustered_mean(
    counts: PairedCounts,
    differences: Floats,
    clusters: Clusters,
    *,
    level: float,
    rng: np.random.Generator,
) -> PairedDifference:
    from scipy.special import stdtrit

    units = counts.by_cluster(clusters)
    error = max(cluster_robust_error(differences, clusters), _least_error(units))
    change = float(differences.mean())
    reach = float(stdtrit(max(units.units - 1, 1), (1 + level) / 2)) * error
    baseline, candidate = (float(units.value(total)) for total in units.totals())
    return PairedDifference(
        baseline=baseline,
        candidate=candidate,
        standard_error=error,
        interval=(change - reach, change + reach),
        level=level,
        tails=swap_permutation(units, rng=rng),
        units=units.units,
        test=f"cluster {SIGN_FLIP}",
        interval_method="cluster-robust t",
    )


def _mean_counts(baseline: Floats, candidate: Floats) -> PairedCounts:
    ones = np.ones(len(baseline))
    return PairedCounts(
        baseline=np.column_stack([baseline, ones]),
        candidate=np.column_stack([candidate, ones]),
        value=_ratio,
    )


def _ratio(totals: Floats) -> Any:
    return totals[..., 0] / totals[..., 1]


def _right_or_wrong(scores: Floats) -> bool:
    return bool(np.isin(scores, (0.0, 1.0)).all())
