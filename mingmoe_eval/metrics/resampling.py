"""How sure a metric is over docs, of one model and of two: the three ways that metrics choose from.

Mean        of rights and wrongs, or grades between 0 and 1: Wilson's interval; else the normal one
Bootstrap   a ratio of sums, such as micro F1: percentiles over docs drawn with replacement
Jackknife   a mean over classes, such as macro F1: Wilson's interval at the effective number of docs

Docs that share a case leave, and are drawn, together. For two models see `paired`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.metrics.draws import Floats, PairedCounts, percentile_interval
from mingmoe_eval.metrics.paired import (
    PairedDifference,
    count_difference,
    jackknife_error,
    jackknifed_difference,
    score_difference,
)
from mingmoe_eval.metrics.uncertainty import (
    NO_WIDTH,
    clustered_mean,
    clustered_share,
    mean_interval,
    two_sided_z,
    wilson_at_error,
    wilson_interval,
)

if TYPE_CHECKING:
    from mingmoe_eval.metrics.metric import ClassMean, CountTable, Metric

Interval = tuple[float, float]

EFFECTIVE = "Wilson at the effective number of docs"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over docs, each of which counts (what it earned, 1)."""

    def interval(
        self, table: "CountTable", metric: "Metric", *, level: float = 0.95
    ) -> tuple[Interval | None, str]:
        """Wilson's interval, of graded shares at the effective number of docs; else the normal one.

        Clusters widen all of them.
        """
        values = table.amounts[:, 0].tolist()
        if not table.clustered:
            mean = mean_interval(values, level=level)
        elif all(value in (0.0, 1.0) for value in values):
            mean = clustered_share(values, table.unit.tolist(), level=level)
        else:
            mean = clustered_mean(values, table.unit.tolist(), level=level)
        if mean.interval is None:
            # One grade shows no spread: no width, which the metric does not leave so.
            return (mean.value, mean.value), mean.interval_method
        if not mean.interval_method.startswith("normal") or metric.range != (0.0, 1.0):
            return mean.interval, mean.interval_method
        error = (mean.interval[1] - mean.value) / two_sided_z(level)
        if error < NO_WIDTH or not 0 < mean.value < 1:
            return (mean.value, mean.value), mean.interval_method
        method = EFFECTIVE + mean.interval_method.removeprefix("normal")
        return wilson_at_error(mean.value, error, level=level), method

    def difference(
        self,
        baseline: "CountTable",
        candidate: "CountTable",
        metric: "Metric",
        *,
        level: float,
        rng: np.random.Generator,
    ) -> PairedDifference:
        """Of rights and wrongs, or of grades, doc by doc."""
        return score_difference(
            baseline.amounts[:, 0],
            candidate.amounts[:, 0],
            clusters=baseline.unit if baseline.clustered else None,
            level=level,
            rng=rng,
        )


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A function of sums over docs, which are drawn with replacement."""

    resamples: int = 10_000

    def interval(
        self, table: "CountTable", metric: "Metric", *, level: float = 0.95
    ) -> tuple[Interval | None, str]:
        """The middle of the values over resampled docs, or clusters of docs."""
        sums = table.resampled(self.resamples)
        drawn = metric.value(sums.reshape(self.resamples, *table.totals.shape))
        units = "clusters" if table.clustered else "docs"
        method = f"percentile bootstrap over {units}, {self.resamples:,} draws"
        return percentile_interval(drawn, level), method

    def difference(
        self,
        baseline: "CountTable",
        candidate: "CountTable",
        metric: "Metric",
        *,
        level: float,
        rng: np.random.Generator,
    ) -> PairedDifference:
        """By the paired bootstrap."""
        return count_difference(paired_counts(baseline, candidate, metric), level=level, rng=rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfADistance(Bootstrap):
    """The bootstrap of a distance: scale x sum over classes of |gap|, of sums over docs.

    Draws of one err upwards, so that their percentiles would deny that there is no distance at all.

    Attributes:
        gaps: From summed counts [..., classes, kinds] to each class's gap, [..., classes].
        scale: What the sum of the gaps' sizes is multiplied by.
    """

    gaps: Callable[[Floats], Floats]
    scale: float = 1.0

    def interval(
        self, table: "CountTable", metric: "Metric", *, level: float = 0.95
    ) -> tuple[Interval | None, str]:
        """Percentiles, with the lower end further down.

        By the triangle inequality the true distance is no further from ours than all gaps' errors
        together.
        """
        found = self.gaps(table.totals)
        drawn = self.gaps(table.resampled(self.resamples).reshape(-1, *table.totals.shape))
        low, high = percentile_interval(self._distance(drawn), level)
        _, error = percentile_interval(self._distance(drawn - found), level)
        lower = max(0.0, min(low, float(self._distance(found)) - error))
        return (lower, high), "bootstrap over questions"

    def _distance(self, gaps: Floats) -> Floats:
        return np.asarray(self.scale * np.abs(gaps).sum(axis=-1))


@dataclass(frozen=True, slots=True)
class Jackknife:
    """A mean over classes that the docs themselves bring along.

    Docs drawn with replacement leave out some 37 % of the classes that one doc alone has, such as
    each label that a chatty model invents, so that every draw is better than the sample and the
    percentiles lie beside the value. Leaving out one doc at a time has no such bias.
    """

    def interval(
        self, table: "CountTable", metric: "Metric", *, level: float = 0.95
    ) -> tuple[Interval | None, str]:
        """Wilson's interval at the effective number of docs, value (1 - value) / SE^2.

        So it keeps within 0 and 1 and leans the right way near either end, where a normal interval
        would miss (benchmarks/intervals.md has the coverage of both).
        """
        value = float(metric.value(table.totals))
        error = jackknife_error(without_each(table, metric))
        if metric.range != (0.0, 1.0):
            reach = two_sided_z(level) * error
            return (value - reach, value + reach), "jackknife, normal"
        if error > 0 and 0 < value < 1:
            return wilson_at_error(value, error, level=level), f"jackknife, {EFFECTIVE}"
        if value == 1:
            return (_spotless(table, metric, level), 1.0), "MOVER over the classes, all right"
        ends = wilson_interval(value * table.units, table.units, level=level)
        return ends, "Wilson, for docs without any spread"

    def difference(
        self,
        baseline: "CountTable",
        candidate: "CountTable",
        metric: "Metric",
        *,
        level: float,
        rng: np.random.Generator,
    ) -> PairedDifference:
        """By the jackknife, both sides of a doc left out together."""
        left_out = without_each(candidate, metric) - without_each(baseline, metric)
        counts = paired_counts(baseline, candidate, metric)
        return jackknifed_difference(counts, left_out, level=level, rng=rng)


def without_each(table: "CountTable", metric: "Metric") -> Floats:
    """The metric without each unit in turn, [units].

    In closed form: only the classes that a unit touches change, so that the two sums behind the
    metric lose a term and gain another, whatever the number of classes.
    """
    mean = _class_mean(metric)
    unit, column, amounts = _merged(table)
    weights = mean.weight(table.totals)
    terms = mean.of_class(table.totals) * weights
    left = table.totals[column] - amounts
    weights_left = mean.weight(left)
    terms_left = mean.of_class(left) * weights_left

    def sums(all_classes: Floats, before: Floats, after: Floats) -> Floats:
        change = np.bincount(unit, weights=after - before[column], minlength=table.units)
        return np.asarray(all_classes.sum() + change)

    parts, wholes = sums(terms, terms, terms_left), sums(weights, weights, weights_left)
    # A class that is gone leaves a rest of the rounding, never a weight.
    left_out: Floats = np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 1e-9)
    return left_out


def _spotless(table: "CountTable", metric: "Metric", level: float) -> float:
    """How low the metric may truly be although it is 1.

    Each class has Wilson's lower end for as many docs as speak for it, and the classes are put
    together by MOVER (Zou and Donner 2008): a rare class weighs as much as any in macro F1, and
    one doc of it proves little.
    """
    z = two_sided_z(level)
    _, column, amounts = _merged(table)
    docs = np.bincount(column[amounts[:, 0] > 0], minlength=len(table.classes))
    weights = _class_mean(metric).weight(table.totals)
    reach = weights / weights.sum() * (z * z / (docs + z * z))  # Wilson's for no fault at all
    return max(0.0, 1.0 - float(np.sqrt((reach * reach).sum())))


def paired_counts(
    baseline: "CountTable", candidate: "CountTable", metric: "Metric"
) -> PairedCounts:
    """The metric as a function of flat sums, [..., classes * kinds]."""

    def value(sums: Floats) -> Floats:
        values: Floats = metric.value(sums.reshape(*sums.shape[:-1], *baseline.totals.shape))
        return values

    return PairedCounts(
        baseline=baseline.matrix,
        candidate=candidate.matrix,
        value=value,
        of_clusters=baseline.clustered,
    )


def _class_mean(metric: "Metric") -> "ClassMean":
    from mingmoe_eval.metrics.metric import ClassMean

    if not isinstance(metric.value, ClassMean):
        raise TypeError(f"{metric.name} is no mean over classes and cannot be jackknifed as one")
    return metric.value


def _merged(
    table: "CountTable",
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Entries by unit and class: the docs of a cluster leave together."""
    if not table.clustered:
        return table.unit, table.column, table.amounts
    cells, place = np.unique(table.unit * len(table.classes) + table.column, return_inverse=True)
    amounts = np.zeros((len(cells), table.amounts.shape[1]))
    np.add.at(amounts, place, table.amounts)
    return *np.divmod(cells, len(table.classes)), amounts
