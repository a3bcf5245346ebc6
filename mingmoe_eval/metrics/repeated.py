"""What several draws for the same questions tell: chances within k draws, votes, and whose noise.

Everything here is made from questions, each with the answers of all its K repeats, so that an
interval is over questions and never takes the repeats of one for independent docs.

`pass@k`         right at least once in k draws; unbiased, 1 - C(K-c, k) / C(K, k) with c right of K
                 (Chen et al. 2021, arXiv:2107.03374)
`majority@k`     the vote of k draws is right; over all ways to choose k of the K, exactly; letters
                 that tie share the credit
`tied_votes`     questions whose vote of all K ends in a tie
`always_right`   right in all K draws
`agreement`      two draws for a question give the same answer; an answer that could not be read
                 agrees with none
`variance_questions`, `variance_sampling`
                 how much questions differ in what they earn on average, and how much the draws for
                 one question do: one-way analysis of variance, unbiased, so that the first may come
                 out a little below 0 (Searle, Casella and McCulloch, Variance Components, 1992)
`sampling_share` the part of the mean's squared standard error that is the draws' and not the
                 questions': more repeats would take it away
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.draws import Floats
from mingmoe_eval.metrics.metric import Clusters, Counted, Metric, counted_by_question
from mingmoe_eval.metrics.resampling import Bootstrap
from mingmoe_eval.records import MetricValue


@dataclass(frozen=True, slots=True)
class Repeated:
    """One question over its repeats.

    Attributes:
        scores: [K], what each draw earned.
        answers: [K], what each draw answered; None where nothing could be read.
    """

    scores: tuple[float, ...]
    answers: tuple[str | None, ...]

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether no draw has a part of the credit."""
        return all(score in (0.0, 1.0) for score in self.scores)


def pass_at(draws: int, right: int, k: int) -> float:
    """The chance that of k draws, out of those that were made, at least one is right.

    1 - C(draws - right, k) / C(draws, k): unbiased for 1 - (1 - p)^k with p the chance of a draw.
    """
    return 1.0 - math.comb(draws - right, k) / math.comb(draws, k)


def majority_at(scores: Sequence[float], answers: Sequence[str | None], k: int) -> float:
    """The credit that a vote of k draws earns, on average over every choice of k of the draws.

    An answer that could not be read has no vote; without any vote nothing is earned. Answers that
    tie share the credit, as a draw among them would earn on average.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    right = {answer for answer, score in zip(answers, scores, strict=True) if score == 1.0}
    silent = len(answers) - sum(votes.values())
    ours = tuple(sorted(votes[answer] for answer in right if answer is not None))
    others = tuple(sorted(count for answer, count in votes.items() if answer not in right))
    if not ours:
        return 0.0
    # Several answers may be right in one way or another, as texts are; each of them can win.
    wins = sum(
        _ways_to_win(count, tuple(sorted([*others, *ours[:n], *ours[n + 1 :]])), silent, k)
        for n, count in enumerate(ours)
    )
    return wins / math.comb(len(answers), k)


@lru_cache(maxsize=100_000)
def _ways_to_win(mine: int, others: tuple[int, ...], silent: int, k: int) -> float:
    """In how many choices of k draws an answer has most votes; a tie of t counts as 1/t.

    For each number of votes of mine the others are put together one by one, and what is kept is
    how many choices there are by (draws chosen, answers that tie with mine).
    """
    ways = 0.0
    for votes in range(1, min(mine, k) + 1):
        chosen = {(votes, 1): math.comb(mine, votes)}
        for count in others:
            grown: Counter[tuple[int, int]] = Counter()
            for (draws, tied), number in chosen.items():
                for more in range(min(count, votes, k - draws) + 1):
                    place = draws + more, tied + (more == votes)
                    grown[place] += number * math.comb(count, more)
            chosen = dict(grown)
        ways += sum(
            number * math.comb(silent, k - draws) / tied for (draws, tied), number in chosen.items()
        )
    return ways


def has_tie(answers: Sequence[str | None]) -> bool:
    """Whether two answers have the most votes of all draws."""
    counts = Counter(answer for answer in answers if answer is not None).most_common(2)
    return len(counts) == 2 and counts[0][1] == counts[1][1]


def agreement_of(answers: Sequence[str | None]) -> float:
    """The share of pairs of draws that give the same answer."""
    votes = Counter(answer for answer in answers if answer is not None)
    pairs = sum(math.comb(count, 2) for count in votes.values())
    return pairs / math.comb(len(answers), 2)


def sizes(repeats: int) -> list[int]:
    """For which k the chances within k draws are told: powers of two, and all of them."""
    return sorted({2**n for n in range(1, repeats.bit_length()) if 2**n < repeats} | {repeats})


def metrics(questions: Sequence[Repeated], clusters: Clusters = None) -> dict[str, MetricValue]:
    """Every metric over questions that all have the same number of repeats, two at least.

    Those of rights and wrongs are left out where a draw may have part of the credit.
    """
    if not questions:
        return {}
    repeats = len(questions[0].scores)

    def mean(metric: Metric, of_question: Callable[[Repeated], float]) -> MetricValue:
        return metric.of([{"": (of_question(one), 1.0)} for one in questions], clusters)

    told: dict[str, MetricValue] = {}
    if all(question.is_right_or_wrong for question in questions):
        for k in sizes(repeats):
            told[f"pass@{k}"] = mean(PASS, partial(_passes, k=k))
        for k in sizes(repeats):
            if k > 2:  # a vote of two is settled by ties alone
                told[f"majority@{k}"] = mean(MAJORITY, partial(_wins, k=k))
        told["tied_votes"] = mean(TIED_VOTES, lambda q: float(has_tie(q.answers)))
        told["always_right"] = mean(ALWAYS_RIGHT, lambda q: float(min(q.scores)))
    told["agreement"] = mean(AGREEMENT, lambda q: agreement_of(q.answers))
    if len(questions) > 1:
        counted = [_squares(question) for question in questions]
        parts = [of_questions(repeats), of_sampling(repeats)]
        # Where all draws for all questions earned the same, nothing is anybody's share of nothing.
        if len({score for question in questions for score in question.scores}) > 1:
            parts.append(share_of_sampling(repeats))
        told |= {metric.name: metric.of(counted, clusters) for metric in parts}
    return told


def _passes(question: Repeated, k: int) -> float:
    return pass_at(len(question.scores), int(sum(question.scores)), k)


def _wins(question: Repeated, k: int) -> float:
    return majority_at(question.scores, question.answers, k)


def _squares(question: Repeated) -> Counted:
    """(Squared deviations from the question's own mean, sum, its square, 1)."""
    scores = question.scores
    total = math.fsum(scores)
    within = math.fsum(score * score for score in scores) - total * total / len(scores)
    return {"": (max(0.0, within), total, total * total, 1.0)}


def _mean_squares(totals: Floats, repeats: int) -> tuple[Floats, Floats]:
    """Between questions and within them, from sums over questions [..., 1, 4] to [...]."""
    within, total, squares, questions = np.moveaxis(totals[..., 0, :], -1, 0)
    between = (squares - total * total / questions) / repeats
    return between / np.maximum(questions - 1, 1), within / (questions * (repeats - 1))


def of_questions(repeats: int) -> Metric:
    """The variance of what questions earn on average."""

    def value(totals: Floats) -> Floats:
        between, within = _mean_squares(totals, repeats)
        beyond = between - within
        # Equal but for rounding: no variance, and not a negative one of 5e-18.
        return np.where(np.abs(beyond) > _ROUNDING, beyond, 0.0) / repeats

    return replace(_VARIANCE, name="variance_questions", title="variance of questions", value=value)


def of_sampling(repeats: int) -> Metric:
    """The variance of the draws for one question, on average over questions."""

    def value(totals: Floats) -> Floats:
        return np.asarray(_mean_squares(totals, repeats)[1])

    return replace(_VARIANCE, name="variance_sampling", title="variance of draws", value=value)


def share_of_sampling(repeats: int) -> Metric:
    """Of the squared standard error of the mean over questions and repeats, the draws' part."""

    def value(totals: Floats) -> Floats:
        between, within = _mean_squares(totals, repeats)
        # Draws that do not differ have no part in it; that of questions which do not is none.
        alone = np.where(within > _ROUNDING, 1.0, 0.0)
        share = np.divide(within, between, out=alone, where=between > _ROUNDING)
        return np.minimum(share, 1.0)

    return replace(
        _VARIANCE,
        name="sampling_share",
        title="share of the squared standard error that is sampling",
        value=value,
        unit="share",
        range=(0.0, 1.0),
    )


def is_of_repeats(name: str) -> bool:
    """Whether a run has a metric of this name only because it asked for repeats."""
    return name in _NAMES or name.startswith(("pass@", "majority@"))


def grouped(keys: Sequence[Hashable]) -> list[list[int]]:
    """The places of equal keys together, in the order of their first ones."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return list(places.values())


_ROUNDING = 1e-12  # equal squares, summed in another order, differ by less

PASS = replace(
    ACCURACY,
    name="pass@k",
    title="right at least once in k",
    count=counted_by_question,
    chance=None,
)
MAJORITY = replace(PASS, name="majority@k", title="vote of k is right")
ALWAYS_RIGHT = replace(PASS, name="always_right", title="right in every repeat")
AGREEMENT = replace(PASS, name="agreement", title="two repeats agree", better="neither")
TIED_VOTES = replace(AGREEMENT, name="tied_votes", title="votes that end in a tie")

_VARIANCE = Metric(
    name="variance",
    title="variance",
    count=counted_by_question,
    value=lambda totals: np.zeros(totals.shape[:-2]),
    resampling=Bootstrap(2_000),
    unit="number",
    better="neither",
    range=(-math.inf, math.inf),
)

_NAMES = (
    *("tied_votes", "always_right", "agreement"),
    *("variance_questions", "variance_sampling", "sampling_share"),
)
"""What `metrics` gives besides `pass@k` and `majority@k`, for a console and a page."""
