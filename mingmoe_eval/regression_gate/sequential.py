"""The regression gate that stops early: `gate --sequential --model CKPT --baseline RUN`.

A baseline's questions are put to a candidate in a fixed random order, and the difference is looked
at after every few. Bets (`metrics.betting`) keep the chance of a false alarm at alpha however often
one looks, so that the gate may end as soon as a regression, or equivalence, is settled. Answers go
into the response store: a later run of the whole reuses them.

A draw is one question, or all questions that hang together: about one case, or the same in several
tasks; its difference is the mean over them. All tasks are drawn from together. Half of alpha is for
the mean over all draws, the other half, in even parts, for a regression of any single task.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from mingmoe_eval.comparison.comparability import check_comparable
from mingmoe_eval.comparison.pairwise import name_of
from mingmoe_eval.comparison.verdict import ALPHA, MARGIN
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.exams.cases import clusters_of
from mingmoe_eval.metrics.betting import Evidence, settled
from mingmoe_eval.metrics.resampling import Mean
from mingmoe_eval.records import JsonDict, Run, RunSpec, Sample
from mingmoe_eval.scoring import metric_of

_FIRST, _GROWTH = 32, 0.1
"""Questions before the first look, and how many more before each next one: to look costs nothing,
but a batch must not be smaller than what a device computes at once."""


class Candidate(Protocol):
    """Whom the questions are put to."""

    def ask(self, docs: Mapping[str, Sequence[str]]) -> Run:
        """A run over these docs alone, by task and id; calls add nothing to each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialRules:
    """When to stop.

    Attributes:
        margin: The largest difference that counts as none.
        alpha: The one-sided error rate, however often one looks.
        budget: Questions at most; None is all of them.
        seed: Of the order.
        allow: Kinds of difference between the runs to override, as for `compare`.
    """

    margin: float = MARGIN
    alpha: float = ALPHA
    budget: int | None = None
    seed: int = 1234
    allow: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSoFar:
    """One task when the gate stopped; its interval holds at every time, this task alone."""

    asked: int
    questions: int
    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialVerdict:
    """How a gate that stops early ended.

    Attributes:
        outcome: What is settled; `undecided` where all questions, or the budget, settled nothing.
        where: The task that regressed; "" for all together.
        mean: Of the differences, candidate minus baseline, over all draws.
        interval: Of its true value, at 1 - 2 alpha, whenever one stops.
        asked: Questions that were put to the candidate.
        questions: Questions that the baseline has.
        failed: Of those asked, without an answer that could be scored; they are left out.
        seconds: What asking took.
        tasks: By task.
        left_out: Task -> why it is no part of this.
    """

    baseline: str
    candidate: str
    rules: SequentialRules
    outcome: Literal["regressed", "improved", "equivalent", "undecided"]
    where: str
    mean: float
    interval: tuple[float, float]
    asked: int
    questions: int
    failed: int
    seconds: float
    tasks: Mapping[str, TaskSoFar]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """More than 0.1 % of what was asked failed: nothing can be said of such a candidate."""
        return self.failed > 1e-3 * self.asked

    @property
    def saved_seconds(self) -> float:
        """What the rest of the questions would have taken, at the rate of those asked."""
        return self.seconds / max(self.asked, 1) * (self.questions - self.asked)

    def exit_status(self, *, strict: bool) -> int:
        """0 passed, 1 failed, 3 undecided (only when strict)."""
        if self.outcome == "regressed" or self.incomplete:
            return 1
        return 3 if strict and self.outcome == "undecided" else 0

    @property
    def sentence(self) -> str:
        """What is settled, after how many questions, and what was saved."""
        low, high = (f"{100 * end:+.2f}" for end in self.interval)
        share = f"{100 * self.asked / max(self.questions, 1):.0f} %"
        asked = f"{self.asked:,} of {self.questions:,} questions ({share})"
        said = f"{self.candidate} against {self.baseline}: {self.outcome} after {asked}, "
        if self.where:
            one = self.tasks[self.where]
            task_low, task_high = (f"{100 * end:+.2f}" for end in one.interval)
            said += f"on {self.where} by {100 * one.mean:+.2f} points [{task_low}, {task_high}]; "
            said += "all together "
        said += f"{100 * self.mean:+.2f} points [{low}, {high}]"
        if self.outcome == "undecided":
            said += f"; a loss of up to {max(0.0, -100 * self.interval[0]):.1f} points could still "
            said += "be hiding"
        rest = self.questions - self.asked
        if rest:
            said += (
                f"; {rest:,} questions were not asked, about {_time(self.saved_seconds)} at this"
            )
            said += " rate"
        return said


def judge_sequentially(
    baseline: Run, candidate: Candidate, rules: SequentialRules
) -> SequentialVerdict:
    """Ask until something is settled, or the budget ends.

    Raises:
        UsageError: the rules make no sense, or no task can be judged in this way.
        IncomparableRunsError: the candidate's answers cannot be held against the baseline's; found
            after the first few questions.
    """
    if not 0 < rules.margin < 1 or not 0 < rules.alpha < 0.5:
        raise UsageError("margin must lie between 0 and 1, alpha between 0 and 0.5")
    if rules.budget is not None and rules.budget < 1:
        raise UsageError(f"a budget of {rules.budget} questions asks nothing")
    if baseline.spec.repeats > 1:
        raise UsageError(
            f"{baseline.name} was asked each question {baseline.spec.repeats} times: the gate that "
            "stops early asks once; use a baseline that was"
        )
    samples, left_out = judgeable(baseline)
    if not samples:
        reasons = "; ".join(f"{task}: {why}" for task, why in left_out.items())
        raise UsageError(
            f"no task of {baseline.name} can be judged question by question: {reasons}"
        )
    draws = _draws(samples, rules.seed)
    pooled, by_task = Evidence(), {task: Evidence() for task in samples}
    alone = len(samples) == 1
    alphas = (rules.alpha, 0.0) if alone else (rules.alpha / 2, rules.alpha / 2 / len(samples))
    counts: dict[str, int] = dict.fromkeys(samples, 0)
    failed, seconds, outcome, where, run = 0, 0.0, "", "", None
    identical = True
    for chunk in _chunks(draws, rules.budget):
        asked = _by_task(chunk)
        run = candidate.ask({task: [s.doc_id for s in one] for task, one in asked.items()})
        _refuse_others(baseline, run, asked, rules.allow)
        seconds += float(run.timing.get("seconds", 0.0))
        for task, one in asked.items():
            counts[task] += len(one)
        answers = {(task, s.doc_id): s for task in asked for s in run.samples.get(task, ())}
        for draw in chunk:
            moves = defaultdict(list)
            for before in draw:
                after = answers.get((before.task, before.doc_id))
                if after is None or after.score is None or before.score is None:
                    failed += 1
                    identical = False
                else:
                    moves[before.task].append(after.score - before.score)
                    identical &= _same_answer(before, after)
            for task, moved in moves.items():
                by_task[task].add([math.fsum(moved) / len(moved)])
            every = [m for moved in moves.values() for m in moved]
            pooled.add([math.fsum(every) / len(every)] if every else [])
        outcome = settled(pooled, margin=rules.margin, alpha=alphas[0])
        if alphas[1] and outcome != "regressed":
            # A loss in one task outweighs that all of them together are settled.
            for task, evidence in by_task.items():
                if settled(evidence, margin=rules.margin, alpha=alphas[1]) == "regressed":
                    outcome, where = "regressed", task
        if outcome:
            break
    assert run is not None
    if not outcome and identical and sum(counts.values()) == sum(map(len, samples.values())):
        outcome = "equivalent"  # every answer of a whole run is the same, however few they are
    return SequentialVerdict(
        baseline=baseline.name,
        candidate=run.spec.model,
        rules=rules,
        outcome=outcome or "undecided",  # type: ignore[arg-type]
        where=where,
        mean=pooled.mean,
        interval=pooled.interval(alphas[0]),
        asked=sum(counts.values()),
        questions=sum(map(len, samples.values())),
        failed=failed,
        seconds=seconds,
        tasks={
            task: TaskSoFar(
                asked=counts[task],
                questions=len(samples[task]),
                mean=by_task[task].mean,
                interval=by_task[task].interval(alphas[1] or alphas[0]),
            )
            for task in samples
        },
        left_out=left_out,
    )


def candidate_spec(baseline: Run, model: str, **changes: Any) -> RunSpec:
    """The baseline's run with another model; `changes` of other fields where they are not None.

    Only tasks that can be judged are in it, without a limit: which docs are asked, the baseline's
    samples say. Answers go into the shared store, so that a later run of the whole has them.
    """
    said = {name: value for name, value in changes.items() if value is not None}
    tasks = tuple(judgeable(baseline)[0])
    same = replace(baseline.spec, model=model, base=None, tasks=tasks, limit=None, cache=True)
    return replace(same, **said)


def sequential_json(verdict: SequentialVerdict, *, strict: bool) -> JsonDict:
    """Everything that the verdict says, for machines."""
    return {
        "outcome": verdict.outcome,
        "exit_status": verdict.exit_status(strict=strict),
        "sentence": verdict.sentence,
        "baseline": verdict.baseline,
        "candidate": verdict.candidate,
        "where": verdict.where,
        "margin": verdict.rules.margin,
        "alpha": verdict.rules.alpha,
        "mean": verdict.mean,
        "interval": list(verdict.interval),
        "asked": verdict.asked,
        "questions": verdict.questions,
        "failed": verdict.failed,
        "seconds": verdict.seconds,
        "saved_seconds": verdict.saved_seconds,
        "tasks": {
            task: {
                "asked": one.asked,
                "questions": one.questions,
                "mean": one.mean,
                "interval": list(one.interval),
            }
            for task, one in verdict.tasks.items()
        },
        "left_out": dict(verdict.left_out),
    }


def sequential_rows(verdict: SequentialVerdict) -> list[tuple[str, ...]]:
    """For a table: task, questions asked and there, difference so far, its interval."""
    return [
        (
            task,
            f"{one.asked:,} / {one.questions:,}",
            f"{100 * one.mean:+.2f}",
            f"{100 * one.interval[0]:+.2f} to {100 * one.interval[1]:+.2f}",
        )
        for task, one in verdict.tasks.items()
    ]


HEADINGS = ("task", "asked", "difference so far", "interval at any time")


def judgeable(baseline: Run) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """Tasks whose metric is the mean of what docs earn, more of which is better."""
    samples: dict[str, list[Sample]] = {}
    left_out = {}
    for task, result in baseline.leaves.items():
        metric = metric_of(result)
        own = [s for s in baseline.samples.get(task, ()) if not s.variant and s.score is not None]
        if not result.suite:
            left_out[task] = "lm-eval scores it as a whole"
        elif not isinstance(metric.resampling, Mean) or metric.unit != "share":
            left_out[task] = f"its metric, {metric.name}, is no mean over questions"
        elif not own:
            left_out[task] = "no question has a score"
        else:
            samples[task] = own
    return samples, left_out


def _draws(samples: Mapping[str, Sequence[Sample]], seed: int) -> list[list[Sample]]:
    """Questions in an order that seed and content fix, those that hang together as one draw."""
    groups: dict[str, list[Sample]] = {}
    called: dict[str, str] = {}
    for task, listed in samples.items():
        for sample, cluster in zip(listed, clusters_of(listed), strict=True):
            names = [f"question {name_of(sample)}"]
            if cluster is not None:
                names.append(f"{task} cluster {cluster}")
            known = list(dict.fromkeys(called[name] for name in names if name in called))
            label = known[0] if known else names[0]
            members = groups.setdefault(label, [])
            for other in known[1:]:  # a case of one task whose questions stand in two of another
                members += groups.pop(other)
                called.update({name: label for name, at in called.items() if at == other})
            members.append(sample)
            called.update(dict.fromkeys(names, label))
    labels = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(labels))
    return [groups[labels[place]] for place in order]


def _same_answer(one: Sample, other: Sample) -> bool:
    return (one.score, one.answered or one.response) == (
        other.score,
        other.answered or other.response,
    )


def _chunks(draws: Sequence[list[Sample]], budget: int | None) -> Iterator[list[list[Sample]]]:
    chunk: list[list[Sample]] = []
    asked = waiting = 0
    for draw in draws:
        if budget is not None and asked + waiting + len(draw) > budget and asked + waiting:
            break
        chunk.append(draw)
        waiting += len(draw)
        if waiting >= max(_FIRST, _GROWTH * asked):
            yield chunk
            asked, waiting, chunk = asked + waiting, 0, []
    if chunk:
        yield chunk


def _by_task(chunk: Sequence[Sequence[Sample]]) -> dict[str, list[Sample]]:
    asked: dict[str, list[Sample]] = defaultdict(list)
    for draw in chunk:
        for sample in draw:
            asked[sample.task].append(sample)
    return dict(asked)


def _refuse_others(
    baseline: Run, run: Run, asked: Mapping[str, Sequence[Sample]], allow: frozenset[str]
) -> None:
    """Refuse answers to other questions, or asked in another way, than the baseline's."""
    lacking = [task for task in asked if task not in run.samples]
    if lacking:
        raise IncomparableRunsError(f"the candidate was not asked {', '.join(lacking)}")
    same = replace(
        baseline,
        results={task: baseline.results[task] for task in asked},
        samples={task: list(listed) for task, listed in asked.items()},
    )
    check_comparable(same, run, allow)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
