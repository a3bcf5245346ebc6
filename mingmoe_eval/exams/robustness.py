"""What the orders of options do to a model: metrics over questions asked in several of them.

`robust_accuracy`: right answers over all orders; its interval takes a question for one cluster.
`consistency`: questions that are right in every order (MMBench's CircularEval, Liu et al. 2023).
`same_answer`: questions whose answer is the same option in every order, right or wrong.
`position_bias`: how much of the answers' letters would have to be others to be spread as the key's
letters are (total variation distance); 0 without a bias, since the options move and the letters
stay. Near 0 it can only err upwards.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mingmoe_eval.exams.option_orders import chosen_options, question_id
from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.draws import Floats
from mingmoe_eval.metrics.metric import Counted, Metric, counted_by_question, one_of
from mingmoe_eval.metrics.resampling import OfADistance
from mingmoe_eval.records import MetricValue, Sample

METRICS = ("robust_accuracy", "consistency", "same_answer", "position_bias")
OWN_ORDER = "own"


def metrics(samples: Sequence[Sample]) -> dict[str, MetricValue]:
    """The four metrics over questions with several orders; none where there is no such question.

    A question of which an order failed is left out as a whole.
    """
    questions = _questions(samples)
    if not questions:
        return {}
    asked = [sample for orders in questions for sample in orders]
    clusters = [orders[0].doc.get("cluster") for orders in questions]
    return {
        "robust_accuracy": ROBUST_ACCURACY.fold(asked, _clusters(asked)),
        "consistency": CONSISTENCY.of([one_of(_always_right(q)) for q in questions], clusters),
        "same_answer": SAME_ANSWER.of([one_of(_always_same(q)) for q in questions], clusters),
        "position_bias": POSITION_BIAS.of([_letters(q) for q in questions]),
    }


def breakdowns(samples: Sequence[Sample]) -> dict[str, dict[str, MetricValue]]:
    """Accuracy by the order of the options, and by the letter under which the right one stands."""
    by_order: dict[str, list[Sample]] = defaultdict(list)
    by_place: dict[str, list[Sample]] = defaultdict(list)
    for orders in _questions(samples):
        for sample in orders:
            by_order[sample.variant or OWN_ORDER].append(sample)
            if len(sample.expected) == 1:
                by_place[sample.expected].append(sample)
    tables = {"option_order": by_order, "key_position": by_place}
    return {
        name: {value: _accuracy(group) for value, group in sorted(table.items())}
        for name, table in tables.items()
        if table
    }


def _questions(samples: Iterable[Sample]) -> list[list[Sample]]:
    """The samples of each question that was answered in all of its several orders."""
    questions: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.status != "failed":
            questions[sample.task, question_id(sample.doc)].append(sample)
    return [orders for orders in questions.values() if len(orders) == _asked_for(orders)]


def _asked_for(orders: Sequence[Sample]) -> int:
    """In how many orders a question was asked; 0 where only its own is known of."""
    return max(int(sample.doc.get("orders") or 0) for sample in orders)


def _always_right(orders: Sequence[Sample]) -> bool:
    return all(sample.score == 1.0 for sample in orders)


def _always_same(orders: Sequence[Sample]) -> bool:
    """An answer must be there: never to answer is no agreement on an option."""
    chosen = {chosen_options(sample.doc, sample.answered) for sample in orders}
    return len(chosen) == 1 and None not in chosen


def _letters(orders: Sequence[Sample]) -> Counted:
    """Letter -> how often a question has it answered, and how often in its key."""
    answered = "".join(sample.answered or "" for sample in orders)
    expected = "".join(sample.expected for sample in orders if sample.answered)
    return {
        letter: (answered.count(letter), expected.count(letter))
        for letter in sorted({*answered, *expected})
    } or {"": (0, 0)}


def _accuracy(samples: Sequence[Sample]) -> MetricValue:
    return ACCURACY.fold(samples, _clusters(samples))


def _clusters(samples: Sequence[Sample]) -> list[tuple[str, Any]]:
    """A question is one cluster, or its case is."""
    return [
        (sample.task, sample.doc.get("cluster") or question_id(sample.doc)) for sample in samples
    ]


def _excess(totals: Floats) -> Floats:
    """Each letter's share of the answers less its share of the key, [..., letters].

    0 throughout where there is no answer.
    """
    sums = totals.sum(axis=-2, keepdims=True)
    shares = np.divide(totals, sums, out=np.zeros_like(totals), where=sums > 0)
    return np.asarray(shares[..., 0] - shares[..., 1])


def _distance(excess: Floats) -> Floats:
    """Total variation: half the sum over letters, [..., letters] to [...]."""
    return np.asarray(np.abs(excess).sum(axis=-1) / 2)


ROBUST_ACCURACY = replace(ACCURACY, name="robust_accuracy", title="accuracy over all orders")

CONSISTENCY = replace(
    ACCURACY,
    name="consistency",
    title="right in every order",
    count=counted_by_question,
    chance=None,
)

SAME_ANSWER = replace(CONSISTENCY, name="same_answer", title="the same option in every order")

POSITION_BIAS = Metric(
    name="position_bias",
    title="position bias",
    count=counted_by_question,
    value=lambda totals: _distance(_excess(totals)),
    resampling=OfADistance(resamples=2_000, gaps=_excess, scale=0.5),
    better="lower",
)

RECORDS = (ROBUST_ACCURACY, CONSISTENCY, SAME_ANSWER, POSITION_BIAS)
"""The metrics named in `METRICS`."""
