"""A metric as one record: what it is called, what is counted, how counts become the value.

Everything that handles a metric asks this record: folding and intervals, tables by label, pairing
in comparisons, which of two is better, in which unit it is shown, what guessing would score.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.metrics.draws import Floats, resampled_sums
from mingmoe_eval.metrics.paired import PairedDifference
from mingmoe_eval.metrics.uncertainty import NO_WIDTH, wilson_interval
from mingmoe_eval.records import Better, MetricValue, Unit

Counted = Mapping[str, Sequence[float]]
"""What one doc adds: class -> amounts, one of each kind, such as hits, golds, answers.

The first kind is what speaks for the class. A metric without classes counts under the class "";
else a doc touches few of them.
"""

Chance = Callable[[Sequence[Mapping[str, Any]]], float | None]
"""From docs to what guessing would score over them; None where that has no meaning."""


class Scored(Protocol):
    """What is kept of a doc's answer: a `Sample`, or anything else with these fields."""

    @property
    def score(self) -> float | None:
        """What the doc earned by itself; None where it failed."""

    @property
    def expected(self) -> str:
        """The gold answer."""

    @property
    def answered(self) -> str | None:
        """The answer that was read; None where none could be."""

    @property
    def reading(self) -> str:
        """By which rule the answer was read, or what is wrong with it."""

    @property
    def counts(self) -> Mapping[str, float]:
        """What the doc adds to corpus metrics, by name."""


class Resampling(Protocol):
    """How sure a metric is over docs: of one model, and of the difference of two.

    One record answers both, so that the interval of a difference never follows another convention
    than the intervals of its two sides.
    """

    def interval(
        self, table: "CountTable", metric: "Metric", *, level: float = 0.95
    ) -> tuple[tuple[float, float] | None, str]:
        """The metric's interval, and how it was made; None where nothing is known."""

    def difference(
        self,
        baseline: "CountTable",
        candidate: "CountTable",
        metric: "Metric",
        *,
        level: float,
        rng: np.random.Generator,
    ) -> PairedDifference:
        """Candidate minus baseline over the same docs, tables with the same classes."""


def evenly(totals: Floats) -> Floats:
    """Every class weighs the same, [..., kinds] to [...]; also where there is but one."""
    return np.ones(totals.shape[:-1])


@dataclass(frozen=True, slots=True)
class ClassMean:
    """How counts become a value: sum of (weight x value of class) over sum of (weight).

    Micro F1 and accuracy have one class; macro F1 has one for each label, all of the same weight;
    weighted F1 weighs a label by how often it is gold.

    Attributes:
        of_class: From a class's summed counts [..., kinds] to its value, [...].
        weight: From the same to its weight, [...].
    """

    of_class: Callable[[Floats], Floats]
    weight: Callable[[Floats], Floats] = evenly

    def __call__(self, totals: Floats) -> Floats:
        """From summed counts [..., classes, kinds] to [...]; 0 where nothing weighs."""
        weights = self.weight(totals)
        return ratio(_sum(self.of_class(totals) * weights), _sum(weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: What results call it.
        title: What a reader calls it.
        count: What a doc adds to it.
        value: From counts summed over docs, [..., classes, kinds], to the metric, [...].
        resampling: How its interval is made, alone and paired.
        unit: A share of one is shown in %, a number as it is; so is what has no known unit.
        better: In which direction, if in any.
        range: The least and the largest value that it can have.
        chance: What guessing would score.
    """

    name: str
    title: str
    count: Callable[[Scored], Counted]
    value: Callable[[Floats], Floats]
    resampling: Resampling
    unit: Unit = "share"
    better: Better = "higher"
    range: tuple[float, float] = (0.0, 1.0)
    chance: Chance | None = None

    @property
    def is_of_docs(self) -> bool:
        """Whether each doc adds to it by itself: of some, several answers to a question do."""
        return self.count is not counted_by_question

    def fold(self, scored: Sequence[Scored], clusters: "Clusters" = None) -> MetricValue:
        """The metric over docs, with its interval."""
        return self.of([self.count(one) for one in scored], clusters)

    def of(self, counted: Sequence[Counted], clusters: "Clusters" = None) -> MetricValue:
        """The metric of what docs add, one entry a doc."""
        return self.of_table(tabulate(counted, clusters=clusters))

    def of_table(self, table: "CountTable") -> MetricValue:
        """The metric over docs that are counted already."""
        if not table.docs:
            return self.stamped(MetricValue(value=math.nan, n=0))
        value = float(self.value(table.totals))
        interval, method = self.resampling.interval(table, self)
        if interval is not None and interval[1] - interval[0] < NO_WIDTH:
            interval, method = self._without_spread(value, table.units)
        return self.stamped(
            MetricValue(value=value, n=table.docs, interval=interval, interval_method=method)
        )

    def by_class(self, table: "CountTable") -> dict[str, MetricValue]:
        """The value of each class alone, over the docs that touch it."""
        return {name: self.of_table(table.only(name)) for name in table.classes}

    def stamped(self, value: MetricValue) -> MetricValue:
        """The value as one of this metric: with its name, unit and direction.

        Its interval is held to what the metric can be: within the range, and around the value.
        """
        interval = value.interval
        if interval is not None:
            low, high = min(interval[0], value.value), max(interval[1], value.value)
            interval = max(low, self.range[0]), min(high, self.range[1])
        return replace(
            value, interval=interval, metric=self.name, unit=self.unit, better=self.better
        )

    def _without_spread(self, value: float, units: int) -> tuple[tuple[float, float] | None, str]:
        """What docs that are all alike leave open.

        They show no spread, and would claim certainty. The widest that anything of this mean can
        be spread within its range is all or nothing, so Wilson's interval at the value is safe; it
        grows with how few docs there are. Without a range nothing can be said.
        """
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high)):
            return None, "docs without any spread, and no known range"
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        ends = wilson_interval(share * units, units)
        return (
            (low + ends[0] * (high - low), low + ends[1] * (high - low)),
            "Wilson at the value, for docs without any spread",
        )


Clusters = Sequence[Hashable | None] | None
"""What each doc shares with others, such as a case; None for a doc on its own."""


@dataclass(frozen=True, eq=False)
class CountTable:
    """What docs add to a metric, entry by entry: a doc touches few of the classes.

    Attributes:
        classes: The classes, sorted.
        docs: How many docs there are.
        unit: [entries], which exchangeable unit (a doc, or a cluster of docs) an entry belongs to.
        column: [entries], which class it is of.
        amounts: [entries, kinds].
        units: How many exchangeable units there are.
        totals: [classes, kinds], summed over docs in their order.
    """

    classes: tuple[str, ...]
    docs: int
    unit: NDArray[np.int64]
    column: NDArray[np.int64]
    amounts: Floats
    units: int
    totals: Floats
    _drawn: dict[int, Floats] = field(default_factory=dict, init=False, repr=False)

    @property
    def clustered(self) -> bool:
        """Whether some docs share a unit."""
        return self.units < self.docs

    @cached_property
    def matrix(self) -> Any:
        """[units, classes * kinds]; sparse where there are many classes."""
        kinds = self.amounts.shape[1]
        width = len(self.classes) * kinds
        columns = self.column[:, np.newaxis] * kinds + np.arange(kinds)
        rows = np.broadcast_to(self.unit[:, np.newaxis], columns.shape)
        if len(self.classes) <= 1:
            dense = np.zeros((self.units, width))
            np.add.at(dense, (rows, columns), self.amounts)
            return dense
        from scipy.sparse import coo_array

        entries = (self.amounts.ravel(), (rows.ravel(), columns.ravel()))
        return coo_array(entries, shape=(self.units, width)).tocsr()

    def resampled(self, resamples: int) -> Floats:
        """Sums over units drawn with replacement, [resamples, classes * kinds].

        Kept, so that all metrics of the same counts are made from the same draws.
        """
        if resamples not in self._drawn:
            rng = np.random.default_rng(0)  # the same docs always give the same interval
            self._drawn[resamples] = resampled_sums(self.matrix, rng, resamples=resamples)
        return self._drawn[resamples]

    def only(self, name: str) -> "CountTable":
        """One class, over the docs that touch it."""
        place = self.classes.index(name)
        entries = np.flatnonzero(self.column == place)
        touched, unit = np.unique(self.unit[entries], return_inverse=True)
        return CountTable(
            classes=(name,),
            docs=len(entries),
            unit=unit,
            column=np.zeros(len(entries), dtype=np.int64),
            amounts=self.amounts[entries],
            units=len(touched),
            totals=self.totals[place : place + 1],
        )


def fold_together(
    metrics: Sequence[Metric], scored: Sequence[Scored], clusters: Clusters = None
) -> dict[str, MetricValue]:
    """Several metrics over the same docs, by name; what is counted alike is counted once."""
    tables: dict[Any, CountTable] = {}
    folded = {}
    for metric in metrics:
        if metric.count not in tables:
            tables[metric.count] = tabulate(
                [metric.count(one) for one in scored], clusters=clusters
            )
        folded[metric.name] = metric.of_table(tables[metric.count])
    return folded


def total_of(counted: Sequence[Counted]) -> Floats:
    """What docs add together, [classes, kinds], for a value without an interval."""
    classes = sorted({name for one in counted for name in one})
    kinds = next((len(amounts) for one in counted for amounts in one.values()), 1)
    return _totals(counted, classes, kinds)


def mean_of_counts(counted: Sequence[Counted]) -> Counted:
    """What docs add on average; a class that one of them does not touch has nothing there."""
    if len(counted) == 1:
        return counted[0]
    names = dict.fromkeys(name for one in counted for name in one)
    return {
        name: tuple(
            math.fsum(kind) / len(counted)
            for kind in zip(*(one[name] for one in counted if name in one), strict=True)
        )
        for name in names
    }


def tabulate(counted: Sequence[Counted], *, clusters: Clusters = None) -> CountTable:
    """Lay out what docs add."""
    return tabulate_sides([counted], clusters=clusters)[0]


def tabulate_sides(
    sides: Sequence[Sequence[Counted]], *, clusters: Clusters = None
) -> list[CountTable]:
    """The same docs as several models answered them, laid out over the same classes."""
    names = sorted({name for counted in sides for one in counted for name in one})
    places = {name: place for place, name in enumerate(names)}
    units = units_of(clusters, len(sides[0]))
    return [_table(counted, places, units) for counted in sides]


def counted_by_question(scored: Scored) -> Counted:
    """What a single doc adds to a metric of questions that were asked in several ways: nothing."""
    raise TypeError("counted by question, whose answers lie in several samples")


def one_of(holds: bool) -> Counted:
    """What a doc adds to the share of docs of which something holds."""
    return {"": (float(holds), 1.0)}


def mean_of_sums(totals: Floats) -> Floats:
    """From (sum, docs) to their mean."""
    return ratio(totals[..., 0], totals[..., 1])


def ratio(part: Floats, whole: Floats) -> Floats:
    """Part over whole; 0 where there is nothing."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def units_of(clusters: Clusters, docs: int) -> NDArray[np.int64]:
    """The number of each doc's unit, from 0 without gaps, in the order of their first docs."""
    if clusters is None:
        return np.arange(docs)
    names = [
        ("doc", index) if name is None else ("cluster", name) for index, name in enumerate(clusters)
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _table(
    counted: Sequence[Counted], places: Mapping[str, int], units: NDArray[np.int64]
) -> CountTable:
    entries = [
        (doc, places[name], amounts)
        for doc, one in enumerate(counted)
        for name, amounts in one.items()
    ]
    amounts = np.array([amounts for _, _, amounts in entries], dtype=np.float64)
    kinds = amounts.shape[1] if entries else 1
    return CountTable(
        classes=tuple(places),
        docs=len(counted),
        unit=units[np.array([doc for doc, _, _ in entries], dtype=np.int64)],
        column=np.array([place for _, place, _ in entries], dtype=np.int64),
        amounts=amounts.reshape(len(entries), kinds),
        units=int(units.max()) + 1 if len(units) else 0,
        totals=_totals(counted, places, kinds),
    )


def _totals(counted: Iterable[Counted], classes: Iterable[str], kinds: int) -> Floats:
    """What all docs add together, [classes, kinds].

    By Python's own sum, doc by doc: NumPy adds in another order, which moves the last bit.
    """
    rows: dict[str, list[Sequence[float]]] = {name: [] for name in classes}
    for one in counted:
        for name, amounts in one.items():
            rows[name].append(amounts)
    sums = [
        [sum(kind) for kind in zip(*row, strict=True)] or [0.0] * kinds for row in rows.values()
    ]
    return np.array(sums, dtype=np.float64).reshape(len(sums), kinds)


def _sum(values: Floats) -> Floats:
    """Over the last axis; exactly for a single value, whose last bit is official."""
    if values.ndim == 1:
        return np.float64(math.fsum(values))  # type: ignore[return-value]
    return np.asarray(values.sum(axis=-1))
