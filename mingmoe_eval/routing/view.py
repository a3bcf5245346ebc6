"""What a run's routers did with its tokens, read from the `routing` of its run.json for a page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NotRequired, TypedDict

from mingmoe_eval.routing.counts import PHASES

FIGURES = (
    "variation",
    "largest_violation",
    "balance",
    "dead_experts",
    "token_entropy",
    "mean_entropy",
)
"""The figures of a task that the page shows; docs/routing.md defines them."""

MOST_MEETINGS = 12
"""Routers whose co-activation the page shows: a large model has hundreds."""


_Number = float | Literal["nan", "inf", "-inf"] | None


class _Router(TypedDict):
    experts: int


class _Chosen(TypedDict):
    chosen: list[int]


class _Counts(TypedDict):
    layers: dict[str, _Chosen]


class _TaskFacts(TypedDict):
    load: list[list[float]]
    answers_without_counts: NotRequired[int]
    prompt: NotRequired[_Counts]
    generated: NotRequired[_Counts]


class _Information(TypedDict):
    bits: float
    shuffled_bits: float
    above_chance_bits: float


class _Distance(TypedDict):
    tasks: list[str]
    matrix: list[list[float]]


class _Agreement(TypedDict):
    layers: tuple[str, str]
    share: float
    chance: float


class _Lifts(TypedDict, total=False):
    lift: list[list[float | None]]
    chance_lift: _Number


class _PhaseFacts(TypedDict, total=False):
    tasks: dict[str, dict[str, _Number]]
    information: _Information | None
    distance: _Distance | None
    agreement: list[_Agreement]
    layers: dict[str, _Lifts]


class RoutingFacts(TypedDict, total=False):
    """What is read of the `routing` of a run.json; `record` says what else it holds."""

    layers: list[_Router]
    tasks: dict[str, _TaskFacts]
    metrics: dict[str, _PhaseFacts]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two kinds of router of one layer choose the same experts, the mean over layers."""

    routers: str
    share: float
    lowest: float
    highest: float
    chance: float


@dataclass(frozen=True, slots=True)
class Meeting:
    """The pairs of experts of one router that meet most and least often in a token.

    `most` and `least` are how many times as often as if the experts were drawn evenly.
    """

    router: str
    most_pair: str
    most: float
    least_pair: str
    least: float


@dataclass(frozen=True, slots=True)
class Phase:
    """The figures of the prompts, or of the generated tokens.

    Attributes:
        name: `prompt` or `generated`.
        loads: Task -> share by expert, the mean over the routers; empty where the run lacks it.
        tasks: Task -> figure (`tokens` and `FIGURES`) -> value, None where the run lacks it.
        information: Bits that a choice of expert tells of the task: `bits`, `shuffled_bits` and
            `above_chance_bits`; empty where there is one task only.
        distance_tasks: The columns of `distance`.
        distance: Task -> Jensen-Shannon distance to every task; empty where there is one only.
        agreements: By kinds of router, such as gate and up.
        meetings: Of the routers furthest from chance, at most `MOST_MEETINGS`.
    """

    name: str
    loads: Mapping[str, Sequence[float]]
    tasks: Mapping[str, Mapping[str, float | None]]
    information: Mapping[str, float]
    distance_tasks: Sequence[str]
    distance: Mapping[str, Sequence[float]]
    agreements: Sequence[Agreement]
    meetings: Sequence[Meeting]


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a run's routers sent the tokens; the shares of a task or of a layer add up to 1.

    Attributes:
        tasks: Task -> share by expert, the mean over the layers.
        layers: Task -> layer -> share by expert.
        even: Share by expert if every router spread its tokens evenly.
        experts: How many experts all routers have together; None where the run does not say.
        uncounted: Answers whose counts are not there.
        phases: The figures, phase by phase.
    """

    tasks: Mapping[str, Sequence[float]]
    layers: Mapping[str, Mapping[str, Sequence[float]]]
    even: Sequence[float]
    experts: int | None
    uncounted: int
    phases: tuple[Phase, ...]


def read_routing(facts: Mapping[str, Any] | None) -> Routing | None:
    """What the routers of a run did; None of a run without any."""
    if not facts or not facts.get("tasks"):
        return None
    layers = {
        task: {str(layer): _shares(load) for layer, load in enumerate(one["load"])}
        for task, one in facts["tasks"].items()
    }
    tasks = {task: _mean(list(grid.values())) for task, grid in layers.items()}
    metrics = facts.get("metrics") or {}
    sizes = [int(router["experts"]) for router in facts.get("layers") or ()]
    return Routing(
        tasks=tasks,
        layers=layers,
        even=_even(sizes, max(map(len, tasks.values()))),
        experts=sum(sizes) or None,
        uncounted=sum(int(t.get("answers_without_counts") or 0) for t in facts["tasks"].values()),
        phases=tuple(_phase(name, facts, metrics[name]) for name in PHASES if name in metrics),
    )


def _even(sizes: Sequence[int], most: int) -> list[float]:
    """By expert, the mean over routers of 1/N, and of 0 where a router has no such expert."""
    known = sizes or [most]
    return [sum(1 / n for n in known if expert < n) / len(known) for expert in range(most)]


def _phase(name: str, run: Mapping[str, Any], facts: Mapping[str, Any]) -> Phase:
    distance = facts.get("distance") or {"tasks": [], "matrix": []}
    return Phase(
        name=name,
        loads={
            task: _mean([_shares(layer["chosen"]) for layer in of_phase["layers"].values()])
            for task, counts in run["tasks"].items()
            if (of_phase := counts.get(name))
        },
        tasks={
            task: {figure: figures.get(figure) for figure in ("tokens", *FIGURES)}
            for task, figures in (facts.get("tasks") or {}).items()
        },
        information=facts.get("information") or {},
        distance_tasks=distance["tasks"],
        distance=dict(zip(distance["tasks"], distance["matrix"], strict=True)),
        agreements=_agreements(facts.get("agreement") or ()),
        meetings=_meetings(facts.get("layers") or {}),
    )


def _agreements(pairs: Sequence[Mapping[str, Any]]) -> list[Agreement]:
    """The pairs of one kind put together: gate with up of every layer, and so on."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for pair in pairs:
        names = " + ".join(path.rpartition(".")[2] for path in pair["layers"])
        kinds.setdefault(names, []).append(pair)
    return [
        Agreement(
            routers=names,
            share=sum(pair["share"] for pair in of_kind) / len(of_kind),
            lowest=min(pair["share"] for pair in of_kind),
            highest=max(pair["share"] for pair in of_kind),
            chance=sum(pair["chance"] for pair in of_kind) / len(of_kind),
        )
        for names, of_kind in kinds.items()
    ]


def _meetings(layers: Mapping[str, Mapping[str, Any]]) -> list[Meeting]:
    met = [meeting for path, facts in layers.items() for meeting in _meeting(path, facts)]
    order = {meeting.router: place for place, meeting in enumerate(met)}
    # As ratios: three times as often and a third as often are equally far from chance.
    furthest = sorted(met, key=lambda one: min(1 / max(one.most, 1), one.least))[:MOST_MEETINGS]
    return sorted(furthest, key=lambda one: order[one.router])


def _meeting(path: str, facts: Mapping[str, Any]) -> Iterator[Meeting]:
    """Nothing of a router of which a token passes one expert only, or two in all."""
    chance = facts.get("chance_lift")
    lifts = [
        (lift / chance, f"{one} + {other}")
        for one, row in enumerate(facts.get("lift") or ())
        for other, lift in enumerate(row)
        if other > one and lift is not None and chance and math.isfinite(chance)
    ]
    if len(lifts) > 1:
        (least, least_pair), (most, most_pair) = min(lifts), max(lifts)
        yield Meeting(path, most_pair, most, least_pair, least)


def _shares(load: Sequence[float]) -> list[float]:
    total = sum(load)
    return [one / total if total else 0.0 for one in load]


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    """By expert; one that a row does not have counts as 0 there."""
    return [sum(column) / len(rows) for column in zip_longest(*rows, fillvalue=0.0)]
