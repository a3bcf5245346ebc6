"""Precision, recall and F1 of single labels, over the classes seen in gold or prediction."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Average = Literal["macro", "weighted"]
"""macro: unweighted mean over the classes. weighted: by how often each is the gold label."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One class: its precision, recall and F1 (0 where undefined), and how often it is gold."""

    precision: float
    recall: float
    f1: float
    support: int


def label_table(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, LabelScore]:
    """Scores of each class, sorted by label.

    The classes are the union of the strings on both sides, as scikit-learn's report has it when it
    is given no list: every invented label adds a class with F1 0.
    """
    hits = Counter(g for g, p in zip(gold, predicted, strict=True) if g == p)
    golds, answers = Counter(gold), Counter(predicted)
    return {
        label: _label_score(hits[label], golds[label], answers[label])
        for label in sorted(golds.keys() | answers.keys())
    }


def averaged(table: Mapping[str, LabelScore], average: Average) -> tuple[float, float, float]:
    """Precision, recall and F1 over all classes."""
    rows = list(table.values())
    weights = [row.support if average == "weighted" else 1 for row in rows]
    total = sum(weights) or 1

    def mean(values: Sequence[float]) -> float:
        return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / total

    return (
        mean([row.precision for row in rows]),
        mean([row.recall for row in rows]),
        mean([row.f1 for row in rows]),
    )


def resampled_f1(
    gold: Sequence[str],
    predicted: Sequence[str],
    average: Average,
    rng: "np.random.Generator",
    *,
    resamples: int,
) -> "NDArray[np.float64]":
    """Averaged F1 of docs drawn with replacement.

    The union of classes is made again in every draw: a class that was not drawn does not count.
    Docs with the same gold and predicted label are alike, so a draw is a multinomial over the
    distinct pairs.

    Returns:
        One F1 for each of the `resamples` draws.
    """
    import numpy as np

    pairs = Counter(zip(gold, predicted, strict=True))
    labels = {label: i for i, label in enumerate(sorted({*gold, *predicted}))}
    rows = np.arange(len(pairs))
    is_gold, is_answer = (np.zeros((len(pairs), len(labels)), np.float32) for _ in range(2))
    is_gold[rows, [labels[g] for g, _ in pairs]] = 1
    is_answer[rows, [labels[p] for _, p in pairs]] = 1
    shares = np.array(list(pairs.values())) / len(gold)
    chunk = max(1, _MOST_CELLS // max(len(pairs), len(labels)))
    drawn = (
        rng.multinomial(len(gold), shares, size=min(chunk, resamples - start)).astype(np.float32)
        for start in range(0, resamples, chunk)
    )
    return np.concatenate([_f1_of_draws(d, is_gold, is_answer, average) for d in drawn])


_MOST_CELLS = 4_000_000
"""Numbers in the largest array of one chunk of draws: 16 MB each."""


def _label_score(hits: int, gold: int, answers: int) -> LabelScore:
    precision = hits / answers if answers else 0.0
    recall = hits / gold if gold else 0.0
    both = precision + recall
    return LabelScore(precision, recall, 2 * precision * recall / both if both else 0.0, gold)


def _f1_of_draws(
    drawn: "NDArray[np.float32]",
    is_gold: "NDArray[np.float32]",
    is_answer: "NDArray[np.float32]",
    average: Average,
) -> "NDArray[np.float64]":
    """Averaged F1 of each draw.

    Args:
        drawn: How often each pair was drawn, (draws, pairs).
        is_gold: Which label is a pair's gold, one-hot, (pairs, labels).
        is_answer: Which label is a pair's prediction, one-hot, (pairs, labels).
        average: How the classes are averaged.
    """
    import numpy as np

    support = drawn @ is_gold
    seen = support + drawn @ is_answer  # F1 = 2 TP / (gold + predicted)
    hits = 2 * (drawn @ (is_gold * is_answer))
    # Counts are exact in single precision, their ratio is not.
    f1 = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0, dtype=np.float64)
    weights = support if average == "weighted" else (seen > 0)
    return np.asarray((f1 * weights).sum(axis=1, dtype=np.float64) / weights.sum(axis=1))
