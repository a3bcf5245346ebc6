"""Corpus metrics from summed counts, against scikit-learn and the suite's own fold."""

import numpy as np
import pytest

from mingmoe_eval.metrics.draws import paired_bootstrap, swap_permutation
from mingmoe_eval.metrics.label_f1 import count_label, label_metrics
from mingmoe_eval.metrics.metric import tabulate_sides
from mingmoe_eval.metrics.paired import count_difference
from mingmoe_eval.metrics.resampling import paired_counts
from mingmoe_eval.metrics.tuple_f1 import MICRO_F1
from mingmoe_eval.promptcblue.measures import SECTION_ROUGE


def counts_of(metric, *sides):
    """Both sides' rows of one class, as a function of summed counts."""
    tables = tabulate_sides([[{"": row} for row in side] for side in sides])
    return paired_counts(*tables, metric)


def micro_f1_counts(*sides):
    return counts_of(MICRO_F1, *sides)


def pooled_mean_counts(*sides):
    return counts_of(SECTION_ROUGE, *sides)


def label_tables(gold, *sides):
    return tabulate_sides(
        [[count_label(g, s) for g, s in zip(gold, said, strict=True)] for said in sides]
    )


def label_f1_counts(gold, before, after, *, average):
    return paired_counts(*label_tables(gold, before, after), label_metrics(average)[2])


def draw_labels(seed, docs, wrong):
    rng = np.random.default_rng(seed)
    gold = rng.choice(["a", "b", "c", "d"], docs, p=[0.5, 0.3, 0.15, 0.05])
    said = np.where(rng.random(docs) < wrong, rng.choice(["a", "b", "c", "e"], docs), gold)
    return list(map(str, gold)), list(map(str, said))


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_label_f1_equals_scikit_learn(average):
    from sklearn.metrics import f1_score

    gold, before = draw_labels(1, 300, 0.2)
    _, after = draw_labels(2, 300, 0.4)
    counts = label_f1_counts(gold, before, after, average=average)
    for said, total in zip((before, after), counts.totals(), strict=True):
        theirs = f1_score(gold, said, average=average, zero_division=0)
        assert float(counts.value(total)) == pytest.approx(theirs, abs=1e-12)


def test_a_class_counts_only_where_it_is_drawn():
    # Two docs: without the second, class b and the invented one are not there.
    counts = label_f1_counts(["a", "b"], ["a", "x"], ["a", "b"], average="macro")
    baseline = counts.baseline.toarray()
    assert float(counts.value(baseline.sum(axis=0))) == pytest.approx(1 / 3)
    assert float(counts.value(baseline[0])) == 1


def test_micro_f1_by_hand_and_zero_without_a_hit():
    counts = micro_f1_counts(
        np.array([[3.0, 1.0, 2.0], [1.0, 0.0, 1.0]]), np.array([[0.0, 2.0, 5.0], [0.0, 0.0, 2.0]])
    )
    before, after = counts.totals()
    assert float(counts.value(before)) == pytest.approx(8 / 12)
    assert float(counts.value(after)) == 0


def test_pooled_mean_weighs_each_part_alike():
    counts = pooled_mean_counts(
        np.array([[3.0, 6.0], [1.0, 1.0]]), np.array([[6.0, 6.0], [0.0, 1.0]])
    )
    assert [float(counts.value(total)) for total in counts.totals()] == [4 / 7, 6 / 7]


def test_permuted_micro_f1_equals_scipy():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(4)
    before, after = (rng.integers(0, 4, (9, 3)).astype(float) for _ in range(2))

    def difference(x, y):
        counts = micro_f1_counts(before[y], after[y])
        mine = np.where(x[:, None] == 0, after, before)
        theirs = np.where(x[:, None] == 0, before, after)
        return float(counts.value(mine.sum(axis=0)) - counts.value(theirs.sum(axis=0)))

    # SciPy swaps whole numbers: 0 in the first place keeps a doc's sides, 1 swaps them.
    theirs = permutation_test(
        (np.zeros(9, int), np.ones(9, int)),
        lambda x, y: difference(x, np.arange(9)),
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
        alternative="less",
    )
    mine = swap_permutation(micro_f1_counts(before, after), rng=np.random.default_rng(0))
    assert mine.lower == pytest.approx(theirs.pvalue, abs=1e-12)


def test_bootstrapped_label_f1_equals_scikit_learn_on_the_same_draws():
    from sklearn.metrics import f1_score

    from mingmoe_eval.metrics.draws import draws

    gold, before = draw_labels(1, 60, 0.2)
    _, after = draw_labels(2, 60, 0.5)
    counts = label_f1_counts(gold, before, after, average="macro")
    mine = paired_bootstrap(counts, rng=np.random.default_rng(5), resamples=20)
    (weights,) = draws(60, np.random.default_rng(5), resamples=20)
    for difference, row in zip(mine, weights, strict=True):
        g, b, a = (np.repeat(labels, row.astype(int)) for labels in (gold, before, after))
        theirs = [f1_score(g, said, average="macro", zero_division=0) for said in (b, a)]
        assert difference == pytest.approx(theirs[1] - theirs[0], abs=1e-6)


def simulate(rng, docs):
    """Two models of equal skill on extraction docs; easy docs are easy for both."""
    gold = rng.poisson(4, docs) + 1
    skill = rng.beta(4, 2, docs)

    def side():
        found = rng.binomial(gold, skill)
        return np.column_stack([found, rng.poisson(1.0, docs), gold - found]).astype(float)

    return micro_f1_counts(side(), side())


@pytest.mark.slow
def test_equal_models_are_called_different_as_often_as_alpha_says():
    rng = np.random.default_rng(11)
    found, covered, trials = 0, 0, 400
    for _ in range(trials):
        paired = count_difference(simulate(rng, 150), clusters=None, level=0.9, rng=rng)
        found += paired.tails.lower < 0.05
        covered += paired.interval[0] <= 0 <= paired.interval[1]
    # Three standard errors of a share of 400: 0.033 at 0.05, 0.045 at 0.9.
    assert found / trials == pytest.approx(0.05, abs=0.033)
    assert covered / trials == pytest.approx(0.90, abs=0.045)


def test_many_invented_labels_stay_affordable():
    import time

    gold, _ = draw_labels(1, 1060, 0.2)
    before = [f"invented {i}" for i in range(1060)]
    after = [f"invented {i % 700}" for i in range(1060)]
    started = time.process_time()
    metric = label_metrics("macro")[2]
    tables = label_tables(gold, before, after)
    metric.resampling.difference(*tables, metric, level=0.95, rng=np.random.default_rng(0))
    assert time.process_time() - started < 20


def test_a_difference_of_macro_f1_lies_between_its_bounds_and_follows_the_jackknife():
    from sklearn.metrics import f1_score

    gold, after = draw_labels(2, 120, 0.1)
    before = [f"I think {i}" for i in range(120)]
    metric = label_metrics("macro")[2]
    paired = metric.resampling.difference(
        *label_tables(gold, before, after), metric, level=0.95, rng=np.random.default_rng(0)
    )

    def difference(kept):
        g, b, a = (np.array(labels)[kept] for labels in (gold, before, after))
        return f1_score(g, a, average="macro", zero_division=0) - f1_score(
            g, b, average="macro", zero_division=0
        )

    every = np.arange(120)
    left_out = np.array([difference(np.delete(every, i)) for i in every])
    error = np.sqrt(119 / 120 * ((left_out - left_out.mean()) ** 2).sum())
    assert paired.difference == pytest.approx(difference(every), abs=1e-12)
    assert paired.standard_error == pytest.approx(error, rel=1e-9)
    low, high = paired.interval
    assert low < paired.difference < high <= 1
    assert paired.interval_method == "jackknife over docs"
