"""Two models, the same docs: tests and intervals of the difference.

Sides are called baseline and candidate, a difference is always candidate minus baseline.

Which test and which interval depends on how the metric is resampled:

| metric | clusters | test | interval |
|---|---|---|---|
| share of right answers | none | exact McNemar | Bonett-Price |
| mean of graded scores | none | sign flip | paired bootstrap |
| mean of any scores | yes | cluster sign flip | cluster-robust t |
| ratio of summed counts (micro F1) | either | swap permutation | paired bootstrap |
| mean over classes (macro F1) | either | swap permutation | jackknife |
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.metrics.draws import (
    Floats,
    PairedCounts,
    Tails,
    paired_bootstrap,
    swap_permutation,
)
from mingmoe_eval.metrics.uncertainty import two_sided_z

Clusters = NDArray[np.int64]
SIGN_FLIP = "sign flip"
BONETT_PRICE = "Bonett-Price"
_NO_SPREAD = 1e-12  # equal values, summed in another order, differ by less, relative to their size
FEWEST = 5
"""With fewer units, 2^-units is above 5 %: no test can call what they say more than chance."""
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
        ends: From a confidence to the interval of it, made in the same way as `interval`.
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
    ends: Callable[[float], tuple[float, float]] | None = field(
        default=None, compare=False, repr=False
    )

    @property
    def difference(self) -> float:
        """Candidate minus baseline."""
        return self.candidate - self.baseline

    def interval_at(self, level: float) -> tuple[float, float]:
        """The interval of another confidence, by the same method and from the same draws."""
        if self.ends is None or level == self.level:
            return self.interval
        return self.ends(level)


def too_few(paired: PairedDifference, widest: tuple[float, float]) -> PairedDifference:
    """The same where hardly any units stand behind it: its interval then rules nothing out.

    Of fewer than `FEWEST` units no sign flip can reach 5 %, and neither t with so few degrees of
    freedom nor the spread of so few draws is worth its name. The closed interval of rights and
    wrongs, which is honest for a single doc, stays.
    """
    if paired.units >= FEWEST or paired.interval_method == BONETT_PRICE:
        return paired
    return replace(
        paired,
        interval=widest,
        ends=lambda level: widest,
        interval_method=f"none: {paired.units} units are too few",
    )


def mirrored(paired: PairedDifference) -> PairedDifference:
    """The same of the metric times -1, more of which is better where less of the metric was."""

    def ends(level: float) -> tuple[float, float]:
        low, high = paired.interval_at(level)
        return -high, -low

    return replace(
        paired,
        baseline=-paired.baseline,
        candidate=-paired.candidate,
        interval=ends(paired.level),
        ends=ends,
        tails=Tails(lower=paired.tails.higher, higher=paired.tails.lower),
    )


def smallest_error(units: int) -> float:
    """The standard error that even two identical answer sheets leave.

    Bonett and Price's for no flip at all, sqrt(2) / (units + 2): a handful of docs on which two
    models happen to agree must not pass for certainty, whatever the metric.
    """
    return math.sqrt(2) / (units + 2)


def _least_error(units: PairedCounts, estimated: float, baseline: float, candidate: float) -> float:
    """A floor under an error estimated from units of which hardly any differ; else none.

    Units that all differ in the same way, such as docs that one model has all right and the other
    all wrong, show no spread either, and prove no certainty. What one unit can differ by is taken
    for 1, as for a share, and for the change itself where that is larger, as for a perplexity.
    """
    rounding = _NO_SPREAD * max(1.0, abs(baseline), abs(candidate))
    if estimated > rounding and units.differing >= FEW:
        return 0.0
    return max(1.0, abs(candidate - baseline)) * smallest_error(units.units)


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
        interval_method=BONETT_PRICE,
        ends=lambda level: bonett_price(lost, gained, docs, level=level),
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
    counts: PairedCounts,
    *,
    clusters: Clusters | None = None,
    level: float,
    rng: np.random.Generator,
) -> PairedDifference:
    """The difference of any metric that is a function of summed counts, by the bootstrap."""
    units = counts if clusters is None else counts.by_cluster(clusters)
    resampled = paired_bootstrap(units, rng=rng)
    estimated = float(resampled.std(ddof=1))
    baseline, candidate = (float(units.value(total)) for total in units.totals())
    change = candidate - baseline
    least_error = _least_error(units, estimated, baseline, candidate)

    def ends(level: float) -> tuple[float, float]:
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
        if least_error:
            reach = two_sided_z(level) * least_error
            low, high = min(low, change - reach), max(high, change + reach)
        return float(low), float(high)

    return PairedDifference(
        baseline=baseline,
        candidate=candidate,
        standard_error=max(estimated, least_error),
        interval=ends(level),
        ends=ends,
        level=level,
        tails=swap_permutation(units, rng=rng),
        units=units.units,
        test="swap permutation" + (" of clusters" if units.of_clusters else ""),
        interval_method="paired bootstrap over " + ("clusters" if units.of_clusters else "docs"),
    )


def jackknifed_difference(
    counts: PairedCounts, left_out: Floats, *, level: float, rng: np.random.Generator
) -> PairedDifference:
    """The difference of a metric whose classes the docs bring along, such as macro F1.

    Args:
        counts: The metric, its units and their counts.
        left_out: [units], the difference without each unit in turn.
        level: The confidence of the interval.
        rng: Draws the permutations.
    """
    estimated = jackknife_error(left_out)
    baseline, candidate = (float(counts.value(total)) for total in counts.totals())
    change = candidate - baseline
    error = max(estimated, _least_error(counts, estimated, baseline, candidate))

    def ends(level: float) -> tuple[float, float]:
        reach = two_sided_z(level) * error
        return max(-1.0, change - reach), min(1.0, change + reach)

    return PairedDifference(
        baseline=baseline,
        candidate=candidate,
        standard_error=error,
        interval=ends(level),
        ends=ends,
        level=level,
        tails=swap_permutation(counts, rng=rng),
        units=counts.units,
        test="swap permutation" + (" of clusters" if counts.of_clusters else ""),
        interval_method="jackknife over " + ("clusters" if counts.of_clusters else "docs"),
    )


def jackknife_error(left_out: Floats) -> float:
    """The standard error of a value from [units] of it, each without one unit.

    sqrt((n - 1) / n * sum of (value_i - mean)^2). Source: B. Efron, The Jackknife, the Bootstrap
    and Other Resampling Plans (1982), chapter 3.
    """
    n = len(left_out)
    deviations = left_out - left_out.mean()
    error = math.sqrt((n - 1) / n * float(deviations @ deviations))
    return error if error > _NO_SPREAD else 0.0


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
    estimated = cluster_robust_error(differences, clusters)
    baseline, candidate = (float(units.value(total)) for total in units.totals())
    change = float(differences.mean())
    error = max(estimated, _least_error(units, estimated, baseline, candidate))
    # Shares cannot differ by more than 1; t with few degrees of freedom reaches beyond.
    furthest = 1.0 if np.abs(differences).max() <= 1 else math.inf

    def ends(level: float) -> tuple[float, float]:
        reach = float(stdtrit(max(units.units - 1, 1), (1 + level) / 2)) * error
        return max(-furthest, change - reach), min(furthest, change + reach)

    return PairedDifference(
        baseline=baseline,
        candidate=candidate,
        standard_error=error,
        interval=ends(level),
        ends=ends,
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


def mcnemar_exact(lost: int, gained: int) -> Tails:
    """McNemar's exact test: without a true difference a flip goes either way like a fair coin.

    Args:
        lost: Docs that the baseline has right and the candidate wrong.
        gained: Docs that the candidate has right and the baseline wrong.

    Source: Q. McNemar, Psychometrika 12 (1947); the binomial tail itself is SciPy's.
    """
    if lost + gained == 0:
        return Tails(lower=1.0, higher=1.0)
    from scipy.stats import binomtest

    flips = lost + gained
    return Tails(
        lower=float(binomtest(gained, flips, alternative="less").pvalue),
        higher=float(binomtest(gained, flips, alternative="greater").pvalue),
    )


def bonett_price(lost: int, gained: int, docs: int, *, level: float) -> tuple[float, float]:
    """The adjusted Wald interval of a difference of paired proportions.

    One doc is added to each kind of flip, which keeps the interval honest for few flips, and wider
    than nothing when there are none:
    p = (flips + 1) / (docs + 2), low and high = p_gained - p_lost -+ z sqrt((p_gained + p_lost
    - (p_gained - p_lost)^2) / (docs + 2)).

    Source: D. G. Bonett and R. M. Price, Journal of Educational and Behavioral Statistics 37
    (2012), 479-488.
    """
    p_lost, p_gained = (lost + 1) / (docs + 2), (gained + 1) / (docs + 2)
    centre = p_gained - p_lost
    reach = two_sided_z(level) * math.sqrt((p_gained + p_lost - centre**2) / (docs + 2))
    return max(-1.0, centre - reach), min(1.0, centre + reach)
