"""Score files of predictions against files of gold, as the official evaluator does: all or nothing.

Unlike the official one, it also says everything that is wrong with a submission, and where.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from mingmoe_eval.metrics.metric import Metric
from mingmoe_eval.metrics.resampling import Bootstrap
from mingmoe_eval.promptcblue.catalogue import TASKS, Answer, CblueTask
from mingmoe_eval.promptcblue.malformed import WELL_FORMED, describe, most_frequent
from mingmoe_eval.promptcblue.measures import measure_of
from mingmoe_eval.promptcblue.parsing import Profile, parse_answer
from mingmoe_eval.promptcblue.submission import (
    AnswerSheet,
    Entry,
    Fault,
    Pair,
    ambiguous,
    gold_faults,
    incomplete,
    misfits,
    read_sheet,
    sample_id,
)
from mingmoe_eval.promptcblue.tables import AnswerPair, label_table

_INCOMPLETE = "There are missing predictions in the submission, please check again!"
_BAD_METRICS = "Error in calculating metrics!"
_RESAMPLES = 2_000
"""A run takes 10,000; here they would be most of the time, for ends that move by a few percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """The outcome of scoring one submission.

    `scores` has the official keys, as fractions, `score` among them: the mean over the 16 tasks. A
    refused submission has nothing but a `score` of 0. `verdict` is the report that
    the official evaluator writes of it, None where it crashes or scores.
    """

    profile: Profile
    scores: Mapping[str, float]
    detail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    """Why the scores are not PromptCBLUE's, though the files could be scored."""
    verdict: Mapping[str, Any] | None = None

    @property
    def success(self) -> bool:
        """False when the submission was refused."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """A plain dict, in the layout that the command documents."""
        return {
            "success": self.success,
            "profile": self.profile,
            "scores": dict(self.scores),
            "detail": dict(self.detail),
            "errors": [fault.to_json() for fault in self.faults],
            "notes": list(self.notes),
            "marks": list(self.marks),
            "verdict": self.verdict,
        }


def score_files(
    gold: Path, predictions: Path, *, profile: Profile = "official", partial: bool = False
) -> Scorecard:
    """Score one submission.

    Args:
        gold: Records or a structured file.
        predictions: Any of the shapes that `submission` knows.
        profile: How texts are read. `lenient` also joins samples by id, where the official
            evaluator goes by position, and takes a missing prediction for an empty one.
        partial: Score the tasks that gold has, though some of the 16 are missing; then there is
            no overall `score`.

    Raises:
        DataError: A file cannot be read at all.
    """
    golds = read_sheet(gold, "gold", profile)
    predicted = read_sheet(predictions, "predictions", profile, choices_of=golds.choices())
    tasks = [task for task in TASKS.values() if task.name in golds.entries or not partial]
    notes = [*golds.notes, *predicted.notes]
    if unusable := [*golds.faults, *gold_faults(golds, tasks)]:
        return _refused(profile, [*unusable, *predicted.faults], notes)
    if profile == "lenient":
        if nameless := [*predicted.faults, *ambiguous(golds), *ambiguous(predicted)]:
            return _refused(profile, nameless, notes)
        golds, predicted = _joined(golds, predicted, tasks, notes)
    if missing := list(incomplete(golds, predicted, tasks)):
        message = None if predicted.faults else _INCOMPLETE
        return _refused(profile, [*predicted.faults, *missing], notes, message)
    pairs = {
        t.name: list(zip(golds.entries[t.name], predicted.entries[t.name], strict=True))
        for t in tasks
    }
    misplaced = [fault for t in tasks for fault in misfits(t, pairs[t.name])]
    if predicted.faults or misplaced:
        message = None if predicted.faults else misplaced[0][1]
        return _refused(profile, [*predicted.faults, *(f for f, _ in misplaced)], notes, message)
    return _scored(profile, tasks, pairs, notes, {**golds.marks, **predicted.marks})


def _scored(
    profile: Profile,
    tasks: Sequence[CblueTask],
    pairs: Mapping[str, Sequence[Pair]],
    notes: Sequence[str],
    marks: Iterable[str],
) -> Scorecard:
    scores: dict[str, float] = {}
    detail: dict[str, dict[str, Any]] = {}
    for task in tasks:
        answers: list[AnswerPair] = [
            (_answer(gold), _answer(said)) for gold, said in pairs[task.name]
        ]
        measure = measure_of(task, profile)
        comparisons = [measure.compare(gold, said) for gold, said in answers]
        if task.default_label:
            answers = [(one.expected, one.answered) for one in comparisons]
        metrics = measure.corpus(comparisons)
        scores[task.score_key] = metrics[measure.main.name]
        named = {official: metrics.pop(own) for official, own in measure.official_names.items()}
        detail[task.name] = {
            **named,
            **metrics,
            "n": len(comparisons),
            "interval": _quicker(measure.main).fold(comparisons).interval,
            "by_label": {k: asdict(row) for k, row in label_table(task, answers).items()},
            "malformed": _malformed([said for _, said in pairs[task.name]]),
        }
    if len(tasks) == len(TASKS):
        scores["score"] = math.fsum(scores.values()) / len(TASKS)
    return Scorecard(
        profile=profile, scores=scores, detail=detail, notes=tuple(notes), marks=tuple(marks)
    )


def _quicker(metric: Metric) -> Metric:
    if isinstance(metric.resampling, Bootstrap):
        return replace(metric, resampling=Bootstrap(_RESAMPLES))
    return metric


def _refused(
    profile: Profile,
    faults: Sequence[Fault],
    notes: Sequence[str],
    message: str | None = None,
) -> Scorecard:
    """Nothing but a score of 0; `message` is the official evaluator's, if it gets to say one."""
    verdict: dict[str, Any] = {
        "errorDetail": message if message == _INCOMPLETE else _BAD_METRICS,
        "errorMsg": message,
        "score": 0,
        "scoreJson": {},
        "success": False,
    }
    return Scorecard(
        profile=profile,
        scores={"score": 0.0},
        faults=tuple(faults),
        notes=tuple(notes),
        verdict=verdict if message is not None else None,
    )


def _joined(
    golds: AnswerSheet, predicted: AnswerSheet, tasks: Sequence[CblueTask], notes: list[str]
) -> tuple[AnswerSheet, AnswerSheet]:
    """Both sides in the order of their ids, with an empty answer where a prediction is missing.

    One order whatever the files' orders are: sums of fractions depend on it in the last bit.
    """
    wanted_side = AnswerSheet("gold", marks=golds.marks)
    said_side = AnswerSheet("predictions", marks=predicted.marks)
    for task in tasks:
        said = {sample_id(entry): entry for entry in predicted.entries.get(task.name, ())}
        wanted = sorted(golds.entries[task.name], key=lambda entry: str(sample_id(entry)))
        missing = [entry for entry in wanted if sample_id(entry) not in said]
        if missing:
            notes.append(f"{task.name}: {len(missing)} predictions are missing, taken for empty")
        if strangers := said.keys() - {sample_id(entry) for entry in wanted}:
            notes.append(f"{task.name}: {len(strangers)} predictions of unknown samples left out")
        wanted_side.entries[task.name] = wanted
        said_side.entries[task.name] = [
            said.get(sample_id(entry)) or _silence(task, entry) for entry in wanted
        ]
    return wanted_side, said_side


def _silence(task: CblueTask, gold: Entry) -> Entry:
    answer = parse_answer(task, "", gold.choices, "lenient")
    return Entry(
        raw={"sample_id": sample_id(gold), "answer": answer}, reading=describe(task, "", ())
    )


def _malformed(said: Sequence[Entry]) -> dict[str, Any] | None:
    """How many outputs were malformed, and how; None for files that somebody else parsed."""
    readings = [entry.reading for entry in said if entry.reading]
    if not readings:
        return None
    bad = sum(reading != WELL_FORMED for reading in readings)
    return {"share": bad / len(readings), "kinds": dict(most_frequent(readings))}


def _answer(entry: Entry) -> Answer:
    return cast(Answer, entry.raw["answer"])
