"""Whether a model knows what it knows: from the log-likelihoods of the options' letters.

The probability of an option is its letter's, of all letters' together: softmax of the stored
log-likelihoods. The confidence is that of the likeliest option. Questions with one right option
count; of several right ones no letter alone has the probability.

`ece`    expected calibration error: confidences in ten bins of equal width, (0, 0.1] to (0.9, 1],
         sum over bins of n_b / n |accuracy_b - confidence_b| (Guo et al. 2017, arXiv:1706.04599)
`brier`  sum over options of (probability - right)^2, between 0 and 2 (Brier 1950), as in lm-eval

`acc_at_50`: accuracy over the 50 % of the questions with the highest confidence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from mingmoe_eval.errors import UsageError
from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.draws import Floats
from mingmoe_eval.metrics.metric import (
    ClassMean,
    Clusters,
    Counted,
    Metric,
    mean_of_sums,
)
from mingmoe_eval.metrics.resampling import Mean, OfADistance
from mingmoe_eval.records import MetricValue

BINS = 10
_SIMULATED = 1_000


class Weighed(Protocol):
    """A question whose options were compared by their log-likelihoods."""

    @property
    def score(self) -> float | None:
        """The credit: 1, 0, or a part of it where options tie."""

    @property
    def expected(self) -> str:
        """The letter of the right option."""

    @property
    def log_likelihoods(self) -> Sequence[float] | None:
        """One for each option, in nats."""

    @property
    def doc(self) -> Any:
        """What was asked, with `options` by letter."""


def can_be_calibrated(one: Weighed) -> bool:
    """Whether every option has a finite log-likelihood, and exactly one of them is right."""
    values, options = one.log_likelihoods, one.doc.get("options") or {}
    return (
        bool(values)
        and len(values or ()) == len(options)
        and one.expected in options
        and all(map(math.isfinite, values or ()))
        and one.score is not None
    )


def probabilities(log_likelihoods: Sequence[float]) -> list[float]:
    """Of each option, given that one of them is the answer."""
    largest = max(log_likelihoods)
    weights = [math.exp(value - largest) for value in log_likelihoods]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def confidence(one: Weighed) -> float:
    """The probability of the likeliest option."""
    return max(probabilities(one.log_likelihoods or (0.0,)))


def bin_of(certainty: float) -> int:
    """Which of the bins holds a confidence; a bound belongs to the bin below it."""
    return min(BINS - 1, max(0, math.ceil(certainty * BINS) - 1))


def metrics(asked: Sequence[Weighed], clusters: Clusters = None) -> dict[str, MetricValue]:
    """Both errors; nothing without a question that can be counted."""
    return {
        metric.name: metric.of([metric.count(one) for one in asked], clusters)  # type: ignore[arg-type]
        for metric in (ECE, BRIER)
        if asked
    }


def accuracy_at(
    coverage: float, asked: Sequence[Weighed], clusters: Clusters = None
) -> MetricValue:
    """Accuracy over so large a part of the questions, those of the highest confidence.

    Of questions that tie at the edge each counts in part, as if drawn by lot. The interval is that
    of the questions taken, where the edge lies being given.
    """
    many = math.ceil(coverage * len(asked) - 1e-9)
    ranked = sorted(range(len(asked)), key=lambda place: -confidence(asked[place]))
    edge = confidence(asked[ranked[many - 1]])
    above = [place for place in ranked if confidence(asked[place]) > edge]
    tied = [place for place in ranked if confidence(asked[place]) == edge]
    credit = math.fsum(asked[place].score or 0.0 for place in tied) / len(tied)
    taken = [*above, *tied[: many - len(above)]]
    counted: list[Counted] = [{"": (asked[place].score or 0.0, 1.0)} for place in above]
    if len(taken) == len(above) + len(tied):
        counted += [{"": (asked[place].score or 0.0, 1.0)} for place in tied]
    else:
        counted += [{"": (credit, 1.0)}] * (many - len(above))
    metric = replace(ACCURACY, name=selective_name(coverage), chance=None)
    return metric.of(counted, None if clusters is None else [clusters[place] for place in taken])


def coverage_said(text: str | None) -> tuple[float, ...]:
    """Coverages as a user says them: `0.5,0.8`, or `50%`.

    Raises:
        UsageError: one is no part of the questions.
    """
    parts = []
    for word in (text or "").split(","):
        number, percent, _ = word.strip().partition("%")
        if not number:
            continue
        try:
            part = float(number) / (100 if percent else 1)
        except ValueError:
            part = math.nan
        if not 0 < part <= 1:
            raise UsageError(
                f"--coverage {text}: {word.strip()!r} is no part of the questions; give 0.5, or 50%"
            )
        parts.append(part)
    return tuple(dict.fromkeys(parts))


def selective_name(coverage: float) -> str:
    """What the accuracy at a coverage is called: `acc_at_50`."""
    return f"acc_at_{100 * coverage:g}"


def is_selective(name: str) -> bool:
    """Whether a run has a metric of this name only because it asked for a coverage."""
    return name.startswith("acc_at_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The questions of like confidence.

    Attributes:
        low: Above this confidence.
        high: Up to this one.
        confidence: The mean over the questions.
        accuracy: How many of them are right.
    """

    low: float
    high: float
    confidence: float
    accuracy: MetricValue


def reliability(asked: Sequence[Weighed]) -> list[Bin]:
    """The bins that hold a question, for a diagram of accuracy against confidence."""
    bins: dict[int, list[Weighed]] = {}
    for one in asked:
        bins.setdefault(bin_of(confidence(one)), []).append(one)
    return [
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            confidence=math.fsum(map(confidence, held)) / len(held),
            accuracy=ACCURACY.of([{"": (one.score or 0.0, 1.0)} for one in held]),
        )
        for number, held in sorted(bins.items())
    ]


def error_by_chance(asked: Sequence[Weighed]) -> float:
    """What `ece` would be, on average, of a model that is as sure and perfectly calibrated.

    The error cannot be negative and so errs upwards, the more the fewer questions there are.
    """
    certain = np.array([confidence(one) for one in asked])
    places = np.array([bin_of(one) for one in certain])
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(_SIMULATED):
        gaps = np.bincount(places, weights=certain - (rng.random(len(certain)) < certain))
        errors.append(np.abs(gaps).sum() / len(certain))
    return float(np.mean(errors))


def _gaps(totals: Floats) -> Floats:
    """By bin, sum of (confidence - right) over all questions, [..., bins, 3] to [..., bins]."""
    questions = totals[..., 2].sum(axis=-1, keepdims=True)
    return np.asarray((totals[..., 0] - totals[..., 1]) / np.maximum(questions, 1))


def _count_gap(one: Any) -> Counted:
    certain = confidence(one)
    return {f"bin {bin_of(certain)}": (certain, one.score or 0.0, 1.0)}


def _count_brier(one: Any) -> Counted:
    letters = list(one.doc["options"])
    squares = (
        (probability - (letter == one.expected)) ** 2
        for letter, probability in zip(letters, probabilities(one.log_likelihoods), strict=True)
    )
    return {"": (math.fsum(squares), 1.0)}


ECE = Metric(
    name="ece",
    title="expected calibration error",
    count=_count_gap,
    value=lambda totals: np.asarray(np.abs(_gaps(totals)).sum(axis=-1)),
    resampling=OfADistance(resamples=2_000, gaps=_gaps),
    better="lower",
)

BRIER = Metric(
    name="brier",
    title="Brier score",
    count=_count_brier,
    value=ClassMean(mean_of_sums),
    resampling=Mean(),
    unit="number",
    better="lower",
    range=(0.0, 2.0),
)
