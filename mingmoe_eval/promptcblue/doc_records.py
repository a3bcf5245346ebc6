"""Rows of the files that people have, as PromptCBLUE records: the docs of the 16 tasks.

Two shapes: PromptCBLUE's own, and MING's question files, {conversations: [{value}, {value}], eval:
{sample_id, task_dataset, task_type, answer_choices}}, whose gold may be in a structured file.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mingmoe_eval.errors import DataError, offence_list
from mingmoe_eval.promptcblue.answers import Answer
from mingmoe_eval.promptcblue.catalogue import CblueTask, is_named
from mingmoe_eval.promptcblue.conversion.targets import target_of

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
