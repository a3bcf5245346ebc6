"""Entity types as seqeval sees them: BIO tags over the characters of the prompt.

The official score compares sets of strings and does not know where they stand, so it needs another
step than seqeval. This view shows what sequence labelling papers report. Outputs carry no places;
each entity is put at its first free place in the prompt, longer ones first, and what is not in the
prompt cannot be shown: an invented entity does not cost precision here.
"""

from collections.abc import Sequence
from typing import Any, cast

from mingmoe_eval.metrics.label_f1 import LabelScore
from mingmoe_eval.promptcblue.answers import Answer, Item


def tag_view(
    prompts: Sequence[str], answers: Sequence[tuple[Answer, Answer]]
) -> dict[str, LabelScore]:
    """Precision, recall and F1 of each type: an entity counts when its span and type agree."""
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
