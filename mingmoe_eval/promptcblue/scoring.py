"""The suite `promptcblue`: from responses to samples to the official numbers and the tables behind.

A doc is a PromptCBLUE record: input, target, answer_choices, task_type, task_dataset, sample_id.
`profile` (default `official`) says how texts are read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from mingmoe_eval.errors import DataError
from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts
from mingmoe_eval.metrics.metric import Counted, fold_together, tabulate
from mingmoe_eval.metrics.uncertainty import mean_of_parts, share
from mingmoe_eval.promptcblue.catalogue import TASKS, Answer, CblueTask, Family, task_named
from mingmoe_eval.promptcblue.lenient import fold_width
from mingmoe_eval.promptcblue.malformed import describe, most_frequent
from mingmoe_eval.promptcblue.measures import (
    LABEL_F1,
    MALFORMED,
    METRICS,
    SECTION,
    SECTION_ROUGE,
    Comparison,
    measure_of,
)
from mingmoe_eval.promptcblue.parsing import Profile, parse_answer, profile_named
from mingmoe_eval.promptcblue.tables import AnswerPair, count_by_label, label_table, tag_view
from mingmoe_eval.records import MetricValue, Response, Sample, Score, TaskResult, TaskSettings

__all__ = ["METRICS", "SCORES", "breakdowns", "expected", "fold", "fold_group", "score_doc"]

SCORES = METRICS

_Breakdown = dict[str, MetricValue]


def score_doc(doc: Mapping[str, Any], response: Response, settings: TaskSettings) -> Score:
    """What one response earned; never raises for any reply.

    `answered` is the parsed answer (JSON, or the label or text itself), None for an empty reply:
    to the official scorer an empty reply may still be right, for it stands for a default label.
    `counts` hold what the corpus metric sums; `reading` tells what is malformed.
    """
    # The official parsers know nothing of thoughts; they get what stands behind them.
    text = split_thoughts(response.text or "")[1] or ""
    task, choices, profile = _task(doc), _choices(doc), _profile(settings)
    answer = parse_answer(task, text, choices, profile)
    comparison = measure_of(task, profile).compare(_gold(doc, settings), answer)
    return Score(
        value=comparison.score,
        answered=_as_text(answer) if text.strip() else None,
        reading=describe(task, text, choices),
        counts=comparison.counts,
    )


def expected(doc: Mapping[str, Any]) -> str:
    """The gold label where there is one, as the official scorer compares it; else the gold text."""
    gold = _gold(doc, TaskSettings()) if _task(doc).default_label else doc["target"]
    return str(gold)


def fold(samples: Sequence[Sample], settings: TaskSettings) -> dict[str, MetricValue]:
    """The metrics of one task, from its scored samples, the main one also as `score`.

    `malformed` is the share of responses of which the official parser loses something.
    """
    measure = measure_of(_task(samples[0].doc), _profile(settings))
    comparisons = [_comparison(sample, settings) for sample in samples]
    clusters = [sample.cluster for sample in samples]
    metrics = fold_together([*measure.metrics, MALFORMED], comparisons, clusters)
    return {"score": metrics[measure.main.name], **metrics}


def breakdowns(
    samples: Sequence[Sample], settings: TaskSettings
) -> dict[str, dict[str, MetricValue]]:
    """Tables behind the main metric, by what they are split by.

    label: F1 of each entity type, relation, status or class. tag: F1 of each entity type in the
    BIO view of seqeval, over what can be found in the prompt; entities not in the prompt: what
    cannot. section: ROUGE-L of each part of a report. malformed: the ten most frequent faults of
    format, as shares of the responses.
    """
    task = _task(samples[0].doc)
    answers: list[AnswerPair]
    if task.default_label:
        compared = [_comparison(sample, settings) for sample in samples]
        answers = [(one.expected, one.answered) for one in compared]
    else:
        answers = [(_gold(s.doc, settings), _predicted(s, task, settings)) for s in samples]
    tables: dict[str, _Breakdown] = {
        "label": _label_values(task, answers),
        **(_tag_tables(samples, answers, settings) if task.family == "ner" else {}),
        "section": _section_values(samples),
        "malformed": {
            kind: MALFORMED.stamped(share(count, len(samples)))
            for kind, count in most_frequent(sample.reading for sample in samples)
        },
    }
    return {name: table for name, table in tables.items() if table}


def fold_group(
    members: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    *,
    weight_by_size: bool = False,
) -> dict[str, MetricValue]:
    """The mean of the main metrics of all 16 tasks, or of the tasks of one family.

    Over all 16 it is the official overall score; then each family's mean is given too. Tasks weigh
    the same, whatever their size. The interval takes the tasks for independent: the standard
    error is sqrt(sum of SE^2) / k, with each task's SE read off its interval's width.

    Raises:
        DataError: Neither all 16 are there, nor all of one family; names the missing ones.
    """
    by_name = {task.lm_eval_name: task for task in TASKS.values()}
    families: dict[Family, list[str]] = {}
    for name, task in by_name.items():
        families.setdefault(task.family, []).append(name)
    if weight_by_size:
        raise DataError("PromptCBLUE's groups are plain means; weight_by_size has to be false")
    present = set(members)
    if any(present == set(names) for names in families.values()):
        return {"score": mean_of_parts([result.main for result in members.values()])}
    if missing := [name for name in by_name if name not in present]:
        raise DataError(
            f"PromptCBLUE's overall score is over all 16 tasks; {len(missing)} are missing: "
            f"{', '.join(missing)}"
        )
    means = {
        f"score_{family}": mean_of_parts([members[name].main for name in names])
        for family, names in families.items()
    }
    return {"score": mean_of_parts([members[name].main for name in by_name]), **means}


def _task(doc: Mapping[str, Any]) -> CblueTask:
    return task_named(str(doc["task_dataset"]))


def _choices(doc: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(doc.get("answer_choices") or ())


def _profile(settings: TaskSettings) -> Profile:
    return profile_named(settings.profile or "official")


def _gold(doc: Mapping[str, Any], settings: TaskSettings) -> Answer:
    return parse_answer(_task(doc), str(doc["target"]), _choices(doc), _profile(settings))


def _as_text(answer: Answer) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _predicted(sample: Sample, task: CblueTask, settings: TaskSettings) -> Answer:
    """The parsed answer again, from what the sample keeps of it."""
    if sample.answered is None:
        return parse_answer(task, "", _choices(sample.doc), _profile(settings))
    if isinstance(_gold(sample.doc, settings), str):
        return sample.answered
    return cast(Answer, json.loads(sample.answered))


def _comparison(sample: Sample, settings: TaskSettings) -> Comparison:
    """What `score_doc` compared, from what the sample keeps of it."""
    task = _task(sample.doc)
    if not task.default_label:
        return Comparison(score=sample.score or 0.0, counts=sample.counts, reading=sample.reading)
    measure = measure_of(task, _profile(settings))
    compared = measure.compare(_gold(sample.doc, settings), sample.answered or "")
    return replace(compared, reading=sample.reading)


def _label_values(task: CblueTask, answers: Sequence[tuple[Answer, Answer]]) -> _Breakdown:
    table = label_table(task, answers)
    intervals = LABEL_F1.by_class(tabulate(count_by_label(task, answers)))
    return {
        label or "(empty)": replace(intervals[label], n=row.support) for label, row in table.items()
    }


def _tag_tables(
    samples: Sequence[Sample], answers: Sequence[AnswerPair], settings: TaskSettings
) -> dict[str, _Breakdown]:
    """F1 of each entity type by BIO tags, and how much of either side has no place for them."""
    prompts = [str(sample.doc["input"]) for sample in samples]
    if _profile(settings) == "lenient":
        prompts = [fold_width(prompt) for prompt in prompts]  # as its entities are
    view = tag_view(prompts, answers)
    sides = zip(("gold", "replies"), view.unplaced, view.entities, strict=True)
    return {
        "tag": {
            kind: LABEL_F1.stamped(MetricValue(value=row.f1, n=row.support))
            for kind, row in view.rows.items()
        },
        "entities not in the prompt": {
            side: MALFORMED.stamped(share(lost, total)) for side, lost, total in sides if total
        },
    }


def _section_values(samples: Sequence[Sample]) -> _Breakdown:
    values: dict[str, list[Counted]] = {}
    for sample in samples:
        for name, value in sample.counts.items():
            if name.startswith(SECTION):
                values.setdefault(name.removeprefix(SECTION), []).append({"": (value, 1.0)})
    return {name: SECTION_ROUGE.of(counted) for name, counted in values.items()}
