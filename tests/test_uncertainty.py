import math

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from mingmoe_eval.metrics.uncertainty import (
    clustered_mean,
    difference_of_parts,
    mean_interval,
    mean_of_parts,
    share,
    wilson_interval,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 8), (3, 8), (8, 8), (1, 1), (412, 1273)])
def test_wilsons_interval_equals_statsmodels(successes, n):
    reference = proportion_confint(successes, n, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx(reference, abs=1e-12)


def test_rights_and_wrongs_get_wilsons_interval_and_grades_the_normal_one():
    assert mean_interval([1.0, 0.0, 1.0]) == share(2, 3)
    values = [0.2, 0.4, 0.9]
    graded = mean_interval(values)
    half = 1.959963984540054 * np.std(values, ddof=1) / math.sqrt(3)
    assert graded.interval == pytest.approx((0.5 - half, 0.5 + half))


def test_no_docs_have_no_mean():
    assert math.isnan(mean_interval([]).value)
    assert math.isnan(share(0, 0).value)


def test_the_clustered_interval_equals_statsmodels_cluster_covariance():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 5)
    values = rng.normal(size=100) + rng.normal(size=20)[clusters]
    fit = OLS(values, np.ones(100)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
    )
    ours = clustered_mean(values.tolist(), clusters.tolist())
    low, high = ours.interval
    assert (high - low) / 2 / 1.959963984540054 == pytest.approx(fit.bse[0], rel=1e-12)
    assert ours.value == pytest.approx(fit.params[0], abs=1e-12)


def test_the_mean_of_parts_weighs_each_part_the_same():
    parts = [share(50, 100), share(9, 10)]
    mean = mean_of_parts(parts)
    assert mean.value == pytest.approx(0.7)
    assert mean.n == 110
    (low_a, high_a), (low_b, high_b) = (part.interval for part in parts)
    assert mean.interval == pytest.approx(
        (
            0.7 - math.hypot(0.5 - low_a, 0.9 - low_b) / 2,
            0.7 + math.hypot(high_a - 0.5, high_b - 0.9) / 2,
        )
    )


def test_the_interval_of_a_mean_of_zeros_does_not_go_below_zero():
    assert mean_of_parts([share(0, 10), share(0, 10)]).interval[0] == 0.0


def test_the_mean_of_two_parts_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truths, sizes = (0.3, 0.8), (60, 120)
    hits = 0
    for _ in range(2000):
        drawn = [rng.binomial(n, p) for n, p in zip(sizes, truths, strict=True)]
        low, high = mean_of_parts(
            [share(int(k), n) for k, n in zip(drawn, sizes, strict=True)]
        ).interval
        hits += low <= sum(truths) / 2 <= high
    assert 0.935 <= hits / 2000 <= 0.97


@pytest.mark.parametrize(
    ("one", "other"), [((56, 70), (48, 80)), ((0, 10), (20, 20)), ((1, 3), (2, 9))]
)
def test_the_difference_of_two_shares_has_newcombes_interval(one, other):
    difference = difference_of_parts(share(*one), share(*other))
    assert difference.value == pytest.approx(one[0] / one[1] - other[0] / other[1])
    reference = confint_proportions_2indep(*one, *other, method="newcomb")
    assert difference.interval == pytest.approx(reference, abs=1e-12)


def test_newcombes_own_example():
    # Newcombe 1998, table II, example (a), method 10: 56/70 less 48/80.
    assert difference_of_parts(share(56, 70), share(48, 80)).interval == pytest.approx(
        (0.0524, 0.3339), abs=5e-5
    )


def test_a_difference_from_a_number_without_an_interval_has_none():
    assert difference_of_parts(share(1, 2), share(0, 0)).interval is None
