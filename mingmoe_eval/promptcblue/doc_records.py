"""Rows of the files that people have, as PromptCBLUE records: the docs of the 16 tasks.

Two shapes: PromptCBLUE's own, and MING's question files, {conversations: [{value}, {value}], eval:
{sample_id, task_dataset, task_type, answer_choices}}, whose gold may be in a structured file.
"""

from collections import Counter
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
from mingmoe_eval.promptcblue.measures import answer_tuples
from mingmoe_eval.promptcblue.parsing import parse_answer

Numbered = Iterable[tuple[int, Mapping[str, Any]]]
CONVERTED_FROM = "converted_from"
"""The field of a record that was made from another data set: it says from which."""

_NEEDED = ("input", "target", "answer_choices", "task_type", "task_dataset", "sample_id")


def docs_of(
    task: CblueTask,
    rows: Numbered,
    *,
    name: str,
    gold: Sequence[tuple[str, Answer]] = (),
    split: str = "test",
) -> list[dict[str, Any]]:
    """The records of one task among the rows of all of them, fields in one order, text unchanged.

    An empty target is gold with nothing in it, as some records of CMeIE have it; but not where the
    answer is a label, nor where no record of the task has a target, as in an official test file.

    Args:
        task: Whose records.
        rows: Line numbers and rows.
        name: What error messages call the file.
        gold: Sample ids and parsed answers in file order, for files without any target.
        split: Which split the rows are of.

    Raises:
        DataError: Rows cannot be used (all of them are listed), or none has a target.
    """
    records = [(number, _record(row)) for number, row in rows]
    records = [(n, record) for n, record in records if is_named(task, record.get("task_dataset"))]
    offences = [
        f"line {number}: {problem}" for number, record in records if (problem := _problem(record))
    ]
    if not offences and not any(record["target"].strip() for _, record in records):
        offences += _take_targets(task, records, gold) if gold else []
    if offences:
        raise DataError(
            offence_list(f"{name}: records of {task.name} that cannot be used", offences)
        )
    empty = [number for number, record in records if not record["target"].strip()]
    if empty and (task.default_label or len(empty) == len(records)):
        way_out = "use --split dev" if split == "test" else f"a {split} file has to have them"
        raise DataError(
            f"{name}: {len(empty)} of {len(records)} records of {task.name} have an empty target "
            f"(the first on line {empty[0]}), as in the official test set, whose gold is not "
            f"public; {way_out}"
        )
    return [{field: record[field] for field in _NEEDED} for _, record in records]


def conversion_mark(row: Mapping[str, Any]) -> str | None:
    """Why numbers over this row are not PromptCBLUE's, where it was made from something else."""
    source = row.get(CONVERTED_FROM)
    return source and f"records converted from {source}"


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of MING's in PromptCBLUE's shape; any other row as it is."""
    turns, facts = row.get("conversations"), row.get("eval")
    if not (isinstance(turns, list) and isinstance(facts, Mapping) and turns):
        return dict(row)
    values = [turn.get("value", "") if isinstance(turn, Mapping) else "" for turn in turns]
    return {**facts, "input": values[0], "target": values[1] if len(values) > 1 else ""}


def _problem(record: dict[str, Any]) -> str | None:
    """What makes a record useless; a target that is null becomes the empty text that it means."""
    if missing := [field for field in _NEEDED if field not in record]:
        return f"no field {', '.join(map(repr, missing))}"
    if record["target"] is None:
        record["target"] = ""
    if not isinstance(record["input"], str):
        return f"the input is not a string but {type(record['input']).__name__}"
    return problem_of(record["target"], record["answer_choices"])


def problem_of(text: object, choices: object) -> str | None:
    """What keeps a text, gold or output, from being read with these options; None if nothing."""
    if not isinstance(text, str):
        return f"the text is not a string but {type(text).__name__}"
    if choices is None:
        return None
    # Of a string, each character would be taken for an option.
    if isinstance(choices, list | tuple) and all(isinstance(choice, str) for choice in choices):
        return None
    return "answer_choices is neither a list of strings nor null"


def _take_targets(
    task: CblueTask,
    records: Sequence[tuple[int, dict[str, Any]]],
    gold: Sequence[tuple[str, Answer]],
) -> list[str]:
    """Give each record the target of its gold answer; what stands in the way of any.

    Ids may come more than once in a task; then their order tells the samples apart.
    """
    answers: dict[str, list[Answer]] = {}
    for sample_id, answer in gold:
        answers.setdefault(sample_id, []).append(answer)
    asked = Counter(str(record["sample_id"]) for _, record in records)
    turns: Counter[str] = Counter()
    offences = []
    for number, record in records:
        sample_id = str(record["sample_id"])
        turns[sample_id] += 1
        known = answers.get(sample_id, [])
        if len(known) != asked[sample_id]:
            times = f"{asked[sample_id]} of sample {sample_id}, {len(known)} in the gold file"
            offences.append(f"line {number}: no target, and {times}")
            continue
        target = faithful_target(task, known[turns[sample_id] - 1], record["answer_choices"] or ())
        if target is None:
            offences.append(f"line {number}: its gold answer cannot be written as a target")
        else:
            record["target"] = target
    return offences


def faithful_target(task: CblueTask, answer: Answer, choices: Choices) -> str | None:
    """The target text of an answer; None where the text would read as another answer.

    Nothing is escaped, for the format knows no escape: an entity with a full-width comma in it
    reads as two.
    """
    try:
        target = target_of(task, answer, choices)
    except (KeyError, TypeError, AttributeError):  # an answer of another task's shape
        return None
    read = parse_answer(task, target, choices)
    if isinstance(read, list) and isinstance(answer, list):
        # Equal to the scorer, for which a list of items is a set.
        return target if answer_tuples(read) == answer_tuples(answer) else None
    return target if read == answer else None


def target_of(task: CblueTask, answer: Answer, choices: Choices) -> str:
    """The target text of an answer; `faithful_target` tells whether it survives being read."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, dict):
        return "\n".join([task.header, *(f"{name}：{text}" for name, text in answer.items())])
    match task.family:
        case "ner":
            lines = [f"{choice}实体：{_joined(answer, 'type', choice)}" for choice in choices]
            return "\n".join([task.header, *lines])
        case "relations":
            # The official parser takes relations that were not offered too, so gold may have them.
            relations = dict.fromkeys((*choices, *(item["predicate"] for item in answer)))
            return "\n".join(_relation_line(answer, relation) for relation in relations)
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
