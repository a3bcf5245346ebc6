"""Accuracy of multiple-choice answers, counted by exact sets of letters."""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.metrics.doc_resampling import percentile_interval, resampled_sums
from mingmoe_eval.metrics.uncertainty import clustered_share, mean_of_parts, share
from mingmoe_eval.records import MetricValue

_RESAMPLES = 2_000


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


def accuracy(
    rights: Sequence[bool], clusters: Sequence[Hashable | None] | None = None
) -> MetricValue:
    """The share of right answers with Wilson's interval.

    Args:
        rights: Whether each doc was answered right.
        clusters: What each doc shares with others, such as a case; None for a doc on its own.
            Docs of one cluster widen the interval.
    """
    names = [object() if name is None else name for name in clusters or ()]
    if len(set(names)) < len(names):
        return clustered_share(rights, names)
    return share(sum(rights), len(rights))


def macro_accuracy(rights_by_part: Mapping[str, Sequence[bool]]) -> MetricValue:
    """The plain mean of the parts' accuracies, each part weighing the same whatever its size."""
    return mean_of_parts([accuracy(rights) for rights in rights_by_part.values()])


def chance_of(options: int, *, single: bool) -> float:
    """How often a uniform guess is right: one of n letters, or one of 2^n - 1 non-empty sets."""
    return 1 / options if single else 1 / (2**options - 1)


def macro_f1(
    pairs: Sequence[tuple[str | None, str]], rng: np.random.Generator | None = None
) -> MetricValue:
    """Unweighted mean of per-label F1; pairs are (answered, key).

    The labels are those of the keys and of the answers, as scikit-learn has it; None is no label,
    so that an unanswered doc is a miss of its key's label and nothing else. The interval comes
    from docs drawn with replacement, with a fixed seed unless `rng` is given.
    """
    labels = sorted({key for _, key in pairs} | {said for said, _ in pairs if said is not None})
    columns = np.array([_label_counts(said, key, labels) for said, key in pairs], dtype=float)
    drawn = resampled_sums(columns, rng or np.random.default_rng(0), resamples=_RESAMPLES)
    return MetricValue(
        value=float(_macro_f1(columns.sum(axis=0))),
        n=len(pairs),
        interval=percentile_interval(_macro_f1(drawn)),
        interval_method="bootstrap over docs",
    )


def _label_counts(said: str | None, key: str, labels: Sequence[str]) -> list[bool]:
    """[3 * labels]: whether the doc is a hit of each label, has it as its answer, as its key."""
    hits = [said == key == label for label in labels]
    return [*hits, *(said == label for label in labels), *(key == label for label in labels)]


def _macro_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """From [..., 3 * labels] to [...]; a label that was never seen in a draw has F1 0."""
    hits, answered, expected = np.split(sums, 3, axis=-1)
    seen = answered + expected
    f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=seen > 0)
    return np.asarray(f1.mean(axis=-1))
