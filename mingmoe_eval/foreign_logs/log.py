"""What becomes of another program's log: a run, numbers to cite, and what is left out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mingmoe_eval.metrics.of_lm_eval import foreign_metric
from mingmoe_eval.records import (
    Finish,
    JsonDict,
    MetricValue,
    Run,
    RunSpec,
    Sample,
    TaskResult,
    fingerprint,
)
from mingmoe_eval.repeats import fold, repeats_of, scores_by_repeat
from mingmoe_eval.scoring import count, distinct_ids

ROUNDING = 2e-4
"""By how much a stated number may differ from what its docs give: programs round to four places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CitedNumber:
    """A number that comes without the docs behind it: nothing can be tested, but it can be cited.

    `value` is a share as a fraction of one, or a number in a unit of its own.
    """

    task: str
    metric: str
    value: float
    is_share: bool
    num_fewshot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One model's results, as another program left them.

    Attributes:
        name: What to call the run where the user does not say.
        run: None where no task has its docs.
        cited: Numbers of tasks without docs.
        left_out: What is in the log and not here, and why; a line each.
        source: The log, in words.
    """

    name: str
    model: str
    source: str
    run: Run | None = None
    cited: Sequence[CitedNumber] = ()
    left_out: tuple[str, ...] = ()

    def cited_source(self) -> JsonDict:
        """The numbers without docs, as `table --published FILE` reads them."""
        shares = [number for number in self.cited if number.is_share]
        shots = {number.num_fewshot for number in shares}
        return {
            "key": self.name,
            "title": self.model,
            "source": self.source,
            "arxiv": None,
            "tables": [
                {
                    "table": "",
                    "decimals": 2,
                    "note": "numbers as the program states them: no docs lie behind them here",
                    "columns": {
                        n.task: {"benchmark": n.task, "subset": "", "metric": f"{n.metric} %"}
                        for n in shares
                    },
                    "rows": [
                        {
                            "model": self.model,
                            "n_shot": str(*shots)
                            if len(shots) == 1 and None not in shots
                            else None,
                            "values": {n.task: round(100 * n.value, 2) for n in shares},
                        }
                    ],
                }
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDoc:
    """One question as another program logged it; None where it does not say.

    `values` are the numbers that its scorers gave, the one that counts first; a doc without any
    failed. `repeat`: which of several replies to one doc it is; they have the same `doc`.
    """

    position: int
    doc: Mapping[str, Any]
    prompt: str
    expected: str
    reply: str | None = None
    answered: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    finish: Finish = "none"
    prompt_tokens: int = 0
    generated_tokens: int = 0
    repeat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTask:
    """One task of a log: its docs, and the numbers that the log states for it, by metric."""

    name: str
    docs: Sequence[LoggedDoc]
    stated: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: frozenset[str] = frozenset()
    version: str = ""
    num_fewshot: int = 0
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


def run_of(
    tasks: Sequence[LoggedTask], *, name: str, spec: RunSpec, provenance: Mapping[str, Any]
) -> Run:
    """The tasks of one model as a run, with the scores that the program gave."""
    samples = {
        task.name: distinct_ids([_sample(task.name, doc) for doc in task.docs]) for task in tasks
    }
    repeats = max((repeats_of(listed) for listed in samples.values()), default=1)
    return Run(
        name=name,
        spec=replace(spec, repeats=repeats),
        provenance=provenance,
        results={task.name: _result(task, samples[task.name]) for task in tasks},
        samples=samples,
    )


def imported(
    source: str,
    model: str,
    tasks: Sequence[LoggedTask],
    *,
    left_out: Sequence[str],
    cited: Sequence[CitedNumber] = (),
) -> Imported:
    """What a program says of a model, where its log tells no more of the run than that."""
    spec = RunSpec(model=model, tasks=tuple(task.name for task in tasks))
    provenance = {"imported_from": source, "model": {"engine": source, "name": model}}
    return Imported(
        name=model,
        model=model,
        source=source,
        run=run_of(tasks, name=model, spec=spec, provenance=provenance) if tasks else None,
        cited=cited,
        left_out=tuple(left_out),
    )


def contradictions(task: LoggedTask) -> Iterator[str]:
    """Each number that a log states and its docs do not give, several replies to one averaged."""
    for metric, stated in task.stated.items():
        by_doc: dict[int, list[float]] = {}
        for doc in task.docs:
            if metric in doc.values:
                by_doc.setdefault(doc.position, []).append(doc.values[metric])
        values = [sum(replies) / len(replies) for replies in by_doc.values()]
        if values and abs(sum(values) / len(values) - stated) > ROUNDING:
            given = sum(values) / len(values)
            docs = f"its {len(values)} docs give {given:g}"
            yield f"{task.name}: {metric} is stated as {stated:g}, and {docs}"


def _sample(task: str, doc: LoggedDoc) -> Sample:
    values = {name: value for name, value in doc.values.items() if math.isfinite(value)}
    failure = doc.failure or ("" if values else "the log has no score for it")
    status = "unanswered" if doc.answered == "" else "scored"
    return Sample(
        task=task,
        doc_id=fingerprint(doc.doc),
        position=doc.position,
        doc=doc.doc,
        prompt=doc.prompt,
        expected=doc.expected,
        response=doc.reply,
        answered=doc.answered or None,
        reading="as read elsewhere",
        score=None if failure else next(iter(values.values())),
        status="failed" if failure else status,  # type: ignore[arg-type]
        failure=failure,
        counts={} if failure else values,
        finish=doc.finish,
        prompt_tokens=doc.prompt_tokens,
        generated_tokens=doc.generated_tokens,
        repeat=doc.repeat,
    )


def _result(task: LoggedTask, samples: Sequence[Sample]) -> TaskResult:
    scored = [sample for sample in samples if sample.status != "failed"]
    names = list(dict.fromkeys(name for sample in scored for name in sample.counts))

    def once(some: Sequence[Sample]) -> dict[str, MetricValue]:
        metrics = {name: _metric(task, name, some) for name in names}
        return {"score": metrics[names[0]] if names else _nothing(), **metrics}

    repeated = repeats_of(samples) > 1 and bool(scored)
    return TaskResult(
        task=task.name,
        main_metric="score",
        metrics=fold(scored, once, by_question=True) if repeated else once(scored),
        breakdowns={"repeat": scores_by_repeat(scored, once)} if repeated else {},
        repeats=repeats_of(samples),
        counts=count(samples),
        version=task.version,
        num_fewshot=task.num_fewshot,
        notes=task.notes,
        marks=task.marks,
    )


def _metric(task: LoggedTask, name: str, scored: Sequence[Sample]) -> MetricValue:
    with_it = [sample for sample in scored if name in sample.counts]
    metric = foreign_metric(
        name,
        higher_is_better=name not in task.lower_is_better,
        # Grades, and averages over several replies to a doc, lie between wrong and right.
        rights_and_wrongs=all(0 <= sample.counts[name] <= 1 for sample in with_it),
    )
    return metric.fold(with_it, [sample.cluster for sample in with_it])


def _nothing() -> MetricValue:
    return MetricValue(value=float("nan"), n=0, interval_method="no doc has a score")
