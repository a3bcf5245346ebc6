"""pass@k, votes and variance components: against enumeration, hand calculation and simulation."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from mingmoe_eval.metrics.repeated import (
    Repeated,
    agreement_of,
    has_tie,
    is_of_repeats,
    majority_at,
    metrics,
    of_questions,
    of_sampling,
    pass_at,
    share_of_sampling,
    sizes,
)
from mingmoe_eval.metrics.uncertainty import clustered_share, wilson_interval


def repeated(*answers, key="A"):
    """Draws of letters; "-" is one that could not be read."""
    letters = [None if letter == "-" else letter for letter in answers]
    return Repeated(tuple(float(letter == key) for letter in letters), tuple(letters))


@pytest.mark.parametrize(("draws", "right"), [(1, 0), (1, 1), (5, 0), (5, 2), (7, 6), (7, 7)])
def test_pass_at_k_equals_the_share_of_choices_with_a_right_draw(draws, right):
    rights = [1] * right + [0] * (draws - right)
    for k in range(1, draws + 1):
        chosen = list(itertools.combinations(rights, k))
        assert pass_at(draws, right, k) == pytest.approx(sum(map(any, chosen)) / len(chosen))


def test_pass_at_k_is_unbiased_in_simulation():
    rng = np.random.default_rng(1)
    for p, k in ((0.2, 3), (0.5, 2)):
        right = rng.binomial(8, p, size=100_000)
        found = np.mean([pass_at(8, int(c), k) for c in right])
        assert found == pytest.approx(1 - (1 - p) ** k, abs=0.003)


def vote(answers, key):
    """The credit of one vote, as one would count it by hand."""
    counts = Counter(answer for answer in answers if answer != "-")
    most = max(counts.values(), default=0)
    first = [answer for answer, count in counts.items() if count == most]
    return (key in first) / len(first) if most else 0.0


@pytest.mark.parametrize(
    "answers", ["AAB", "ABC", "AABB", "--AB", "----", "BBBA", "AABBC-", "ABCDE", "AAABBB-C", "BBCC"]
)
def test_a_vote_of_k_equals_that_over_every_choice_of_k(answers):
    one = repeated(*answers)
    for k in range(1, len(answers) + 1):
        every = [vote(chosen, "A") for chosen in itertools.combinations(answers, k)]
        assert majority_at(one.scores, one.answers, k) == pytest.approx(
            math.fsum(every) / len(every)
        )


def test_a_vote_of_one_is_the_mean_and_votes_of_random_draws_equal_enumeration():
    rng = np.random.default_rng(2)
    for _ in range(60):
        answers = "".join(rng.choice(list("ABCD-"), size=8, p=[0.3, 0.25, 0.2, 0.15, 0.1]))
        one = repeated(*answers)
        assert majority_at(one.scores, one.answers, 1) == pytest.approx(np.mean(one.scores))
        k = int(rng.integers(2, 9))
        every = [vote(chosen, "A") for chosen in itertools.combinations(answers, k)]
        assert majority_at(one.scores, one.answers, k) == pytest.approx(np.mean(every))


def test_two_answers_that_are_both_right_can_both_win():
    """Texts: "yes" and "Yes." may both earn the whole score."""
    assert majority_at((1.0, 1.0, 0.0), ("a", "b", "c"), 3) == pytest.approx(2 / 3)
    assert majority_at((1.0, 1.0, 0.0), ("a", "a", "c"), 3) == 1.0


@pytest.mark.parametrize(
    ("answers", "tie", "agreement"),
    [("AAB", False, 1 / 3), ("AABB", True, 2 / 6), ("AAAA", False, 1.0), ("----", False, 0.0)],
)
def test_ties_and_agreement_by_hand(answers, tie, agreement):
    letters = repeated(*answers).answers
    assert has_tie(letters) == tie
    assert agreement_of(letters) == pytest.approx(agreement)


def test_which_k_are_told():
    assert [sizes(n) for n in (2, 3, 4, 5, 8)] == [[2], [2, 3], [2, 4], [2, 4, 5], [2, 4, 8]]


def test_all_metrics_of_three_questions_by_hand():
    asked = [repeated(*"AAAA"), repeated(*"AABB"), repeated(*"BB-C")]
    told = metrics(asked)
    assert {name: round(value.value, 6) for name, value in told.items()} == {
        "pass@2": round((1 + 5 / 6 + 0) / 3, 6),
        "pass@4": round(2 / 3, 6),
        "majority@4": round((1 + 0.5 + 0) / 3, 6),
        "tied_votes": round(1 / 3, 6),
        "always_right": round(1 / 3, 6),
        "agreement": round((1 + 2 / 6 + 1 / 6) / 3, 6),
        # Means 1, 1/2, 0: between = 4 x 1/4 = 1; within = 1 of 9 degrees of freedom.
        "variance_questions": round((1 - 1 / 9) / 4, 6),
        "variance_sampling": round(1 / 9, 6),
        "sampling_share": round(1 / 9, 6),
    }
    assert all(value.n == 3 for value in told.values())
    assert all(is_of_repeats(name) for name in told)
    assert not is_of_repeats("acc")


def test_grades_have_no_vote_and_no_chance_of_a_right_draw():
    told = metrics([Repeated((0.5, 1.0), ("a", "b")), Repeated((0.25, 0.0), ("a", "a"))])
    assert set(told) == {
        *("agreement", "variance_questions", "variance_sampling", "sampling_share"),
    }
    assert metrics([]) == {}


def test_one_question_has_no_variance_between_questions():
    assert set(metrics([repeated(*"AB")])) == {
        *("pass@2", "tied_votes", "always_right", "agreement"),
    }


@pytest.mark.parametrize("answers", ["AAA", "BBB", "BCB"])
def test_where_all_earned_the_same_nothing_is_the_draws_share_of_it(answers):
    told = metrics([repeated(*answers)] * 5)
    assert "sampling_share" not in told
    assert told["variance_questions"].value == told["variance_sampling"].value == 0.0
    low, high = told["pass@3"].interval
    assert 0 <= low <= told["pass@3"].value <= high <= 1
    assert high - low > 0.3  # five questions that agree prove little


def test_a_vote_and_pass_at_k_of_any_draws_equal_enumeration_over_all_of_them():
    """All 4^4 sets of four draws of A (right), B, C or nothing that could be read."""
    for answers in itertools.product("ABC-", repeat=4):
        one = repeated(*answers)
        told = metrics([one, one])
        chosen = list(itertools.combinations(answers, 2))
        assert told["pass@2"].value == pytest.approx(np.mean(["A" in pair for pair in chosen]))
        assert told["pass@4"].value == float("A" in answers)
        assert told["majority@4"].value == pytest.approx(vote(answers, "A"))
        alike = [pair[0] == pair[1] != "-" for pair in chosen]
        assert told["agreement"].value == pytest.approx(np.mean(alike))


def sums(scores):
    """[runs, questions, K] to what the metrics are made from, [runs, 1, 4]."""
    total = scores.sum(-1)
    within = (scores**2).sum(-1) - total**2 / scores.shape[-1]
    kinds = np.stack([within, total, total**2, np.ones_like(total)], axis=-1)
    return kinds.sum(1)[:, None, :]


@pytest.mark.parametrize(("a", "b", "repeats"), [(2.0, 1.0, 4), (0.5, 0.5, 2), (40.0, 20.0, 8)])
def test_variance_components_are_unbiased_in_simulation(a, b, repeats):
    """p of a question from a beta distribution: its variance, and the mean of p (1 - p)."""
    rng = np.random.default_rng(3)
    p = rng.beta(a, b, size=(20_000, 40))
    scores = rng.binomial(1, p[..., None], size=(*p.shape, repeats)).astype(float)
    between = a * b / ((a + b) ** 2 * (a + b + 1))
    within = a * b / ((a + b) * (a + b + 1))
    questions, sampling = of_questions(repeats), of_sampling(repeats)
    assert questions.value(sums(scores)).mean() == pytest.approx(between, abs=6e-4)
    assert sampling.value(sums(scores)).mean() == pytest.approx(within, abs=6e-4)
    share = share_of_sampling(repeats).value(sums(scores))
    true = (within / repeats) / (between + within / repeats)
    assert np.median(share) == pytest.approx(true, abs=0.03)


def test_the_error_of_the_mean_is_that_of_its_two_parts_in_simulation():
    """Var(mean) = V(questions) / Q + V(sampling) / (Q K)."""
    rng = np.random.default_rng(4)
    p = rng.beta(2, 1, size=(20_000, 50))
    scores = rng.binomial(1, p[..., None], size=(*p.shape, 5)).astype(float)
    found = of_questions(5).value(sums(scores)) / 50 + of_sampling(5).value(sums(scores)) / 250
    assert found.mean() == pytest.approx(scores.mean((1, 2)).var(), rel=0.03)


def test_intervals_hold_the_truth_as_often_as_they_say_in_simulation():
    """pass@4 of questions whose p is drawn from a uniform distribution: 1 - 1/5."""
    rng = np.random.default_rng(5)
    held = {"pass@4": 0, "agreement": 0, "variance_sampling": 0}
    truth = {"pass@4": 1 - 1 / 5, "agreement": 2 / 3, "variance_sampling": 1 / 6}
    runs = 120
    for _ in range(runs):
        p = rng.random(150)
        draws = rng.random((150, 4)) < p[:, None]
        told = metrics(
            [
                Repeated(tuple(map(float, one)), tuple("A" if right else "B" for right in one))
                for one in draws
            ]
        )
        for name in held:
            low, high = told[name].interval
            held[name] += low <= truth[name] <= high
    assert all(0.88 <= count / runs <= 1.0 for count in held.values()), held


def test_questions_of_one_case_widen_every_interval():
    asked = [repeated(*"AABA") if n % 4 < 2 else repeated(*"BBAB") for n in range(60)]
    alone, together = metrics(asked), metrics(asked, [n // 2 for n in range(60)])
    for name in ("pass@2", "majority@4", "variance_questions"):
        (low, high), (wide_low, wide_high) = alone[name].interval, together[name].interval
        assert wide_high - wide_low > high - low, name


def test_the_interval_of_a_mean_over_repeats_holds_the_truth_in_simulation():
    """By question; taking each answer for a doc of its own would hold it far too seldom."""
    rng = np.random.default_rng(6)
    held = {"by question": 0, "by answer": 0}
    questions = np.repeat(np.arange(100), 5).tolist()
    for _ in range(300):
        rights = (rng.random((100, 5)) < rng.beta(0.5, 0.3, 100)[:, None]).astype(float)
        intervals = {
            "by question": clustered_share(rights.ravel().tolist(), questions).interval,
            "by answer": wilson_interval(rights.sum(), rights.size),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= 0.5 / 0.8 <= high
    assert 0.92 * 300 <= held["by question"] <= 0.98 * 300, held
    assert held["by answer"] < 0.85 * 300


@pytest.mark.parametrize("scores", [(1.0,) * 3, (0.3,) * 3])
def test_where_no_draw_differs_from_another_sampling_has_no_share_of_the_error(scores):
    told = metrics([Repeated(scores, ("A",) * 3)] * 5)
    assert "sampling_share" not in told
    only_draws = metrics([Repeated((1.0, 0.0), ("A", "B"))] * 5)
    assert only_draws["sampling_share"].value == 1.0


def test_rounding_is_no_variance_of_questions():
    # One right answer of twelve: between = within = 1/12, so that nothing is left, in any order.
    for place in range(4):
        asked = [repeated(*"BBB")] * 4
        asked[place] = repeated(*"ABB")
        assert metrics(asked)["variance_questions"].value == 0.0
