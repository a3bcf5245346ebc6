"""What a run's routers did with its tokens, as the page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.records import Run
from mingmoe_eval.report.view import Column

PHASES = ("prompt", "generated")

FIGURES = ("variation", "largest_violation", "dead_experts", "token_entropy", "mean_entropy")
"""The figures of a task that the page shows; docs/routing.md defines them."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The figures of the prompts, or of the generated tokens.

    Attributes:
        name: `prompt` or `generated`.
        tasks: Task -> figure (`tokens` and `FIGURES`) -> value, None where the run lacks it.
        information: Bits that a choice of expert tells of the task: `bits`, `shuffled_bits` and
            `above_chance_bits`; empty where there is one task only.
        distance_tasks: The columns of `distance`.
        distance: Task -> Jensen-Shannon distance to every task; empty where there is one only.
    """

    name: str
    tasks: Mapping[str, Mapping[str, float | None]]
    information: Mapping[str, float]
    distance_tasks: Sequence[str]
    distance: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a run's routers sent the tokens; the shares of a task or of a layer add up to 1.

    Attributes:
        column: The run.
        tasks: Task -> share by expert, the mean over the layers.
        layers: Task -> layer -> share by expert.
        even: Share by expert if every router spread its tokens evenly.
        experts: How many experts all routers have together; None where the run does not say.
        uncounted: Answers whose counts are not there.
        phases: The figures, phase by phase.
    """

    column: Column
    tasks: Mapping[str, Sequence[float]]
    layers: Mapping[str, Mapping[str, Sequence[float]]]
    even: Sequence[float]
    experts: int | None
    uncounted: int
    phases: tuple[Phase, ...]


def routing(runs: Sequence[Run], shown: Sequence[Column]) -> list[Routing]:
    """What the routers of each run did, of those runs that have any."""
    return [
        _routing(run.routing, column)
        for run, column in zip(runs, shown, strict=True)
        if run.routing and run.routing.get("tasks")
    ]


def _routing(facts: Mapping[str, Any], column: Column) -> Routing:
    layers = {
        task: {str(layer): _shares(load) for layer, load in enumerate(one["load"])}
        for task, one in facts["tasks"].items()
    }
    tasks = {task: _mean(list(grid.values())) for task, grid in layers.items()}
    metrics = facts.get("metrics") or {}
    sizes = [int(router["experts"]) for router in facts.get("layers") or ()]
    return Routing(
        column=column,
        tasks=tasks,
        layers=layers,
        even=_even(sizes, max(map(len, tasks.values()))),
        experts=sum(sizes) or None,
        uncounted=sum(int(t.get("answers_without_counts") or 0) for t in facts["tasks"].values()),
        phases=tuple(_phase(name, metrics[name]) for name in PHASES if name in metrics),
    )


def _even(sizes: Sequence[int], most: int) -> list[float]:
    """By expert, the mean over routers of 1/N, and of 0 where a router has no such expert."""
    known = sizes or [most]
    return [sum(1 / n for n in known if expert < n) / len(known) for expert in range(most)]


def _phase(name: str, facts: Mapping[str, Any]) -> Phase:
    distance = facts.get("distance") or {"tasks": [], "matrix": []}
    return Phase(
        name=name,
        tasks={
            task: {figure: figures.get(figure) for figure in ("tokens", *FIGURES)}
            for task, figures in (facts.get("tasks") or {}).items()
        },
        information=facts.get("information") or {},
        distance_tasks=distance["tasks"],
        distance=dict(zip(distance["tasks"], distance["matrix"], strict=True)),
    )


def _shares(load: Sequence[float]) -> list[float]:
    total = sum(load)
    return [one / total if total else 0.0 for one in load]


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
