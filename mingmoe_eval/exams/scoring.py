"""The suite `choice`: from replies to letters to accuracies.

A doc is what `exams.records.Question.to_doc` gives. `reading` is `default`, or a compatibility mode
of `metrics.answer_reading`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mingmoe_eval.errors import DataError
from mingmoe_eval.exams import abstention, robustness
from mingmoe_eval.exams.cases import clusters_of
from mingmoe_eval.exams.japanese_exams import read_number, same_number
from mingmoe_eval.metrics import calibration
from mingmoe_eval.metrics.answer_reading import (
    DEFAULT,
    O1,
    compat_mode,
    head_and_tail,
    read_answer,
)
from mingmoe_eval.metrics.answer_reading.reply_text import visible_reply
from mingmoe_eval.metrics.choice_accuracy import (
    ACCURACY,
    ANSWERED,
    ANY_OVERLAP,
    HAMMING,
    LETTER_MASS,
    LOW_LETTER_MASS_SHARE,
    exact_match,
    likeliest,
    overlaps,
)
from mingmoe_eval.metrics.label_f1 import MACRO_F1
from mingmoe_eval.metrics.metric import one_of
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.records import MetricValue, Response, Sample, Score, TaskResult, TaskSettings

SCORES = {metric.name: metric for metric in (ACCURACY, ANY_OVERLAP, HAMMING, ANSWERED, MACRO_F1)}
"""What a task may name as its score: whatever its form, every question adds to it."""

METRICS = {
    metric.name: metric
    for metric in (
        *SCORES.values(),
        *(LETTER_MASS, LOW_LETTER_MASS_SHARE, calibration.ECE, calibration.BRIER),
        *abstention.RECORDS,
        *robustness.RECORDS,
    )
}
"""Every metric of the suite that is made from samples, by name."""

_NOT_STATED = "not stated"


def score_doc(doc: Mapping[str, Any], response: Response, settings: TaskSettings) -> Score:
    """1 when exactly the right letters were answered, else 0; never raises for any reply.

    Of k letters that tie for the highest log-likelihood each has 1/k of the credit.

    Of log-likelihoods that are not finite no letter is made: callers fail such a doc
    (`Response.finite`), and without that it counts as unanswered.
    """
    if response.log_likelihoods is not None or settings.form == "letters":
        return _score_likelihoods(doc, response)
    mode = _mode(settings)
    text = response.text or ""
    cut_off = bool(response.usage) and response.usage[-1].finish == "length"
    if not doc["options"]:
        return _score_number(doc, text, cut_off=cut_off)
    if mode == DEFAULT:
        reading = read_answer(text, doc["options"], single=doc["single"], cut_off=cut_off)
        right = exact_match(reading.answered, doc["answer"])
        return _score(doc, reading.answered, right, reading.rule)
    rules = compat_mode(mode)
    read = rules.read(text, doc["options"], doc["single"])
    return _score(doc, read, rules.correct(read, doc["answer"]), f"as {mode} reads it")


def expected(doc: Mapping[str, Any]) -> str:
    """The key: the right letters, sorted."""
    return str(doc["answer"])


def fold(samples: Sequence[Sample], settings: TaskSettings) -> dict[str, MetricValue]:
    """Accuracy over the samples that did not fail, also by single- and multiple-answer questions.

    `answered` is the share of docs with an answer; `any_overlap` the share with at least one right
    letter: diagnostics, both. Where letters' log-likelihoods are compared, `letter_mass` is the
    probability that the model gives all of them together: next to nothing means that it would
    answer with something else. Without a sample each number is NaN. Questions in other orders of
    their options count for the metrics of robustness alone.
    """
    usable = _own(_usable(samples))
    clusters = clusters_of(usable)
    right = _better_of_head_and_tail(usable) if _mode(settings) == O1 else _accuracy(usable)
    metrics = {"score": right, "acc": right}
    if settings.metric:
        metrics["score"] = metrics[settings.metric] = _chosen(settings.metric, usable)
    kinds = {sample.doc["single"] for sample in usable}
    if False in kinds:
        metrics["any_overlap"] = ANY_OVERLAP.fold(usable, clusters)
    if len(kinds) > 1:
        metrics["acc_single"] = _accuracy([s for s in usable if s.doc["single"]])
        metrics["acc_multiple"] = _accuracy([s for s in usable if not s.doc["single"]])
    for name in settings.also:
        metrics[name] = _chosen(name, usable)
    metrics["answered"] = ANSWERED.fold(usable, clusters)
    if usable and all("letter_mass" in s.counts for s in usable):
        metrics["letter_mass"] = LETTER_MASS.fold(usable)
        metrics["low_letter_mass"] = LOW_LETTER_MASS_SHARE.fold(usable)
        metrics |= _calibration(usable, settings.coverage)
    if tag := settings.macro_over:
        metrics[f"macro_{tag}"] = _macro_over(usable, tag)
    if settings.labels and usable:
        metrics["macro_f1"] = MACRO_F1.fold(usable, clusters_of(usable))
    return {**metrics, **abstention.metrics(usable), **robustness.metrics(samples)}


def breakdowns(
    samples: Sequence[Sample], settings: TaskSettings
) -> dict[str, dict[str, MetricValue]]:
    """Accuracy by each tag that has two values or more, and by the type of question."""
    tables: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in _own(_usable(samples)):
        tags = {"question_type": sample.doc.get("question_type"), **sample.tags}
        for tag, value in tags.items():
            tables[tag][str(value or _NOT_STATED)].append(sample)
    by_tag = {
        tag: {value: _accuracy(group) for value, group in sorted(by_value.items())}
        for tag, by_value in tables.items()
        if len(by_value) > 1
    }
    asked = _own(_usable(samples))
    return {**by_tag, **abstention.breakdowns(asked), **robustness.breakdowns(samples)}


def fold_group(
    members: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    *,
    weight_by_size: bool = False,
) -> dict[str, MetricValue]:
    """`micro` over all questions, `macro` over the members; the group says which is its score."""
    micro = _accuracy(_own(_usable([s for listed in samples.values() for s in listed])))
    macro = mean_of_parts([result.main for result in members.values()])
    return {
        "score": micro if weight_by_size else macro,
        "micro": micro,
        "macro": macro,
        **robustness.metrics([s for listed in samples.values() for s in listed]),
    }


def _calibration(samples: Sequence[Sample], coverage: Sequence[float]) -> dict[str, MetricValue]:
    """How far confidence and accuracy are apart; accuracy at each coverage that was asked for."""
    asked = [sample for sample in samples if calibration.can_be_calibrated(sample)]
    clusters = clusters_of(asked)
    selective = {
        calibration.selective_name(part): calibration.accuracy_at(part, asked, clusters)
        for part in coverage
        if asked
    }
    return {**calibration.metrics(asked, clusters), **selective}


def _mode(settings: TaskSettings) -> str:
    return settings.reading or DEFAULT


def _chosen(name: str, samples: Sequence[Sample]) -> MetricValue:
    """The metric that the task's definition names for its score, or beside it."""
    if name not in SCORES:
        raise DataError(f"no score named {name!r}; the suite has {', '.join(SCORES)}")
    return SCORES[name].fold(samples, clusters_of(samples))


def _usable(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.status != "failed"]


def _own(samples: Sequence[Sample]) -> list[Sample]:
    """The benchmark's own docs, without those that were changed to test for robustness."""
    return [sample for sample in samples if not sample.variant]


def _better_of_head_and_tail(samples: Sequence[Sample]) -> MetricValue:
    """HuatuoGPT-o1 reports whichever of first and last letter is more often right."""
    both = [head_and_tail(sample.answered, sample.expected) for sample in samples]
    head, tail = (ACCURACY.of([one_of(pair[i]) for pair in both]) for i in (0, 1))
    return max(head, tail, key=lambda metric: metric.value)


def _macro_over(samples: Sequence[Sample], tag: str) -> MetricValue:
    """The plain mean of the parts' accuracies, each part weighing the same whatever its size."""
    parts: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        parts[str(sample.tags.get(tag) or _NOT_STATED)].append(sample)
    accuracies = [_accuracy(part) for part in parts.values()]
    return mean_of_parts(accuracies) if accuracies else ACCURACY.fold([])


def _score_number(doc: Mapping[str, Any], text: str, *, cut_off: bool) -> Score:
    """A calculation: right is the number, however many zeros end it."""
    visible = visible_reply(text)
    number = read_number(visible.text, cut_off=cut_off or visible.cut_off)
    rule = "no number" if number is None else "the number at the end"
    return Score(
        value=float(same_number(number, doc["answer"])),
        answered=number,
        reading=rule,
        counts={"overlap": 0.0},
    )


def _score_likelihoods(doc: Mapping[str, Any], response: Response) -> Score:
    values, letters = response.log_likelihoods or (), list(doc["options"])
    if len(values) != len(letters) or not response.finite:
        return _score(doc, None, False, "no finite log-likelihood for each letter")
    best = likeliest(values, letters)
    # Not the first of them: low precision makes ties common, and would reward a key full of A.
    rule = f"tie of {', '.join(best)}, credit shared" if len(best) > 1 else "highest log-likelihood"
    credit = float(doc["answer"] in best) / len(best)
    # A token's rounding may bring a certain letter a little above 1; what is no logarithm of a
    # probability, as of a model that gives something else, has no exponential that a float holds.
    mass = min(1.0, math.fsum(math.exp(min(0.0, value)) for value in values))
    return _score(doc, best[0], credit, rule, {"tied": float(len(best)), "letter_mass": mass})


def _score(
    doc: Mapping[str, Any],
    answered: str | None,
    credit: float,
    rule: str,
    counts: Mapping[str, float] | None = None,
) -> Score:
    return Score(
        value=float(credit),
        answered=answered,
        reading=rule,
        counts={"overlap": float(overlaps(answered, doc["answer"])), **(counts or {})},
    )


def _accuracy(samples: Sequence[Sample]) -> MetricValue:
    return ACCURACY.fold(samples, clusters_of(samples))
