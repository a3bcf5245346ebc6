"""From responses to samples to numbers: the one way, for a run, a rescore and stock lm-eval alike.

A suite is a module with `score_doc`, `fold` and `breakdowns`; which one a task belongs to, its
definition says. Tasks of lm-eval's own have the suite "" and keep lm-eval's metrics.
"""

import dataclasses
import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from mingmoe_eval.errors import DataError
from mingmoe_eval.metrics.answer_reading.reply_text import split_thoughts
from mingmoe_eval.metrics.choice_accuracy import letter_mass_warning
from mingmoe_eval.metrics.metric import ClassMean, Counted, Metric, Scored, mean_of_sums
from mingmoe_eval.metrics.of_lm_eval import foreign_metric
from mingmoe_eval.metrics.resampling import Mean
from mingmoe_eval.records import (
    Counts,
    DocIds,
    MetricValue,
    Response,
    Sample,
    Score,
    TaskResult,
    TaskSettings,
    fingerprint,
)
from mingmoe_eval.repeats import clustered, question_means, repeats_of, scores_by_repeat
from mingmoe_eval.repeats import fold as fold_repeats
from mingmoe_eval.task_catalog import TaskCatalog
from mingmoe_eval.task_definitions import TaskDefinition

_MAY_HOLD_A_TAG = re.compile(r"[<\[◁#]")


class Suite(Protocol):
    """What a suite's scorer offers; pure functions that never raise for any reply."""

    @property
    def METRICS(self) -> Mapping[str, Metric]:
        """The metrics of the suite that are made from samples, by name."""

    @property
    def SCORES(self) -> Mapping[str, Metric]:
        """Those that a task may name as its score."""

    def score_doc(
        self, doc: Mapping[str, Any], response: Response, settings: TaskSettings
    ) -> Score:
        """What one response earned."""

    def fold(self, samples: Sequence[Sample], settings: TaskSettings) -> dict[str, MetricValue]:
        """The metrics of one task; the main one also under the name `score`."""

    def breakdowns(
        self, samples: Sequence[Sample], settings: TaskSettings
    ) -> dict[str, dict[str, MetricValue]]:
        """The main metric by tag and value."""

    def expected(self, doc: Mapping[str, Any]) -> str:
        """The answer that counts as right, as text."""

    def fold_group(
        self,
        members: Mapping[str, TaskResult],
        samples: Mapping[str, Sequence[Sample]],
        *,
        weight_by_size: bool,
    ) -> dict[str, MetricValue]:
        """The metrics of a group over its members, all of them present."""


def suite_named(name: str) -> Suite:
    """The scorer of a suite; each is imported when it is needed."""
    if not name:
        raise DataError("its tasks name no suite: each keeps lm-eval's score, and no mean is made")
    if name not in _SUITES:
        raise DataError(f"no suite named {name!r}; the suites are {', '.join(_SUITES)}")
    if name in ("choice", "promptcblue"):  # modules with the functions of a suite
        return cast(Suite, importlib.import_module(_SUITES[name]))
    return cast(Suite, importlib.import_module(_SUITES[name]).SUITE)


_SUITES = {
    "choice": "mingmoe_eval.exams.scoring",
    "promptcblue": "mingmoe_eval.promptcblue.scoring",
    "number": "mingmoe_eval.suites.number",
    "labels": "mingmoe_eval.suites.labels",
    "tuples": "mingmoe_eval.suites.tuples",
    "text": "mingmoe_eval.suites.text",
}


def metric_of(result: TaskResult) -> Metric:
    """The main metric of a result, to be made again from samples.

    Of a task whose scorer is not ours, and of a number that names no metric of its suite, it is the
    mean of the samples' own scores, in the unit and direction that the number itself states.
    """
    main = described(result).main
    known = suite_named(result.suite).METRICS if result.suite else {}
    metric = known.get(main.metric)
    return metric if metric is not None and metric.is_of_docs else mean_of_scores(main)


def described(result: TaskResult) -> TaskResult:
    """A result whose numbers say what they are, as those of version 0.1.0 do not.

    A number is described by its name; the headline, which is only called `score`, is the one that
    it equals.
    """
    if all(value.metric for value in result.metrics.values()):
        return result
    known = suite_named(result.suite).METRICS if result.suite else {}

    def describe(name: str, value: MetricValue) -> MetricValue:
        # A headline without a name beside it was made by hand, and stays what it was.
        if value.metric or (name == result.main_metric and not result.suite):
            return value
        if result.suite:
            metric = known.get(name)
        else:
            metric = foreign_metric(name, rights_and_wrongs=value.interval_method == "Wilson")
        if metric is None:
            return value
        return dataclasses.replace(
            value, metric=metric.name, unit=metric.unit, better=metric.better
        )

    metrics = {name: describe(name, value) for name, value in result.metrics.items()}
    headline = result.metrics[result.main_metric]
    twins = (n for n, v in result.metrics.items() if n != result.main_metric and v == headline)
    if twin := next((name for name in twins if metrics[name].metric), None):
        metrics[result.main_metric] = metrics[twin]
    breakdowns = {
        tag: {part: describe(tag, value) for part, value in table.items()}
        for tag, table in result.breakdowns.items()
    }
    return dataclasses.replace(result, metrics=metrics, breakdowns=breakdowns)


def mean_of_scores(stated: MetricValue) -> Metric:
    """The mean of what each doc earned by itself, in the unit and direction of a stated number."""
    name = stated.metric or "score"

    def count_score(scored: Scored) -> Counted:
        # A doc of which less is better has no score; its number lies among its counts.
        earned = scored.counts[name] if scored.score is None else scored.score
        return {"": (earned, 1.0)}

    return Metric(
        name=name,
        title=name,
        count=count_score,
        value=ClassMean(mean_of_sums),
        resampling=Mean(),
        unit=stated.unit,
        better=stated.better,
        range=(0.0, 1.0) if stated.unit == "share" else (-math.inf, math.inf),
    )


def make_sample(
    task: str,
    position: int,
    doc: Mapping[str, Any],
    prompt: str,
    response: Response,
    settings: TaskSettings,
    repeat: int = 0,
) -> Sample:
    """Score one response; one that cannot be scored becomes a failed sample that says why."""
    suite = suite_named(settings.suite)
    usage = response.usage
    facts: dict[str, Any] = {
        "task": task,
        "doc_id": fingerprint(doc),
        "position": position,
        "doc": doc,
        "prompt": prompt,
        "expected": suite.expected(doc),
        "response": response.text,
        "log_likelihoods": response.log_likelihoods,
        "tags": doc.get("tags") or {},
        "cluster": doc.get("cluster") or _question(doc, settings),
        "variant": str(doc.get("variant") or ""),
        "repeat": repeat,
        "finish": usage[-1].finish if usage else "none",
        "prompt_tokens": sum(u.prompt_tokens for u in usage),
        "generated_tokens": sum(u.generated_tokens for u in usage),
        "prompt_truncated": any(u.prompt_truncated for u in usage),
        "thought_tokens": _known_sum(u.thought_tokens for u in usage),
        "forced": any(u.forced for u in usage),
    }
    if failure := failure_of(response):
        return Sample(**facts, status="failed", failure=failure, reading="not read")
    score = suite.score_doc(doc, response, settings)
    return Sample(
        **facts,
        answered=score.answered,
        reading=score.reading,
        score=score.value,
        status="unanswered" if score.answered is None else "scored",
        counts=score.counts,
    )


def scored_again(sample: Sample, response: Response, settings: TaskSettings) -> Sample:
    """The same doc, asked in the same place, with another reply or another reading of its own."""
    made = make_sample(
        sample.task,
        sample.position,
        sample.doc,
        sample.prompt,
        response,
        settings,
        sample.repeat,
    )
    return dataclasses.replace(made, doc_id=sample.doc_id)


def fold_task(
    task: str,
    samples: Sequence[Sample],
    settings: TaskSettings,
    *,
    unusable: int = 0,
    notes: Sequence[str] = (),
    **facts: Any,
) -> TaskResult:
    """One task's result from its samples; failed samples are left out and counted.

    Args:
        task: The task's name.
        samples: All its samples, the failed ones too.
        settings: How the task is scored.
        unusable: Rows of the data that could not become docs.
        notes: What must not be overlooked; more may be added.
        facts: Further fields of TaskResult, such as `marks` or `seconds`.
    """
    suite = suite_named(settings.suite)
    usable = [sample for sample in samples if sample.status != "failed"]
    repeats = repeats_of(samples)

    def once(some: Sequence[Sample]) -> dict[str, MetricValue]:
        return suite.fold(some, settings)

    metrics, breakdowns = {"score": _nothing()}, {}
    if usable and repeats == 1:
        metrics, breakdowns = once(usable), suite.breakdowns(usable, settings)
    elif usable:
        metrics = fold_repeats(usable, once)
        breakdowns = {
            **suite.breakdowns(clustered(usable), settings),
            "repeat": scores_by_repeat(usable, once),
        }
    warning = letter_mass_warning(metrics)
    main = suite.METRICS.get(metrics["score"].metric)
    return TaskResult(
        task=task,
        main_metric="score",
        metrics=metrics,
        counts=count(samples, unusable=unusable),
        breakdowns=breakdowns,
        repeats=repeats,
        chance=_chance(main, samples, settings),
        version=str(settings.version),
        suite=settings.suite,
        notes=tuple(dict.fromkeys([*notes, *([warning] if warning else ())])),  # told once
        **facts,
    )


def fold_groups(
    catalog: TaskCatalog,
    groups: Sequence[TaskDefinition],
    results: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    *,
    refused: Callable[[str], None],
) -> dict[str, TaskResult]:
    """Each group over its members, groups below it first.

    A member that is a group itself counts once, however many tasks it holds: an average over exams
    must not weigh MMLU by its subjects.

    Args:
        catalog: Where members are looked up.
        groups: The groups to fold, those below others first.
        results: Of the leaf tasks.
        samples: Of the leaf tasks.
        refused: Told of a group that cannot be folded, and why.
    """
    folded: dict[str, TaskResult] = {}
    for group in groups:
        known = {**results, **folded}
        members = {name: known[name] for name in group.members if name in known}
        absent = [name for name in group.members if name not in known]
        leaves = [leaf for leaf in catalog.leaves_of(group.name) if leaf in results]
        try:
            folded[group.name] = fold_group(
                group.name,
                group.settings.suite or catalog.definitions[leaves[0]].settings.suite,
                members,
                {leaf: samples[leaf] for leaf in leaves},
                weight_by_size=group.weight_by_size,
                version=str(group.settings.version),
                notes=(f"without {', '.join(absent)}",) if absent else (),
            )
        except DataError as error:
            refused(f"{group.name}: {error}")
    return folded


def fold_group(
    group: str,
    suite_name: str,
    members: Mapping[str, TaskResult],
    samples: Mapping[str, Sequence[Sample]],
    *,
    weight_by_size: bool = False,
    **facts: Any,
) -> TaskResult:
    """A group's result from its members' results and samples; the members must all be there."""
    metrics = suite_named(suite_name).fold_group(
        members,
        {task: question_means(listed) for task, listed in samples.items()},
        weight_by_size=weight_by_size,
    )
    chances = [m.chance for m in members.values()]
    marks = (
        mark if m.is_group else f"{m.task}: {mark}" for m in members.values() for mark in m.marks
    )
    known = [chance for chance in chances if chance is not None]
    repeats = {m.repeats for m in members.values()}
    return TaskResult(
        task=group,
        main_metric="score",
        metrics=metrics,
        counts=sum((m.counts for m in members.values()), Counts()),
        chance=_mean_chance(members, known, weight_by_size) if len(known) == len(chances) else None,
        suite=suite_name,
        repeats=repeats.pop() if len(repeats) == 1 else 1,
        members=tuple(members),
        weight_by_size=weight_by_size,
        marks=tuple(marks),
        seconds=sum(m.seconds for m in members.values()),
        **facts,
    )


def count(samples: Sequence[Sample], *, unusable: int = 0) -> Counts:
    """What became of a task's docs."""
    return Counts(
        docs=len(samples),
        unanswered=sum(s.status == "unanswered" for s in samples),
        truncated=sum(s.finish == "length" for s in samples),
        prompt_truncated=sum(s.prompt_truncated for s in samples),
        non_finite=sum(not _finite(s.log_likelihoods) for s in samples),
        failed=sum(s.status == "failed" for s in samples),
        unusable=unusable,
        forced=sum(s.forced for s in samples),
        empty=sum(_is_empty(s.response) for s in samples if s.status != "failed"),
        tied=sum(s.counts.get("tied", 0) > 1 for s in samples),
    )


def distinct_ids(samples: Sequence[Sample]) -> list[Sample]:
    """Give the second and later samples of the same doc ids of their own: `d`, `d#2`, `d#3`."""
    ids = DocIds()
    return [
        dataclasses.replace(sample, doc_id=ids.next(sample.doc_id, sample.repeat))
        for sample in samples
    ]


def failure_of(response: Response) -> str:
    """Why a response cannot be scored; empty when it can."""
    for usage in response.usage:
        if usage.failure:
            return usage.failure
    return "" if response.finite else "log-likelihoods are not finite"


def _chance(main: Metric | None, samples: Sequence[Sample], settings: TaskSettings) -> float | None:
    """What guessing would score: as the definition says, else as the docs' options or labels do."""
    if settings.chance is not None or main is None or main.chance is None:
        return settings.chance
    return main.chance([sample.doc for sample in samples])


def _question(doc: Mapping[str, Any], settings: TaskSettings) -> str | None:
    """What the orders of one question have in common; nothing where each is asked once."""
    if not settings.permute_options:
        return None
    return str(doc.get("variant_of") or doc["id"])


def _is_empty(response: str | None) -> bool:
    """Whether a reply gives nothing as its answer; log-likelihoods are no reply."""
    if response is None:
        return False
    if _MAY_HOLD_A_TAG.search(response) is None:  # most hold none, and looking closer takes longer
        return not response.strip()
    _, answer = split_thoughts(response)
    return not (answer or "").strip()


def _known_sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _finite(values: Sequence[float] | None) -> bool:
    return all(math.isfinite(value) for value in values or ())


def _nothing() -> MetricValue:
    return MetricValue(value=math.nan, n=0, interval_method="no doc could be scored")


def _mean_chance(
    members: Mapping[str, TaskResult], chances: Sequence[float], weight_by_size: bool
) -> float:
    # As its score does: a question counts once, however often it was asked, and a failed one not.
    sizes = [m.main.n if weight_by_size else 1 for m in members.values()]
    return sum(c * n for c, n in zip(chances, sizes, strict=True)) / max(sum(sizes), 1)
