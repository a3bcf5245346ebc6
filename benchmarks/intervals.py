"""How often the intervals of metrics hold the truth: what samples of so many docs score on average.

Draws samples from invented models, some of which make up labels that nobody else gives, and folds
them as a run is folded. Writes the tables of `benchmarks/intervals.md`:

    python benchmarks/intervals.py --trials 2000 --output benchmarks/intervals.md
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.label_f1 import count_label, label_metrics
from mingmoe_eval.metrics.metric import Counted, Metric, one_of, tabulate, tabulate_sides
from mingmoe_eval.metrics.paired import jackknife_error
from mingmoe_eval.metrics.resampling import Bootstrap, without_each
from mingmoe_eval.metrics.tuple_f1 import MICRO_F1
from mingmoe_eval.metrics.uncertainty import mean_of_parts, two_sided_z
from mingmoe_eval.promptcblue.measures import LABEL_F1, METRICS

MACRO, WEIGHTED = label_metrics("macro")[2], label_metrics("weighted")[2]
SIZES = (50, 150, 600, 2000)
LABEL_MODELS = {
    "70 % right, 10 labels of like frequency": {"wrong": 0.3, "skewed": False},
    "70 % right, 10 labels, the rarest 3 %": {"wrong": 0.3},
    "97 % right": {"wrong": 0.03},
    "20 % of replies invented": {"wrong": 0.25, "invented": 0.2},
    "40 % invented": {"wrong": 0.25, "invented": 0.4},
    "80 % invented": {"wrong": 0.25, "invented": 0.8},
    "40 % invented, from 300 that recur": {"wrong": 0.25, "invented": 0.4, "recurring": 300},
}

Draw = Callable[[np.random.Generator, int], list[Counted]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    error = (0.95 * 0.05 / options.trials) ** 0.5
    text = "\n\n".join(
        [
            f"# Intervals of metrics, measured\n\n`benchmarks/intervals.py`, {options.trials} "
            f"samples a cell (a quarter of them where docs are drawn again), seed {options.seed}: "
            "how often a 95 % interval holds what samples of so many docs score on average. A "
            f"share near 0.95 has a standard error of {error:.4f}.",
            *sections(options.trials, options.seed),
        ]
    )
    if options.output:
        options.output.write_text(text + "\n", "utf-8")
    print(text)
    print(f"\n{time.process_time() - started:.0f} s of CPU")


def sections(trials: int, seed: int) -> Iterator[str]:
    """The tables, each with a heading."""
    rows = [
        (name, str(docs), *(f"{covered(metric, draw, docs, trials, seed):.3f}" for metric in PAIR))
        for name, draw in label_models()
        for docs in SIZES
    ]
    yield table("Macro and weighted F1", ("model", "docs", "macro F1", "weighted F1"), rows)
    rows = [
        (name, str(docs), *(f"{share:.3f}" for share in others(draw, docs, trials // 4, seed)))
        for name, draw in label_models()
        for docs in (150, 600)
    ]
    yield table(
        "What macro F1 would have otherwise",
        ("model", "docs", "bootstrap percentiles", "samples whose percentiles miss their own value",
         "jackknife, normal interval"),
        rows,
    )  # fmt: skip
    rows = [
        (f"{name} against 80 % right", str(docs), f"{difference(draw, docs, trials, seed):.3f}")
        for name, draw in label_models()
        for docs in (150, 600)
    ]
    yield table("Differences of macro F1", ("models", "docs", "covered"), rows)
    rows = [
        (name, *(f"{covered(metric, draw, docs, trials // 4, seed):.3f}" for docs in SIZES[:3]))
        for name, metric, draw in plain_metrics()
    ]
    yield table("Other metrics", ("metric", *(f"{docs} docs" for docs in SIZES[:3])), rows)
    yield table(
        "The mean of a group: 80 % invented, 97 % right, and accuracy 0.6",
        ("docs each", "covered"),
        [(str(docs), f"{of_group(docs, trials, seed):.3f}") for docs in (50, 150, 600)],
    )


PAIR = (MACRO, WEIGHTED)


def label_models() -> Iterator[tuple[str, Draw]]:
    for name, facts in LABEL_MODELS.items():
        yield name, lambda rng, docs, facts=facts: labels(rng, docs, **facts)


def labels(
    rng: np.random.Generator,
    docs: int,
    *,
    wrong: float,
    skewed: bool = True,
    invented: float = 0.0,
    recurring: int = 0,
) -> list[Counted]:
    """One model's answers where ten labels are right by turns."""
    return [count_label(*pair) for pair in answers(rng, docs, wrong, skewed, invented, recurring)]


def answers(
    rng: np.random.Generator,
    docs: int,
    wrong: float,
    skewed: bool = True,
    invented: float = 0.0,
    recurring: int = 0,
    gold: np.ndarray | None = None,
) -> Iterator[tuple[str, str]]:
    """Gold and answer of each doc; an invented reply is a label of its own, or one that recurs."""
    weights = 1 / np.arange(1, 11) if skewed else np.ones(10)
    gold = rng.choice(10, docs, p=weights / weights.sum()) if gold is None else gold
    said = np.where(rng.random(docs) < wrong, rng.integers(10, size=docs), gold)
    own = 10 + (rng.zipf(1.5, docs) % recurring if recurring else np.arange(docs))
    said = np.where(rng.random(docs) < invented, own, said)
    return zip(map(str, gold), map(str, said), strict=True)


def plain_metrics() -> Iterator[tuple[str, Metric, Draw]]:
    """The metrics whose docs do not bring their classes along."""

    def rights(rng: np.random.Generator, docs: int) -> list[Counted]:
        return [one_of(bool(right)) for right in rng.random(docs) < 0.6]

    def tuples(rng: np.random.Generator, docs: int) -> list[Counted]:
        gold, skill = rng.poisson(4, docs) + 1, rng.beta(4, 2, docs)
        found = rng.binomial(gold, skill)
        counts = np.column_stack([found, rng.poisson(1.0, docs), gold - found])
        return [{"": row} for row in counts.tolist()]

    def texts(rng: np.random.Generator, docs: int) -> list[Counted]:
        pairs, skill = rng.integers(1, 7, docs), rng.beta(2, 3, docs)
        sums = np.repeat((pairs * skill)[:, None], 5, axis=1)
        return [{"": row} for row in np.column_stack([pairs, sums]).tolist()]

    def rare(rng: np.random.Generator, docs: int) -> list[Counted]:
        # One label, which a third of the docs have; tabulated under its own name.
        return [one for one in tuples(rng, docs) if rng.random() < 1 / 3] or tuples(rng, 1)

    yield "accuracy (Wilson)", ACCURACY, rights
    yield "micro F1 (bootstrap)", MICRO_F1, tuples
    yield "ROUGE-L over pairs (bootstrap)", METRICS["rougeL"], texts
    yield "F1 of one label in a third of the docs (jackknife)", LABEL_F1, rare


def covered(metric: Metric, draw: Draw, docs: int, trials: int, seed: int) -> float:
    """How often the metric's own interval holds the mean of all samples."""
    if isinstance(metric.resampling, Bootstrap):
        metric = replaced(metric, 1_000)
    numbers = [metric.of(draw(np.random.default_rng([seed, n]), docs)) for n in range(trials)]
    return share_held(
        [number.value for number in numbers], [number.interval or (0, 0) for number in numbers]
    )


def others(draw: Draw, docs: int, trials: int, seed: int) -> tuple[float, float, float]:
    """Bootstrap and normal intervals of macro F1: what they cover, and what the first miss."""
    values, drawn, normal = [], [], []
    for n in range(trials):
        counts = tabulate(draw(np.random.default_rng([seed, n]), docs))
        values.append(float(MACRO.value(counts.totals)))
        drawn.append(Bootstrap(400).interval(counts, MACRO)[0] or (0.0, 0.0))
        reach = two_sided_z(0.95) * jackknife_error(without_each(counts, MACRO))
        normal.append((values[-1] - reach, values[-1] + reach))
    beside = [not low <= value <= high for value, (low, high) in zip(values, drawn, strict=True)]
    return share_held(values, drawn), float(np.mean(beside)), share_held(values, normal)


def difference(draw: Draw, docs: int, trials: int, seed: int) -> float:
    """How often the interval of a difference holds the mean difference."""
    changes, intervals = [], []
    for n in range(trials):
        rng = np.random.default_rng([seed, n])
        baseline = draw(rng, docs)
        gold = np.array([int(next(iter(one))) for one in baseline])  # a doc's gold comes first
        candidate = [count_label(*pair) for pair in answers(rng, docs, 0.2, gold=gold)]
        sides = tabulate_sides([baseline, candidate])
        left_out = without_each(sides[1], MACRO) - without_each(sides[0], MACRO)
        changes.append(float(MACRO.value(sides[1].totals)) - float(MACRO.value(sides[0].totals)))
        reach = two_sided_z(0.95) * jackknife_error(left_out)
        intervals.append((changes[-1] - reach, changes[-1] + reach))
    return share_held(changes, intervals)


def of_group(docs: int, trials: int, seed: int) -> float:
    """The mean of three tasks, two of them hard cases."""
    values, intervals = [], []
    for n in range(trials):
        rng = np.random.default_rng([seed, n])
        mean = mean_of_parts(
            [
                MACRO.of(labels(rng, docs, wrong=0.25, invented=0.8)),
                MACRO.of(labels(rng, docs, wrong=0.03)),
                ACCURACY.of([one_of(bool(right)) for right in rng.random(docs) < 0.6]),
            ]
        )
        values.append(mean.value)
        intervals.append(mean.interval or (0, 0))
    return share_held(values, intervals)


def share_held(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> float:
    truth = float(np.mean(values))
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def replaced(metric: Metric, resamples: int) -> Metric:
    return replace(metric, resampling=Bootstrap(resamples))


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    lines = [f"| {' | '.join(row)} |" for row in (headings, ruler, *rows)]
    return "\n".join([f"## {title}", "", *lines])


if __name__ == "__main__":
    main()
