"""Accuracy of multiple-choice answers, counted by exact sets of letters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mingmoe_eval.metrics.metric import (
    ClassMean,
    Counted,
    Metric,
    Scored,
    mean_of_sums,
    one_of,
)
from mingmoe_eval.metrics.resampling import Mean


def exact_match(answered: str | None, key: str) -> bool:
    """Whether exactly the right set of letters was answered; no answer is wrong."""
    return answered is not None and set(answered) == set(key)


def overlaps(answered: str | None, key: str) -> bool:
    """Whether any right letter was answered: a diagnostic, never a score."""
    return bool(answered) and bool(set(answered or "") & set(key))


def likeliest(log_likelihoods: Sequence[float], letters: Sequence[str]) -> tuple[str, bool]:
    """The letter with the highest log-likelihood, and whether another one ties with it.

    A tie goes to the first letter, as with numpy's argmax.

    Raises:
        ValueError: A value is NaN or infinite, or there is not one for each letter.
    """
    if len(log_likelihoods) != len(letters):
        raise ValueError(f"{len(log_likelihoods)} log-likelihoods for {len(letters)} letters")
    if not all(map(math.isfinite, log_likelihoods)):
        raise ValueError(f"log-likelihoods that are not finite: {list(log_likelihoods)}")
    best = max(log_likelihoods)
    at = [i for i, value in enumerate(log_likelihoods) if value == best]
    return letters[at[0]], len(at) > 1


def chance_of(options: int, *, single: bool) -> float:
    """How often a uniform guess is right: one of n letters, or one of 2^n - 1 non-empty sets."""
    return 1 / options if single else 1 / (2**options - 1)


def guessing_level(docs: Sequence[Mapping[str, Any]]) -> float | None:
    """What uniform guesses score over docs with `options`, of which one or several are right."""
    if not docs:
        return None
    return sum(chance_of(len(doc["options"]), single=doc["single"]) for doc in docs) / len(docs)


def _right(scored: Scored) -> Counted:
    return one_of(scored.score == 1.0)


def _overlapping(scored: Scored) -> Counted:
    return one_of(bool(scored.counts["overlap"]))


def _answered(scored: Scored) -> Counted:
    return one_of(scored.answered is not None)


ACCURACY = Metric(
    name="acc",
    title="accuracy",
    count=_right,
    value=ClassMean(mean_of_sums),
    resampling=Mean(),
    chance=guessing_level,
)

# More of it is no better: to tick every option overlaps always.
ANY_OVERLAP = replace(
    ACCURACY,
    name="any_overlap",
    title="at least one right letter",
    count=_overlapping,
    better="neither",
    chance=None,
)

ANSWERED = replace(ACCURACY, name="answered", title="answered", count=_answered, chance=None)
