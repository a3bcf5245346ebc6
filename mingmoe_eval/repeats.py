"""The same questions asked several times by sampling: which samples belong together, and folding.

A number of a task is the mean of what each repeat by itself would report; its interval takes the
repeats of a question for one draw, since they are right and wrong together.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.exams.cases import clusters_of
from mingmoe_eval.metrics import repeated
from mingmoe_eval.records import MetricValue, RunSpec, Sample

Fold = Callable[[Sequence[Sample]], Mapping[str, MetricValue]]
"""A task's metrics from its samples, each taken once."""


def seed_of(spec: RunSpec, repeat: int) -> int:
    """The seed of a repeat, which a run of its own would have to name to give the same answers."""
    return int(spec.gen_kwargs.get("seed", spec.seed)) + repeat


def refuse_without_draws(spec: RunSpec, greedy: Mapping[str, bool]) -> None:
    """Refuse repeats of what is the same every time.

    Args:
        spec: The run's.
        greedy: By task that generates texts, whether nothing is drawn.

    Raises:
        UsageError: naming the tasks, and how to have them sampled.
    """
    if spec.repeats < 2:
        return
    if spec.permute_options is not None:
        raise UsageError(
            "--repeats and --permute-options both ask a question several times: leave one out"
        )
    if not greedy:
        raise UsageError(
            f"--repeats {spec.repeats}: these tasks compare log-likelihoods, which are the same "
            "every time; leave it out, or take the tasks' plain or _cot form"
        )
    if alike := [task for task, nothing_drawn in greedy.items() if nothing_drawn]:
        raise UsageError(
            offence_list(
                f"--repeats {spec.repeats}: nothing is drawn here, so that every repeat is the "
                "same answer; add --gen-kwargs temperature=0.6,top_p=0.95 or the like, or leave "
                "--repeats out",
                alike,
            )
        )


def draws(arguments: Mapping[str, Any]) -> bool:
    """Whether generation arguments ask for sampling; what the model recommends may be either."""
    if (asked := arguments.get("do_sample")) is not None:
        return bool(asked)
    return bool(arguments.get("temperature") or arguments.get("model"))


def repeats_of(samples: Sequence[Sample]) -> int:
    """How often each question was asked."""
    return 1 + max((sample.repeat for sample in samples), default=0)


def questions(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The repeats of each question together, in the order of the questions' first ones."""
    places = repeated.grouped([(sample.task, sample.doc_id) for sample in samples])
    return [[samples[place] for place in one] for one in places]


def question_means(samples: Sequence[Sample]) -> list[Sample]:
    """One sample a question, which earned what its repeats earned on average."""
    if repeats_of(samples) == 1:
        return list(samples)
    return [mean_of(one) for one in questions(samples)]


def mean_of(answers: Sequence[Sample]) -> Sample:
    """The first of a question's answers, with the mean of what all earned and counted.

    Failed ones say nothing. It is unanswered, or cut off, where more than half of them are.
    """
    if len(answers) == 1:
        return answers[0]
    usable = [one for one in answers if one.status != "failed"] or list(answers)
    scores = [one.score for one in usable if one.score is not None]
    shared = [name for name in usable[0].counts if all(name in one.counts for one in usable)]
    status = usable[0].status
    if status != "failed":
        silent = sum(one.status == "unanswered" for one in usable)
        status = "unanswered" if 2 * silent > len(usable) else "scored"
    cut = sum(one.finish == "length" for one in usable)
    return dataclasses.replace(
        usable[0],
        score=math.fsum(scores) / len(scores) if scores else None,
        counts={n: math.fsum(one.counts[n] for one in usable) / len(usable) for n in shared},
        status=status,
        finish="length" if 2 * cut > len(usable) else "stop",
        generated_tokens=round(sum(one.generated_tokens for one in usable) / len(usable)),
    )


def clustered(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples, of which those of one question, or of one case, form a cluster."""
    asked = questions(samples)
    named = zip(asked, clusters_of([one[0] for one in asked]), strict=True)
    cluster = {one[0].doc_id: name or f"question {one[0].doc_id}" for one, name in named}
    return [dataclasses.replace(one, cluster=cluster[one.doc_id]) for one in samples]


def fold(
    samples: Sequence[Sample], once: Fold, *, by_question: bool = False
) -> dict[str, MetricValue]:
    """A task's metrics over repeats, with what only repeats can tell.

    Args:
        samples: Those that did not fail, of all repeats.
        once: The task's metrics from samples of one.
        by_question: Each question has the mean of what there is of it, as where another program's
            log lacks some of its replies; only for metrics of scores and counts.
    """
    if by_question:
        rounds = [once(question_means(samples))]
    else:
        rounds = [once(one) for one in by_repeat(samples)]
    together = clustered(samples)
    pooled = once(together)
    metrics = {
        name: _mean_value([one[name] for one in rounds if name in one], value)
        for name, value in pooled.items()
    }
    return {**metrics, **_of_questions(together)}


def by_repeat(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each repeat by itself."""
    return [
        [samples[place] for place in one]
        for one in repeated.grouped([sample.repeat for sample in samples])
    ]


def scores_by_repeat(samples: Sequence[Sample], once: Fold) -> dict[str, MetricValue]:
    """What each repeat by itself would report as its score; counted from 1."""
    return {str(one[0].repeat + 1): once(one)["score"] for one in by_repeat(samples)}


def _mean_value(rounds: Sequence[MetricValue], pooled: MetricValue) -> MetricValue:
    """The mean of what the repeats report, as unsure as their docs together are by cluster.

    A mean of docs is the same both ways. A ratio of sums, such as micro F1, differs by next to
    nothing, and its interval is moved by as much.
    """
    known = [value for value in rounds if value.n and not math.isnan(value.value)]
    if not known:
        return pooled
    mean = math.fsum(value.value for value in known) / len(known)
    shift = mean - pooled.value
    interval = pooled.interval and (pooled.interval[0] + shift, pooled.interval[1] + shift)
    if interval and pooled.unit == "share":
        interval = max(0.0, min(interval[0], mean)), min(1.0, max(interval[1], mean))
    return dataclasses.replace(
        pooled, value=mean, interval=interval, n=max(value.n for value in known)
    )


def _of_questions(samples: Sequence[Sample]) -> dict[str, MetricValue]:
    """What several draws for a question tell; one of which a repeat failed is left out as a whole.

    A repeat that failed altogether is none. Nothing for metrics of which no doc has a share by
    itself, and where only one repeat is left.
    """
    repeats = len({sample.repeat for sample in samples})
    whole = [one for one in questions(samples) if len(one) == repeats]
    if repeats < 2 or any(sample.score is None for one in whole for sample in one):
        return {}
    return repeated.metrics(
        [
            repeated.Repeated(
                scores=tuple(float(sample.score or 0.0) for sample in one),
                answers=tuple(sample.answered for sample in one),
            )
            for one in whole
        ],
        [one[0].cluster for one in whole],
    )
