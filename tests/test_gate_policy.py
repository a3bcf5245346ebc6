"""What a team asks of a candidate, as a file: tiers, limits, a schema that lists every offence."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from gate_runs import flipped, make_result, make_run, make_samples

from mingmoe_eval import run_store
from mingmoe_eval.cli import main
from mingmoe_eval.errors import UsageError
from mingmoe_eval.exams.option_orders import OptionOrders, with_orders
from mingmoe_eval.records import MetricValue, Response, TaskSettings
from mingmoe_eval.regression_gate import first_policy, judge_by, output, read_policy
from mingmoe_eval.regression_gate.policy import policy_of
from mingmoe_eval.scoring import distinct_ids, fold_task, make_sample

RIGHT = [1.0] * 600 + [0.0] * 400
LOST = flipped(RIGHT, lost=120, gained=40)  # 8 points down
GAINED = flipped(RIGHT, lost=40, gained=120)  # 8 points up
OPEN = flipped(RIGHT, lost=90, gained=85)  # half a point down, undecided


def policy(**said):
    return policy_of(said, source="gate.yaml")


def judged(asked, after, before=RIGHT, **changes):
    baseline = make_run("main", {task: make_samples(before, task) for task in after})
    candidate = make_run("new", {t: make_samples(s, t, **changes) for t, s in after.items()})
    return judge_by(asked, baseline, candidate)


def found(verdict):
    return [(finding.kind, finding.task) for finding in verdict.failures]


# Tiers


def test_a_task_may_lose_what_another_gains_only_where_the_policy_lets_it():
    after = {"a": LOST, "b": GAINED}
    assert found(judged(policy(), after)) == [("regressed", "a")]
    traded = judged(policy(may_trade={"tasks": ["a", "b"]}), after)
    assert traded.exit_status == 0
    assert [(w.kind, w.task) for w in traded.warnings if w.kind == "traded"] == [("traded", "a")]
    assert judged(policy(watch_only={"tasks": "a"}), after).exit_status == 0


def test_a_trade_that_loses_more_than_it_gains_fails():
    verdict = judged(policy(may_trade={"tasks": ["*"]}), {"a": LOST, "b": RIGHT, "c": LOST})
    assert found(verdict) == [("regressed", "all tasks together")]


def test_a_trade_has_a_limit():
    after = {"a": LOST, "b": GAINED}
    # Certainly more than 5 points lost: 8 with a standard error of 1.2; not more than 7.
    for limit, status in ((0.05, 1), (0.07, 0)):
        asked = policy(may_trade={"tasks": ["*"], "largest_loss": limit})
        assert judged(asked, after).exit_status == status


def test_tiers_that_can_fail_share_alpha():
    asked = policy(may_trade={"tasks": ["b"]}, watch_only={"tasks": ["c"]})
    verdict = judged(asked, {"a": OPEN, "b": OPEN, "c": OPEN})
    assert [(t.name, t.alpha) for t in verdict.tiers] == [
        ("must_not_regress", 0.025),
        ("may_trade", 0.025),
        ("watch_only", 0.025),
    ]
    assert judged(policy(), {"a": OPEN}).tiers[0].alpha == 0.05


@pytest.mark.parametrize(("means", "status"), [("pass", 0), ("hold", 3), ("fail", 1)])
@pytest.mark.parametrize("tier", ["must_not_regress", "may_trade"])
def test_undecided_means_what_the_tier_says(tier, means, status):
    verdict = judged(policy(**{tier: {"tasks": ["*"], "undecided": means}}), {"a": OPEN})
    assert verdict.exit_status == status
    root = ET.fromstring(output.gate_junit(verdict).encode())
    assert (root.get("failures") != "0") == (status != 0)
    assert (verdict.held != ()) == (status == 3)
    words = {0: "", 1: "FAILED: ", 3: "HELD: all tasks together undecided"}[status]
    assert words in output.gate_markdown(verdict)


def test_a_watched_task_fails_nothing_whatever_happens_to_it():
    watched = policy(watch_only={"tasks": ["b"]})
    silent = judged(watched, {"b": LOST}, status="unanswered")
    assert silent.exit_status == 0
    assert {w.kind for w in silent.warnings} >= {"watched", "unanswered"}
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in "ab"})
    candidate = make_run("new", {"a": make_samples(RIGHT, "a")})
    assert judge_by(watched, baseline, candidate).exit_status == 0
    required = policy(watch_only={"tasks": ["b"]}, required=["b"])
    assert judge_by(required, baseline, candidate).exit_status == 1


def test_a_name_beats_a_pattern_and_what_no_tier_names_must_not_regress():
    asked = policy(must_not_regress={"tasks": ["exam_a"]}, watch_only={"tasks": ["exam*"]})
    assert [asked.tier_of(t) for t in ("exam_a", "exam_b", "other")] == [
        "must_not_regress",
        "watch_only",
        "must_not_regress",
    ]


# Limits


def test_margins_of_tasks_and_tiers():
    asked = policy(
        margin=0.01, tasks={"a": {"margin": 0.05}}, watch_only={"tasks": ["c"], "margin": 0.03}
    )
    assert [asked.margin_of(task) for task in "abc"] == [0.05, 0.01, 0.03]
    small = flipped(RIGHT, lost=70, gained=40)  # 3 points, at most 4.7
    assert judged(policy(tasks={"a": {"margin": 0.05}}), {"a": small}).tasks[0].outcome == (
        "equivalent"
    )
    assert judged(policy(), {"a": small}).tasks[0].outcome == "regressed"


def test_rises_of_one_task_are_its_own():
    silent = {"a": RIGHT}
    assert found(judged(policy(), silent, status="unanswered")) == [("unanswered", "a")]
    # Even a gross rise is no rise beyond a tolerance of everything.
    loose = policy(tasks={"a": {"unanswered": 1.0}})
    assert judged(loose, silent, status="unanswered").exit_status == 0


def test_a_required_task_that_neither_run_has_fails():
    verdict = judged(policy(required=["a", "gone"]), {"a": RIGHT})
    assert [str(f) for f in verdict.failures] == [
        "gone: both runs lack this task, which the policy requires"
    ]


def test_what_fits_no_task_is_said_and_so_is_a_group():
    asked = policy(
        may_trade={"tasks": ["cmexan", "b*"]},
        tasks={"no*": {"margin": 0.01}, "a": {"margin": 0.01}, "all": {}, "cmexan": {}},
    )
    runs = [
        make_run(name, {t: make_samples(RIGHT, t) for t in ("a", "b", "cmexam")})
        for name in ("main", "new")
    ]
    group = dataclasses.replace(runs[0].results["a"], task="all", members=("a", "b"))
    runs = [dataclasses.replace(run, results={**run.results, "all": group}) for run in runs]
    verdict = judge_by(asked, *runs)
    assert [str(w) for w in verdict.warnings if w.kind == "unmatched"] == [
        "cmexan: the policy names it, and neither run has such a task; did you mean cmexam?",
        "no*: the policy names it, and neither run has such a task",
        "all: the policy names a group, of which nothing is asked: name its tasks",
    ]
    assert verdict.exit_status == 0


def test_cost_is_limited_in_times_the_baselines():
    baseline = make_run("main", {"a": make_samples(RIGHT, "a", generated_tokens=10)})
    candidate = make_run("new", {"a": make_samples(RIGHT, "a", generated_tokens=16)})
    verdict = judge_by(policy(cost={"generated_tokens": 1.5}), baseline, candidate)
    assert [str(f) for f in verdict.failures] == [
        "generated tokens rose from 10,000 to 16,000, 1.6 times; the limit is 1.5"
    ]
    assert judge_by(policy(cost={"generated_tokens": 1.6}), baseline, candidate).exit_status == 0
    unknown = judge_by(policy(cost={"seconds": 2}), baseline, candidate)
    assert unknown.exit_status == 0
    assert "nobody knows the seconds of main" in output.gate_markdown(unknown)


def test_another_metric_is_judged_only_where_the_samples_make_it():
    def with_macro(run, value):
        numbers = {
            "score": run.results["a"].main,
            "other": MetricValue(value=value, n=1000, metric="other"),
        }
        results = {"a": make_result(run.samples["a"], metrics=numbers)}
        return dataclasses.replace(run, results=results)

    runs = [
        with_macro(make_run(name, {"a": make_samples(RIGHT, "a")}), 0.9) for name in ("main", "new")
    ]
    with pytest.raises(UsageError, match="cannot be made again doc by doc"):
        judge_by(policy(tasks={"a": {"metric": "other"}}), *runs)
    with pytest.raises(UsageError, match="main has no metric 'f2' of a; it has score, other"):
        judge_by(policy(tasks={"a": {"metric": "f2"}}), *runs)


def choice_run(name, right, **settings):
    """Forty questions with an option not to know, each under several orders or once by letters."""
    asked = [
        {
            "id": str(n),
            "question": f"which of these is number {n} of them?",
            "answer": "A",
            "options": {"A": f"a{n}", "B": f"b{n}", "C": "I don't know"},
            "single": True,
            "question_type": "",
            "context": "",
            "tags": {},
            "cluster": None,
        }
        for n in range(40)
    ]
    how = TaskSettings(suite="choice", form="letters", version="1.0", **settings)
    docs = with_orders(asked, OptionOrders.named("cyclic")) if how.permute_options else asked
    samples = distinct_ids(
        [
            make_sample("a", n, doc, f"{n}", Response(log_likelihoods=said), how)
            for n, doc in enumerate(docs)
            for said in [(-0.1 - n / 50, -1.0, -2.0) if n < right else (-2.0, -1.5, -0.2)]
        ]
    )
    result = fold_task("a", samples, how)
    return dataclasses.replace(make_run(name, {"a": samples}), results={"a": result})


@pytest.mark.parametrize(
    ("metric", "settings"),
    [
        ("acc_at_50", {"coverage": (0.5,)}),
        ("acc_when_answered", {}),
        ("robust_accuracy", {"permute_options": "cyclic"}),
        ("consistency", {"permute_options": "cyclic"}),
        ("same_answer", {"permute_options": "cyclic"}),
        ("position_bias", {"permute_options": "cyclic"}),
    ],
)
def test_a_metric_over_some_docs_or_several_answers_is_never_judged_as_plain_accuracy(
    metric, settings
):
    runs = [choice_run(name, right, **settings) for name, right in (("main", 30), ("new", 20))]
    with pytest.raises(UsageError, match=f"'{metric}' of a cannot be made again doc by doc"):
        judge_by(policy(tasks={"a": {"metric": metric}}), *runs)
    assert judge_by(policy(tasks={"a": {"metric": "brier"}}), *runs).tasks[0].comparison.docs == 40


def test_a_run_that_lacks_docs_of_the_other_is_judged_by_its_metric_all_the_same():
    main, new = (choice_run(name, 20) for name in ("main", "new"))
    failed = [dataclasses.replace(s, score=None, status="failed") for s in new.samples["a"][:1]]
    samples = {"a": [*failed, *new.samples["a"][1:]]}
    settings = TaskSettings(suite="choice", form="letters", version="1.0")
    result = fold_task("a", samples["a"], settings)
    short = dataclasses.replace(new, samples=samples, results={"a": result})
    verdict = judge_by(policy(tasks={"a": {"metric": "brier"}}), main, short)
    assert verdict.tasks[0].comparison.docs == 39


# The file


def test_every_offence_is_named_at_once(tmp_path):
    file = tmp_path / "gate.yaml"
    file.write_text(
        """
margn: 0.02
alpha: high
must_not_regress: {tasks: [a], undecided: maybe, largest_loss: 0.1}
watch_only: {undecided: fail}
may_trade: [a, b]
tasks: {a: {margin: 2, metrics: acc, truncated: -0.1}, b: 3}
rises: {unanswered: -1}
cost: {tokens: 1.5}
allow: [promt]
""",
        "utf-8",
    )
    with pytest.raises(UsageError) as refusal:
        read_policy(file)
    for offence in (
        "margn: unknown; did you mean margin?",
        "alpha: Expected `float`",
        "must_not_regress.undecided: Invalid enum value",
        "must_not_regress.largest_loss: only tasks of may_trade may lose",
        "watch_only.undecided: these tasks fail nothing",
        "may_trade: Expected `object`",
        "tasks.a.margin: 2.0 is no fraction",
        "tasks.a.metrics: unknown; did you mean metric?",
        "tasks.a.truncated: -0.1 is no limit",
        "tasks.b.: `name: value` is expected, not 3",
        "rises.unanswered: -1.0 is no limit",
        "cost.tokens: unknown; ",
        "allow: 'promt' is no kind of difference",
    ):
        assert offence in str(refusal.value)


@pytest.mark.parametrize("text", ["[a", "- a", "a: *b", "\x00", "3"])
def test_what_is_no_policy_is_refused_in_one_message(tmp_path, text):
    file = tmp_path / "gate.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=r"gate\.yaml"):
        read_policy(file)


def test_an_empty_policy_asks_what_the_flags_ask():
    assert dataclasses.replace(policy(), source="") == type(policy())()


def test_the_first_policy_is_one_and_knows_what_the_docs_can_show():
    baseline = make_run(
        "main", {"large": make_samples(RIGHT, "large"), "no": make_samples([1.0] * 20, "no")}
    )
    text = first_policy(baseline)
    asked = policy_of(yaml.safe_load(text), source="gate.yaml")
    assert asked.must_not_regress.tasks == ("large",)
    assert asked.watch_only.tasks == ("no",)
    assert asked.required == ("large",)
    # (1.645 + 0.842) * 0.45 / sqrt(1000)
    assert "- large  # 1000 docs show a drop from 3.5 points up" in text
    assert judge_by(asked, baseline, baseline).exit_status == 0


def test_the_command_writes_a_policy_and_judges_by_it(tmp_path, capsys):
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in "ab"})
    candidate = make_run("new", {"a": make_samples(LOST, "a"), "b": make_samples(GAINED, "b")})
    for run in (baseline, candidate):
        run_store.save_run(run, tmp_path / run.name)
    file = tmp_path / "gate.yaml"
    shared = ["--baseline", str(tmp_path / "main")]
    assert main(["gate", *shared, "--init", str(file)]) == 0
    assert main(["gate", *shared, "--init", str(file)]) == 2  # never over somebody's own
    judge = ["gate", str(tmp_path / "new"), *shared, "--policy", str(file)]
    assert main(judge) == 1
    said = yaml.safe_load(file.read_text("utf-8"))
    said["may_trade"]["tasks"], said["must_not_regress"]["tasks"] = ["a", "b"], []
    said["may_trade"]["largest_loss"] = None
    file.write_text(yaml.safe_dump(said), "utf-8")
    capsys.readouterr()
    assert main([*judge, "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["policy"] == str(file)
    assert data["tiers"]["may_trade"]["tasks"] == ["a", "b"]
    assert main([*judge, "--markdown", str(tmp_path / "gate.md")]) == 0
    page = (tmp_path / "gate.md").read_text("utf-8")
    assert "| a | may\\_trade |".replace("\\", "") in page
    assert "⚠️ regressed" in page
    assert "may_trade (margin 2, alpha 0.05): a, b; together equivalent" in page


def test_the_command_needs_its_runs(tmp_path, capsys):
    assert main(["gate", "somewhere"]) == 2
    assert "--baseline" in capsys.readouterr().err
    assert main(["gate", "--baseline", "somewhere"]) == 2
    assert "name the run folder to judge" in capsys.readouterr().err


def test_the_policy_in_the_docs_is_one():
    page = (Path(__file__).parents[1] / "docs" / "gate.md").read_text("utf-8")
    (written,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    asked = policy_of(yaml.safe_load(written), source="docs/gate.md")
    assert asked.margin_of("cmexam") == 0.01
    assert asked.tolerances_of("promptcblue_kuake_qic").unanswered == 0.05
    assert asked.tier_of("promptcblue_kuake_qic") == "may_trade"


def test_a_tier_that_regressed_is_not_undecided_too():
    verdict = judged(policy(must_not_regress={"undecided": "hold"}), {"a": LOST})
    assert (verdict.exit_status, verdict.held) == (1, ())
    failed = judged(policy(must_not_regress={"undecided": "fail"}), {"a": LOST})
    assert found(failed) == [("regressed", "a")]


VALUES = [None, True, -1, 0, 1e308, float("nan"), "", "a", [], [1], {}, {"a": {}}, {1: 2}, "\udc80"]


@pytest.mark.parametrize("key", ["must_not_regress", "tasks", "required", "rises", "cost", "alpha"])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_value_is_taken_or_refused_in_one_message(key, value):
    for said in ({key: value}, {"must_not_regress": {key: value}}, {"tasks": {"a": {key: value}}}):
        refusal = None
        try:
            policy(**said)
        except UsageError as error:
            refusal = str(error)
        assert refusal is None or refusal.startswith("gate.yaml is no policy")


def test_github_is_told_of_failures_first_in_its_own_words(tmp_path, capsys, monkeypatch):
    runs = tmp_path / "runs"
    for name, scores in (("main", RIGHT), ("new", LOST)):
        run = make_run(name, {"a": make_samples(scores, "a"), "b": make_samples(scores, "b")})
        run_store.save_run(run, runs / name)
    command = ["gate", str(runs / "new"), "--baseline", str(runs / "main"), "--json", "-"]
    asked = tmp_path / "gate.yaml"
    asked.write_text("watch_only: {tasks: [b, c%]}", "utf-8")
    assert main([*command, "--policy", str(asked)]) == 1
    assert "::" not in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main([*command, "--policy", str(asked)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["outcome"] == "failed"
    said = [line for line in printed.err.splitlines() if line.startswith("::")]
    assert [line.split(": ")[0] for line in said[:2]] == [
        "::error title=Regression gate::a",
        "::warning title=Regression gate::b",
    ]
    assert any("::c%25: the policy names it" in line for line in said)
