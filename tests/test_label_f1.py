"""F1 over labels, against scikit-learn's report without a list of labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from mingmoe_eval.metrics.label_f1 import averaged, label_table, resampled_f1

PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcdef")), min_size=1)


@settings(deadline=None)
@given(pairs=PAIRS, average=st.sampled_from(["macro", "weighted"]))
def test_averages_are_those_of_scikit_learn(pairs, average):
    gold, said = zip(*pairs, strict=True)
    theirs = precision_recall_fscore_support(gold, said, average=average, zero_division=0)[:3]
    assert averaged(label_table(gold, said), average) == pytest.approx(theirs, abs=1e-12)


def test_a_constant_answer_is_weighted_by_support():
    # Five pairs, three of them 是的, all answered 是的: F1 0.75 for 是的 and 0 for 不是.
    gold = ["是的", "是的", "是的", "不是", "不是"]
    table = label_table(gold, ["是的"] * 5)
    assert averaged(table, "weighted")[2] == pytest.approx(0.45)
    assert averaged(table, "macro")[2] == pytest.approx(0.375)
    assert table["是的"].support == 3


def test_an_invented_label_adds_a_class_with_f1_zero():
    assert averaged(label_table(["a", "b"], ["a", "b"]), "macro")[2] == 1
    assert averaged(label_table(["a", "b"], ["a", "x"]), "macro")[2] == pytest.approx(1 / 3)


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_resampling_makes_the_union_of_classes_again_in_every_draw(average):
    generator = np.random.default_rng(5)
    gold = [str(x) for x in generator.integers(0, 4, 30)]
    said = [g if generator.random() < 0.6 else f"invented {i}" for i, g in enumerate(gold)]
    fast = resampled_f1(gold, said, average, np.random.default_rng(1), resamples=4000)
    slow = []
    for _ in range(2000):
        drawn = generator.integers(0, 30, 30)
        table = label_table([gold[i] for i in drawn], [said[i] for i in drawn])
        slow.append(averaged(table, average)[2])
    assert fast.shape == (4000,)
    assert fast.mean() == pytest.approx(np.mean(slow), abs=0.01)
    assert fast.std() == pytest.approx(np.std(slow), rel=0.08)
