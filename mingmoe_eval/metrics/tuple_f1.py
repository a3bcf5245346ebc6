"""Micro-averaged precision, recall and F1 over sets of tuples."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from mingmoe_eval.metrics.draws import Floats
from mingmoe_eval.metrics.metric import ClassMean, Counted, Metric, Scored, ratio
from mingmoe_eval.metrics.resampling import Bootstrap


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


def count_tuples(scored: Scored) -> Counted:
    """What a doc's tuples add: (found, invented, missed)."""
    counts = scored.counts
    return {"": (counts["tp"], counts["fp"], counts["fn"])}


def _precision(totals: Floats) -> Floats:
    return ratio(totals[..., 0], totals[..., 0] + totals[..., 1])


def _recall(totals: Floats) -> Floats:
    return ratio(totals[..., 0], totals[..., 0] + totals[..., 2])


def _f1(totals: Floats) -> Floats:
    precision, recall = _precision(totals), _recall(totals)
    return ratio(2 * precision * recall, precision + recall)


def _micro(name: str, title: str, of_class: Callable[[Floats], Floats]) -> Metric:
    return Metric(
        name=name,
        title=f"micro {title}",
        count=count_tuples,
        value=ClassMean(of_class),
        resampling=Bootstrap(),
    )


PRECISION = _micro("precision", "precision", _precision)
RECALL = _micro("recall", "recall", _recall)
MICRO_F1 = _micro("f1", "F1", _f1)
