"""Precision, recall and F1 of single labels, over the classes seen in gold or prediction."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mingmoe_eval.metrics.draws import Floats
from mingmoe_eval.metrics.metric import Chance, ClassMean, Counted, Metric, Scored, ratio
from mingmoe_eval.metrics.resampling import Jackknife

Average = Literal["macro", "weighted"]
"""macro: unweighted mean over the classes. weighted: by how often each is the gold label."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One class: its precision, recall and F1 (0 where undefined), and how often it is gold."""

    precision: float
    recall: float
    f1: float
    support: int


def count_label(expected: str, answered: str | None) -> Counted:
    """Which classes a doc touches, each with (right, gold, answered).

    The classes are the strings on both sides, as scikit-learn's report has it when it is given no
    list: every invented label adds a class with F1 0. None is no label, so that an unanswered doc
    is a miss of its gold label and nothing else.
    """
    if answered is None:
        return {expected: (0, 1, 0)}
    if answered == expected:
        return {expected: (1, 1, 1)}
    return {expected: (0, 1, 0), answered: (0, 0, 1)}


def count_sample(scored: Scored) -> Counted:
    """What a doc's gold and answer add."""
    return count_label(scored.expected, scored.answered)


def label_metrics(
    average: Average,
    count: Callable[[Scored], Counted] = count_sample,
    *,
    chance: Chance | None = None,
) -> tuple[Metric, Metric, Metric]:
    """Averaged precision, recall and F1, named after the average.

    Args:
        average: How the classes are averaged.
        count: What a doc adds; by default an unanswered doc has no label.
        chance: What guessing would score, as F1.
    """
    weight = _present if average == "macro" else _support

    def metric(name: str, of_class: Callable[[Floats], Floats]) -> Metric:
        return Metric(
            name=f"{average}_{name.lower()}",
            title=f"{average} {name}",
            count=count,
            value=ClassMean(of_class, weight),
            resampling=Jackknife(),
        )

    f1 = replace(metric("F1", _f1), chance=chance)
    return metric("precision", _precision), metric("recall", _recall), f1


def _precision(totals: Floats) -> Floats:
    return ratio(totals[..., 0], totals[..., 2])


def _recall(totals: Floats) -> Floats:
    return ratio(totals[..., 0], totals[..., 1])


def _f1(totals: Floats) -> Floats:
    # Not 2 hits / (gold + answered), the same number: the official last bit is of this form.
    precision, recall = _precision(totals), _recall(totals)
    return ratio(2 * precision * recall, precision + recall)


def _present(totals: Floats) -> Floats:
    """1 for a class that is there on either side: in a part of the docs, others may not be."""
    return np.asarray(totals[..., 1] + totals[..., 2] > 0, dtype=np.float64)


def _support(totals: Floats) -> Floats:
    return totals[..., 1]


MACRO_F1 = label_metrics("macro")[2]
