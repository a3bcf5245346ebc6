"""Tests and intervals against SciPy, statsmodels, hand calculations and exact enumeration."""

import itertools
import math

import numpy as np
import pytest

from mingmoe_eval.metrics.draws import PairedCounts, paired_bootstrap, swap_permutation
from mingmoe_eval.metrics.paired import (
    bonett_price,
    cluster_robust_error,
    count_difference,
    mcnemar_exact,
    right_wrong_difference,
    score_difference,
    smallest_error,
)
from mingmoe_eval.metrics.uncertainty import normal_quantile


def rng():
    return np.random.default_rng(7)


def means(baseline, candidate):
    """Two means of scores as functions of counts."""
    ones = np.ones(len(baseline))
    return PairedCounts(
        baseline=np.column_stack([baseline, ones]),
        candidate=np.column_stack([candidate, ones]),
        value=lambda totals: totals[..., 0] / totals[..., 1],
    )


# McNemar


def test_five_docs_lost_and_none_gained_is_one_chance_in_32():
    tails = mcnemar_exact(5, 0)
    assert tails.lower == pytest.approx(1 / 32)
    assert tails.higher == 1
    assert tails.two_sided == pytest.approx(1 / 16)


def test_no_flip_is_no_evidence():
    assert mcnemar_exact(0, 0).two_sided == 1


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (3, 9), (20, 11), (150, 190), (7, 7)])
def test_two_sided_mcnemar_equals_statsmodels(lost, gained):
    from statsmodels.stats.contingency_tables import mcnemar

    theirs = mcnemar([[10, lost], [gained, 10]], exact=True).pvalue
    assert mcnemar_exact(lost, gained).two_sided == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(("lost", "gained"), [(3, 9), (20, 11), (150, 190)])
def test_one_sided_mcnemar_is_the_binomial_tail(lost, gained):
    from scipy.stats import binom

    tails = mcnemar_exact(lost, gained)
    assert tails.lower == pytest.approx(binom.cdf(gained, lost + gained, 0.5))
    assert tails.higher == pytest.approx(binom.sf(gained - 1, lost + gained, 0.5))


# Bonett-Price


def test_bonett_price_by_hand():
    # 1 and 7 flips among 21 (the airway example of Fagerland, Lydersen and Laake 2014):
    # centre (2 - 8) / 23; variance (10/23 - (6/23)^2) / 23.
    centre, error = -6 / 23, math.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
    low, high = bonett_price(7, 1, 21, level=0.95)
    assert low == pytest.approx(centre - 1.959964 * error, abs=1e-6)
    assert high == pytest.approx(centre + 1.959964 * error, abs=1e-6)


def test_bonett_price_stays_within_one():
    assert bonett_price(3, 0, 3, level=0.999)[0] == -1
    assert bonett_price(0, 3, 3, level=0.999)[1] == 1


def test_no_flip_leaves_a_doubt_that_shrinks_with_docs():
    widths = [bonett_price(0, 0, docs, level=0.9)[1] for docs in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] == pytest.approx(1.644854 * math.sqrt(2) / 102, abs=1e-6)
    assert smallest_error(100) == pytest.approx(math.sqrt(2) / 102)


def exact_coverage(docs, p_lost, p_gained, level):
    """Over every possible outcome of the trinomial, how often the interval holds the truth."""
    from scipy.stats import multinomial

    outcomes = [(lo, ga) for lo in range(docs + 1) for ga in range(docs + 1 - lo)]
    counts = [(lo, ga, docs - lo - ga) for lo, ga in outcomes]
    weights = multinomial.pmf(counts, docs, [p_lost, p_gained, 1 - p_lost - p_gained])
    truth = p_gained - p_lost
    intervals = np.array([bonett_price(lo, ga, docs, level=level) for lo, ga in outcomes])
    covered = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
    return float(weights @ covered)


@pytest.mark.parametrize("level", [0.90, 0.95])
@pytest.mark.parametrize(
    ("p_lost", "p_gained"), [(0.05, 0.05), (0.10, 0.05), (0.20, 0.10), (0.02, 0.02), (0.15, 0.0)]
)
def test_bonett_price_covers_as_often_as_it_says(p_lost, p_gained, level):
    assert level - 0.02 < exact_coverage(80, p_lost, p_gained, level) <= 1


# Swap permutation and bootstrap


def test_few_docs_are_permuted_exactly_as_scipy_does():
    from scipy.stats import permutation_test

    before, after = rng().random(8), rng().random(8)[::-1].copy()
    tails = swap_permutation(means(before, after), rng=rng())
    for chance, alternative in ((tails.lower, "less"), (tails.higher, "greater")):
        theirs = permutation_test(
            (after, before),
            lambda x, y: np.mean(x) - np.mean(y),
            permutation_type="samples",
            n_resamples=np.inf,
            alternative=alternative,
        )
        assert chance == pytest.approx(theirs.pvalue, abs=1e-12)


def test_many_docs_are_permuted_as_the_normal_approximation_says():
    from scipy.stats import norm

    generator = rng()
    before = generator.random(2000)
    after = before + generator.normal(0.004, 0.1, 2000)
    change = after - before
    chance = norm.cdf(change.mean() / math.sqrt((change**2).mean() / 2000))
    tails = swap_permutation(means(before, after), rng=rng())
    assert tails.lower == pytest.approx(chance, abs=0.015)
    assert tails.lower + tails.higher == pytest.approx(1, abs=0.002)


def test_the_smallest_chance_is_never_zero():
    tails = swap_permutation(means(np.ones(100), np.zeros(100)), rng=rng(), permutations=999)
    assert tails.lower == 1 / 1000


def test_equal_answer_sheets_are_no_evidence():
    scores = rng().random(50)
    assert swap_permutation(means(scores, scores), rng=rng()).two_sided == 1


def test_swapping_clusters_is_flipping_their_signs():
    # Three clusters with sums of differences -3, -1, +1, of 8 ways to flip: sums at most -3 are
    # -5 (one way) and -3 (the observed one and one more).
    change = np.array([-1.0, -1.0, -1.0, -2.0, 1.0, 1.0])
    counts = means(np.zeros(6), change).by_cluster(np.array([0, 0, 0, 1, 1, 2]))
    sums = [-3, -1, 1]
    flips = [
        sum(s * v for s, v in zip(f, sums, strict=True))
        for f in itertools.product((1, -1), repeat=3)
    ]
    expected = sum(total <= sum(sums) for total in flips) / 8
    assert swap_permutation(counts, rng=rng()).lower == pytest.approx(expected)


def test_bootstrap_spread_is_the_paired_standard_error():
    generator = rng()
    before, after = generator.random(400), generator.random(400)
    resampled = paired_bootstrap(means(before, after), rng=rng())
    error = (after - before).std(ddof=1) / 20
    assert resampled.std() == pytest.approx(error, rel=0.03)
    assert resampled.mean() == pytest.approx((after - before).mean(), abs=0.1 * error)


def test_bootstrap_interval_equals_scipy_within_its_own_noise():
    from scipy.stats import bootstrap

    generator = rng()
    before, after = generator.beta(2, 3, 300), generator.beta(3, 2, 300)
    paired = score_difference(before, after, clusters=None, level=0.95, rng=rng())
    theirs = bootstrap(
        (after, before),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert paired.interval == pytest.approx(tuple(theirs), abs=0.1 * paired.standard_error)
    assert paired.test == "sign flip"
    assert paired.interval_method == "paired bootstrap over docs"


# Which method for which scores


def test_right_and_wrong_scores_take_mcnemar_and_bonett_price():
    before = np.array([1.0] * 60 + [0.0] * 40)
    after = before.copy()
    after[:9] = 0
    after[60:64] = 1
    paired = score_difference(before, after, clusters=None, level=0.95, rng=rng())
    assert (paired.baseline, paired.candidate) == (0.60, 0.55)
    assert paired.difference == pytest.approx(-0.05)
    assert paired.tails == mcnemar_exact(9, 4)
    assert paired.interval == bonett_price(9, 4, 100, level=0.95)
    assert paired.standard_error == pytest.approx((after - before).std(ddof=1) / 10)
    assert (paired.test, paired.interval_method) == ("exact McNemar", "Bonett-Price")


def test_one_doc_is_compared_with_due_doubt():
    paired = right_wrong_difference(1, 0, 1, baseline_right=1, level=0.95)
    assert paired.difference == -1
    assert paired.standard_error == pytest.approx(math.sqrt(2) / 3)


def test_identical_graded_scores_keep_a_doubt():
    scores = rng().random(100)
    paired = score_difference(scores, scores, clusters=None, level=0.9, rng=rng())
    reach = normal_quantile(0.95) * math.sqrt(2) / 102
    assert paired.interval == pytest.approx((-reach, reach))


def test_cluster_robust_error_equals_statsmodels():
    import statsmodels.api as sm

    generator = rng()
    clusters = np.repeat(np.arange(30), generator.integers(1, 6, 30))
    change = generator.normal(size=30)[clusters] + generator.normal(size=len(clusters))
    fitted = sm.OLS(change, np.ones(len(change))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}
    )
    assert cluster_robust_error(change, clusters) == pytest.approx(float(fitted.bse[0]))


def test_clusters_of_one_doc_give_the_plain_error():
    change = rng().normal(size=50)
    assert cluster_robust_error(change, np.arange(50)) == pytest.approx(
        change.std(ddof=1) / math.sqrt(50)
    )


def test_docs_that_flip_together_widen_the_interval():
    before = np.ones(120)
    after = np.where(np.arange(120) < 12, 0.0, 1.0)
    alone = score_difference(before, after, clusters=None, level=0.95, rng=rng())
    together = score_difference(before, after, clusters=np.arange(120) // 4, level=0.95, rng=rng())
    assert together.units == 30
    assert together.test == "cluster sign flip"
    assert together.interval_method == "cluster-robust t"
    assert together.standard_error > 1.5 * alone.standard_error
    assert alone.tails.lower == 1 / 2**12
    assert together.tails.lower == 1 / 2**3


def test_clusters_are_the_units_of_corpus_metrics_too():
    generator = rng()
    before, after = generator.random(60), generator.random(60)
    paired = count_difference(
        means(before, after), clusters=np.arange(60) // 3, level=0.95, rng=rng()
    )
    assert paired.units == 20
    assert paired.difference == pytest.approx((after - before).mean())
    assert paired.interval_method == "paired bootstrap over clusters"


def test_where_many_units_differ_the_error_is_the_data_s_own():
    """A floor made for a handful of differing docs must not widen what is well known."""
    from scipy.stats import bootstrap

    draw = rng()
    before = draw.random(100)
    after = before + draw.normal(0.0, 0.02, 100)
    found = score_difference(before, after, clusters=None, level=0.95, rng=rng())
    reference = bootstrap(
        (after - before,), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert found.standard_error == pytest.approx((after - before).std(ddof=1) / 10, rel=0.05)
    assert found.interval == pytest.approx(tuple(reference), abs=4e-4)
    assert found.standard_error < smallest_error(100) / 5


def test_twelve_clusters_that_all_differ_have_statsmodels_interval():
    from statsmodels.api import OLS

    draw = rng()
    clusters = np.repeat(np.arange(12), 5)
    change = draw.normal(0.01, 0.03, 60) + draw.normal(0.0, 0.02, 12)[clusters]
    found = score_difference(np.zeros(60), change, clusters=clusters, level=0.95, rng=rng())
    fitted = OLS(change, np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "df_correction": True}, use_t=True
    )
    assert found.standard_error == pytest.approx(float(fitted.bse[0]), rel=1e-9)
    assert found.interval == pytest.approx(tuple(fitted.conf_int()[0]), rel=1e-9)


def test_where_hardly_any_unit_differs_certainty_is_not_claimed():
    before = np.linspace(0.1, 0.9, 50)
    after = before.copy()
    after[:9] += 1e-6
    few = score_difference(before, after, clusters=None, level=0.95, rng=rng())
    assert few.standard_error == smallest_error(50)
    after[9] += 1e-6
    enough = score_difference(before, after, clusters=None, level=0.95, rng=rng())
    assert enough.standard_error < 1e-6
