"""Invented runs for the tests of comparisons and of the regression gate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mingmoe_eval.records import Counts, MetricValue, Run, RunSpec, Sample, TaskResult


def make_samples(
    scores: Sequence[float | None], task: str = "usmle", **changes: Any
) -> list[Sample]:
    """One sample a score; None is a failed doc. `changes` are fields, the same for all."""
    return [
        Sample(
            **{
                "task": task,
                "doc_id": f"doc{number}",
                "position": number,
                "doc": {"question": f"question {number}"},
                "prompt": f"question {number}",
                "expected": "A",
                "answered": None if score is None else ("A" if score == 1 else "B"),
                "score": score,
                "status": "failed" if score is None else "scored",
                **changes,
            }
        )
        for number, score in enumerate(scores)
    ]


def make_result(samples: Sequence[Sample], **changes: Any) -> TaskResult:
    """The result of a task whose main metric is the mean of its samples' scores."""
    scores = [sample.score for sample in samples if sample.score is not None]
    mean = MetricValue(value=float(np.mean(scores)) if scores else float("nan"), n=len(scores))
    counts = Counts(docs=len(samples), failed=sum(s.status == "failed" for s in samples))
    facts = {
        "task": samples[0].task,
        "main_metric": "score",
        "metrics": {"score": mean, "acc": mean},
        "counts": counts,
        "version": "1.0",
    }
    return TaskResult(**{**facts, **changes})


def make_run(name: str, tasks: Mapping[str, Sequence[Sample]], **changes: Any) -> Run:
    """A run over these tasks' samples."""
    facts = {
        "name": name,
        "spec": RunSpec(model=name, tasks=tuple(tasks)),
        "provenance": {
            "tasks": {task: {"data_fingerprint": "d", "form": "direct"} for task in tasks}
        },
        "results": {task: make_result(samples) for task, samples in tasks.items()},
        "samples": dict(tasks),
    }
    return Run(**{**facts, **changes})


def flipped(scores: Sequence[float], *, lost: int, gained: int) -> list[float]:
    """Right and wrong scores with the first so many right ones lost and wrong ones gained."""
    right = [index for index, score in enumerate(scores) if score == 1][:lost]
    wrong = [index for index, score in enumerate(scores) if score == 0][:gained]
    assert len(right) == lost
    assert len(wrong) == gained
    changed = list(scores)
    for index in (*right, *wrong):
        changed[index] = 1 - changed[index]
    return changed
