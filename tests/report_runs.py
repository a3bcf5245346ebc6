"""Invented runs for the tests of pages and tables."""

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

from mingmoe_eval.records import (
    Counts,
    MetricValue,
    Run,
    RunSpec,
    Sample,
    TaskResult,
    fingerprint,
)

Reply = Callable[[int], tuple[str | None, str]]
"""Of a doc's number: the letter that was read (None: none) and the whole response."""

ROUTING = {
    "layers": [{"path": "l.0", "experts": 2, "top_k": 1}, {"path": "l.1", "experts": 4}],
    "tasks": {
        "cmexam": {"load": [[0.75, 0.25, 0, 0], [0.25, 0.25, 0.5, 0]], "answers_without_counts": 3},
        "usmle": {"load": [[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]},
    },
    "metrics": {
        "prompt": {
            "tasks": {
                "cmexam": {
                    "tokens": 4000,
                    "variation": 0.311,
                    "largest_violation": 0.401,
                    "dead_experts": 1,
                    "token_entropy": 0.662,
                    "mean_entropy": 0.958,
                },
                "usmle": {"tokens": 3000, "variation": 0.0},
            },
            "information": {"bits": 0.052, "shuffled_bits": 0.0031, "above_chance_bits": 0.0489},
            "distance": {"tasks": ["cmexam", "usmle"], "matrix": [[0.0, 0.123], [0.123, 0.0]]},
        }
    },
}
"""What two routers, of two and of four experts, did in two tasks."""


def exam_samples(task: str, docs: int, reply: Reply, *, prompt: str = "") -> list[Sample]:
    """Single-answer questions whose right answer is always A."""
    samples = []
    for number in range(docs):
        question = f"{task} 第{number}题：下列哪一项正确？"
        doc = {
            "question": question,
            "options": {"A": "甲", "B": "乙"},
            "answer": "A",
            "single": True,
        }
        answered, response = reply(number)
        samples.append(
            Sample(
                task=task,
                doc_id=fingerprint(doc),
                position=number,
                doc=doc,
                prompt=f"{prompt}{question}\nA. 甲\nB. 乙\n答案：",
                expected="A",
                response=response,
                answered=answered,
                reading="an answer cue" if answered else "no answer found",
                score=float(answered == "A"),
                status="unanswered" if answered is None else "scored",
                tags={"track": "pharmacy" if number % 2 else "tcm"},
                finish="stop",
                prompt_tokens=40,
                generated_tokens=len(response),
            )
        )
    return samples


def exam_result(task: str, samples: list[Sample], **facts: Any) -> TaskResult:
    scored = [s for s in samples if s.status != "failed"]
    right = sum(s.score or 0.0 for s in scored)
    by_tag: dict[str, list[float]] = {}
    for sample in scored:
        by_tag.setdefault(sample.tags.get("track", ""), []).append(sample.score or 0.0)
    return TaskResult(
        task=task,
        main_metric="score",
        metrics={"score": accuracy(right, len(scored)), "acc": accuracy(right, len(scored))},
        counts=Counts(
            docs=len(samples),
            unanswered=sum(s.status == "unanswered" for s in samples),
            truncated=sum(s.finish == "length" for s in samples),
            failed=sum(s.status == "failed" for s in samples),
        ),
        breakdowns={"track": {tag: accuracy(sum(v), len(v)) for tag, v in by_tag.items()}},
        **{"chance": 0.5, "version": "1.0", "suite": "choice", "seconds": 12.5, **facts},
    )


def accuracy(right: float, n: int) -> MetricValue:
    value = right / n if n else float("nan")
    reach = 1.96 * (value * (1 - value) / n) ** 0.5 if n else 0.0
    return MetricValue(
        value=value, n=n, interval=(value - reach, value + reach), interval_method="normal"
    )


def exam_run(
    name: str,
    samples: Mapping[str, list[Sample]],
    *,
    spec: Mapping[str, Any] | None = None,
    results: Mapping[str, TaskResult] | None = None,
    **facts: Any,
) -> Run:
    return Run(
        name=name,
        spec=RunSpec(model=f"models/{name}", tasks=tuple(samples), **(spec or {})),
        provenance={
            "mingmoe_eval": "0.1.0",
            "model": {"parameters": {"total": 7_700_000_000, "trainable": 207_300_000}},
            "tasks": {task: {"data_fingerprint": "d0"} for task in samples},
        },
        results=results or {t: exam_result(t, s) for t, s in samples.items()},
        samples=samples,
        timing={"seconds": 12.5, "prompt_tokens": 4000, "generated_tokens": 900},
        **facts,
    )


def with_orders(run: Run, task: str) -> Run:
    """The run as if this task's questions had been asked under two orders."""
    values = {
        "robust_accuracy": MetricValue(value=0.515, n=60, interval=(0.4, 0.63)),
        "consistency": MetricValue(value=0.333, n=30, interval=(0.2, 0.51)),
        "same_answer": MetricValue(value=0.367, n=30, interval=(0.22, 0.54)),
        "position_bias": MetricValue(value=0.071, n=30, interval=(0.02, 0.19)),
    }
    worse, better = MetricValue(value=0.437, n=30), MetricValue(value=0.593, n=30)
    tables = {
        "option_order": {"BA": worse, "own": better},
        "key_position": {"A": better, "<b>": worse},
    }
    result = run.results[task]
    changed = dataclasses.replace(
        result,
        metrics={**result.metrics, **values},
        breakdowns={**result.breakdowns, **tables},
    )
    spec = dataclasses.replace(run.spec, permute_options="cyclic")
    return dataclasses.replace(run, spec=spec, results={**run.results, task: changed})


def guessing(seed: int, share_right: float) -> Reply:
    """A model that answers a share of the questions right, always the same ones for a seed."""
    rng = random.Random(seed)
    drawn = [rng.random() for _ in range(25_000)]

    def reply(number: int) -> tuple[str | None, str]:
        if drawn[number] > 0.97:
            return None, "我无法回答这个问题。"
        letter = "A" if drawn[number] < share_right else "B"
        return letter, f"先看选项。综合考虑，答案是{letter}。"

    return reply
