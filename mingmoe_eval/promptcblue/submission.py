"""The files that people score: gold and predictions, in every shape, and all that is wrong in them.

Gold comes as PromptCBLUE records (the text in `target`) or as a structured file (task -> list of
{sample_id, answer}). Predictions come as {sample_id, task_dataset, prediction} lines, as records
whose `target` holds the output, as MING's {prompt, text, additional_info} lines, or structured.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mingmoe_eval.errors import DataError, UnknownTaskError
from mingmoe_eval.json_files import JsonFault, parse, parse_lines
from mingmoe_eval.promptcblue.catalogue import (
    BEYOND_THE_16,
    TASKS,
    CblueTask,
    Choices,
    task_named,
)
from mingmoe_eval.promptcblue.doc_records import conversion_mark, problem_of
from mingmoe_eval.promptcblue.lenient import fold_answer
from mingmoe_eval.promptcblue.malformed import describe
from mingmoe_eval.promptcblue.parsing import Profile, parse_answer

Side = Literal["gold", "predictions"]

_RECORD_FIELDS = ("input", "target", "answer_choices", "task_type", "task_dataset")
_NO_ID = "xxxx"
"""What the official conversion calls a record without sample_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with a file, and where."""

    side: Side
    problem: str
    line: int | None = None
    task: str | None = None
    sample_id: str | None = None

    def __str__(self) -> str:
        places = (
            f"line {self.line}" if self.line else "",
            self.task or "",
            f"sample {self.sample_id}" if self.sample_id else "",
        )
        return ": ".join([", ".join(filter(None, (self.side, *places))), self.problem])

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sample of a file. `raw` is the structured file's own element, which may be anything."""

    raw: Any
    line: int | None = None
    choices: Choices = ()
    reading: str = ""
    blank: bool = False
    """Whether the text was empty; of a structured file nobody knows."""


@dataclass(slots=True)
class AnswerSheet:
    """One file's samples by task, in file order, and what was wrong with the rest."""

    side: Side
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    marks: dict[str, None] = field(default_factory=dict)
    """Why scores over these samples are not PromptCBLUE's, each once, in the order of finding."""

    def choices(self) -> "ChoicesById":
        """The options of the samples of each task and id, in file order.

        Ids repeat across tasks, and in public copies within a task too; samples go by position.
        """
        known: dict[tuple[str, str], deque[Choices]] = {}
        for task, entries in self.entries.items():
            for entry in entries:
                if entry.line is not None:
                    key = (task, str(entry.raw["sample_id"]))
                    known.setdefault(key, deque()).append(entry.choices)
        return known


ChoicesById = dict[tuple[str, str], deque[Choices]]
"""Options by task and id; whoever reads the samples in order takes one at a time."""


def read_sheet(
    path: Path,
    side: Side,
    profile: Profile,
    *,
    choices_of: ChoicesById | None = None,
) -> AnswerSheet:
    """Read and parse one file; what is wrong in it is noted, all of it, and not raised.

    Args:
        path: The file.
        side: Which of the two it is.
        profile: How texts are read; a structured file was read by somebody else already.
        choices_of: Options for predictions that carry none; used up in reading.

    Raises:
        DataError: The file cannot be read at all.
    """
    sheet = AnswerSheet(side)
    content = _load(path, sheet)
    if isinstance(content, dict):
        _read_structured(content, sheet, profile)
    else:
        for line, row in content:
            _read_row(line, row, sheet, profile, choices_of or {})
    return sheet


def _load(path: Path, sheet: AnswerSheet) -> dict[str, Any] | list[tuple[int, Any]]:
    """A structured file's object, or the numbered rows of anything else."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the {sheet.side} file {path}: {error}") from None
    if not data.strip():
        raise DataError(f"the {sheet.side} file {path} is empty")
    try:
        whole = parse(data)
    except JsonFault:
        return list(_json_lines(data, sheet))
    if isinstance(whole, list):
        return list(enumerate(whole, start=1))
    is_row = isinstance(whole, dict) and ("task_dataset" in whole or "additional_info" in whole)
    return whole if isinstance(whole, dict) and not is_row else [(1, whole)]


def _json_lines(data: bytes, sheet: AnswerSheet) -> Iterator[tuple[int, Any]]:
    for number, value in parse_lines(data):
        if isinstance(value, JsonFault):
            sheet.faults.append(Fault(side=sheet.side, line=number, problem=str(value)))
        else:
            yield number, value


def _read_structured(content: Mapping[str, Any], sheet: AnswerSheet, profile: Profile) -> None:
    for name, samples in content.items():
        task = _task(name)
        if task is None:
            sheet.notes.append(f"{sheet.side}: {name!r} is none of the 16 tasks and is left out")
        elif not isinstance(samples, list):
            sheet.faults.append(Fault(side=sheet.side, task=name, problem="not a list of samples"))
        else:
            folded = map(_folded, samples) if profile == "lenient" else samples
            sheet.entries[task.name] = [Entry(raw=sample) for sample in folded]


def _folded(sample: Any) -> Any:
    try:
        return {**sample, "answer": fold_answer(sample["answer"])}
    except (KeyError, TypeError, AttributeError):
        return sample  # in no known shape: the scorer will say so


@dataclass(frozen=True, slots=True)
class _Fields:
    """What every shape of row has, unchecked: whatever JSON can hold."""

    task: Any
    sample_id: Any
    text: Any
    choices: Any


def _read_row(
    line: int,
    row: Any,
    sheet: AnswerSheet,
    profile: Profile,
    choices_of: ChoicesById,
) -> None:
    where: dict[str, Any] = {"side": sheet.side, "line": line}
    if not isinstance(row, dict):
        sheet.faults.append(Fault(**where, problem="not an object"))
        return
    try:
        fields = _fields(row, sheet.side, profile, choices_of)
    except KeyError as error:
        names = ", ".join(map(repr, error.args))
        sheet.faults.append(Fault(**where, problem=f"no field {names}"))
        return
    task = _task(fields.task)
    if task is None and fields.task in BEYOND_THE_16:
        note = f"{sheet.side}: {fields.task} is none of the 16 tasks and is left out"
        sheet.notes += [] if note in sheet.notes else [note]
        return
    where |= {"task": str(fields.task), "sample_id": str(fields.sample_id)}
    if task is None:
        sheet.faults.append(Fault(**where, problem=f"no task named {fields.task!r}"))
    elif problem := problem_of(fields.text, fields.choices):
        sheet.faults.append(Fault(**where, problem=problem))
    else:
        if mark := conversion_mark(row):
            sheet.marks[mark] = None
        entry = _entry(task, fields, line, sheet.side, profile)
        sheet.entries.setdefault(task.name, []).append(entry)


def _fields(
    row: Mapping[str, Any],
    side: Side,
    profile: Profile,
    choices_of: ChoicesById,
) -> _Fields:
    """The fields of a row of any shape; KeyError where one is missing."""
    if side == "predictions" and isinstance(info := row.get("additional_info"), dict):
        sample_id = info.get("sample_id", _NO_ID)
        return _Fields(info["task_dataset"], sample_id, row["text"], info["answer_choices"])
    if side == "predictions" and "prediction" in row:
        name, sample_id, text = row["task_dataset"], row["sample_id"], row["prediction"]
        if "answer_choices" in row or not choices_of:  # a structured gold file tells no options
            return _Fields(name, sample_id, text, row["answer_choices"])
        task = _task(name)
        known = choices_of.get((task.name if task else "", str(sample_id)))
        # One prediction too many of an id has no options; it is refused for being too many.
        return _Fields(name, sample_id, text, known.popleft() if known else None)
    needed = _RECORD_FIELDS if profile != "lenient" else ("target", "task_dataset")
    if missing := [name for name in needed if name not in row]:
        raise KeyError(*missing)
    sample_id = row.get("sample_id", _NO_ID)
    return _Fields(row["task_dataset"], sample_id, row["target"], row.get("answer_choices"))


def _entry(task: CblueTask, fields: _Fields, line: int, side: Side, profile: Profile) -> Entry:
    choices = tuple(fields.choices or ())
    answer = parse_answer(task, fields.text, choices, profile)
    return Entry(
        raw={"sample_id": fields.sample_id, "answer": answer},
        line=line,
        choices=choices,
        blank=not fields.text.strip(),
        reading=describe(task, fields.text, choices) if side == "predictions" else "",
    )


def _task(name: Any) -> CblueTask | None:
    try:
        return task_named(name) if isinstance(name, str) else None
    except UnknownTaskError:
        return None


Pair = tuple[Entry, Entry]
"""Gold and prediction of one sample."""

_BAD_ORDER = "sample ordering is wrong!"
_BAD_FORMAT = "sample format is wrong!"


def gold_faults(golds: AnswerSheet, tasks: Sequence[CblueTask]) -> Iterator[Fault]:
    """What makes gold useless: a task that is not there or unlabelled, a sample without a label."""
    problem: str | None
    for task in tasks:
        if task.name not in golds.entries:
            problem = "gold has no samples of this task; score what is there with --partial"
            yield Fault(side="gold", task=task.name, problem=problem)
        entries = golds.entries.get(task.name, [])
        if entries and not task.default_label and all(entry.blank for entry in entries):
            # Some empty targets are gold with nothing in it; where all are, nobody labelled them.
            problem = "no target: these are the unlabelled records of a test set"
            yield Fault(side="gold", task=task.name, problem=problem)
        for entry in entries:
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
