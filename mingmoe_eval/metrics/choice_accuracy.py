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
from mingmoe_eval.records import MetricValue

# Below this the letters are compared by crumbs of probability. On MedQA, models that answer with a
# letter at once give the letters 73 % (SmolLM2-135M) and 81 % (Qwen2.5-0.5B without its template);
# such as would begin otherwise 8 % (the former without) and 2e-8 (the latter with its template).
LOW_LETTER_MASS = 0.1


def exact_match(answered: str | None, key: str) -> bool:
    """Whether exactly the right set of letters was answered; no answer is wrong."""
    return answered is not None and set(answered) == set(key)


def overlaps(answered: str | None, key: str) -> bool:
    """Whether any right letter was answered: a diagnostic, never a score."""
    return bool(answered) and bool(set(answered or "") & set(key))


def likeliest(log_likelihoods: Sequence[float], letters: Sequence[str]) -> list[str]:
    """The letters with the highest log-likelihood: one, or several that tie.

    Raises:
        ValueError: A value is NaN or infinite, or there is not one for each letter.
    """
    if len(log_likelihoods) != len(letters):
        raise ValueError(f"{len(log_likelihoods)} log-likelihoods for {len(letters)} letters")
    if not all(map(math.isfinite, log_likelihoods)):
        raise ValueError(f"log-likelihoods that are not finite: {list(log_likelihoods)}")
    best = max(log_likelihoods)
    both = zip(letters, log_likelihoods, strict=True)
    return [letter for letter, value in both if value == best]


def jaccard(answered: str | None, key: str) -> float:
    """Letters both answered and right, of all that are answered or right; no answer earns 0.

    What FrenchMedMCQA's evaluation calls the Hamming score (qanastek/FrenchMedMCQA,
    BART/ConvertPredictionsToHammingScore.py).
    """
    given, right = set(answered or ""), set(key)
    return len(given & right) / len(given | right)


def chance_of(options: int, *, single: bool, choose: int = 0) -> float:
    """How often a uniform guess is right.

    One of n letters; one of the sets of `choose` letters, where the exam says how many are right;
    else one of 2^n - 1 non-empty sets. Without options a number is asked for, which nobody guesses.
    """
    if not options:
        return 0.0
    if choose:
        return 1 / math.comb(options, choose)
    return 1 / options if single else 1 / (2**options - 1)


def guessing_level(docs: Sequence[Mapping[str, Any]]) -> float | None:
    """What uniform guesses score over docs with `options`, of which one or several are right.

    None where no doc says its options, as in answers that were scored elsewhere.
    """
    if not any(doc["options"] for doc in docs):
        return None
    chances = (
        chance_of(len(doc["options"]), single=doc["single"], choose=doc.get("choose", 0))
        for doc in docs
    )
    return sum(chances) / len(docs)


def _right(scored: Scored) -> Counted:
    # A share of one where letters tie: what a draw among them would earn on average.
    return {"": (scored.score or 0.0, 1.0)}


def _overlapping(scored: Scored) -> Counted:
    return one_of(bool(scored.counts["overlap"]))


def _jaccard(scored: Scored) -> Counted:
    return {"": (jaccard(scored.answered, scored.expected), 1.0)}


def _mass(scored: Scored) -> Counted:
    return {"": (scored.counts["letter_mass"], 1.0)}


def _low_mass(scored: Scored) -> Counted:
    return one_of(scored.counts["letter_mass"] < LOW_LETTER_MASS)


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

HAMMING = replace(ACCURACY, name="hamming", title="Hamming score", count=_jaccard, chance=None)

LETTER_MASS = replace(
    ACCURACY,
    name="letter_mass",
    title="probability of all letters together",
    count=_mass,
    better="neither",
    chance=None,
)

LOW_LETTER_MASS_SHARE = replace(
    LETTER_MASS,
    name="low_letter_mass",
    title=f"docs whose letters have less than {LOW_LETTER_MASS:.0%} together",
    count=_low_mass,
)


def letter_mass_warning(metrics: Mapping[str, MetricValue]) -> str | None:
    """What to say of letters that are compared although the model would write something else."""
    mass, low = (metrics.get(one.name) for one in (LETTER_MASS, LOW_LETTER_MASS_SHARE))
    if mass is None or low is None or not mass.value < LOW_LETTER_MASS:
        return None
    return (
        f"the letters compared have {mass.value:.1e} of the probability together (mean over docs; "
        f"under {LOW_LETTER_MASS:.0%} in {low.value:.1%} of them): the model would begin its "
        "answer with something else; ask with --no-chat-template if a chat template was applied, "
        "show it the form by --num-fewshot 5, or take the task's plain form, which reads what it "
        "writes"
    )
