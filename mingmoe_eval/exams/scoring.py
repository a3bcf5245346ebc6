"""The suite `choice`: from replies to letters to accuracies.

A doc is what `exams.records.Question.to_doc` gives. Settings: `form` (`direct`, `letters`, `cot`),
`reading` (`default`, or a compatibility mode of `metrics.answer_reading`), `labels: true` for tasks
whose options are labels (yes, no, maybe), where a macro-F1 belongs beside the accuracy.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mingmoe_eval.metrics.answer_reading import compat_mode, read_answer
from mingmoe_eval.metrics.choice_accuracy import (
    accuracy,
    chance_of,
    exact_match,
    likeliest,
    macro_f1,
    overlaps,
)
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.records import MetricValue, Response, Sample, Score, TaskResult


def score_doc(doc: Mapping[str, Any], response: Response, settings: Mapping[str, Any]) -> Score:
    """1 when exactly the right letters were answered, else 0; never raises for any reply."""
    if response.log_likelihoods is not None:
        return _score_likelihoods(doc, response.log_likelihoods)
    mode = str(settings.get("reading") or "default")
    text = response.text or ""
    if mode == "default":
        reading = read_answer(text, doc["options"], single=doc["single"])
        answered = "".join(reading.letters) if reading.letters else None
        return _score(doc, answered, exact_match(answered, doc["answer"]), reading.rule)
    rules = compat_mode(mode)
    read = rules.read(text, doc["options"], doc["single"])
    return _score(doc, read, rules.correct(read, doc["answer"]), f"as {mode} reads it")


def expected(doc: Mapping[str, Any]) -> str:
    """The key: the right letters, sorted."""
    return str(doc["answer"])


def chance_level(docs: Sequence[Mapping[str, Any]]) -> float | None:
    """What uniform guesses score: one of n letters, or one of 2^n - 1 sets where several can be."""
    if not docs:
        return None
    return sum(chance_of(len(doc["options"]), single=doc["single"]) for doc in docs) / len(docs)


def fold(samples: Sequence[Sample], settings: Mapping[str, Any]) -> dict[str, MetricValue]:
    """Accuracy, also by single- and multiple-answer questions where there are both.

    `answered` is the share of docs with an answer; `any_overlap` the share with at least one right
    letter: diagnostics, both.
    """
    right = _accuracy(samples)
    metrics = {"score": right, "acc": right}
    multiple = [sample for sample in samples if not sample.doc["single"]]
    if multiple:
        metrics["acc_multiple"] = _accuracy(multiple)
        metrics["any_overlap"] = accuracy([bool(s.counts["overlap"]) for s in samples])
    if multiple and len(multiple) < len(samples):
        metrics["acc_single"] = _accuracy([sample for sample in samples if sample.doc["single"]])
    metrics["answered"] = accuracy([sample.answered is not None for sample in samples])
    if settings.get("labels"):
        pairs = [(sample.answered, sample.expected) for sample in samples]
        metrics["macro_f1"] = MetricValue(value=macro_f1(pairs), n=len(samples))
    return metrics


def breakdowns(
    samples: Sequence[Sample], settings: Mapping[str, Any]
) -> dict[str, dict[str, MetricValue]]:
    """Accuracy by each tag that has two values or more, and by the type of question."""
    tables: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        tags = {"question_type": sample.doc.get("question_type"), **sample.tags}
        for tag, value in tags.items():
            tables[tag][str(value or "not stated")].append(sample)
    return {
        tag: {value: _accuracy(group) for value, group in sorted(by_value.items())}
        for tag, by_value in tables.items()
        if len(by_value) > 1
    }


def fold_group(
    members: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    *,
    weight_by_size: bool = False,
) -> dict[str, MetricValue]:
    """`micro` over all questions, `macro` over the members; the group says which is its score."""
    pooled = [s for listed in samples.values() for s in listed if s.status != "failed"]
    micro = _accuracy(pooled)
    macro = mean_of_parts([result.main for result in members.values()])
    return {"score": micro if weight_by_size else macro, "micro": micro, "macro": macro}


def _score_likelihoods(doc: Mapping[str, Any], log_likelihoods: Sequence[float]) -> Score:
    letter, tied = likeliest(log_likelihoods, list(doc["options"]))
    rule = "tie, first letter taken" if tied else "highest log-likelihood"
    return _score(doc, letter, letter == doc["answer"], rule)


def _score(doc: Mapping[str, Any], answered: str | None, right: bool, rule: str) -> Score:
    return Score(
        value=float(right),
        answered=answered,
        reading=rule,
        counts={"overlap": float(overlaps(answered, doc["answer"]))},
    )


def _accuracy(samples: Sequence[Sample]) -> MetricValue:
    return accuracy([sample.score == 1.0 for sample in samples])
