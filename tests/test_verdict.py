"""What two runs prove together: pooled differences, one sentence, a strict gate that can pass."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from gate_runs import flipped, make_result, make_run, make_samples

from mingmoe_eval.comparison import compare, overall_verdict
from mingmoe_eval.metrics.draws import PairedCounts, swap_permutation
from mingmoe_eval.metrics.paired import right_wrong_difference
from mingmoe_eval.metrics.pooling import Stratum, moves_of, pooled_difference, sign_flip
from mingmoe_eval.metrics.significance import (
    false_discovery_adjusted,
    holm_adjusted,
    with_pooled,
)
from mingmoe_eval.records import MetricValue
from mingmoe_eval.regression_gate import judge


def tasks_run(name, scores_by_task, questions="own", **changes):
    """A run whose docs have a question each, of their task's own or the same in every task."""
    samples = {}
    for task, scores in scores_by_task.items():
        whose = task if questions == "own" else "every task"
        samples[task] = [
            dataclasses.replace(
                s,
                doc_id=f"{task} {s.position}",
                doc={"question": f"a long enough question, number {s.position}, of {whose}"},
            )
            for s in make_samples(scores, task)
        ]
    return make_run(name, samples, **changes)


def sixteen(scores):
    return {f"task{number}": scores for number in range(16)}


# A collapse, and a loss that is everywhere


def test_sixteen_tasks_of_eight_docs_that_collapse_fail():
    verdict = judge(tasks_run("main", sixteen([1.0] * 8)), tasks_run("new", sixteen([0.0] * 8)))
    assert verdict.exit_status == 1
    assert verdict.together.outcome == "regressed"
    assert verdict.together.paired.tails.lower == pytest.approx(0.5**128)
    assert verdict.overall.outcome == "worse"


def test_three_points_lost_in_each_of_sixteen_tasks_are_found_though_none_is_alone():
    before = [1.0] * 240 + [0.0] * 160
    after = flipped(before, lost=46, gained=34)
    verdict = judge(tasks_run("main", sixteen(before)), tasks_run("new", sixteen(after)))
    assert {task.outcome for task in verdict.tasks} == {"undecided"}
    assert [finding.task for finding in verdict.failures] == ["all tasks together"]
    assert verdict.exit_status == 1
    assert verdict.together.paired.difference == pytest.approx(-0.03)
    assert verdict.together.docs == 6400
    # The flips of all tasks are one coin toss each: 736 lost, 544 gained.
    from scipy.stats import binom

    assert verdict.together.paired.tails.lower == pytest.approx(binom.cdf(544, 1280, 0.5))


def test_the_same_questions_in_every_task_are_flipped_together():
    before = [1.0] * 240 + [0.0] * 160
    after = flipped(before, lost=46, gained=34)
    runs = (
        tasks_run(name, sixteen(scores), questions="shared")
        for name, scores in (("main", before), ("new", after))
    )
    together = judge(*runs).together
    # Sixteen forms of 400 questions prove what one form does.
    alone = right_wrong_difference(46, 34, 400, baseline_right=240, level=0.9)
    assert together.paired.units == 400
    assert together.outcome == "undecided"
    assert together.paired.tails.lower == pytest.approx(alone.tails.lower)
    assert together.paired.standard_error == pytest.approx(alone.standard_error, rel=2e-3)


def test_one_task_is_judged_by_its_own_numbers_alone():
    before = [1.0] * 240 + [0.0] * 160
    runs = (
        tasks_run("main", {"a": before}),
        tasks_run("new", {"a": flipped(before, lost=9, gained=4)}),
    )
    verdict = judge(*runs)
    assert verdict.together.paired == verdict.tasks[0].comparison.paired
    assert verdict.tasks[0].p_worse == verdict.tasks[0].comparison.p_worse


# The same answers


def test_a_run_against_itself_passes_strictly_whatever_its_size():
    run = tasks_run("main", {"a": [1.0], "b": [1.0, 0.0] * 4, "c": [0.3, 0.7, 0.2]})
    verdict = judge(run, run, strict=True)
    assert verdict.exit_status == 0
    assert {task.outcome for task in verdict.tasks} == {"equivalent"}
    assert verdict.tasks[0].reason == "every answer is the same"
    assert verdict.overall.outcome == "equivalent"
    assert verdict.overall.sentence == (
        "main is equivalent to main: every answer to the 12 docs is the same"
    )


def test_as_many_right_answers_to_other_docs_are_not_the_same_answers():
    verdict = judge(
        tasks_run("main", {"a": [1.0, 0.0] * 4}), tasks_run("new", {"a": [0.0, 1.0] * 4})
    )
    assert verdict.tasks[0].outcome == "undecided"


def test_another_wrong_answer_is_another_answer():
    run = tasks_run("main", {"a": [1.0, 0.0] * 4})
    samples = [dataclasses.replace(s, answered="C") for s in run.samples["a"]]
    verdict = judge(run, dataclasses.replace(run, samples={"a": samples}))
    assert verdict.tasks[0].outcome == "undecided"


def test_strict_passes_where_a_loss_of_the_margin_over_all_docs_is_ruled_out():
    before = [1.0] * 300 + [0.0] * 180
    after = flipped(before, lost=48, gained=48)
    one = judge(tasks_run("main", {"a": before}), tasks_run("new", {"a": after}), strict=True)
    assert one.exit_status == 3
    many = judge(tasks_run("main", sixteen(before)), tasks_run("new", sixteen(after)), strict=True)
    assert len(many.undecided) == 16
    assert many.together.outcome == "equivalent"
    assert many.exit_status == 0


# What is left out


def test_a_task_without_a_number_for_each_doc_is_left_out_where_the_baseline_has_none_either():
    run = tasks_run("main", {"a": [1.0, 0.0] * 50, "ppl": [1.0] * 5})
    samples = [dataclasses.replace(s, score=None, counts={}) for s in run.samples["ppl"]]
    run = dataclasses.replace(run, samples={**run.samples, "ppl": samples})
    verdict = judge(run, run)
    assert verdict.exit_status == 0
    assert [(w.kind, w.task) for w in verdict.warnings] == [("unjudged", "ppl")]
    comparison = compare(run, run)
    assert list(comparison.tasks) == ["a"]
    assert list(comparison.left_out) == ["ppl"]
    assert overall_verdict(comparison).sentence.endswith("; not compared: ppl")


# The sentence


def test_the_sentence_names_the_largest_certain_change_and_what_could_hide():
    before = [1.0] * 600 + [0.0] * 400
    after = {
        "a": flipped(before, lost=120, gained=40),
        "b": flipped(before, lost=90, gained=85),
    }
    verdict = overall_verdict(
        compare(tasks_run("main", dict.fromkeys(after, before)), tasks_run("new", after))
    )
    assert verdict.outcome == "worse"
    assert verdict.largest.task == "a"
    assert verdict.hiding.task == "b"
    assert verdict.hiding.hidden_loss == pytest.approx(
        -right_wrong_difference(90, 85, 1000, baseline_right=600, level=0.9).interval[0]
    )
    assert verdict.sentence == (
        "new is worse than main: -4.25 points [-5.74, -2.76] over all 2,000 docs of 2 tasks, "
        f"adjusted one-sided p = {verdict.together.p_worse:.2g}; "
        "the largest certain change is -8.00 points [-10.03, -5.94] on a; "
        "a loss of up to 2.7 points on b could still be hiding"
    )


def test_a_gain_in_one_task_does_not_hide_a_loss_in_another():
    before = [1.0] * 600 + [0.0] * 400
    after = {
        "a": flipped(before, lost=120, gained=40),
        "b": flipped(before, lost=40, gained=120),
    }
    verdict = overall_verdict(
        compare(tasks_run("main", dict.fromkeys(after, before)), tasks_run("new", after))
    )
    assert verdict.outcome == "mixed"
    assert verdict.together.outcome == "equivalent"


def test_compare_and_gate_say_the_same_sentence_though_their_levels_differ():
    before = [1.0] * 300 + [0.0] * 180
    runs = (
        tasks_run("main", dict.fromkeys("abc", before)),
        tasks_run("new", dict.fromkeys("abc", flipped(before, lost=60, gained=42))),
    )
    assert overall_verdict(compare(*runs)).sentence == judge(*runs).overall.sentence


# Groups


def grouped(run, members, value, **facts):
    group = make_result(
        run.samples[next(iter(run.samples))],
        task="exams",
        metrics={"score": MetricValue(value=value, n=1)},
        members=members,
        **facts,
    )
    return dataclasses.replace(run, results={**run.results, "exams": group})


@pytest.mark.parametrize("by_size", [False, True])
def test_a_group_of_members_that_score_alike_is_weighed_as_it_says(by_size):
    before = {"a": [1.0, 0.0] * 200, "b": [1.0, 0.0] * 50}
    after = {"a": flipped(before["a"], lost=40, gained=40), "b": before["b"]}
    runs = [
        grouped(tasks_run(name, scores), ("a", "b"), 0.5, weight_by_size=by_size)
        for name, scores in (("main", before), ("new", after))
    ]
    comparison = compare(*runs)
    errors = np.array([comparison.tasks[t].paired.standard_error for t in "ab"])
    weights = np.array([400, 100]) / 500 if by_size else np.array([0.5, 0.5])
    assert comparison.groups["exams"].paired.standard_error == pytest.approx(
        np.linalg.norm(weights * errors)
    )
    # Runs of old do not say: then the less certain of both.
    silent = [grouped(run, ("a", "b"), 0.5) for run in runs]
    worst = compare(*silent).groups["exams"].paired.standard_error
    assert worst == pytest.approx(np.linalg.norm(np.array([400, 100]) / 500 * errors))


def test_a_group_of_groups_is_tested_over_the_tasks_below_it():
    before = [1.0] * 60 + [0.0] * 40
    after = flipped(before, lost=12, gained=2)
    runs = []
    for name, scores in (("main", before), ("new", after)):
        run = tasks_run(name, {"a": scores, "b": scores, "c": before})
        value = float(np.mean(scores))
        inner = make_result(
            run.samples["a"],
            task="inner",
            members=("a", "b"),
            metrics={"score": MetricValue(value=value, n=200)},
            weight_by_size=False,
        )
        outer = make_result(
            run.samples["a"],
            task="outer",
            members=("inner", "c"),
            metrics={"score": MetricValue(value=(value + 0.6) / 2, n=300)},
            weight_by_size=False,
        )
        runs.append(
            dataclasses.replace(run, results={**run.results, "inner": inner, "outer": outer})
        )
    comparison = compare(*runs)
    a, c = (comparison.tasks[t].paired.standard_error for t in "ac")
    outer = comparison.groups["outer"]
    assert outer.paired.standard_error == pytest.approx(math.sqrt(2 * (a / 4) ** 2 + (c / 2) ** 2))
    assert outer.paired.difference == pytest.approx(-0.05)
    # Both groups rest on the same flips: 24 lost, 4 gained. Two groups: twice the p-value.
    from scipy.stats import binomtest

    assert outer.p_adjusted == pytest.approx(2 * binomtest(4, 28).pvalue)


# Few units


@pytest.mark.parametrize("clusters", [1, 2, 3, 4])
def test_fewer_than_five_clusters_are_too_few_to_say(clusters):
    def clustered(scores):
        return [
            dataclasses.replace(s, cluster=f"case {s.position % clusters}")
            for s in make_samples(scores, "a")
        ]

    before = [1.0] * 40
    verdict = judge(
        make_run("main", {"a": clustered(before)}), make_run("new", {"a": clustered([0.0] * 40)})
    )
    (task,) = verdict.tasks
    assert task.outcome == "undecided"
    assert task.comparison.paired.interval == (-1.0, 1.0)
    assert task.reason == (
        f"-100.00 points [-100.00, +100.00]: too few to say ({clusters} clusters of docs)"
    )
    assert task.docs_to_settle is None


def test_a_constant_shift_of_a_large_number_leaves_doubt():
    # Nine digits before the point: what the sums lose to rounding is no spread.
    before = np.linspace(1e5, 2e5, 40)
    task = compare(
        make_run("main", {"a": make_samples(list(before), "a")}),
        make_run("new", {"a": make_samples(list(before + 3.3), "a")}),
    ).tasks["a"]
    assert task.paired.standard_error >= 3.3 * math.sqrt(2) / 42 * 0.99


# The arithmetic


def test_moves_of_a_mean_are_the_differences_over_the_docs():
    rng = np.random.default_rng(0)
    before, after = rng.random((2, 30))
    ones = np.ones(30)
    counts = PairedCounts(
        baseline=np.column_stack([before, ones]),
        candidate=np.column_stack([after, ones]),
        value=lambda sums: sums[..., 0] / sums[..., 1],
    )
    assert moves_of(counts) == pytest.approx((after - before) / 30)


def test_moves_of_micro_f1_add_up_to_the_difference():
    rng = np.random.default_rng(0)
    before, after = rng.poisson(3, (2, 200, 3)).astype(float)
    counts = PairedCounts(
        baseline=before,
        candidate=after,
        value=lambda sums: 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2]),
    )
    one, other = (counts.value(side) for side in counts.totals())
    assert moves_of(counts).sum() == pytest.approx(other - one, abs=1e-4)
    swapped = dataclasses.replace(counts, baseline=after, candidate=before)
    assert moves_of(swapped) == pytest.approx(-moves_of(counts))


@pytest.mark.parametrize("sizes", [[1.0], [1.0, 0.25], list(np.linspace(0.1, 1, 90))])
def test_the_sign_flip_is_the_one_of_swaps(sizes):
    rng = np.random.default_rng(3)
    moves = rng.choice(sizes, 200) * rng.choice([-1, 1, 1], 200)
    column = moves[:, np.newaxis]
    counts = PairedCounts(
        baseline=np.zeros_like(column), candidate=column, value=lambda sums: sums[..., 0]
    )
    slow = swap_permutation(counts, rng=rng, permutations=200_000)
    fast = sign_flip(moves, rng=rng, permutations=200_000)
    assert fast.higher == pytest.approx(slow.higher, abs=0.002)
    assert fast.lower == pytest.approx(slow.lower, abs=0.002)


def test_pooled_p_values_share_alpha_by_hand():
    # Holm: 0.03 and 0.04. The pooled 0.001 / 0.2 = 0.005 hands its part on: they stay.
    assert with_pooled(0.001, [0.03, 0.04])[1] == pytest.approx(holm_adjusted([0.03, 0.04]))
    assert with_pooled(0.001, [0.03, 0.04])[0] == pytest.approx(0.005)
    # It does not, at 0.05: Holm at four fifths of alpha. At 0.5 it would.
    whole, each = with_pooled(0.02, [0.01, 0.5])
    assert whole == pytest.approx(0.1)
    assert each == pytest.approx([0.02 / 0.8, 0.5])
    # All tasks rejected: the pooled one is tested at the whole of alpha.
    assert with_pooled(0.02, [0.001, 0.001])[0] == pytest.approx(0.02)
    assert with_pooled(0.3, [0.02]) == (0.02, [0.02])


@pytest.mark.parametrize("p_values", [[0.2], [0.04, 0.001, 0.03], [0.5, 0.5, 0.9], [0.01] * 4])
def test_false_discoveries_equal_scipys(p_values):
    from scipy.stats import false_discovery_control

    assert false_discovery_adjusted(p_values) == pytest.approx(
        list(false_discovery_control(p_values))
    )


def test_negative_weights_turn_costs_into_losses():
    paired = right_wrong_difference(10, 30, 100, baseline_right=50, level=0.9)
    stratum = Stratum(
        paired=paired,
        docs=100,
        moves=np.array([0.01] * 30 + [-0.01] * 10 + [0.0] * 60),
        questions=np.arange(100),
    )
    other = dataclasses.replace(stratum, questions=np.arange(100, 200))
    pooled = pooled_difference(
        [stratum, other], [-0.5, -0.5], level=0.9, rng=np.random.default_rng(0)
    )
    assert pooled.difference == pytest.approx(-0.2)
    assert pooled.tails.lower < 1e-4


def test_a_lone_task_says_the_same_alone_and_as_all_tasks_together():
    """Both at the level of the verdict, whatever that of the comparison."""
    scores = [1.0] * 300 + [0.0] * 100
    runs = [tasks_run("a", {"t": scores}), tasks_run("b", {"t": [0.0] * 20 + scores[20:]})]
    verdict = overall_verdict(compare(*runs))
    alone, whole = verdict.tasks["t"].comparison.paired, verdict.together.paired
    assert alone.level == whole.level == pytest.approx(0.9)
    assert alone.interval == whole.interval != compare(*runs).tasks["t"].paired.interval


@pytest.mark.parametrize("sizes", [[1.0, 0.25], [0.5, 0.3, 0.2]])
def test_the_sign_flip_of_few_moves_equals_counting_all_ways(sizes):
    rng = np.random.default_rng(5)
    moves = rng.choice(sizes, 11) * rng.choice([-1, 1, 1], 11)
    flips = itertools.product([1, -1], repeat=11)
    sums = np.array([np.dot(flip, np.abs(moves)) for flip in flips])
    tails = sign_flip(moves, rng=rng)
    assert tails.lower == np.mean(sums <= moves.sum() + 1e-9)
    assert tails.higher == np.mean(sums >= moves.sum() - 1e-9)


def test_a_lone_task_keeps_its_numbers_also_where_less_is_better():
    alone = right_wrong_difference(7, 2, 40, baseline_right=20, level=0.9)
    stratum = Stratum(paired=alone, docs=40, moves=np.zeros(1), questions=np.arange(1), sign=-1)
    turned = pooled_difference([stratum], [1.0], level=0.9, rng=np.random.default_rng(0))
    assert (turned.tails.lower, turned.tails.higher) == (alone.tails.higher, alone.tails.lower)
    assert turned.difference == pytest.approx(-alone.difference)
    for level in (0.9, 0.99):
        low, high = alone.interval_at(level)
        assert turned.interval_at(level) == (-high, -low)
