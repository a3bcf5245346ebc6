"""Figures of expert use, against hand calculations, scipy and scikit-learn's formulas."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy
from scipy.stats import variation as scipy_variation

from mingmoe_eval.routing import expert_use

RNG = np.random.default_rng(1)
COUNTS = RNG.integers(1, 50, (20, 5))


def test_load_is_a_share_of_all_choices():
    assert expert_use.load([6, 2, 0, 0]).tolist() == [0.75, 0.25, 0, 0]
    assert expert_use.load([0, 0]).tolist() == [0, 0]


def test_figures_of_a_uniform_load_and_of_one_expert_alone():
    uniform, alone = [5, 5, 5, 5], [20, 0, 0, 0]
    assert expert_use.variation(uniform) == expert_use.largest_violation(uniform) == 0
    assert expert_use.variation(alone) == pytest.approx(math.sqrt(3))
    assert expert_use.largest_violation(alone) == 3
    assert expert_use.dead_experts(uniform) == []
    assert expert_use.dead_experts(alone) == [1, 2, 3]
    assert expert_use.balance(uniform, [0.1, 0.2, 0.3, 0.4]) == pytest.approx(1)
    assert expert_use.balance(alone, [1, 0, 0, 0]) == 4


def test_an_expert_is_dead_below_a_tenth_of_the_uniform_load():
    # Uniform is 50; 5 is a tenth.
    assert expert_use.dead_experts([91, 5, 54, 50]) == []
    assert expert_use.dead_experts([92, 4, 54, 50]) == [1]


def test_figures_of_no_tokens_at_all_are_numbers():
    nothing = [0, 0, 0]
    assert expert_use.variation(nothing) == expert_use.largest_violation(nothing) == 0
    assert expert_use.relative_entropy(expert_use.load(nothing)) == 0


@pytest.mark.parametrize("counts", COUNTS.tolist())
def test_variation_and_entropy_equal_scipys(counts):
    assert expert_use.variation(counts) == pytest.approx(scipy_variation(counts))
    shares = expert_use.load(counts)
    assert expert_use.entropy(shares) == pytest.approx(scipy_entropy(counts, base=2))
    assert expert_use.relative_entropy(shares) == pytest.approx(scipy_entropy(counts, base=5))


@pytest.mark.parametrize("pair", list(zip(COUNTS[:10], COUNTS[10:], strict=True)))
def test_distance_equals_scipys_jensen_shannon_in_bits(pair):
    assert expert_use.distance(*pair) == pytest.approx(jensenshannon(*pair, base=2), abs=1e-7)


def test_distance_of_equal_and_of_separate_loads():
    assert expert_use.distance([1, 2, 3], [2, 4, 6]) == pytest.approx(0, abs=1e-7)
    assert expert_use.distance([1, 0], [0, 7]) == pytest.approx(1)


def test_information_equals_the_sum_over_the_joint_table():
    table = COUNTS[:3]
    p = table / table.sum()
    plain = sum(
        p[t, e] * math.log2(p[t, e] / (p[t].sum() * p[:, e].sum()))
        for t in range(3)
        for e in range(5)
    )
    assert expert_use.information(table) == pytest.approx(plain)


def test_information_of_equal_and_of_separate_tasks():
    assert expert_use.information([[5, 5], [50, 50]]) == pytest.approx(0)
    assert expert_use.information([[7, 0], [0, 7]]) == pytest.approx(1)


def test_shuffling_shows_the_bias_of_information_and_whole_parts_change_task():
    # Nine docs a task, every doc with one expert of its own: no task differs from another, yet the
    # plug-in value is far from zero, and near the textbook bias (N - 1)(tasks - 1) / (2 n ln 2).
    rng = np.random.default_rng(2)
    docs = [rng.multinomial(1, [0.25] * 4, size=40) for _ in range(3)]
    plain = expert_use.information([part.sum(0) for part in docs])
    baseline = expert_use.shuffled_information(docs, shuffles=300)
    assert baseline == pytest.approx(3 * 2 / (2 * 120 * math.log(2)), rel=0.15)
    assert plain < 3 * baseline
    # A thousand tokens a doc, all alike: as much bias, for there are no more docs than before.
    heavy = [part * 1000 for part in docs]
    assert expert_use.shuffled_information(heavy, shuffles=300) == pytest.approx(baseline)


def test_tasks_that_differ_stand_far_above_their_shuffles():
    one, other = np.tile([9, 1, 0], (8, 1)), np.tile([0, 1, 9], (8, 1))
    found = expert_use.information([one.sum(0), other.sum(0)])
    assert found > 5 * expert_use.shuffled_information([one, other])


def test_co_selection_by_hand():
    # Tokens chose {0,1}, {0,1}, {0,2}, {1,2}.
    joint = [[3, 2, 1], [2, 3, 1], [1, 1, 2]]
    assert expert_use.together(joint).tolist() == [
        [1, 2 / 3, 1 / 3],
        [2 / 3, 1, 1 / 3],
        [0.5, 0.5, 1],
    ]
    lift = expert_use.lift(joint, 4)
    assert lift[0, 1] == pytest.approx((2 / 4) / (3 / 4 * 3 / 4))
    assert np.isnan(np.diag(lift)).all()


def test_the_lift_of_even_draws_is_that_of_chance():
    draws = np.array([RNG.permutation(6)[:2] for _ in range(20_000)])
    chosen = np.zeros((len(draws), 6))
    chosen[np.arange(len(draws))[:, None], draws] = 1
    lift = expert_use.lift(chosen.T @ chosen, len(draws))
    assert np.nanmean(lift) == pytest.approx(expert_use.chance_lift(6, 2), rel=0.01)


def test_overlap_of_choices_ignores_their_order():
    assert expert_use.choice_overlap([[0, 1], [2, 3]], [[1, 0], [3, 4]]) == 0.75
    assert expert_use.choice_overlap(np.zeros((0, 2)), np.zeros((0, 2))) == 0
