"""What the orders of options do to a model: metrics over questions asked in several of them.

`robust_accuracy`: right answers over all orders; its interval takes a question for one cluster.
`consistency`: questions that are right in every order (MMBench's CircularEval, Liu et al. 2023).
`same_answer`: questions whose answer is the same option in every order, right or wrong.
`position_bias`: how much of the answers' letters would have to be others to be spread as the key's
letters are (total variation distance); 0 without a bias, since the options move and the letters
stay. Near 0 it can only err upwards.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.exams.option_orders import chosen_options, question_id
from mingmoe_eval.metrics.choice_accuracy import accuracy
from mingmoe_eval.metrics.doc_resampling import percentile_interval, resampled_sums
from mingmoe_eval.records import MetricValue, Sample

METRICS = ("robust_accuracy", "consistency", "same_answer", "position_bias")
OWN_ORDER = "own"

_RESAMPLES = 2_000


def metrics(samples: Sequence[Sample]) -> dict[str, MetricValue]:
    """The four metrics over questions with several orders; none where there is no such question.

    A question of which an order failed is left out as a whole.
    """
    questions = _questions(samples)
    if not questions:
        return {}
    asked = [sample for orders in questions for sample in orders]
    values = (
        _accuracy(asked),
        _share(questions, _always_right),
        _share(questions, _always_same),
        _position_bias(questions),
    )
    return dict(zip(METRICS, values, strict=True))


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


def _share(
    questions: Sequence[Sequence[Sample]], holds: Callable[[Sequence[Sample]], bool]
) -> MetricValue:
    clusters = [orders[0].doc.get("cluster") for orders in questions]
    return accuracy([holds(orders) for orders in questions], clusters)


def _position_bias(questions: Sequence[Sequence[Sample]]) -> MetricValue:
    columns = np.array([_letter_counts(orders) for orders in questions], dtype=np.float64)
    excess = _excess(columns.sum(axis=0))
    drawn = _excess(resampled_sums(columns, np.random.default_rng(0), resamples=_RESAMPLES))
    value = _distance(excess)
    low, high = percentile_interval(_distance(drawn))
    # Resampled distances err upwards, and would deny that a model has no bias at all. By the
    # triangle inequality the true one is no further from ours than all letters' errors together.
    _, error = percentile_interval(_distance(drawn - excess))
    return MetricValue(
        value=float(value),
        n=len(questions),
        interval=(max(0.0, min(low, float(value) - error)), high),
        interval_method="bootstrap over questions",
    )


def _letter_counts(orders: Sequence[Sample]) -> list[int]:
    """[2 * 26]: how often each letter was answered, and how often it was in the key."""
    answered = "".join(sample.answered or "" for sample in orders)
    expected = "".join(sample.expected for sample in orders if sample.answered)
    return [text.count(letter) for text in (answered, expected) for letter in ascii_uppercase]


def _excess(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each letter's share of the answers less its share of the key, [..., 2 * 26] to [..., 26]."""
    shares = []
    for counts in np.split(sums, 2, axis=-1):
        total = counts.sum(axis=-1, keepdims=True)
        shares.append(np.divide(counts, total, out=np.zeros_like(counts), where=total > 0))
    return np.asarray(shares[0] - shares[1])


def _distance(excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Total variation: half the sum over letters, [..., 26] to [...]."""
    return np.asarray(np.abs(excess).sum(axis=-1) / 2)


def _accuracy(samples: Sequence[Sample]) -> MetricValue:
    clusters = [
        (sample.task, sample.doc.get("cluster") or question_id(sample.doc)) for sample in samples
    ]
    return accuracy([sample.score == 1.0 for sample in samples], clusters)
