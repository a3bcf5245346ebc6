"""Write an answer as text, so that the official parser reads the same answer again."""

from collections.abc import Sequence
from typing import cast

from mingmoe_eval.promptcblue.answers import Answer, Choices, Item
from mingmoe_eval.promptcblue.catalogue import EVENT_KEYS, NO_STANDARD_TERM, CblueTask


def target_of(task: CblueTask, answer: Answer, choices: Choices) -> str:
    """The target text of an answer.

    Nothing is escaped, for the format knows no escape: an entity with a full-width comma in it
    reads as two. Parse the text again to know whether the answer survived.
    """
    if isinstance(answer, str):
        return answer
    if isinstance(answer, dict):
        return "\n".join([task.header, *(f"{name}：{text}" for name, text in answer.items())])
    match task.family:
        case "ner":
            lines = [f"{choice}实体：{_joined(answer, 'type', choice)}" for choice in choices]
            return "\n".join([task.header, *lines])
        case "relations":
            return "\n".join(_relation_line(answer, choice) for choice in choices)
        case "normalisation":
            return "，".join(item["entity"] for item in answer) or NO_STANDARD_TERM
        case "events":
            return "\n".join([task.header, *map(_event_line, answer)])
        case _:
            lines = [f"{item['entity']}：{item['attr']}" for item in answer]
            return "\n".join([task.header, *lines])


def _joined(items: Sequence[Item], key: str, value: str) -> str:
    return "，".join(item["entity"] for item in items if item[key] == value)


def _relation_line(items: Sequence[Item], relation: str) -> str:
    pairs = [
        f"头实体为{item['subject']}，尾实体为{item['object']}。"
        for item in items
        if item["predicate"] == relation
    ]
    return f"具有{relation}关系的头尾实体对如下：{''.join(pairs)}"


def _event_line(item: Item) -> str:
    values = [item[key] for key in EVENT_KEYS]
    texts = ["，".join(cast(list[str], v)) if isinstance(v, list) else str(v) for v in values]
    return "；".join(f"{key}：{text}" for key, text in zip(EVENT_KEYS, texts, strict=True))
