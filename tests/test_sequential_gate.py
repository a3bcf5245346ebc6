"""A gate that stops early: bets that may be looked at at any time, and a model asked no longer."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from gate_runs import make_run, make_samples

from mingmoe_eval.cli import main
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.metrics.betting import _SHARES, Evidence, settled
from mingmoe_eval.records import MetricValue
from mingmoe_eval.regression_gate.sequential import (
    SequentialRules,
    candidate_spec,
    judge_sequentially,
    judgeable,
    sequential_json,
)
from mingmoe_eval.run_store import load_run, save_run


def evidence(*differences):
    one = Evidence()
    one.add(differences)
    return one


# Bets


def test_the_capital_is_the_product_of_the_bets():
    drawn = [-1.0, 0.0, 0.5, -1.0]
    m = 0.02
    for direction, sign in (("above", 1), ("below", -1)):
        bets = [math.prod(1 + sign * share / (1 + m) * (x - m) for x in drawn) for share in _SHARES]
        assert evidence(*drawn).against(m, direction) == pytest.approx(np.mean(bets))


def test_a_fair_game_keeps_the_capital_on_average_exactly():
    # Every sequence of six fair flips: the mean of the capital is what was begun with.
    capitals = [
        evidence(*flips).against(0.0, "below") for flips in itertools.product([-1.0, 1.0], repeat=6)
    ]
    assert np.mean(capitals) == pytest.approx(1.0)


def test_before_the_first_draw_nothing_is_known():
    assert Evidence().interval(0.05) == (-1.0, 1.0)
    assert Evidence().against(0.0, "below") == 1.0
    assert settled(Evidence(), margin=0.02, alpha=0.05) == ""


def test_the_interval_is_what_no_bet_speaks_against():
    one = evidence(*[-1.0] * 60, *[1.0] * 20, *[0.0] * 320)
    low, high = one.interval(0.05)
    assert one.mean == pytest.approx(-0.1)
    assert low < one.mean < high < 0
    assert one.against(high, "below") >= 20 > one.against(high - 0.002, "below")
    assert one.against(low, "above") >= 20 > one.against(low + 0.002, "above")


def test_looking_after_every_draw_raises_no_more_false_alarms_than_alpha():
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        one = Evidence()
        for _ in range(30):
            one.add(rng.choice([-1.0, 0.0, 1.0], 40, p=[0.1, 0.8, 0.1]))
            if one.against(0.0, "below") >= 20:
                alarms += 1
                break
    assert alarms / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(
    ("lost", "gained", "same", "outcome"),
    [
        (60, 10, 330, "regressed"),
        (10, 60, 330, "improved"),
        (40, 40, 6000, "equivalent"),
        (40, 30, 330, ""),
        (0, 0, 0, ""),
    ],
)
def test_what_is_settled(lost, gained, same, outcome):
    one = evidence(*[-1.0] * lost, *[1.0] * gained, *[0.0] * same)
    assert settled(one, margin=0.02, alpha=0.05) == outcome


# The gate


class Answers:
    """A candidate whose answers are known: what it earns by task and doc."""

    def __init__(self, scores, **changes):
        self.scores, self.changes, self.asked = scores, changes, []

    def ask(self, docs):
        samples = {}
        for task, ids in docs.items():
            self.asked += [(task, doc) for doc in ids]
            whole = suited(make_samples(self.scores[task], task, **self.changes), task)
            by_id = {sample.doc_id: sample for sample in whole}
            samples[task] = [by_id[doc] for doc in ids]
        return of_suite(make_run("new", samples, timing={"seconds": 2.0}))


def suited(samples, task):
    return [
        dataclasses.replace(
            s,
            doc_id=f"{task} {s.doc_id}",
            doc={**s.doc, "question": f"a question that is long enough, {s.position} of {task}"},
        )
        for s in samples
    ]


def of_suite(run):
    results = {task: dataclasses.replace(r, suite="choice") for task, r in run.results.items()}
    return dataclasses.replace(run, results=results)


def baseline_of(scores):
    return of_suite(
        make_run("main", {task: suited(make_samples(s, task), task) for task, s in scores.items()})
    )


RNG = np.random.default_rng(3)
BEFORE = {task: (RNG.random(1000) < 0.6).astype(float).tolist() for task in "ab"}


def changed(scores, lost):
    """A share of the right answers lost, as many flips either way besides."""
    rng = np.random.default_rng(4)
    return [
        float(s if rng.random() > lost else 0.0) if s else float(rng.random() < 0.05)
        for s in scores
    ]


def test_a_large_loss_ends_it_after_a_fraction_of_the_questions():
    candidate = Answers({task: changed(scores, 0.3) for task, scores in BEFORE.items()})
    verdict = judge_sequentially(baseline_of(BEFORE), candidate, SequentialRules())
    assert verdict.outcome == "regressed"
    assert verdict.exit_status(strict=False) == 1
    assert verdict.asked == len(candidate.asked) < 400
    assert verdict.interval[1] < 0
    # 2 seconds a look; the rest at the same rate.
    looks = verdict.seconds / 2
    assert verdict.saved_seconds == pytest.approx(
        2 * looks / verdict.asked * (2000 - verdict.asked)
    )
    assert "questions were not asked" in verdict.sentence
    assert json.dumps(sequential_json(verdict, strict=False))


def test_no_doc_is_asked_twice_and_the_order_is_fixed():
    candidates = [Answers(BEFORE), Answers(BEFORE)]
    rules = SequentialRules(margin=0.001)
    for candidate in candidates:
        verdict = judge_sequentially(baseline_of(BEFORE), candidate, rules)
    assert candidates[0].asked == candidates[1].asked
    assert len(set(candidates[0].asked)) == len(candidates[0].asked) == 2000
    assert {task for task, _ in candidates[0].asked[:32]} == {"a", "b"}
    # None of a tenth of a point is ruled out; yet every answer of the whole is the same.
    assert verdict.outcome == "equivalent"
    assert verdict.exit_status(strict=True) == 0


def test_the_same_answers_are_found_equivalent_early():
    verdict = judge_sequentially(baseline_of(BEFORE), Answers(BEFORE), SequentialRules())
    assert verdict.outcome == "equivalent"
    assert verdict.asked < 600


def test_a_loss_in_one_task_fails_though_another_gains_as_much():
    better = [1.0 if s == 0 and n % 2 else s for n, s in enumerate(BEFORE["b"])]
    candidate = Answers({"a": changed(BEFORE["a"], 0.4), "b": better})
    verdict = judge_sequentially(baseline_of(BEFORE), candidate, SequentialRules())
    assert (verdict.outcome, verdict.where) == ("regressed", "a")
    assert " on a by " in verdict.sentence


def test_a_budget_is_kept():
    candidate = Answers(BEFORE)
    verdict = judge_sequentially(
        baseline_of(BEFORE), candidate, SequentialRules(margin=0.001, budget=100)
    )
    assert verdict.asked == 100
    assert verdict.outcome == "undecided"
    assert (verdict.exit_status(strict=False), verdict.exit_status(strict=True)) == (0, 3)
    assert "could still be hiding" in verdict.sentence


def test_questions_about_one_case_are_asked_together_and_are_one_draw():
    baseline = baseline_of({"a": BEFORE["a"][:40]})
    cases = [
        dataclasses.replace(s, cluster=f"case {s.position // 4}") for s in baseline.samples["a"]
    ]
    candidate = Answers({"a": BEFORE["a"][:40]})
    judge_sequentially(
        dataclasses.replace(baseline, samples={"a": cases}), candidate, SequentialRules()
    )
    order = [int(doc.rsplit("doc", 1)[1]) // 4 for _, doc in candidate.asked]
    assert [key for key, _ in itertools.groupby(order)] == list(dict.fromkeys(order))


def test_answers_to_other_prompts_are_refused_after_the_first_look():
    candidate = Answers(BEFORE, prompt="another")
    with pytest.raises(IncomparableRunsError, match="another prompt"):
        judge_sequentially(baseline_of(BEFORE), candidate, SequentialRules())
    assert len(candidate.asked) <= 33


def test_failed_questions_fail_the_gate():
    some = {"a": [None if n % 10 == 0 else s for n, s in enumerate(BEFORE["a"])]}
    verdict = judge_sequentially(baseline_of({"a": BEFORE["a"]}), Answers(some), SequentialRules())
    assert verdict.failed > 0
    assert verdict.exit_status(strict=False) == 1


def test_what_cannot_be_judged_question_by_question_is_said():
    foreign = make_run("main", {"a": make_samples(BEFORE["a"], "a")})
    with pytest.raises(UsageError, match="a: lm-eval scores it as a whole"):
        judge_sequentially(foreign, Answers(BEFORE), SequentialRules())
    with pytest.raises(UsageError, match="asks nothing"):
        judge_sequentially(baseline_of(BEFORE), Answers(BEFORE), SequentialRules(budget=0))


def test_the_candidates_spec_is_the_baselines_with_another_model():
    baseline = baseline_of(BEFORE)
    spec = candidate_spec(baseline, "ckpt", base=None, device="cpu")
    assert (spec.model, spec.tasks, spec.device) == ("ckpt", ("a", "b"), "cpu")
    assert spec.seed == baseline.spec.seed


# A model, from end to end


def test_a_model_is_asked_and_a_later_run_of_the_whole_reuses_its_answers(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("torch")
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))
    root = Path(__file__).parents[1]
    demo = str(root / "mingmoe_eval/demo/checkpoints/molora-adapter")
    tasks = ["--tasks", "mcmle,usmle_ll", "--sample", "--output", str(tmp_path)]
    assert main(["run", "--model", demo, *tasks, "--name", "main", "--no-cache"]) == 0
    asked = ["gate", "--sequential", "--baseline", str(tmp_path / "main"), "--model", demo]
    assert main(asked) == 2  # an invented sample is no benchmark
    capsys.readouterr()
    assert main([*asked, "--allow-marked", "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["outcome"], said["asked"], said["questions"]) == ("equivalent", 20, 20)
    assert main([*asked, "--allow-marked", "--tasks", "usmle_ll", "--budget", "4"]) == 0
    assert main(["run", "--model", demo, *tasks, "--name", "later"]) == 0
    timing = load_run(tmp_path / "later").timing
    assert timing["requests_from_store"] == timing["requests"]


def test_the_command_refuses_what_does_not_go_together(tmp_path, capsys):
    run = baseline_of(BEFORE)
    save_run(run, tmp_path / "main")
    judge = ["gate", "--baseline", str(tmp_path / "main")]
    assert main([*judge, "--sequential"]) == 2
    assert "--sequential takes a --model" in capsys.readouterr().err
    assert main([*judge, "somewhere", "--model", "ckpt"]) == 2
    assert "--model: only with --sequential" in capsys.readouterr().err


def test_other_suites_are_asked_question_by_question_too():
    """Within limits or not is as much a mean over questions as right or wrong is."""
    runs = [baseline_of({"a": BEFORE["a"]}), of_suite(make_run("new", {}))]
    numbers = {"a": dataclasses.replace(runs[0].results["a"], suite="number")}
    samples, left_out = judgeable(dataclasses.replace(runs[0], results=numbers))
    assert (len(samples["a"]), left_out) == (1000, {})
    with_f1 = dataclasses.replace(
        numbers["a"], suite="tuples", metrics={"score": MetricValue(value=1, n=1, metric="f1")}
    )
    _, left_out = judgeable(dataclasses.replace(runs[0], results={"a": with_f1}))
    assert left_out == {"a": "its metric, f1, is no mean over questions"}
