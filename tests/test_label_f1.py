"""F1 over labels, against scikit-learn's report without a list of labels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from mingmoe_eval.metrics.label_f1 import MACRO_F1, count_label, label_metrics
from mingmoe_eval.metrics.metric import ClassMean, tabulate, total_of
from mingmoe_eval.metrics.resampling import without_each

PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcdef")), min_size=1)


def averaged(gold, said, average):
    """Precision, recall and F1."""
    totals = total_of([count_label(*pair) for pair in zip(gold, said, strict=True)])
    return [float(metric.value(totals)) for metric in label_metrics(average)]


@settings(deadline=None)
@given(pairs=PAIRS, average=st.sampled_from(["macro", "weighted"]))
def test_averages_are_those_of_scikit_learn(pairs, average):
    gold, said = zip(*pairs, strict=True)
    theirs = precision_recall_fscore_support(gold, said, average=average, zero_division=0)[:3]
    assert averaged(gold, said, average) == pytest.approx(theirs, abs=1e-12)


def test_a_constant_answer_is_weighted_by_support():
    # Five pairs, three of them 是的, all answered 是的: F1 0.75 for 是的 and 0 for 不是.
    gold = ["是的", "是的", "是的", "不是", "不是"]
    assert averaged(gold, ["是的"] * 5, "weighted")[2] == pytest.approx(0.45)
    assert averaged(gold, ["是的"] * 5, "macro")[2] == pytest.approx(0.375)
    table = tabulate([count_label(g, "是的") for g in gold])
    # Right, gold, answered.
    assert dict(zip(table.classes, table.totals.tolist(), strict=True)) == {
        "不是": [0, 2, 0],
        "是的": [3, 3, 5],
    }


def test_an_invented_label_adds_a_class_with_f1_zero():
    assert averaged(["a", "b"], ["a", "b"], "macro")[2] == 1
    assert averaged(["a", "b"], ["a", "x"], "macro")[2] == pytest.approx(1 / 3)


@pytest.mark.parametrize("average", ["macro", "weighted"])
@pytest.mark.parametrize("clustered", [False, True])
def test_leaving_out_each_unit_makes_the_union_of_classes_again(average, clustered):
    generator = np.random.default_rng(5)
    gold = [str(x) for x in generator.integers(0, 4, 30)]
    said = [g if generator.random() < 0.6 else f"invented {i}" for i, g in enumerate(gold)]
    clusters = [i // 3 if clustered else None for i in range(30)]
    counted = [count_label(*pair) for pair in zip(gold, said, strict=True)]
    for metric in label_metrics(average):
        fast = without_each(tabulate(counted, clusters=clusters), metric)
        slow = []
        for unit in range(10 if clustered else 30):
            out = range(3 * unit, 3 * unit + 3) if clustered else [unit]
            slow.append(
                float(metric.value(total_of([c for i, c in enumerate(counted) if i not in out])))
            )
        assert fast.shape == (len(slow),)
        assert fast == pytest.approx(np.array(slow), abs=1e-12)
        # Of the answers that name a gold label all are right: no spread in weighted precision.
        assert (fast.std() > 0) == (metric.name != "weighted_precision")


def test_a_chatty_model_has_an_interval_around_its_score():
    # 40 docs right, 40 with a reply of their own each: F1 of four labels about 2/3 and 40 zeros.
    gold = [str(i % 4) for i in range(80)]
    said = [g if i < 40 else f"I would say {i}" for i, g in enumerate(gold)]
    metric = MACRO_F1.of([count_label(*pair) for pair in zip(gold, said, strict=True)])
    assert metric.value == pytest.approx(4 * (2 / 3) / 44)
    low, high = metric.interval
    assert low < metric.value < high
    assert high - low < 0.1
    assert metric.interval_method == "jackknife, Wilson at the effective number of docs"


def test_a_rare_class_that_is_right_leaves_doubt():
    # Wilson's lower ends for 19 of 19 and 1 of 1: 0.8318 and 0.2065; by MOVER with weights 1/2.
    right = [count_label("a", "a")] * 19 + [count_label("b", "b")]
    metric = MACRO_F1.of(right)
    assert metric.value == 1
    assert metric.interval == pytest.approx((1 - np.hypot(0.1682, 0.7935) / 2, 1), abs=1e-4)


def test_a_jackknifed_number_that_is_no_share_has_the_normal_interval():
    # Ten times the macro F1: ten times its standard error, and room up to 10.
    def ten_times(totals):
        return 10 * MACRO_F1.value.of_class(totals)

    gold = [str(i % 4) for i in range(80)]
    docs = [count_label(g, g if i % 3 else "0") for i, g in enumerate(gold)]
    value = ClassMean(ten_times, MACRO_F1.value.weight)
    number = replace(MACRO_F1, value=value, unit="number", range=(0.0, 10.0)).of(docs)
    left_out = without_each(tabulate(docs), MACRO_F1)
    error = np.sqrt(79 / 80 * ((left_out - left_out.mean()) ** 2).sum())
    reach = 10 * 1.959964 * error
    assert number.value == pytest.approx(10 * MACRO_F1.of(docs).value)
    assert number.interval == pytest.approx((number.value - reach, number.value + reach), abs=1e-5)
    assert number.interval_method == "jackknife, normal"


def test_one_doc_proves_little_either_way():
    right, wrong = MACRO_F1.of([count_label("a", "a")]), MACRO_F1.of([count_label("a", "b")])
    assert right.interval == pytest.approx((0.2065, 1), abs=1e-4)
    assert wrong.interval == pytest.approx((0, 0.7935), abs=1e-4)
