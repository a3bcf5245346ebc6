"""Sums over docs drawn with replacement."""

import time

import numpy as np
import pytest

from mingmoe_eval.metrics.draws import draws, percentile_interval, resampled_sums


def test_every_draw_has_as_many_docs_as_there_are():
    chunks = list(draws(7, np.random.default_rng(0), resamples=50))
    assert sum(len(chunk) for chunk in chunks) == 50
    assert all((chunk.sum(axis=1) == 7).all() for chunk in chunks)


def test_sums_have_the_spread_of_a_sum_of_independent_draws():
    columns = np.random.default_rng(1).random((200, 2))
    sums = resampled_sums(columns, np.random.default_rng(2), resamples=20_000)
    assert sums.shape == (20_000, 2)
    assert sums.mean(axis=0) == pytest.approx(columns.sum(axis=0), rel=0.002)
    assert sums.std(axis=0) == pytest.approx(columns.std(axis=0) * np.sqrt(200), rel=0.02)


def test_the_same_seed_draws_the_same():
    columns = np.ones((5, 1)) * [[1], [2], [3], [4], [5]]
    first, second = (
        resampled_sums(columns, np.random.default_rng(9), resamples=10) for _ in range(2)
    )
    assert (first == second).all()


def test_a_percentile_interval_cuts_equal_tails():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_ten_thousand_resamples_of_six_hundred_docs_take_less_than_a_second():
    columns = np.random.default_rng(1).random((600, 3))
    start = time.process_time()
    resampled_sums(columns, np.random.default_rng(2), resamples=10_000)
    assert time.process_time() - start < 1
