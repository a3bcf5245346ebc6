"""One task by label: entity types, relations, statuses or classes, each with its own F1."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, cast

from mingmoe_eval.metrics.label_f1 import LabelScore
from mingmoe_eval.metrics.tuple_f1 import TupleCounts, compare_sets
from mingmoe_eval.promptcblue.catalogue import Answer, CblueTask, Family, Item
from mingmoe_eval.promptcblue.measures import answer_tuples

_LABEL_KEYS: Mapping[Family, str] = {
    "ner": "type",
    "relations": "predicate",
    "events": "发生状态",
    "status": "attr",
}
"""Which value of an item is its label. Terms of CHIP-CDN and generated texts have none."""

AnswerPair = tuple[Answer, Answer]
"""Gold and prediction of one doc."""


def label_table(task: CblueTask, answers: Sequence[AnswerPair]) -> dict[str, LabelScore]:
    """Precision, recall and F1 of each label in gold or predictions, the most frequent first.

    Single labels have to come as they were compared: an empty one as what it counts as.
    `support` is how many tuples of gold have the label.
    """
    totals: dict[str, TupleCounts] = {}
    for doc in count_by_label(task, answers):
        for label, counts in doc.items():
            totals[label] = totals.get(label, TupleCounts()) + TupleCounts(*counts)
    rows = {
        label: LabelScore(*total.precision_recall_f1, total.found + total.missed)
        for label, total in totals.items()
    }
    return dict(sorted(rows.items(), key=lambda row: (-row[1].support, row[0])))


def count_by_label(
    task: CblueTask, answers: Sequence[AnswerPair]
) -> list[dict[str, tuple[int, int, int]]]:
    """Doc by doc, the tuples found, invented and missed of each label that is on either side."""
    counted = []
    for gold, said in answers:
        wanted, answered = _by_label(task, gold), _by_label(task, said)
        counted.append(
            {
                label: astuple(compare_sets(wanted.get(label, ()), answered.get(label, ())))
                for label in wanted.keys() | answered.keys()
            }
        )
    return counted


def _by_label(task: CblueTask, answer: Answer) -> dict[str, set[tuple[str, ...]]]:
    if task.default_label:
        return {cast(str, answer): {()}}
    if not (key := _LABEL_KEYS.get(task.family)):
        return {}
    grouped: dict[str, list[Item]] = {}
    for item in cast(list[Item], answer):
        grouped.setdefault(str(item.get(key, "")), []).append(item)
    return {label: answer_tuples(items) for label, items in grouped.items()}


def tag_view(
    prompts: Sequence[str], answers: Sequence[tuple[Answer, Answer]]
) -> dict[str, LabelScore]:
    """Entity types as seqeval sees them: BIO tags over the characters of the prompt.

    The official score compares sets of strings and does not know where they stand, so it needs
    another step than seqeval. This view shows what sequence labelling papers report: an entity
    counts when its span and type agree. Outputs carry no places; each entity is put at its first
    free place in the prompt, longer ones first, and what is not in the prompt cannot be shown: an
    invented entity does not cost precision here.
    """
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    gold, said = (
        [
            _tags(prompt, cast(list[Item], pair[side]))
            for prompt, pair in zip(prompts, answers, strict=True)
        ]
        for side in (0, 1)
    )
    if not any(tag != "O" for tags in gold for tag in tags):
        return {}
    report: dict[str, Any] = classification_report(
        gold, said, mode="strict", scheme=IOB2, output_dict=True, zero_division=0
    )
    return {
        kind: LabelScore(
            float(row["precision"]),
            float(row["recall"]),
            float(row["f1-score"]),
            int(row["support"]),
        )
        for kind, row in report.items()
        if not kind.endswith(" avg")
    }


def _tags(prompt: str, items: Sequence[Item]) -> list[str]:
    tags = ["O"] * len(prompt)
    entities = sorted({(str(i["entity"]), str(i["type"])) for i in items}, key=_longest_first)
    for entity, kind in entities:
        start = prompt.find(entity)
        while start >= 0:
            span = range(start, start + len(entity))
            if all(tags[place] == "O" for place in span):
                tags[start : start + len(entity)] = [f"B-{kind}"] + [f"I-{kind}"] * (
                    len(entity) - 1
                )
                break
            start = prompt.find(entity, start + 1)
    return tags


def _longest_first(entity: tuple[str, str]) -> tuple[int, str, str]:
    return -len(entity[0]), *entity
