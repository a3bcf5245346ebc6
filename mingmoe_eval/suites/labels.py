"""The suite `labels`: one of a few labels is right, as in PromptCBLUE's classification tasks.

A doc: `answer` (the right label) and `labels` (those that can be given). Read by our own rules
(`metrics.label_reading`), or, under the profile `official`, as PromptCBLUE's evaluator reads: the
whole output is the label.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts
from mingmoe_eval.metrics.choice_accuracy import ACCURACY, ANSWERED
from mingmoe_eval.metrics.label_f1 import MACRO_F1, count_label, count_sample, label_metrics
from mingmoe_eval.metrics.label_reading import read_label
from mingmoe_eval.metrics.metric import Chance, Metric, tabulate, total_of
from mingmoe_eval.records import AnyDoc, MetricValue, Response, Sample, Score, TaskSettings
from mingmoe_eval.suites.sampled import SampledSuite

_GUESSES = 20_000
"""So many in all: small samples are guessed at often, large ones a few times."""


class Doc(AnyDoc):
    """What the suite reads of a doc."""

    answer: str
    labels: list[str]


def label_facts(*, answer: Any, labels: Sequence[str]) -> Doc:
    """What the suite reads of a doc.

    Raises:
        ValueError: there is no answer, or it is none of the labels.
    """
    text = "" if answer is None else str(answer).strip()
    if not text:
        raise ValueError("no answer")
    if text not in labels:
        raise ValueError(f"the answer {text!r} is none of the labels {', '.join(labels)}")
    return Doc(answer=text, labels=list(labels))


def _score_doc(doc: Mapping[str, Any], response: Response, settings: TaskSettings) -> Score:
    text = response.text or ""
    if settings.profile in ("official", "legacy"):
        label = (split_thoughts(text)[1] or "").strip() or None
        rule = "the whole output, as officially"
    else:
        cut_off = bool(response.usage) and response.usage[-1].finish == "length"
        reading = read_label(text, doc["labels"], cut_off=cut_off)
        label, rule = reading.label, reading.rule
    return Score(value=float(label == doc["answer"]), answered=label, reading=rule)


def _expected(doc: Mapping[str, Any]) -> str:
    return str(doc["answer"])


def _guessed_accuracy(docs: Sequence[Mapping[str, Any]]) -> float | None:
    return math.fsum(1 / len(doc["labels"]) for doc in docs) / len(docs) if docs else None


def _guessed(metric: Metric) -> Chance:
    """The mean of a metric over seeded uniform guesses: F1 of random labels has no closed form."""

    def level(docs: Sequence[Mapping[str, Any]]) -> float | None:
        if not docs:
            return None
        rng = Random(0)
        rounds = max(20, _GUESSES // len(docs))
        values = []
        for _ in range(rounds):
            guesses = [count_label(doc["answer"], rng.choice(doc["labels"])) for doc in docs]
            values.append(float(metric.value(total_of(guesses))))
        return math.fsum(values) / rounds

    return level


_ACCURACY = replace(ACCURACY, chance=_guessed_accuracy)
_AVERAGES = [metric for kind in ("macro", "weighted") for metric in label_metrics(kind)]


def _by_label(samples: Sequence[Sample]) -> dict[str, dict[str, MetricValue]]:
    """F1 of each label."""
    return {"label": MACRO_F1.by_class(tabulate([count_sample(sample) for sample in samples]))}


SUITE = SampledSuite(
    METRICS={
        metric.name: metric
        for metric in (
            _ACCURACY,
            *(replace(metric, chance=_guessed(metric)) for metric in _AVERAGES),
            ANSWERED,
        )
    },
    score_doc=_score_doc,
    expected=_expected,
    by_label=_by_label,
)
