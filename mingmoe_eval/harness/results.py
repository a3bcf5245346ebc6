"""lm-eval's answered requests, logged samples and aggregates, translated into records."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mingmoe_eval.language_model import UsageKey
from mingmoe_eval.metrics.of_lm_eval import foreign_metric
from mingmoe_eval.records import (
    MetricValue,
    RequestUsage,
    Response,
    Sample,
    TaskResult,
    fingerprint,
)
from mingmoe_eval.repeats import questions
from mingmoe_eval.scoring import count, distinct_ids, failure_of, mean_of_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One doc as lm-eval asked it: its position, prompt and the model's response.

    `repeat`: which of several responses to the same doc it is.
    """

    position: int
    doc: Mapping[str, Any]
    prompt: str
    response: Response
    repeat: int = 0


def answers(
    task: str, instances: Iterable[Any], usage: Mapping[UsageKey, RequestUsage]
) -> list[Answer]:
    """The answered requests of one task, doc by doc, with what the model recorded of each.

    `instances` are lm-eval's own, with their responses; those of a doc in the order of its options.
    """
    by_doc: dict[int, list[Any]] = {}
    for instance in instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    return [
        _answer(
            task,
            {
                "doc_id": position,
                "doc": requests[0].doc,
                "arguments": [request.args for request in requests],
                "resps": [request.resps for request in requests],
            },
            usage,
        )
        for position, requests in by_doc.items()
    ]


def logged_answers(task: str, logged: Iterable[Mapping[str, Any]]) -> list[Answer]:
    """What lm-eval logged of each doc, as `answers` gives it of its requests.

    A doc that a task had answered several times (its `repeats`) comes as often, repeat by repeat.
    """
    given = []
    for entry in logged:
        failures = entry.get("failures") or {}  # logged by us, by repeat
        for n in range(replies_in(entry)):
            one = {**entry, "resps": [request[n : n + 1] for request in entry["resps"]]}
            if str(n) in failures:
                one["failure"] = failures[str(n)]
            given.append(replace(_answer(task, one, {}), repeat=n))
    return sorted(given, key=lambda answer: answer.repeat)


def replies_in(entry: Mapping[str, Any]) -> int:
    """How many responses each request of a logged doc has."""
    return max([1, *map(len, entry["resps"])])


def foreign_samples(
    task: str,
    results: Mapping[str, Any],
    usage: Mapping[UsageKey, RequestUsage],
    *,
    logged: Sequence[Mapping[str, Any]] | None = None,
    repeat: int = 0,
) -> list[Sample]:
    """Samples of a task that lm-eval scores, by its own metrics.

    The score is the first metric that is a number doc by doc and of which more is better; a doc
    without such a number fails. Where no metric is one, no sample has a score.

    Args:
        task: The task's name.
        results: lm-eval's result dict.
        usage: What each request cost.
        logged: What lm-eval logged of each doc; default: as the results have it.
        repeat: Which of several draws for the same docs these are.
    """
    entries = list(first_filter(results["samples"][task] if logged is None else logged))
    directions = results.get("higher_is_better", {}).get(task, {})
    lower = {name for name, higher in directions.items() if higher is False}
    metric = _score_metric(entries, lower)
    samples = [
        _foreign_sample(task, entry, _answer(task, entry, usage), metric) for entry in entries
    ]
    return distinct_ids([replace(sample, repeat=repeat) for sample in samples])


def foreign_result(
    task: str,
    samples: Sequence[Sample],
    results: Mapping[str, Any],
    *,
    filter_name: str | None = None,
    **facts: Any,
) -> TaskResult:
    """lm-eval's own aggregates of one task; with an interval where the metric is a plain mean.

    Those of one filter pipeline, or of each metric's first; `facts` are further fields.
    """
    directions = results.get("higher_is_better", {}).get(task, {})
    metrics: dict[str, MetricValue] = {}
    for key, value in results["results"][task].items():
        name, comma, of = key.partition(",")
        if comma and filter_name not in (None, of):
            continue
        if comma and not name.endswith("_stderr") and isinstance(value, int | float):
            number = _metric_value(name, float(value), samples, directions.get(name))
            metrics.setdefault(name, number)
    ranked = sorted(metrics, key=lambda name: metrics[name].better == "lower")
    headline = metrics[ranked[0]] if ranked else MetricValue(value=math.nan, n=0)
    return TaskResult(
        task=task,
        main_metric="score",
        metrics={"score": headline, **metrics},
        counts=count(samples),
        version=str(results.get("versions", {}).get(task, "")),
        num_fewshot=int(results.get("n-shot", {}).get(task) or 0),
        **facts,
    )


def foreign_result_of_repeats(
    task: str, rounds: Sequence[tuple[Sequence[Sample], Mapping[str, Any]]], **facts: Any
) -> TaskResult:
    """The mean of lm-eval's own aggregates over repeats, each with its samples.

    An interval, over questions, belongs to a metric that is a plain mean over docs.
    """
    results = [foreign_result(task, samples, found, **facts) for samples, found in rounds]
    if len(results) == 1:
        return results[0]
    samples = [sample for listed, _ in rounds for sample in listed]
    asked = [[one for one in q if one.status != "failed"] for q in questions(samples)]
    metrics = {}
    for name, stated in results[0].metrics.items():
        values = [result.metrics[name].value for result in results if name in result.metrics]
        own = stated.metric
        counted = [
            {"": (math.fsum(one.counts[own] for one in question) / len(question), 1.0)}
            for question in asked
            if question and all(own in one.counts for one in question)
        ]
        folded = replace(stated, interval=None, interval_method="")
        if stated.interval is not None and counted:
            folded = mean_of_scores(stated).of(counted)
        metrics[name] = replace(folded, value=math.fsum(values) / len(values))
    return replace(
        results[0],
        metrics=metrics,
        counts=count(samples),
        repeats=len(rounds),
        breakdowns={"repeat": {str(n): one.main for n, one in enumerate(results, start=1)}},
    )


def first_filter(logged: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Every filter pipeline logs every doc again; the first pipeline is the task's own."""
    first = logged[0]["filter"] if logged else None
    return (entry for entry in logged if entry["filter"] == first)


def _answer(task: str, entry: Mapping[str, Any], usage: Mapping[UsageKey, RequestUsage]) -> Answer:
    keys = [(task, entry["doc_id"], index) for index in range(len(entry["arguments"]))]
    costs = tuple(usage[key] for key in keys if key in usage)
    if failure := entry.get("failure"):  # logged by us: lm-eval has no word for it
        costs = (RequestUsage(prompt_tokens=0, failure=str(failure)),)
    return Answer(
        position=entry["doc_id"],
        doc=entry["doc"],
        prompt=str(entry["arguments"][0][0]),
        response=_response([repeats[0] for repeats in entry["resps"]], costs),
    )


def _response(first_repeats: Sequence[Any], usage: tuple[RequestUsage, ...]) -> Response:
    """One text, or for each request a log-likelihood (with or without its greedy flag)."""
    if first_repeats and isinstance(first_repeats[0], str):
        return Response(text=first_repeats[0], usage=usage)
    if any(cost.failure for cost in usage):
        return Response(usage=usage)
    pairs = ((r[0] if isinstance(r, tuple | list) else r) for r in first_repeats)
    return Response(log_likelihoods=tuple(float(value) for value in pairs), usage=usage)


def _score_metric(
    entries: Sequence[Mapping[str, Any]], lower_is_better: Collection[str]
) -> str | None:
    names = dict.fromkeys(name for entry in entries for name in _numbers(entry))
    return next((name for name in names if name not in lower_is_better), None)


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """A doc's metrics, but for those that are no number before they are put together."""
    values = {name: entry.get(name) for name in entry["metrics"]}
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


def _foreign_sample(
    task: str, entry: Mapping[str, Any], answer: Answer, metric: str | None
) -> Sample:
    numbers = _numbers(entry)
    failure = failure_of(answer.response)
    if metric and metric not in numbers and not failure:
        failure = f"lm-eval has no finite {metric} for it"
    usage = answer.response.usage
    filtered = entry["filtered_resps"][0]
    doc = _plain(answer.doc)
    return Sample(
        task=task,
        doc_id=fingerprint(doc),
        position=answer.position,
        doc=doc,
        prompt=answer.prompt,
        expected=str(entry["target"]),
        response=answer.response.text,
        log_likelihoods=answer.response.log_likelihoods,
        answered=filtered if isinstance(filtered, str) else None,
        reading=f"lm-eval filter {entry['filter']}",
        score=None if failure or metric is None else numbers[metric],
        status="failed" if failure else "scored",
        failure=failure,
        counts=numbers,
        prompt_tokens=sum(u.prompt_tokens for u in usage),
        generated_tokens=sum(u.generated_tokens for u in usage),
        finish=usage[-1].finish if usage else "none",
        thought_tokens=usage[-1].thought_tokens if usage else None,
        forced=any(u.forced for u in usage),
    )


def _metric_value(
    name: str, value: float, samples: Sequence[Sample], higher_is_better: bool | None
) -> MetricValue:
    """lm-eval's own number, in the unit and direction that are known of it."""
    scored = [s for s in samples if s.status != "failed" and name in s.counts]
    scores = [sample.counts[name] for sample in scored]
    is_mean = bool(scores) and abs(sum(scores) / len(scores) - value) < 1e-9
    metric = foreign_metric(
        name,
        higher_is_better=higher_is_better,
        rights_and_wrongs=is_mean and set(scores) <= {0.0, 1.0},
    )
    if not is_mean:
        return metric.stamped(MetricValue(value=value, n=len(scores) or len(samples)))
    return replace(metric.fold(scored), value=value)


def _plain(value: Any) -> Any:
    """A doc of lm-eval's own may hold what JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
