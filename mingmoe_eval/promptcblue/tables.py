"""One task by label: entity types, relations, statuses or classes, each with its own F1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
                label: (compared.found, compared.invented, compared.missed)
                for label in wanted.keys() | answered.keys()
                for compared in [compare_sets(wanted.get(label, ()), answered.get(label, ()))]
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


@dataclass(frozen=True, slots=True)
class TagView:
    """Entity types by BIO tags, and how many entities no tag could be given to.

    Attributes:
        rows: Type -> its scores.
        entities: Distinct entities of gold and of the replies, over all docs.
        unplaced: How many of each are not in the prompt.
    """

    rows: Mapping[str, LabelScore]
    entities: tuple[int, int]
    unplaced: tuple[int, int]


def tag_view(prompts: Sequence[str], answers: Sequence[AnswerPair]) -> TagView:
    """Entity types as seqeval sees them: BIO tags over the characters of the prompt.

    The official score compares sets of strings and does not know where they stand, so it needs
    another step than seqeval. This view shows what sequence labelling papers report: an entity
    counts when its span and type agree. Answers carry no places; an entity is where its text first
    stands in the prompt, for gold and reply alike. One BIO sequence cannot hold an entity inside
    another, so nested ones lie on layers of their own (as in Ju et al. 2018, "A neural layered
    model for nested named entity recognition"). What is not in the prompt has no place, and costs
    nothing here: it is counted.
    """
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    tags: tuple[list[list[str]], list[list[str]]] = ([], [])
    counts = [[0, 0], [0, 0]]
    for prompt, pair in zip(prompts, answers, strict=True):
        sides = [_entities(answer) for answer in pair]
        layers = _layers(prompt, sides[0] | sides[1])
        placed = {entity for layer in layers for entity in layer}
        for side, entities in enumerate(sides):
            counts[side][0] += len(entities)
            counts[side][1] += len(entities - placed)
            tags[side].extend(_tags(len(prompt), layer, entities) for layer in layers)
    (of_gold, gold_lost), (of_replies, replies_lost) = counts
    lost = (gold_lost, replies_lost)
    if of_gold == gold_lost:
        return TagView({}, (of_gold, of_replies), lost)
    report: dict[str, Any] = classification_report(
        *tags, mode="strict", scheme=IOB2, output_dict=True, zero_division=0
    )
    rows = {
        kind: LabelScore(
            float(row["precision"]),
            float(row["recall"]),
            float(row["f1-score"]),
            int(row["support"]),
        )
        for kind, row in report.items()
        if not kind.endswith(" avg")
    }
    return TagView(rows, (of_gold, of_replies), lost)


_Entity = tuple[str, str]
"""Text and type."""


def _entities(answer: Answer) -> set[_Entity]:
    return {(str(item["entity"]), str(item["type"])) for item in cast(list[Item], answer)}


def _layers(prompt: str, entities: set[_Entity]) -> list[dict[_Entity, int]]:
    """Where each entity starts in the prompt, on layers within which none overlap.

    Outer entities come before those inside them; what is not in the prompt is on no layer.
    """
    layers: list[dict[_Entity, int]] = []
    for entity in sorted(entities, key=lambda entity: (-len(entity[0]), *entity)):
        start = prompt.find(entity[0])
        if start < 0:
            continue
        end = start + len(entity[0])
        free = (
            layer
            for layer in layers
            if all(end <= at or at + len(text) <= start for (text, _), at in layer.items())
        )
        if (first := next(free, None)) is None:
            layers.append(first := {})
        first[entity] = start
    return layers


def _tags(length: int, layer: Mapping[_Entity, int], entities: set[_Entity]) -> list[str]:
    """One layer's tags of one side's entities."""
    tags = ["O"] * length
    for (text, kind), start in layer.items():
        if (text, kind) in entities:
            inside = [f"I-{kind}"] * (len(text) - 1)
            tags[start : start + len(text)] = [f"B-{kind}", *inside]
    return tags
