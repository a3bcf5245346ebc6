"""The official metrics, each from what is kept of a doc: tuples, labels, ROUGE.

A `Comparison` is all that a corpus metric needs of one doc, so the file scorer, a run and a rescore
fold the same numbers in the same order and agree to the last bit.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, cast

from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.draws import Floats
from mingmoe_eval.metrics.label_f1 import count_label, label_metrics
from mingmoe_eval.metrics.metric import (
    ClassMean,
    Counted,
    Metric,
    Scored,
    mean_of_sums,
    one_of,
    ratio,
    total_of,
)
from mingmoe_eval.metrics.resampling import Bootstrap, Jackknife, Mean
from mingmoe_eval.metrics.rouge import rouge
from mingmoe_eval.metrics.tuple_f1 import MICRO_F1, PRECISION, RECALL, compare_sets, doc_f1
from mingmoe_eval.promptcblue.catalogue import Answer, CblueTask, Item, task_named
from mingmoe_eval.promptcblue.malformed import WELL_FORMED
from mingmoe_eval.promptcblue.parsing import Profile, default_label, parse_answer
from mingmoe_eval.records import Sample

_GUESSES = 20_000
"""So many in all: small samples are guessed at often, large ones a few times."""

_LEGACY_DEFAULT = "legacy_default"
"""Among the counts of a doc: its empty reply counted as the label of the evaluator of May 2023."""

SECTION = "rougeL:"
"""What a report section's name follows in the counts of a doc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one doc adds to its task's metrics: sums, or two labels; `score` is its own."""

    score: float
    counts: Mapping[str, float] = field(default_factory=dict)
    expected: str = ""
    answered: str = ""
    reading: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How the tasks of one official metric are scored.

    Attributes:
        main: The metric that is the task's score.
        metrics: It and its companions, as the official report lists them, then ours.
        official_names: What the official report calls the metrics: official name -> ours.
        compare: Hold one doc's answer against its gold.
    """

    main: Metric
    metrics: tuple[Metric, ...]
    official_names: Mapping[str, str]
    compare: Callable[[Answer, Answer], Comparison]

    def corpus(self, comparisons: Sequence[Scored]) -> dict[str, float]:
        """The metrics over all docs, without their intervals."""
        totals: dict[Callable[[Scored], Counted], Floats] = {}
        for count in dict.fromkeys(metric.count for metric in self.metrics):
            totals[count] = total_of([count(one) for one in comparisons])
        return {metric.name: float(metric.value(totals[metric.count])) for metric in self.metrics}


def measure_of(task: CblueTask, profile: Profile = "official") -> Measure:
    """The official metric of a task; the profile says what an empty label counts as."""
    measure = _MEASURES[task.metric]
    if not task.default_label:
        return measure
    default = default_label(task, profile)
    of_legacy = {_LEGACY_DEFAULT: 1.0} if default != task.default_label else {}
    return replace(
        measure, compare=partial(_compare_labels, instead_of_none=default, counts_of_none=of_legacy)
    )


def answer_tuples(items: Sequence[Item]) -> set[tuple[str, ...]]:
    """Each item as the JSON of its values, in the order of its keys; equal items fall together.

    The keys themselves do not enter, and the order inside a list of values matters: two events with
    the same sites in another order differ.
    """
    return {tuple(json.dumps(item[key]) for key in sorted(item)) for item in items}


def _compare_tuples(gold: Answer, predicted: Answer) -> Comparison:
    """Count the tuples found, invented and missed as tp, fp, fn."""
    counts = compare_sets(
        answer_tuples(cast(list[Item], gold)), answer_tuples(cast(list[Item], predicted))
    )
    return Comparison(
        score=doc_f1(counts),
        counts={"tp": counts.found, "fp": counts.invented, "fn": counts.missed},
    )


def _compare_labels(
    gold: Answer,
    predicted: Answer,
    *,
    instead_of_none: str = "",
    counts_of_none: Mapping[str, float] | None = None,
) -> Comparison:
    """Keep both labels; the doc's own score is whether they are the same string."""
    # The evaluator hands the labels to scikit-learn, where numpy's arrays drop the NULs at a
    # string's end. The default label comes before that: NULs alone are a class without a name.
    expected, answered = (
        label.rstrip("\0") for label in (cast(str, gold), cast(str, predicted) or instead_of_none)
    )
    return Comparison(
        score=float(expected == answered),
        counts={} if predicted else counts_of_none or {},
        expected=expected,
        answered=answered,
    )


def _compare_texts(gold: Answer, predicted: Answer) -> Comparison:
    """Sum the ROUGE values of the doc's pairs, and count the pairs.

    MedDG has one pair a doc, IMCS-V2-MRG one a gold section: a section missing in the prediction
    counts as empty; one that gold lacks is not looked at.
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
        score=sums["rougeL"] / max(len(pairs), 1),
        counts={"pairs": len(pairs), **sums, **sections},
    )


def _pairs(gold: Answer, predicted: Answer) -> dict[str, tuple[str, str]]:
    """Prediction and gold, trimmed on both sides, by section; a reply has one part without name."""
    if isinstance(gold, str):
        return {"": (cast(str, predicted).strip(), gold.strip())}
    said = cast(dict[str, str], predicted)
    sections = cast(dict[str, str], gold)
    return {name: (said.get(name, "").strip(), text.strip()) for name, text in sections.items()}


def _count_labels(scored: Scored) -> Counted:
    answered = compared_label(scored) if isinstance(scored, Sample) else scored.answered
    return count_label(scored.expected, answered)


def compared_label(sample: Sample) -> str:
    """The label that a sample of a label task counts as, its reply read under any profile.

    A sample keeps no label of an empty reply; its counts tell whose default label it counted as.
    """
    if sample.answered:
        return sample.answered.rstrip("\0")  # as `_compare_labels` does
    task = task_named(str(sample.doc["task_dataset"]))
    return default_label(task, "legacy" if _LEGACY_DEFAULT in sample.counts else "official")


def guessing_level(docs: Sequence[Mapping[str, Any]]) -> float | None:
    """The main metric that uniform guesses among each doc's own options have on average.

    A mean over seeded guesses: F1 of random labels has no closed form, and the chance level is not
    one over the number of options; macro F1 of guesses among 40 options over few docs lies well
    below it. None for no docs, and for docs without options.
    """
    if not docs or not all(doc.get("answer_choices") for doc in docs):
        return None
    task = task_named(str(docs[0]["task_dataset"]))
    measure = measure_of(task)

    def read(doc: Mapping[str, Any], text: str) -> Answer:
        return parse_answer(task, text, tuple(doc["answer_choices"]))

    golds = [read(doc, str(doc["target"])) for doc in docs]
    choices = [[read(doc, choice) for choice in doc["answer_choices"]] for doc in docs]
    rng = Random(0)
    rounds = max(20, _GUESSES // len(docs))
    values = []
    for _ in range(rounds):
        guesses = (rng.choice(options) for options in choices)
        guessed = [measure.compare(*pair) for pair in zip(golds, guesses, strict=True)]
        totals = total_of([measure.main.count(one) for one in guessed])
        values.append(float(measure.main.value(totals)))
    return math.fsum(values) / rounds


_ROUGE = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeL_precision": "ROUGE-L precision",
    "rougeL_recall": "ROUGE-L recall",
}


def _count_rouge(scored: Scored) -> Counted:
    """(pairs, then the sums in the order of `_ROUGE`): a doc's pairs stay together."""
    return {"": [scored.counts["pairs"], *(scored.counts[name] for name in _ROUGE)]}


def _rouge_metric(place: int, name: str, title: str) -> Metric:
    def mean_over_pairs(totals: Floats) -> Floats:
        return ratio(totals[..., place], totals[..., 0])

    return Metric(
        name=name,
        title=title,
        count=_count_rouge,
        value=ClassMean(mean_over_pairs),
        resampling=Bootstrap(),
    )


def _count_malformed(scored: Scored) -> Counted:
    return one_of(scored.reading != WELL_FORMED)


def _count_right(scored: Scored) -> Counted:
    return one_of(scored.score == 1.0)


MALFORMED = Metric(
    name="malformed",
    title="malformed",
    count=_count_malformed,
    value=ClassMean(mean_of_sums),
    resampling=Mean(),
    better="lower",
)

_RIGHT = replace(ACCURACY, name="accuracy", count=_count_right, chance=None)
"""No official report has it."""

LABEL_F1 = replace(MICRO_F1, title="F1 of one label", resampling=Jackknife())
"""Of tuples with one label, in the table of a task's labels; a draw would often have none."""

SECTION_ROUGE = Metric(
    name="rougeL",
    title="ROUGE-L of one section",
    count=_count_rouge,
    value=ClassMean(mean_of_sums),
    resampling=Mean(),
)

_TUPLES = (PRECISION, RECALL, MICRO_F1)
_MACRO = label_metrics("macro", _count_labels, chance=guessing_level)
_WEIGHTED = label_metrics("weighted", _count_labels, chance=guessing_level)
_TEXTS = tuple(_rouge_metric(n + 1, *names) for n, names in enumerate(_ROUGE.items()))

_MEASURES: dict[str, Measure] = {
    # The seven structured tasks.
    "micro_f1": Measure(
        main=MICRO_F1,
        metrics=_TUPLES,
        official_names={metric.name: metric.name for metric in _TUPLES},
        compare=_compare_tuples,
    ),
    # IMCS-V2-DAC, CHIP-CTC, KUAKE-QIC.
    "macro_f1": Measure(
        main=_MACRO[2],
        metrics=(*_MACRO, _RIGHT),
        official_names={metric.name.replace("_", "-"): metric.name for metric in _MACRO},
        compare=_compare_labels,
    ),
    # CHIP-STS, KUAKE-IR, -QQR, -QTR: weighted by gold support, officially called Micro-F1.
    "weighted_f1": Measure(
        main=_WEIGHTED[2],
        metrics=(*_WEIGHTED, _RIGHT),
        official_names={metric.name.removeprefix("weighted_"): metric.name for metric in _WEIGHTED},
        compare=_compare_labels,
    ),
    # MedDG, IMCS-V2-MRG.
    "rouge_l": Measure(
        main=_TEXTS[2],
        metrics=_TEXTS,
        official_names={metric.name: metric.name for metric in _TEXTS[:3]},
        compare=_compare_texts,
    ),
}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (*(m for measure in _MEASURES.values() for m in measure.metrics), MALFORMED)
}
"""Every metric of the suite, by name."""
