"""Rows of the files that people have, as PromptCBLUE records: the docs of the 16 tasks.

Two shapes: PromptCBLUE's own, and MING's question files, {conversations: [{value}, {value}], eval:
{sample_id, task_dataset, task_type, answer_choices}}, whose gold may be in a structured file.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.promptcblue.catalogue import (
    EVENT_KEYS,
    NO_STANDARD_TERM,
    Answer,
    CblueTask,
    Choices,
    Item,
    is_named,
)

Numbered = Iterable[tuple[int, Mapping[str, Any]]]
_NEEDED = ("input", "target", "answer_choices", "task_type", "task_dataset", "sample_id")


def docs_of(
    task: CblueTask, rows: Numbered, *, name: str, gold: Mapping[str, Answer] | None = None
) -> list[dict[str, Any]]:
    """The records of one task among the rows of all of them, fields in one order, text unchanged.

    Args:
        task: Whose records.
        rows: Line numbers and rows.
        name: What error messages call the file.
        gold: Parsed answers by sample id, for rows that have no target.

    Raises:
        DataError: A row lacks a field, or its target is empty; lists every such row.
    """
    docs: list[dict[str, Any]] = []
    offences: list[str] = []
    unlabelled = 0
    for number, row in rows:
        record = _record(row)
        if not is_named(task, record.get("task_dataset")):
            continue
        if missing := [field for field in _NEEDED if field not in record]:
            offences.append(f"line {number}: no field {', '.join(map(repr, missing))}")
            continue
        if not record["target"] and gold and record["sample_id"] in gold:
            choices = record["answer_choices"] or ()
            record["target"] = target_of(task, gold[record["sample_id"]], choices)
        unlabelled += not record["target"]
        docs.append({field: record[field] for field in _NEEDED})
    if offences:
        raise DataError(
            offence_list(f"{name}: records of {task.name} that cannot be used", offences)
        )
    if unlabelled:
        raise DataError(
            f"{name}: {unlabelled} of {len(docs)} records of {task.name} have an empty target, as "
            "in the official test set, whose gold is not public; use --split dev"
        )
    return docs


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of MING's in PromptCBLUE's shape; any other row as it is."""
    turns, facts = row.get("conversations"), row.get("eval")
    if not (isinstance(turns, list) and isinstance(facts, Mapping) and turns):
        return dict(row)
    values = [turn.get("value", "") if isinstance(turn, Mapping) else "" for turn in turns]
    return {**facts, "input": values[0], "target": values[1] if len(values) > 1 else ""}


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
