"""Which tasks have a corpus metric, and how to make it again from the samples of two runs."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mingmoe_eval.comparison.comparability import Pair
from mingmoe_eval.metrics.corpus_counts import (
    label_f1_counts,
    micro_f1_counts,
    pooled_mean_counts,
)
from mingmoe_eval.metrics.paired_tests import Floats, PairedCounts
from mingmoe_eval.promptcblue.scoring import compared_label
from mingmoe_eval.records import TaskResult

MadeAgain = Callable[[Sequence[Pair]], PairedCounts]


def corpus_counts(result: TaskResult, pairs: Sequence[Pair]) -> PairedCounts | None:
    """The per-doc counts behind a task's main metric; None where it is the mean of the scores."""
    if result.suite != "promptcblue":
        return None
    main_metric = next(name for name in _PROMPTCBLUE if name in result.metrics)
    return _PROMPTCBLUE[main_metric](pairs)


def _micro_f1(pairs: Sequence[Pair]) -> PairedCounts:
    return micro_f1_counts(*_columns(pairs, ("tp", "fp", "fn")))


def _rouge(pairs: Sequence[Pair]) -> PairedCounts:
    return pooled_mean_counts(*_columns(pairs, ("rougeL", "pairs")))


def _macro_f1(pairs: Sequence[Pair]) -> PairedCounts:
    return label_f1_counts(*_labels(pairs), average="macro")


def _weighted_f1(pairs: Sequence[Pair]) -> PairedCounts:
    return label_f1_counts(*_labels(pairs), average="weighted")


_PROMPTCBLUE: Mapping[str, MadeAgain] = {
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "rougeL": _rouge,
    "f1": _micro_f1,
}
"""By the name under which the suite's scorer reports its main metric beside `score`."""


def _columns(pairs: Sequence[Pair], names: Sequence[str]) -> tuple[Floats, Floats]:
    """What the named counts of each doc are on either side, [docs, names] each."""
    before = [[pair.baseline.counts[name] for name in names] for pair in pairs]
    after = [[pair.candidate.counts[name] for name in names] for pair in pairs]
    return np.array(before, dtype=np.float64), np.array(after, dtype=np.float64)


def _labels(pairs: Sequence[Pair]) -> tuple[list[str], list[str], list[str]]:
    """The expected label of each doc, and the one that either side gave."""
    return (
        [pair.baseline.expected for pair in pairs],
        [compared_label(pair.baseline) for pair in pairs],
        [compared_label(pair.candidate) for pair in pairs],
    )
