import math

import pytest

from mingmoe_eval.metrics.significance import (
    docs_to_settle,
    holm_adjusted,
    holm_levels,
    minimum_detectable,
)


def test_holm_by_hand():
    # Sorted: 0.01 * 3, max(0.03, 0.02 * 2), max(0.04, 0.04 * 1).
    assert holm_adjusted([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm_adjusted([]) == []


@pytest.mark.parametrize(
    "p_values", [[0.2], [0.04, 0.001, 0.03], [0.5, 0.5, 0.9], [0.01] * 4, [1.0, 0.0, 0.017]]
)
def test_holm_equals_statsmodels(p_values):
    from statsmodels.stats.multitest import multipletests

    theirs = multipletests(p_values, method="holm")[1]
    assert holm_adjusted(p_values) == pytest.approx(list(theirs))


def test_levels_step_down_while_tests_reject():
    # 0.01 meets 0.05 / 3; 0.02 meets 0.05 / 2; 0.2 is left with 0.05.
    assert holm_levels([0.2, 0.01, 0.02], 0.05) == pytest.approx([0.05, 0.05 / 3, 0.025])


def test_levels_stop_at_the_first_that_does_not_reject():
    # 0.03 misses 0.05 / 2, so that 0.04 is left with the same level.
    assert holm_levels([0.04, 0.001, 0.03], 0.05) == pytest.approx([0.025, 0.05 / 3, 0.025])


@pytest.mark.parametrize("p_values", [[0.2], [0.04, 0.001, 0.03], [0.5, 0.5], [0.01] * 4])
def test_levels_reject_what_the_adjusted_values_reject(p_values):
    rejected = [p <= level for p, level in zip(p_values, holm_levels(p_values, 0.05), strict=True)]
    assert rejected == [p <= 0.05 for p in holm_adjusted(p_values)]


@pytest.mark.parametrize(
    ("docs", "alpha", "points"),
    [(480, 0.05, 5.1), (1000, 0.05, 3.5), (6811, 0.05, 1.4), (480, 0.05 / 16, 7.3)],
)
def test_smallest_visible_drop_of_the_exams(docs, alpha, points):
    # A standard deviation of differences of 0.45.
    seen = minimum_detectable(0.45 / math.sqrt(docs), alpha=alpha)
    assert 100 * seen == pytest.approx(points, abs=0.05)


def test_smallest_visible_drop_equals_statsmodels():
    from statsmodels.stats.power import TTestPower

    effect = TTestPower().solve_power(nobs=1000, alpha=0.05, power=0.8, alternative="larger")
    assert minimum_detectable(0.4 / math.sqrt(1000), alpha=0.05) == pytest.approx(
        0.4 * effect, rel=2e-3
    )


@pytest.mark.parametrize(("deviation", "docs"), [(0.4, 2474), (0.5, 3865)])
def test_docs_that_show_a_drop_of_two_points_equal_statsmodels(deviation, docs):
    # TTestPower().solve_power(0.02 / deviation, alpha=0.05, power=0.8, alternative="larger")
    seen = minimum_detectable(deviation / math.sqrt(docs), alpha=0.05)
    assert seen == pytest.approx(0.02, rel=1e-3)


def test_docs_to_settle_also_let_nothing_be_found_equivalent():
    # One task: (1.645 + 1.282)^2 beats (1.645 + 0.842)^2.
    needed = docs_to_settle(0.4 / math.sqrt(500), 500, margin=0.02, alpha=0.05, alpha_left=0.05)
    assert needed == pytest.approx(((1.644854 + 1.281552) * 0.4 / 0.02) ** 2, abs=2)
    # Sixteen: (2.734 + 0.842)^2 is the larger one.
    needed = docs_to_settle(
        0.4 / math.sqrt(500), 500, margin=0.02, alpha=0.05, alpha_left=0.05 / 16
    )
    assert needed == pytest.approx(((2.734369 + 0.841621) * 0.4 / 0.02) ** 2, abs=2)
