"""Micro-averaged precision, recall and F1 over sets of tuples, and its spread over docs."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TupleCounts:
    """How many tuples were found, invented and missed."""

    found: int = 0
    invented: int = 0
    missed: int = 0

    def __add__(self, other: "TupleCounts") -> "TupleCounts":
        return TupleCounts(
            self.found + other.found, self.invented + other.invented, self.missed + other.missed
        )

    @property
    def precision_recall_f1(self) -> tuple[float, float, float]:
        """Precision, recall and F1; all three are 0 where nothing was found.

        So docs without gold and without predictions score 0 together, as PromptCBLUE's scorer has
        it, and not 1. F1 is evaluated as 2PR / (P + R), left to right.
        """
        if not self.found:
            return 0.0, 0.0, 0.0
        precision = self.found / (self.found + self.invented)
        recall = self.found / (self.found + self.missed)
        return precision, recall, 2 * precision * recall / (precision + recall)


def compare_sets(gold: Iterable[Hashable], predicted: Iterable[Hashable]) -> TupleCounts:
    """Count one doc's tuples; a tuple that occurs twice counts once on either side."""
    expected, answered = set(gold), set(predicted)
    found = len(expected & answered)
    return TupleCounts(found, len(answered) - found, len(expected) - found)


def doc_f1(counts: TupleCounts) -> float:
    """One doc's own F1, for reading sample by sample; 1 where there was nothing to find."""
    nothing = not (counts.found or counts.invented or counts.missed)
    return 1.0 if nothing else counts.precision_recall_f1[2]


def resampled_f1(
    docs: Sequence[TupleCounts], rng: "np.random.Generator", *, resamples: int
) -> "NDArray[np.float64]":
    """Micro F1 of docs drawn with replacement, from their counts alone.

    Returns:
        One F1 for each of the `resamples` draws of len(docs) docs.
    """
    import numpy as np

    from mingmoe_eval.metrics.doc_resampling import resampled_sums

    columns = np.array([(d.found, d.invented, d.missed) for d in docs], dtype=np.float64)
    return f1_of_sums(resampled_sums(columns, rng, resamples=resamples))


def f1_of_sums(sums: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Micro F1 from sums of (found, invented, missed), [..., 3]; 0 where nothing is there.

    F1 = 2 TP / (2 TP + FP + FN): the same number as 2PR / (P + R), with one division.
    """
    import numpy as np

    found, invented, missed = np.moveaxis(sums, -1, 0)
    tuples = 2 * found + invented + missed
    f1: NDArray[np.float64] = np.divide(
        2 * found, tuples, out=np.zeros_like(found), where=tuples > 0
    )
    return f1
