"""Micro F1 over tuples, against hand calculations."""

from dataclasses import astuple

import numpy as np
import pytest

from mingmoe_eval.metrics.metric import tabulate
from mingmoe_eval.metrics.tuple_f1 import MICRO_F1, TupleCounts, compare_sets, doc_f1


def test_counts_are_over_sets():
    assert compare_sets(["a", "a", "b", "c"], ["a", "a", "d"]) == TupleCounts(1, 1, 2)


def test_precision_recall_and_f1():
    # 3 of 4 said are right, 3 of 6 wanted are found: 2 * 0.75 * 0.5 / 1.25
    assert TupleCounts(3, 1, 3).precision_recall_f1 == (0.75, 0.5, 0.6)


def test_nothing_found_scores_zero_even_where_there_was_nothing_to_find():
    assert TupleCounts(0, 0, 0).precision_recall_f1 == (0, 0, 0)
    assert TupleCounts(0, 2, 3).precision_recall_f1 == (0, 0, 0)


def test_one_doc_without_gold_and_without_answer_reads_as_right():
    assert doc_f1(TupleCounts(0, 0, 0)) == 1
    assert doc_f1(TupleCounts(0, 1, 0)) == 0


def resampled_f1(docs, *, resamples):
    table = tabulate([{"": astuple(doc)} for doc in docs])
    return MICRO_F1.value(table.resampled(resamples).reshape(resamples, 1, 3))


def test_the_f1_of_a_table_is_that_of_its_counts_to_the_last_bit():
    generator = np.random.default_rng(8)
    for _ in range(200):
        counts = TupleCounts(*map(int, generator.integers(0, 50, 3)))
        f1 = MICRO_F1.of([{"": astuple(counts)}]).value
        assert f1 == counts.precision_recall_f1[2]


def test_resampling_recomputes_the_corpus_metric():
    generator = np.random.default_rng(3)
    docs = [TupleCounts(*map(int, generator.integers(0, 5, 3))) for _ in range(40)]
    fast = resampled_f1(docs, resamples=4000)
    slow = []
    for _ in range(4000):
        drawn = [docs[i] for i in generator.integers(0, 40, 40)]
        slow.append(sum(drawn, TupleCounts()).precision_recall_f1[2])
    assert fast.shape == (4000,)
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.003)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.05)


def test_docs_that_are_alike_have_no_spread():
    same = resampled_f1([TupleCounts(3, 1, 3)] * 5, resamples=100)
    assert same == pytest.approx(np.full(100, 0.6))
