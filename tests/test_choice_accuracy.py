import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score
from statsmodels.stats.proportion import proportion_confint

from mingmoe_eval.metrics.choice_accuracy import (
    ACCURACY,
    HAMMING,
    chance_of,
    exact_match,
    guessing_level,
    jaccard,
    likeliest,
    overlaps,
)
from mingmoe_eval.metrics.label_f1 import MACRO_F1, count_label
from mingmoe_eval.metrics.metric import one_of
from mingmoe_eval.metrics.uncertainty import mean_of_parts, share


def accuracy(rights, clusters=None):
    return ACCURACY.of([one_of(right) for right in rights], clusters)


def macro_f1(pairs):
    return MACRO_F1.of([count_label(key, said) for said, key in pairs])


@pytest.mark.parametrize(
    ("answered", "key", "exact", "overlap"),
    [
        ("AC", "AC", True, True),
        ("A", "AC", False, True),
        ("ACD", "AC", False, True),
        ("B", "AC", False, False),
        (None, "AC", False, False),
    ],
)
def test_only_the_very_set_of_letters_matches_and_any_right_letter_overlaps(
    answered, key, exact, overlap
):
    assert exact_match(answered, key) is exact
    assert overlaps(answered, key) is overlap


def test_the_likeliest_letter_wins_and_all_that_tie_are_told():
    assert likeliest([-2.0, -0.5, -1.0], "ABC") == ["B"]
    assert likeliest([-2.0, -0.5, -0.5], "ABC") == ["B", "C"]


@pytest.mark.parametrize("values", [[math.nan, -1.0], [-1.0, math.nan], [-math.inf, -1.0], [-1.0]])
def test_log_likelihoods_that_are_not_finite_or_not_one_a_letter_are_refused(values):
    with pytest.raises(ValueError, match="log-likelihoods"):
        likeliest(values, "AB")


def test_docs_on_their_own_get_wilsons_interval():
    rights = [True] * 30 + [False] * 10
    metric = accuracy(rights, [None] * 40)
    assert metric == ACCURACY.stamped(share(30, 40))
    assert metric.interval == pytest.approx(proportion_confint(30, 40, method="wilson"))


def test_docs_of_one_case_that_go_together_count_as_one():
    # 20 cases of 3 docs each, all three right or all three wrong: as good as 20 docs, 15 right.
    rights = [right for right in [True] * 15 + [False] * 5 for _ in range(3)]
    metric = accuracy(rights, [f"case {i // 3}" for i in range(60)])
    assert (metric.value, metric.n) == (0.75, 60)
    assert metric.interval == pytest.approx(share(15, 20).interval)
    assert metric.interval_method == "Wilson, 20 clusters"


def test_clusters_never_narrow_the_interval():
    # One right and one wrong in each cluster: Miller's formula alone would give a width of 0.
    metric = accuracy([True, False] * 10, [i // 2 for i in range(20)])
    assert metric.interval == pytest.approx(share(10, 20).interval)


def test_a_clean_sweep_over_clusters_leaves_doubt():
    metric = accuracy([True] * 6, ["a", "a", "a", "b", "b", None])
    assert metric.interval == pytest.approx(share(3, 3).interval)


def test_no_docs_have_no_accuracy():
    assert math.isnan(accuracy([], []).value)


def test_the_macro_accuracy_weighs_parts_and_not_docs():
    parts = {"anatomy": [True] * 9 + [False], "genetics": [False, False]}
    metric = mean_of_parts([accuracy(rights) for rights in parts.values()])
    assert metric.value == pytest.approx(0.45)
    assert metric.n == 12


def test_a_guess_is_right_once_in_the_possible_answers():
    assert chance_of(4, single=True) == 0.25
    assert chance_of(5, single=False) == pytest.approx(1 / 31)  # 2^5 - 1 sets that are not empty


def test_a_candidate_who_is_told_how_many_are_right_guesses_among_such_sets():
    for options, choose in ((5, 1), (5, 2), (5, 3), (8, 1)):
        sets = list(itertools.combinations(range(options), choose))
        told = chance_of(options, single=choose == 1, choose=choose)
        assert told == pytest.approx(1 / len(sets))


def test_nobody_guesses_a_number():
    docs = [
        {"options": {"A": "x", "B": "y"}, "single": True},
        {"options": {}, "single": True},
    ]
    assert guessing_level(docs) == 0.25
    assert guessing_level(docs[1:]) is None


def official_hamming(preds, refs):
    """As FrenchMedMCQA's code counts: hits over all letters of the one side or the other."""
    preds, refs = list(preds), list(refs)
    return sum(p in refs for p in preds) / len(set(preds + refs))


def test_the_hamming_score_is_frenchmedmcqa_s():
    sets = ["".join(s) for n in range(1, 6) for s in itertools.combinations("ABCDE", n)]
    pairs = list(itertools.product([*sets, ""], sets))
    for answered, key in pairs:
        assert jaccard(answered or None, key) == pytest.approx(official_hamming(answered, key))
    counted = [{"": (jaccard(answered, key), 1.0)} for answered, key in pairs]
    mean = sum(official_hamming(*pair) for pair in pairs) / len(pairs)
    assert HAMMING.of(counted).value == pytest.approx(mean)


def test_macro_f1_equals_scikit_learns():
    rng = np.random.default_rng(3)
    keys = rng.choice(["A", "B", "C"], size=200, p=[0.55, 0.34, 0.11]).tolist()
    answers = [key if rng.random() < 0.6 else str(rng.choice(["A", "B", "C"])) for key in keys]
    metric = macro_f1(list(zip(answers, keys, strict=True)))
    assert metric.value == pytest.approx(f1_score(keys, answers, average="macro"))
    low, high = metric.interval
    assert low < metric.value < high
    assert 0.05 < high - low < 0.3
    assert metric.n == 200


def test_an_unanswered_doc_is_a_miss_of_its_label_and_no_label_of_its_own():
    # A: 1 hit, 1 answer, 2 keys: F1 2/3. B: 1 hit, 1 answer, 1 key: F1 1.
    metric = macro_f1([("A", "A"), (None, "A"), ("B", "B")])
    assert metric.value == pytest.approx((2 / 3 + 1) / 2)
