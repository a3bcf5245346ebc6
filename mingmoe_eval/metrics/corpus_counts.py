"""Corpus metrics of two models as functions of per-doc counts, for resampling and swapping docs.

Each function takes what the two sides earned doc by doc and gives PairedCounts, whose `value` is
the same metric that the scorer folds, for any number of summed counts at once.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mingmoe_eval.metrics.paired_tests import Floats, PairedCounts


def micro_f1_counts(baseline: Floats, candidate: Floats) -> PairedCounts:
    """Micro F1 over tuples; both sides are [docs, 3]: true positives, false ones, misses."""
    return PairedCounts(baseline=baseline, candidate=candidate, value=_micro_f1)


def pooled_mean_counts(baseline: Floats, candidate: Floats) -> PairedCounts:
    """A mean over parts that a doc may have several of; both sides are [docs, 2]: sum, parts."""
    return PairedCounts(baseline=baseline, candidate=candidate, value=_pooled_mean)


def label_f1_counts(
    expected: Sequence[str],
    baseline: Sequence[str],
    candidate: Sequence[str],
    *,
    average: Literal["macro", "weighted"],
) -> PairedCounts:
    """F1 over labels: the classes are those that occur in the docs summed, gold or answered.

    The mean over classes is plain (`macro`) or weighted by how often a class is expected. A label
    that a model invents is a class too, as in scikit-learn's report without a list of labels.
    """
    labels = {label: i for i, label in enumerate(sorted({*expected, *baseline, *candidate}))}
    value = _macro_f1 if average == "macro" else _weighted_f1
    return PairedCounts(
        baseline=_label_columns(expected, baseline, labels),
        candidate=_label_columns(expected, candidate, labels),
        value=value,
    )


def _label_columns(expected: Sequence[str], answered: Sequence[str], labels: dict[str, int]) -> Any:
    """[docs, 3 * labels]: right, expected, answered; sparse, since a doc touches three cells."""
    from scipy.sparse import csr_array

    gold = np.array([labels[label] for label in expected])
    said = np.array([labels[label] for label in answered])
    docs, right = np.arange(len(gold)), np.flatnonzero(gold == said)
    rows = np.concatenate([right, docs, docs])
    columns = np.concatenate([gold[right], len(labels) + gold, 2 * len(labels) + said])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(gold), 3 * len(labels)))


def _micro_f1(totals: Floats) -> Floats:
    found = totals[..., 0]
    return _share(2 * found, 2 * found + totals[..., 1] + totals[..., 2])


def _pooled_mean(totals: Floats) -> Floats:
    return _share(totals[..., 0], totals[..., 1])


def _macro_f1(totals: Floats) -> Floats:
    f1, _, present = _class_f1(totals)
    return _share(f1.sum(axis=-1), present.sum(axis=-1))


def _weighted_f1(totals: Floats) -> Floats:
    f1, expected, _ = _class_f1(totals)
    return _share((f1 * expected).sum(axis=-1), expected.sum(axis=-1))


def _class_f1(totals: Floats) -> tuple[Floats, Floats, Floats]:
    """F1, expected docs and presence (0 or 1) of each class, [..., labels] each."""
    right, expected, answered = np.split(totals, 3, axis=-1)
    seen = expected + answered
    return _share(2 * right, seen), expected, (seen > 0).astype(np.float64)


def _share(part: Floats, whole: Floats) -> Floats:
    """Part over whole; 0 where there is nothing."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
