"""The three official metrics, each from what is kept of a doc: tuples, labels, ROUGE.

A `Comparison` is all that a corpus metric needs of one doc, so the file scorer, a run and a rescore
fold the same numbers in the same order and agree to the last bit.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from mingmoe_eval.metrics import label_f1, tuple_f1
from mingmoe_eval.metrics.doc_resampling import percentile_interval
from mingmoe_eval.metrics.rouge import rouge
from mingmoe_eval.metrics.tuple_f1 import TupleCounts
from mingmoe_eval.metrics.uncertainty import wilson_interval
from mingmoe_eval.promptcblue.catalogue import Answer, CblueTask, Item
from mingmoe_eval.promptcblue.parsing import Profile, default_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECTION = "rougeL:"
"""What a report section's name follows in the counts of a doc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one doc adds to its task's metrics: sums, or two labels; `value` is its own score."""

    value: float
    counts: Mapping[str, float] = field(default_factory=dict)
    gold: str = ""
    predicted: str = ""


class Measure(Protocol):
    """One way to compare answers and to fold the comparisons."""

    @property
    def main(self) -> str:
        """The name of the main metric among those that `corpus` gives."""

    @property
    def official_names(self) -> Mapping[str, str]:
        """What the official report calls the metrics: official name -> ours."""

    def compare(self, gold: Answer, predicted: Answer) -> Comparison:
        """Hold one doc's answer against its gold."""

    def corpus(self, comparisons: Sequence[Comparison]) -> dict[str, float]:
        """The metrics over all docs."""

    def resampled(
        self, comparisons: Sequence[Comparison], rng: "np.random.Generator", *, resamples: int
    ) -> "NDArray[np.float64]":
        """The main metric of docs drawn with replacement, once a draw."""


def measure_of(task: CblueTask, profile: Profile = "official") -> Measure:
    """The official metric of a task; the profile says what an empty label counts as."""
    match task.metric:
        case "micro_f1":
            return MicroF1()
        case "macro_f1":
            return MacroF1(default_label(task, profile))
        case "weighted_f1":
            return WeightedF1(default_label(task, profile))
        case "rouge_l":
            return RougeL()


def answer_tuples(items: Sequence[Item]) -> set[tuple[str, ...]]:
    """Each item as the JSON of its values, in the order of its keys; equal items fall together.

    The keys themselves do not enter, and the order inside a list of values matters: two events with
    the same sites in another order differ.
    """
    return {tuple(json.dumps(item[key]) for key in sorted(item)) for item in items}


class MicroF1:
    """Micro F1 over sets of tuples: the seven structured tasks."""

    main = "f1"
    official_names = {"precision": "precision", "recall": "recall", "f1": "f1"}  # noqa: RUF012

    def compare(self, gold: Answer, predicted: Answer) -> Comparison:
        """Count the tuples found, invented and missed as tp, fp, fn."""
        counts = tuple_f1.compare_sets(_tuples(gold), _tuples(predicted))
        return Comparison(
            value=tuple_f1.doc_f1(counts),
            counts={"tp": counts.found, "fp": counts.invented, "fn": counts.missed},
        )

    def corpus(self, comparisons: Sequence[Comparison]) -> dict[str, float]:
        """Precision, recall and F1 from the summed counts."""
        total = sum(map(_tuple_counts, comparisons), TupleCounts())
        return dict(zip(("precision", "recall", "f1"), total.precision_recall_f1, strict=True))

    def resampled(
        self, comparisons: Sequence[Comparison], rng: "np.random.Generator", *, resamples: int
    ) -> "NDArray[np.float64]":
        """Micro F1, once a draw."""
        return tuple_f1.resampled_f1(
            [_tuple_counts(c) for c in comparisons], rng, resamples=resamples
        )


class _LabelF1:
    """F1 over single labels; an empty answer counts as the task's default label."""

    average: label_f1.Average
    prefix: str

    def __init__(self, default_label: str) -> None:
        self.default_label = default_label
        self.main = f"{self.prefix}f1"

    def compare(self, gold: Answer, predicted: Answer) -> Comparison:
        """Keep both labels; the doc's own score is whether they are the same string."""
        # The evaluator hands the labels to scikit-learn, where numpy's arrays drop the NULs at a
        # string's end. The default label comes before that: NULs alone are a class without a name.
        expected, answered = (
            label.rstrip("\0")
            for label in (cast(str, gold), cast(str, predicted) or self.default_label)
        )
        return Comparison(value=float(expected == answered), gold=expected, predicted=answered)

    def corpus(self, comparisons: Sequence[Comparison]) -> dict[str, float]:
        """Averaged precision, recall and F1, and plain accuracy, which no official report has."""
        table = label_f1.label_table(*_labels(comparisons))
        values = label_f1.averaged(table, self.average)
        names = (f"{self.prefix}{name}" for name in ("precision", "recall", "f1"))
        accuracy = math.fsum(c.value for c in comparisons) / max(len(comparisons), 1)
        return {**dict(zip(names, values, strict=True)), "accuracy": accuracy}

    def resampled(
        self, comparisons: Sequence[Comparison], rng: "np.random.Generator", *, resamples: int
    ) -> "NDArray[np.float64]":
        """Averaged F1, once a draw."""
        gold, predicted = _labels(comparisons)
        return label_f1.resampled_f1(gold, predicted, self.average, rng, resamples=resamples)


class MacroF1(_LabelF1):
    """Unweighted mean over the classes seen: IMCS-V2-DAC, CHIP-CTC, KUAKE-QIC."""

    average = "macro"
    prefix = "macro_"
    official_names: Mapping[str, str] = {
        "macro-precision": "macro_precision",
        "macro-recall": "macro_recall",
        "macro-f1": "macro_f1",
    }


class WeightedF1(_LabelF1):
    """Mean weighted by gold support, officially called Micro-F1: CHIP-STS, KUAKE-IR, -QQR, -QTR."""

    average = "weighted"
    prefix = "weighted_"
    official_names: Mapping[str, str] = {
        "precision": "weighted_precision",
        "recall": "weighted_recall",
        "f1": "weighted_f1",
    }


class RougeL:
    """ROUGE, averaged over pairs: MedDG (one pair a doc), IMCS-V2-MRG (one a gold section)."""

    main = "rougeL"
    official_names: Mapping[str, str] = {n: n for n in ("rouge1", "rouge2", "rougeL")}

    def compare(self, gold: Answer, predicted: Answer) -> Comparison:
        """Sum the values of the doc's pairs, and count the pairs.

        A section missing in the prediction counts as empty; one that gold lacks is not looked at.
        """
        pairs = {name: rouge(*texts) for name, texts in _pairs(gold, predicted).items()}
        values = pairs.values()
        sums = {
            "rouge1": sum(v.rouge1 for v in values),
            "rouge2": sum(v.rouge2 for v in values),
            "rougeL": sum(v.rouge_l for v in values),
            "rougeL_precision": sum(v.rouge_l_precision for v in values),
            "rougeL_recall": sum(v.rouge_l_recall for v in values),
        }
        sections = {f"{SECTION}{name}": v.rouge_l for name, v in pairs.items() if name}
        return Comparison(
            value=sums["rougeL"] / max(len(pairs), 1),
            counts={"pairs": len(pairs), **sums, **sections},
        )

    def corpus(self, comparisons: Sequence[Comparison]) -> dict[str, float]:
        """Means over all pairs of all docs."""
        pairs = sum(c.counts["pairs"] for c in comparisons)
        names = ("rouge1", "rouge2", "rougeL", "rougeL_precision", "rougeL_recall")
        return {name: sum(c.counts[name] for c in comparisons) / max(pairs, 1) for name in names}

    def resampled(
        self, comparisons: Sequence[Comparison], rng: "np.random.Generator", *, resamples: int
    ) -> "NDArray[np.float64]":
        """ROUGE-L F, once a draw: docs are drawn, and a doc's pairs stay together."""
        import numpy as np

        from mingmoe_eval.metrics.doc_resampling import resampled_sums

        columns = np.array([(c.counts["rougeL"], c.counts["pairs"]) for c in comparisons])
        total, pairs = resampled_sums(columns, rng, resamples=resamples).T
        means: NDArray[np.float64] = total / np.maximum(pairs, 1)
        return means


def _tuples(answer: Answer) -> set[tuple[str, ...]]:
    return answer_tuples(cast(list[Item], answer))


def _tuple_counts(comparison: Comparison) -> TupleCounts:
    counts = comparison.counts
    return TupleCounts(int(counts["tp"]), int(counts["fp"]), int(counts["fn"]))


def _labels(comparisons: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    return [c.gold for c in comparisons], [c.predicted for c in comparisons]


def _pairs(gold: Answer, predicted: Answer) -> dict[str, tuple[str, str]]:
    """Prediction and gold, trimmed on both sides, by section; a reply has one part without name."""
    if isinstance(gold, str):
        return {"": (cast(str, predicted).strip(), gold.strip())}
    said = cast(dict[str, str], predicted)
    sections = cast(dict[str, str], gold)
    return {name: (said.get(name, "").strip(), text.strip()) for name, text in sections.items()}


def main_interval(
    measure: Measure, comparisons: Sequence[Comparison], *, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """The main metric's 95 % interval over docs drawn with replacement.

    Where no doc has a hit, or every doc is perfect, all draws are alike and would claim certainty:
    the bound is then Wilson's for as many docs, which grows with how few they are.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    low, high = percentile_interval(measure.resampled(comparisons, rng, resamples=resamples))
    if low == high and low == 0.0:
        return wilson_interval(0, len(comparisons))
    if low == high and low > 1 - 1e-6:  # ROUGE-L of equal texts is 0.999999995
        return wilson_interval(len(comparisons), len(comparisons))
    return low, high
