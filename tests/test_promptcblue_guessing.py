"""Chance levels of the label tasks, against expectations worked out by hand or by enumeration."""

import itertools
from statistics import fmean

import pytest
from sklearn.metrics import f1_score

from mingmoe_eval.promptcblue.catalogue import task_named
from mingmoe_eval.promptcblue.measures import guessing_level, measure_of


def doc(task, target, choices):
    return {"task_dataset": task, "target": target, "answer_choices": choices}


def test_equals_the_mean_over_every_possible_guess():
    golds = ["相关", "不相关", "不相关", "相关"]
    docs = [doc("KUAKE-IR", gold, ["相关", "不相关"]) for gold in golds]
    every = [
        f1_score(golds, guess, average="weighted", zero_division=0)
        for guess in itertools.product(["相关", "不相关"], repeat=4)
    ]
    assert guessing_level(docs) == pytest.approx(fmean(every), abs=0.01)


@pytest.mark.slow
def test_macro_f1_of_guesses_lies_below_one_in_n():
    labels = ["病因分析", "治疗方案", "医疗费用", "功效作用", "就医建议"]
    docs = [doc("KUAKE-QIC", label, labels) for label in labels]
    every = [
        f1_score(labels, guess, average="macro", zero_division=0)
        for guess in itertools.product(labels, repeat=5)
    ]
    assert guessing_level(docs) == pytest.approx(fmean(every), abs=0.01)
    assert guessing_level(docs) < 1 / 5


def test_is_the_same_every_time():
    docs = [doc("KUAKE-IR", "相关", ["相关", "不相关"])] * 3
    assert guessing_level(docs) == guessing_level(docs)


def test_has_no_value_where_the_answer_is_not_one_label():
    assert measure_of(task_named("CMeEE-V2")).main.chance is None
    assert guessing_level([]) is None
