"""Intervals of single numbers: shares, means, means over parts, means over clusters."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from statistics import NormalDist

from mingmoe_eval.records import MetricValue

NO_WIDTH = 1e-9
"""Sums of the same fractions in another order differ by less; no real interval is as narrow."""


def share(successes: int, n: int, *, level: float = 0.95) -> MetricValue:
    """A share of docs with Wilson's interval; NaN without one when there are no docs."""
    if n == 0:
        return MetricValue(value=math.nan, n=0)
    return MetricValue(
        value=successes / n,
        n=n,
        interval=wilson_interval(successes, n, level=level),
        interval_method="Wilson",
    )


def clustered_share(
    rights: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95
) -> MetricValue:
    """A share of docs that come in clusters: Wilson's interval at the effective number of docs.

    n_eff = p(1-p) / SE^2 with the SE of `clustered_mean` (the design effect, Kish 1965), at most
    n: clusters never make us surer. When all docs went the same way they show no spread, and each
    cluster counts as one doc.
    """
    n, p, count = len(rights), sum(rights) / len(rights), len(set(clusters))
    variance = _clustered_variance([float(right) for right in rights], clusters)
    spread = p * (1 - p)
    effective = min(n, spread / variance) if variance else (n if spread else count)
    return MetricValue(
        value=p,
        n=n,
        interval=wilson_interval(p * effective, effective, level=level),
        interval_method=f"Wilson, {count} clusters",
    )


def wilson_interval(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (Wilson 1927), which keeps within 0 and 1.

    centre = (p + z^2/2n) / (1 + z^2/n); half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)
    """
    z = two_sided_z(level)
    p = successes / n
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def wilson_at_error(value: float, error: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a number between 0 and 1 at its effective number of docs.

    n_eff = value (1 - value) / SE^2: as many rights and wrongs as would be as unsure (Kish 1965).
    It keeps within 0 and 1, and leans the right way near either end, where a normal interval of the
    same standard error misses the truth up to four times in ten.
    """
    effective = value * (1 - value) / error**2
    return wilson_interval(value * effective, effective, level=level)


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> MetricValue:
    """A mean over docs: Wilson's interval for rights and wrongs, else the normal one."""
    n = len(values)
    if n == 0:
        return MetricValue(value=math.nan, n=0)
    if all(value in (0.0, 1.0) for value in values):
        return share(round(math.fsum(values)), n, level=level)
    mean = math.fsum(values) / n
    if n == 1:
        return MetricValue(value=mean, n=1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = two_sided_z(level) * math.sqrt(variance / n)
    return MetricValue(
        value=mean, n=n, interval=(mean - half, mean + half), interval_method="normal"
    )


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95
) -> MetricValue:
    """A mean over docs that come in clusters, such as the questions about one case.

    SE^2 = sum over clusters of (sum of the cluster's deviations)^2 / n^2 (Miller 2024, section
    2.2); with every doc a cluster of its own this is the plain formula with n in place of n - 1.
    """
    mean = math.fsum(values) / len(values)
    half = two_sided_z(level) * math.sqrt(_clustered_variance(values, clusters))
    return MetricValue(
        value=mean,
        n=len(values),
        interval=(mean - half, mean + half),
        interval_method=f"normal, {len(set(clusters))} clusters",
    )


def mean_of_parts(parts: Sequence[MetricValue]) -> MetricValue:
    """The plain mean of independent parts, each weighing the same whatever its size.

    The parts' own intervals are put together by MOVER (Zou and Donner 2008), which keeps their
    asymmetry, and so keeps within what the parts keep within:
    low = mean - sqrt(sum (value_i - low_i)^2) / k, high = mean + sqrt(sum (high_i - value_i)^2) / k
    """
    k = len(parts)
    units, directions = {part.unit for part in parts}, {part.better for part in parts}
    mean = MetricValue(
        value=math.fsum(part.value for part in parts) / k,
        n=sum(part.n for part in parts),
        metric="mean",
        # A mean of percentages and perplexities is neither.
        unit=units.pop() if len(units) == 1 else "unknown",
        better=directions.pop() if len(directions) == 1 else "unknown",
    )
    intervals = [part.interval for part in parts if part.interval]
    if len(intervals) < k:
        return mean
    pairs = list(zip(parts, intervals, strict=True))
    below = math.sqrt(math.fsum((part.value - low) ** 2 for part, (low, _) in pairs)) / k
    above = math.sqrt(math.fsum((high - part.value) ** 2 for part, (_, high) in pairs)) / k
    return replace(
        mean,
        interval=(mean.value - below, mean.value + above),
        interval_method="MOVER, parts taken for independent",
    )


def difference_of_parts(one: MetricValue, other: MetricValue) -> MetricValue:
    """One number less another of other docs; MOVER as above, for two shares Newcombe's interval.

    Newcombe 1998, method 10: low = d - sqrt((p1 - l1)^2 + (u2 - p2)^2), and likewise high.
    """
    value, n = one.value - other.value, one.n + other.n
    if one.interval is None or other.interval is None:
        return MetricValue(value=value, n=n)
    below = math.hypot(one.value - one.interval[0], other.interval[1] - other.value)
    above = math.hypot(one.interval[1] - one.value, other.value - other.interval[0])
    return MetricValue(
        value=value,
        n=n,
        interval=(value - below, value + above),
        interval_method="MOVER, parts taken for independent",
    )


def _clustered_variance(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    mean = math.fsum(values) / len(values)
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    return math.fsum(total * total for total in sums.values()) / len(values) ** 2


def two_sided_z(level: float) -> float:
    """How many standard errors a two-sided normal interval reaches to either side."""
    return normal_quantile((1 + level) / 2)


def normal_quantile(probability: float) -> float:
    """The standard normal value below which `probability` lies."""
    return NormalDist().inv_cdf(probability)
