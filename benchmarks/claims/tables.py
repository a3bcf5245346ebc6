"""Trials of several seeds as Markdown tables: means over seeds, differences paired by seed."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from benchmarks.claims.composition import WAYS
from benchmarks.claims.methods import ALL_EXPERTS, CONTENDERS, LORA
from benchmarks.claims.tasks import HELD_OUT, TRAINED

Trial = dict[str, Any]
NAMES = tuple(one.name for one in CONTENDERS)
MIXTURES = NAMES[1:]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with Student's interval; None for a single seed."""

    mean: float
    half_width: float | None

    def times(self, scale: int, digits: int) -> str:
        """As text, in another unit."""
        doubt = "" if self.half_width is None else f" ± {scale * self.half_width:.{digits}f}"
        return f"{scale * self.mean:+.{digits}f}{doubt}"

    def __str__(self) -> str:
        return self.times(100, 1)


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean ± t(n - 1) s / sqrt(n): seeds are the independent units, not docs."""
    n = len(values)
    if n < 2:
        return Estimate(fmean(values), None)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(n)
    return Estimate(fmean(values), reach)


def render(trials: Sequence[Trial]) -> str:
    """All tables."""
    sections = {
        "Accuracy at equal trainable parameters": accuracy_table(trials),
        "Numbers trained, and used by a token": parameter_table(trials),
        "What routers tell of the task": routing_table(trials),
        "One adapter for all tasks, or one for each": separate_table(trials),
        "Composed against trained": composition_table(trials),
    }
    return "\n".join(f"## {title}\n\n{table}\n" for title, table in sections.items())


def accuracy_table(trials: Sequence[Trial]) -> str:
    """By method and task, in per cent; the last two columns are paired by seed."""
    rows = [["base", *_shares(trials, lambda t: t["base"]), "", ""]]
    for name in NAMES:
        accuracies = _shares(trials, lambda t, name=name: t["methods"][name]["accuracy"])
        against = [
            ""
            if name == other
            else str(_difference(trials, _mean_accuracy(name), _mean_accuracy(other)))
            for other in (LORA.name, MIXTURES[0])
        ]
        rows.append([name, *accuracies, *against])
    return table(["method", *TRAINED, "mean", "less LoRA's", "less MoLoRA's"], rows)


def parameter_table(trials: Sequence[Trial]) -> str:
    """Counts are the same for every seed but for the size of the vocabulary: the first one's."""
    methods = trials[0]["methods"]
    of_lora = methods[LORA.name]["trained"]
    rows = [
        [name, str(one["trained"]), f"{one['trained'] / of_lora:.3f}", str(one["active"])]
        for name, one in ((name, methods[name]) for name in NAMES)
    ]
    return table(["method", "trained", "of LoRA's", "used by a token, with the base"], rows)


def routing_table(trials: Sequence[Trial]) -> str:
    """Information above the shuffled baseline, in millibits a choice, and evenness of load."""
    of: dict[str, Callable[[Trial], Any]] = {
        "untrained": lambda t: t["untrained"]["routing"],
        # Where every expert is chosen, choices tell nothing.
        **{n: lambda t, n=n: t["methods"][n]["routing"] for n in MIXTURES if n != ALL_EXPERTS},
    }
    columns = ("variation", "largest_violation", "dead_experts", "token_entropy")
    rows = []
    for name, routing in of.items():
        told = []
        for place in ("", "_last"):
            mine, untrained = _told(routing, place), _told(of["untrained"], place)
            above = _difference(trials, mine, untrained).times(1000, 0)
            told += [f"{1000 * fmean(map(mine, trials)):.0f}", "" if name == "untrained" else above]
        figures = [f"{fmean(routing(t)[column] for t in trials):.2f}" for column in columns]
        rows.append([name, *told, *figures])
    places = ("whole prompt", "less untrained", "last token", "less untrained")
    return table(["routers", *places, "CV", "MaxVio", "dead", "token entropy"], rows)


def _told(routing: Callable[[Trial], Any], place: str) -> Callable[[Trial], float]:
    return lambda trial: routing(trial)[f"information{place}"] - routing(trial)[f"shuffled{place}"]


def separate_table(trials: Sequence[Trial]) -> str:
    """The same number of examples of each task; the single-task LoRAs hold six times as much."""

    def separate(trial: Trial) -> float:
        return fmean(trial["separate"].values())

    rows = [["a LoRA for each task", *_shares(trials, lambda t: t["separate"]), ""]]
    for name in NAMES[:4]:
        accuracies = _shares(trials, lambda t, name=name: t["methods"][name]["accuracy"])
        against = _difference(trials, _mean_accuracy(name), separate)
        rows.append([f"{name}, all tasks", *accuracies, str(against)])
    return table(["adapter", *TRAINED, "mean", "mean less separate"], rows)


def composition_table(trials: Sequence[Trial]) -> str:
    """Accuracy on tasks of which only a few examples were seen."""

    def mean_of(way: str) -> Callable[[Trial], float]:
        return lambda trial: fmean(trial["composition"][task][way] for task in HELD_OUT)

    rows = []
    for way in WAYS:
        shares = [
            f"{100 * fmean(t['composition'][task][way] for t in trials):.1f}" for task in HELD_OUT
        ]
        against = _difference(trials, mean_of(way), mean_of("composed"))
        rows.append([way, *shares, "" if way == "composed" else str(against)])
    return table(["way", *HELD_OUT, "mean less composed"], rows)


def _mean_accuracy(method: str) -> Callable[[Trial], float]:
    return lambda trial: fmean(trial["methods"][method]["accuracy"].values())


def _difference(
    trials: Sequence[Trial], one: Callable[[Trial], float], other: Callable[[Trial], float]
) -> Estimate:
    return estimate([one(trial) - other(trial) for trial in trials])


def _shares(trials: Sequence[Trial], of: Callable[[Trial], dict[str, float]]) -> list[str]:
    """Per cent by task, and their mean."""
    means = [fmean(of(trial)[task] for trial in trials) for task in TRAINED]
    return [f"{100 * value:.1f}" for value in (*means, fmean(means))]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
