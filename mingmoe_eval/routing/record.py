"""What experts did in a run: counts task by task, and the figures made of them.

An answer's counts are those of all tokens that the model read for it, as if it had been asked by
itself: what several answers have in common counts for each. So sums are those of a run without
any shared prefix, padding or stored answers.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mingmoe_eval.language_model import Request
from mingmoe_eval.records import JsonDict
from mingmoe_eval.routing import expert_use
from mingmoe_eval.routing.account import RoutingSink
from mingmoe_eval.routing.counts import (
    PHASES,
    Array,
    LayerCounts,
    RoutedLayer,
    RoutingCounts,
    RoutingLayout,
    no_counts,
)

PARTS = 16
"""Docs of a task are dealt into so many parts, which the shuffle baseline deals to other tasks."""

_LAYER_INDEX = re.compile(r"\.(\d+)\.")
_DIGITS = 4


@dataclass(slots=True, eq=False)
class TaskRouting:
    """One task's sums; `parts` [phases, PARTS, choices] split `chosen` by doc."""

    counts: RoutingCounts
    parts: Array
    answers: int = 0
    answers_without_counts: int = 0


@dataclass(slots=True, eq=False)
class RunRouting:
    """The sums of all tasks of a run."""

    layout: RoutingLayout
    tasks: dict[str, TaskRouting] = field(default_factory=dict)
    _chosen: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._chosen = self.layout.chosen_places()

    def add(self, task: str | None, doc: int | None, counts: RoutingCounts | None) -> None:
        """One answer's counts; None or not finite: it has none, and is only counted.

        A request that lm-eval's evaluator did not make has no task and no doc: they go under "".
        """
        task = task or ""
        sums = self.tasks.get(task)
        if sums is None:
            empty = np.zeros((len(PHASES), PARTS, len(self._chosen)))
            sums = self.tasks[task] = TaskRouting(no_counts(self.layout), empty)
        sums.answers += 1
        if counts is None or not counts.is_finite:
            sums.answers_without_counts += 1
            return
        sums.counts += counts
        # By doc and not by token: the tokens of one doc are no independent draws.
        sums.parts[:, (doc or 0) % PARTS] += counts.values[:, self._chosen]

    def to_json(self) -> JsonDict:
        """For run.json: counts task by task, and the figures of `routing_metrics`."""
        return {
            "layers": [
                {"path": one.path, "experts": one.experts, "top_k": one.top_k}
                for one in self.layout.layers
            ],
            "tasks": {name: _task_json(self.layout, sums) for name, sums in self.tasks.items()},
            "metrics": routing_metrics(self),
        }


Routed = tuple[Request, bytes]
"""A request, and the key of its routing: empty where nothing is stored."""


class CountsStore(Protocol):
    """As much of a response store as keeps packed counts by their keys."""

    def get_routing(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those that are there."""

    def put_routing(self, counts: Mapping[bytes, bytes]) -> None:
        """Keep them."""


class RoutingRecord:
    """The counts of one call's answers.

    Args:
        routing: the sums that they go into.
        store: keeps them; without it, answers are counted as they come.
    """

    def __init__(self, routing: RunRouting, store: CountsStore | None) -> None:
        self._routing, self._store = routing, store

    def add_stored(self, answered: Sequence[Routed]) -> None:
        """Counts of answers that came out of the store; such as have none there are told apart."""
        if self._store is None or not answered:
            return
        packed = self._store.get_routing(list({key for _, key in answered}))
        for request, key in answered:
            data = packed.get(key)
            counts = RoutingCounts.from_bytes(data, self._routing.layout) if data else None
            self._routing.add(request.task_name, request.doc_id, counts)

    def sink(self, asked: Sequence[Routed]) -> RoutingSink:
        """What to tell of the counts of answers that the model gives now."""

        def add(counted: list[tuple[int, RoutingCounts]]) -> None:
            for place, counts in counted:
                request, _ = asked[place]
                self._routing.add(request.task_name, request.doc_id, counts)
            if self._store is not None:
                sound = {asked[place][1]: c for place, c in counted if c.is_finite}
                self._store.put_routing({key: c.to_bytes() for key, c in sound.items()})

        return add


def routing_metrics(routing: RunRouting) -> JsonDict:
    """The figures of each phase that has tokens; means over layers unless they say otherwise."""
    metrics = {}
    for place, phase in enumerate(PHASES):
        tasks = {n: t for n, t in routing.tasks.items() if t.counts.tokens[place] > 0}
        if tasks:
            metrics[phase] = _phase_metrics(routing.layout, tasks, place)
    return metrics


def layer_metrics(counts: LayerCounts, tokens: float) -> JsonDict:
    """The figures of one layer; entropies as parts of log N."""
    n = counts.layer.experts
    largest = np.log(n) if n > 1 else 1.0
    return {
        "load": _rounded(expert_use.load(counts.chosen)),
        "variation": _short(expert_use.variation(counts.chosen)),
        "largest_violation": _short(expert_use.largest_violation(counts.chosen)),
        "dead_experts": expert_use.dead_experts(counts.chosen),
        "balance": _short(expert_use.balance(counts.chosen, counts.probability)),
        "token_entropy": _short(counts.entropy / max(tokens, 1) / largest),
        "mean_entropy": _short(expert_use.relative_entropy(expert_use.load(counts.probability))),
    }


def _phase_metrics(layout: RoutingLayout, tasks: Mapping[str, TaskRouting], place: int) -> JsonDict:
    whole = sum((task.counts.values[place] for task in tasks.values()), np.zeros(layout.size))
    tokens = float(sum(task.counts.tokens[place] for task in tasks.values()))
    return {
        "layers": {
            counts.layer.path: {
                **layer_metrics(counts, tokens),
                "lift": _matrix(expert_use.lift(counts.together, tokens)),
                "chance_lift": _short(
                    expert_use.chance_lift(counts.layer.experts, counts.layer.top_k)
                ),
            }
            for counts in layout.layer_counts(whole)
        },
        "agreement": _agreement(layout, whole, tokens),
        "tasks": {name: _summary(layout, task, place) for name, task in tasks.items()},
        "information": _information(layout, tasks, place),
        "distance": _distances(layout, tasks, place),
    }


def _summary(layout: RoutingLayout, task: TaskRouting, place: int) -> JsonDict:
    tokens = float(task.counts.tokens[place])
    figures = [
        layer_metrics(counts, tokens) for counts in layout.layer_counts(task.counts.values[place])
    ]
    names = ("variation", "largest_violation", "balance", "token_entropy", "mean_entropy")
    means = {name: _short(float(np.mean([one[name] for one in figures]))) for name in names}
    return {
        "tokens": int(tokens),
        **means,
        "dead_experts": sum(len(one["dead_experts"]) for one in figures),
    }


def _agreement(layout: RoutingLayout, values: Array, tokens: float) -> list[JsonDict]:
    """The share of a token's K experts that two layers have in common; `chance` is K / N."""
    by_path = {layer.path: layer for layer in layout.layers}
    return [
        {
            "layers": [one, other],
            "share": _short(common / max(tokens, 1) / by_path[one].top_k),
            "chance": _short(by_path[one].top_k / by_path[one].experts),
        }
        for one, other, common in layout.agreements(values)
    ]


def _information(
    layout: RoutingLayout, tasks: Mapping[str, TaskRouting], place: int
) -> JsonDict | None:
    """Bits that a choice of expert tells of the task, with what chance alone would give."""
    if len(tasks) < 2:
        return None
    found, shuffled = [], []
    for layer in _columns(layout):
        parts = [task.parts[place][:, layer] for task in tasks.values()]
        # A part without a doc would only thin the shuffles out.
        filled = [part[part.any(1)] for part in parts]
        found.append(expert_use.information([part.sum(0) for part in filled]))
        shuffled.append(expert_use.shuffled_information(filled))
    return {
        "bits": _short(float(np.mean(found))),
        "shuffled_bits": _short(float(np.mean(shuffled))),
        "above_chance_bits": _short(float(np.mean(found) - np.mean(shuffled))),
        "by_layer": {
            layer.path: [_short(one), _short(other)]
            for layer, one, other in zip(layout.layers, found, shuffled, strict=True)
        },
    }


def _distances(
    layout: RoutingLayout, tasks: Mapping[str, TaskRouting], place: int
) -> JsonDict | None:
    """Jensen-Shannon distances between the tasks' loads, the mean over layers."""
    if len(tasks) < 2:
        return None
    chosen = [task.parts[place].sum(0) for task in tasks.values()]
    layers = _columns(layout)
    matrix = [
        [np.mean([expert_use.distance(one[at], other[at]) for at in layers]) for other in chosen]
        for one in chosen
    ]
    return {"tasks": list(tasks), "matrix": _matrix(np.array(matrix))}


def _columns(layout: RoutingLayout) -> list[slice]:
    """Each layer's part of the columns of `parts`."""
    bounds = np.cumsum([0, *(layer.experts for layer in layout.layers)]).tolist()
    return [slice(low, high) for low, high in itertools.pairwise(bounds)]


def _task_json(layout: RoutingLayout, task: TaskRouting) -> JsonDict:
    phases = {
        phase: _phase_json(layout, task.counts.values[place], float(task.counts.tokens[place]))
        for place, phase in enumerate(PHASES)
        if task.counts.tokens[place] > 0
    }
    return {
        "answers": task.answers,
        "answers_without_counts": task.answers_without_counts,
        "load": _load_by_depth(layout, task.counts.values.sum(0)),
        **phases,
    }


def _phase_json(layout: RoutingLayout, values: Array, tokens: float) -> JsonDict:
    return {
        "tokens": int(tokens),
        "layers": {
            counts.layer.path: {
                "chosen": [int(count) for count in counts.chosen.round()],
                "probability": _rounded(counts.probability),
                "weight": _rounded(counts.weight),
                "together": counts.together.round().astype(int).tolist(),
                "entropy": _short(counts.entropy),
            }
            for counts in layout.layer_counts(values)
        },
        "agreement": [
            [one, other, round(common)] for one, other, common in layout.agreements(values)
        ],
    }


def _load_by_depth(layout: RoutingLayout, values: Array) -> list[list[float]]:
    """Loads of the decoder's layers, top row the first: the mean over a layer's routers.

    Rows are as long as the most experts of any layer; an expert that is not there has no load.
    """
    most = max((layer.experts for layer in layout.layers), default=0)
    rows: dict[int, list[npt.NDArray[Any]]] = {}
    for counts in layout.layer_counts(values):
        load = expert_use.load(counts.chosen)
        rows.setdefault(_depth(counts.layer), []).append(np.pad(load, (0, most - len(load))))
    return [_rounded(np.mean(rows[depth], axis=0)) for depth in sorted(rows)]


def _depth(layer: RoutedLayer) -> int:
    match = _LAYER_INDEX.search(layer.path)
    return int(match[1]) if match else 0


def _short(value: float) -> float:
    return round(float(value), _DIGITS)


def _rounded(values: npt.ArrayLike) -> list[float]:
    return [_short(value) for value in np.asarray(values).tolist()]


def _matrix(values: Array) -> list[list[float | None]]:
    """Rows of a matrix; JSON has no NaN."""
    return [[None if np.isnan(one) else _short(one) for one in row] for row in values]
