"""What can be wrong with a submission whose files could be read: everything, and where it is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mingmoe_eval.promptcblue.catalogue import TASKS, CblueTask
from mingmoe_eval.promptcblue.submission import AnswerSheet, Entry, Fault, Side

Pair = tuple[Entry, Entry]
"""Gold and prediction of one sample."""

_BAD_ORDER = "sample ordering is wrong!"
_BAD_FORMAT = "sample format is wrong!"


def gold_faults(golds: AnswerSheet, tasks: Sequence[CblueTask]) -> Iterator[Fault]:
    """What makes gold useless: a task that is not there, or a sample without a label."""
    problem: str | None
    for task in tasks:
        if task.name not in golds.entries:
            problem = "gold has no samples of this task; score what is there with --partial"
            yield Fault(side="gold", task=task.name, problem=problem)
        for entry in golds.entries.get(task.name, ()):
            if problem := _misfit(task, entry.raw):
                yield _fault("gold", task, entry, problem)
            elif task.default_label and not entry.raw["answer"]:
                problem = "no label: these are the unlabelled records of a test set"
                yield _fault("gold", task, entry, problem)


def incomplete(
    golds: AnswerSheet, predicted: AnswerSheet, tasks: Sequence[CblueTask]
) -> Iterator[Fault]:
    """Tasks with more or fewer predictions than gold has samples, and whose they are."""
    for task in tasks:
        wanted = golds.entries[task.name]
        said = predicted.entries.get(task.name, [])
        if len(wanted) == len(said):
            continue
        wanted_ids, said_ids = Counter(map(sample_id, wanted)), Counter(map(sample_id, said))
        yield Fault(
            side="predictions",
            task=task.name,
            problem=f"{len(said)} predictions for {len(wanted)} samples",
        )
        for missing in wanted_ids - said_ids:
            name = str(missing)
            yield Fault(side="predictions", task=task.name, sample_id=name, problem="no prediction")
        for entry in said:
            if said_ids[sample_id(entry)] > wanted_ids[sample_id(entry)]:
                known = sample_id(entry) in wanted_ids
                problem = "predicted more than once" if known else "gold has no such sample"
                yield _fault("predictions", task, entry, problem)


def misfits(task: CblueTask, pairs: Sequence[Pair]) -> Iterator[tuple[Fault, str]]:
    """Predictions in the wrong place or of the wrong shape, each with the official message.

    The official evaluator looks at a sample's place before its shape.
    """
    for position, (gold, said) in enumerate(pairs, start=1):
        wanted = gold.raw["sample_id"]
        if isinstance(said.raw, dict) and said.raw.get("sample_id", wanted) != wanted:
            problem = f"number {position} of this task has to be sample {wanted}"
            yield _fault("predictions", task, said, problem), _BAD_ORDER
        if misfit := _misfit(task, said.raw, sections=gold.raw["answer"]):
            message = _official_message(task, gold.raw["answer"], said.raw)
            yield _fault("predictions", task, said, misfit), message


def _misfit(task: CblueTask, sample: Any, *, sections: Any = None) -> str | None:
    """What is wrong with one sample of a structured file; of a report, these `sections` count."""
    if not isinstance(sample, dict):
        return f"a sample has to be an object, not {type(sample).__name__}"
    for name in ("sample_id", "answer"):
        if name not in sample:
            return f"no field {name!r}"
    answer = sample["answer"]
    if task.metric == "micro_f1":
        fits = isinstance(answer, list) and all(isinstance(item, dict) for item in answer)
        return None if fits else "the answer has to be a list of objects"
    if task.task_type == "report_generation":
        fits = isinstance(answer, dict) and all(
            isinstance(text, str)
            for name, text in answer.items()
            if sections is None or name in sections
        )
        return None if fits else "the answer has to be an object of texts, one a section"
    return None if isinstance(answer, str) else "the answer has to be text"


def _official_message(task: CblueTask, gold: Any, sample: Any) -> str:
    """What the official evaluator's exception says of a bad sample."""
    try:
        _, answer = sample["sample_id"], sample["answer"]
        if task.task_type == "report_generation":
            [answer.get(name, "").strip() for name in gold]
    except (KeyError, TypeError, AttributeError) as error:
        return str(error)
    # An item that is no object fails an assertion that has no message.
    return "" if task.metric == "micro_f1" and isinstance(answer, list) else _BAD_FORMAT


def ambiguous(sheet: AnswerSheet) -> Iterator[Fault]:
    """Samples that cannot be joined by id, for they have none or share it."""
    for name, entries in sheet.entries.items():
        ids = Counter(map(sample_id, entries))
        for entry in entries:
            if ids[sample_id(entry)] > 1 or sample_id(entry) is None:
                problem = "this id comes more than once" if sample_id(entry) else "no sample_id"
                yield _fault(sheet.side, TASKS[name], entry, problem)


def _fault(side: Side, task: CblueTask, entry: Entry, problem: str) -> Fault:
    known = sample_id(entry)
    return Fault(
        side=side,
        line=entry.line,
        task=task.name,
        sample_id=None if known is None else str(known),
        problem=problem,
    )


def sample_id(entry: Entry) -> str | int | None:
    """A sample's id; None when it has none that could be one."""
    own = entry.raw.get("sample_id") if isinstance(entry.raw, dict) else None
    return own if isinstance(own, str | int) else None
