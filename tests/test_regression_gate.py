import dataclasses
import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from gate_runs import flipped, make_result, make_run, make_samples

from mingmoe_eval import run_store
from mingmoe_eval.cli import main
from mingmoe_eval.errors import IncomparableRunsError, UsageError
from mingmoe_eval.records import Counts, MetricValue
from mingmoe_eval.regression_gate import Tolerances, judge
from mingmoe_eval.regression_gate.output import gate_json, gate_junit, gate_markdown

RIGHT = [1.0] * 600 + [0.0] * 400


def runs(after, before=RIGHT, **changes):
    return (
        make_run("main", {"usmle": make_samples(before)}),
        make_run("new", {"usmle": make_samples(after, **changes)}),
    )


def outcomes(verdict):
    return {task.task: task.outcome for task in verdict.tasks}


def kinds(findings):
    return [finding.kind for finding in findings]


def change_samples(run, first, **changes):
    """The run with these fields of its first so many samples changed, and its counts made again."""
    samples = [
        dataclasses.replace(s, **changes) if s.position < first else s for s in run.samples["usmle"]
    ]
    return dataclasses.replace(
        run, samples={"usmle": samples}, results={"usmle": make_result(samples)}
    )


# Verdicts


@pytest.mark.parametrize(
    ("lost", "gained", "outcome"),
    [
        (0, 0, "equivalent"),  # 90 % interval -0.2 to +0.2 points
        (20, 20, "equivalent"),  # -1.1 to +1.1
        (120, 40, "regressed"),  # -8 points, p below 1e-9
        (40, 120, "improved"),
        (90, 85, "undecided"),  # -2.7 to +1.7
        (4, 0, "equivalent"),  # p = 0.06 and inside the margin
        (8, 0, "equivalent"),  # p = 0.004, yet -1.3 to -0.3: inside the margin comes first
        (40, 20, "regressed"),  # -3.3 to -0.7, p = 0.007
    ],
)
def test_verdicts_in_their_order(lost, gained, outcome):
    verdict = judge(*runs(flipped(RIGHT, lost=lost, gained=gained)))
    assert outcomes(verdict) == {"usmle": outcome}
    assert verdict.exit_status == (1 if outcome == "regressed" else 0)


def test_undecided_says_what_it_would_take():
    (task,) = judge(*runs(flipped(RIGHT, lost=90, gained=85))).tasks
    error = np.std([-1] * 90 + [1] * 85 + [0] * 825, ddof=1) / math.sqrt(1000)
    seen = (1.644854 + 0.841621) * error
    assert task.minimum_detectable == pytest.approx(seen, rel=1e-5)
    needed = 1000 * ((1.644854 + 1.281552) * error / 0.02) ** 2
    assert task.docs_to_settle == pytest.approx(needed, abs=1)
    assert task.reason == (
        "-0.50 points [-2.68, +1.68]: 1000 docs show a drop from 3.3 points up; "
        "a loss of up to 2.7 points could be hiding; "
        f"about {task.docs_to_settle} would settle it"
    )


def test_strict_asks_for_a_decision():
    pair = runs(flipped(RIGHT, lost=90, gained=85))
    assert judge(*pair).outcome == "passed"
    strict = judge(*pair, strict=True)
    assert (strict.outcome, strict.exit_status) == ("undecided", 3)


def test_a_regression_outranks_the_undecided():
    tasks = {"usmle": (120, 40), "mcmle": (90, 85)}
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in tasks})
    candidate = make_run(
        "new",
        {
            t: make_samples(flipped(RIGHT, lost=lost, gained=gained), t)
            for t, (lost, gained) in tasks.items()
        },
    )
    verdict = judge(baseline, candidate, strict=True)
    assert outcomes(verdict) == {"usmle": "regressed", "mcmle": "undecided"}
    assert verdict.exit_status == 1


def test_holm_protects_many_tasks_from_one_chance_find():
    # 30 to 16 flips: one-sided p = 0.027, below 0.05 alone, not among six.
    after = flipped(RIGHT, lost=40, gained=25)
    assert outcomes(judge(*runs(after), margin=0.005)) == {"usmle": "regressed"}
    names = ["usmle", *(f"other{i}" for i in range(5))]
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in names})
    candidate = make_run(
        "new", {t: make_samples(after if t == "usmle" else RIGHT, t) for t in names}
    )
    verdict = judge(baseline, candidate, margin=0.005)
    assert outcomes(verdict)["usmle"] == "undecided"
    assert verdict.tasks[0].p_worse == pytest.approx(
        6 * verdict.tasks[0].comparison.paired.tails.lower
    )


# Everything else that fails


def test_a_missing_task_fails():
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in ("usmle", "mcmle")})
    candidate = make_run("new", {"usmle": make_samples(RIGHT)})
    verdict = judge(baseline, candidate)
    assert kinds(verdict.failures) == ["missing"]
    assert verdict.exit_status == 1


def test_a_task_without_baseline_is_not_judged():
    baseline = make_run("main", {"usmle": make_samples(RIGHT)})
    candidate = make_run("new", {t: make_samples(RIGHT, t) for t in ("usmle", "mcmle")})
    verdict = judge(baseline, candidate)
    assert outcomes(verdict) == {"usmle": "equivalent"}
    assert kinds(verdict.warnings) == ["new"]
    assert verdict.exit_status == 0


def test_a_missing_metric_fails():
    baseline, candidate = runs(RIGHT)
    result = candidate.results["usmle"]
    less = dataclasses.replace(result, metrics={"score": result.metrics["score"]})
    verdict = judge(baseline, dataclasses.replace(candidate, results={"usmle": less}))
    assert [str(f) for f in verdict.failures] == ["usmle: the candidate lacks the metric 'acc'"]


def test_an_incomplete_candidate_fails():
    verdict = judge(*runs([None] * 5 + RIGHT[5:]))
    assert [str(f) for f in verdict.failures] == [
        "usmle: the candidate's run is incomplete here: 5 of 1000 docs failed"
    ]


def test_a_candidate_whose_every_doc_failed_fails_and_is_not_refused():
    verdict = judge(*runs([None] * 1000))
    assert verdict.tasks == ()
    assert kinds(verdict.failures) == ["incomplete"]
    assert "testcase" in gate_junit(verdict)


def test_a_task_that_never_ran_fails_once():
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in ("usmle", "mcmle")})
    candidate = make_run("new", {"usmle": make_samples(RIGHT)}, missing_tasks=("mcmle",))
    assert kinds(judge(baseline, candidate).failures) == ["incomplete"]


def test_a_task_without_a_single_score_fails():
    scored = make_samples([1.0, 0.0] * 50)
    baseline = make_run("old", {"usmle": scored, "mcmle": make_samples([1.0] * 9, "mcmle")})
    unscored = [dataclasses.replace(sample, score=None) for sample in scored]
    candidate = make_run("new", {**baseline.samples, "usmle": unscored})
    empty = dataclasses.replace(baseline, samples={**baseline.samples, "usmle": []})
    for run in (candidate, empty):
        verdict = judge(baseline, run)
        assert (kinds(verdict.failures), verdict.exit_status) == (["unscored"], 1)
        assert [task.task for task in verdict.tasks] == ["mcmle"]


def test_an_incomplete_baseline_is_refused():
    candidate, baseline = runs([None] * 5 + RIGHT[5:])
    with pytest.raises(IncomparableRunsError, match=r"the baseline new is incomplete \(usmle\)"):
        judge(baseline, candidate)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("unanswered", {"status": "unanswered"}),
        ("truncated", {"finish": "length"}),
        ("truncated", {"prompt_truncated": True}),
    ],
)
def test_more_bad_samples_than_tolerated_fail(kind, changes):
    baseline, candidate = runs(RIGHT)
    within = judge(baseline, change_samples(candidate, 9, **changes))
    assert within.exit_status == 0
    beyond = judge(baseline, change_samples(candidate, 30, **changes))
    assert kinds(beyond.failures) == [kind]
    assert f"{kind} docs rose from 0 to 30 of 1000" in str(beyond.failures[0])
    loose = judge(
        baseline,
        change_samples(candidate, 30, **changes),
        tolerances=Tolerances(unanswered=0.05, truncated=0.05),
    )
    assert loose.exit_status == 0


def test_a_model_that_falls_silent_fails_even_on_ten_docs():
    baseline, candidate = runs(RIGHT[:10], RIGHT[:10])
    silent = judge(baseline, change_samples(candidate, 10, status="unanswered"))
    assert "unanswered" in kinds(silent.failures)
    assert silent.exit_status == 1


def test_a_rise_that_chance_explains_only_warns():
    # 60 docs unanswered before, 75 other ones after: 1.5 points, p = 0.11.
    baseline, candidate = runs(RIGHT)
    before = change_samples(baseline, 60, status="unanswered")
    samples = [
        dataclasses.replace(s, status="unanswered") if 100 <= s.position < 175 else s
        for s in candidate.samples["usmle"]
    ]
    verdict = judge(before, dataclasses.replace(candidate, samples={"usmle": samples}))
    assert verdict.exit_status == 0
    assert kinds(verdict.warnings) == ["unanswered"]


def test_one_non_finite_doc_fails():
    baseline, candidate = runs(RIGHT)
    counts = Counts(docs=1000, non_finite=1, failed=1)
    result = dataclasses.replace(candidate.results["usmle"], counts=counts)
    broken = dataclasses.replace(candidate, results={"usmle": result})
    assert kinds(judge(baseline, broken).failures) == ["non-finite"]
    assert judge(baseline, broken, tolerances=Tolerances(non_finite=1)).exit_status == 0


def test_a_jump_upwards_warns_and_fails_only_when_asked():
    pair = runs(flipped(RIGHT, lost=10, gained=200))
    verdict = judge(*pair)
    assert verdict.exit_status == 0
    assert kinds(verdict.warnings) == ["gain"]
    assert kinds(judge(*pair, largest_allowed_gain=0.10).failures) == ["gain"]
    assert judge(*pair, largest_allowed_gain=0.30).failures == ()


def test_a_number_that_samples_cannot_rebuild_warns():
    baseline, candidate = runs(RIGHT)
    metrics = {name: MetricValue(value=0.9, n=1000) for name in ("score", "acc")}
    result = dataclasses.replace(baseline.results["usmle"], metrics=metrics)
    verdict = judge(dataclasses.replace(baseline, results={"usmle": result}), candidate)
    assert kinds(verdict.warnings) == ["note"]


def test_replies_that_double_in_length_warn():
    baseline, candidate = runs(RIGHT)
    verdict = judge(
        change_samples(baseline, 1000, generated_tokens=5),
        change_samples(candidate, 1000, generated_tokens=15),
    )
    assert [str(w) for w in verdict.warnings] == [
        "usmle: replies are 3 times as long as the baseline's"
    ]


# Refusals


def test_marked_runs_are_refused_unless_allowed():
    baseline, candidate = runs(RIGHT)
    marked = dataclasses.replace(candidate, spec=dataclasses.replace(candidate.spec, sample=True))
    with pytest.raises(UsageError, match=r"new: invented sample(.|\n)*--allow-marked"):
        judge(baseline, marked)
    verdict = judge(baseline, marked, allow_marked=True)
    assert verdict.marks == ("invented sample",)
    assert "NOT the benchmark: invented sample" in gate_markdown(verdict)


def test_runs_that_differ_in_more_than_their_model_are_refused():
    with pytest.raises(IncomparableRunsError, match="another prompt"):
        judge(*runs(RIGHT, prompt="other"))
    verdict = judge(*runs(RIGHT, prompt="other"), allow=frozenset({"prompt"}))
    assert [difference.kind for difference in verdict.allowed] == ["prompt"]
    assert "overridden: usmle: another prompt" in gate_markdown(verdict)


@pytest.mark.parametrize("rules", [{"margin": 0}, {"margin": 2}, {"alpha": 0}, {"alpha": 0.5}])
def test_rules_must_make_sense(rules):
    with pytest.raises(UsageError, match="is no"):
        judge(*runs(RIGHT), **rules)


# Output


def three_tasks():
    """One regressed, one undecided, one missing."""
    names = ("usmle", "mcmle", "cmexam")
    baseline = make_run("main", {t: make_samples(RIGHT, t) for t in names})
    return baseline, make_run(
        "new <&> \x00\x1b",
        {
            "usmle": make_samples(flipped(RIGHT, lost=120, gained=40), "usmle"),
            "mcmle": make_samples(flipped(RIGHT, lost=90, gained=85), "mcmle"),
        },
    )


def test_junit_counts_what_it_holds():
    root = ET.fromstring(gate_junit(judge(*three_tasks())).encode())
    (suite,) = root
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == ["usmle", "mcmle", "all tasks together", "cmexam"]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "3", "1")
    assert (
        cases["all tasks together"]
        .find("failure")
        .get("message")
        .startswith(
            "regressed, -4.25 points"  # (40 + 85 - 120 - 90) / 2000
        )
    )
    assert cases["usmle"].find("failure").get("message").startswith("regressed, -8.00 points")
    assert cases["mcmle"].find("skipped").get("message").startswith("undecided, -0.50 points")
    assert cases["cmexam"].find("failure").text == "the candidate lacks this task"
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["outcome"] == "failed"


def test_a_task_that_passes_is_a_case_without_failure():
    root = ET.fromstring(gate_junit(judge(*runs(RIGHT))).encode())
    (case,) = root.iter("testcase")
    assert [child.tag for child in case] == ["system-out"]
    assert root.get("failures") == "0"


def test_strict_makes_the_undecided_a_junit_failure():
    root = ET.fromstring(gate_junit(judge(*three_tasks(), strict=True)).encode())
    assert [
        case.get("name") for case in root.iter("testcase") if case.find("failure") is not None
    ] == [
        "usmle",
        "mcmle",
        "all tasks together",
        "cmexam",
    ]


def test_markdown_has_a_row_a_task_and_every_failure():
    page = gate_markdown(judge(*three_tasks()))
    assert page.startswith("## Regression gate failed: new &lt;&amp;&gt;")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 2
    assert "❌ regressed" in rows[2]
    assert "- FAILED: cmexam: the candidate lacks this task" in page


def test_json_holds_the_verdict_and_its_numbers():
    data = gate_json(judge(*three_tasks()))
    assert data == json.loads(json.dumps(data))
    assert (data["outcome"], data["exit_status"]) == ("failed", 1)
    assert data["tasks"]["usmle"]["difference"] == pytest.approx(-0.08)
    assert data["tasks"]["usmle"]["level"] == pytest.approx(0.9)
    assert len(data["tasks"]["usmle"]["lost"]) == 120


# The command


@pytest.fixture
def folders(tmp_path):
    """Saved runs: main, same, worse, unsure."""
    saved = {
        "main": RIGHT,
        "same": RIGHT,
        "worse": flipped(RIGHT, lost=120, gained=40),
        "unsure": flipped(RIGHT, lost=90, gained=85),
    }
    for name, scores in saved.items():
        run_store.save_run(make_run(name, {"usmle": make_samples(scores)}), tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("candidate", "options", "status"),
    [
        ("same", [], 0),
        ("worse", [], 1),
        ("unsure", [], 0),
        ("unsure", ["--strict"], 3),
        ("absent", [], 2),
        ("same", ["--margin", "7"], 2),
        ("same", ["--allow", "nothing"], 2),
    ],
)
def test_the_gate_command_exits_with_its_verdict(folders, candidate, options, status):
    arguments = ["gate", str(folders / candidate), "--baseline", str(folders / "main"), *options]
    assert main(arguments) == status


def test_the_gate_command_writes_all_three_files(folders, capsys):
    files = {kind: folders / f"gate.{kind}" for kind in ("junit", "markdown", "json")}
    options = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    main(["gate", str(folders / "worse"), "--baseline", str(folders / "main"), *options])
    assert ET.parse(files["junit"]).getroot().get("failures") == "1"
    assert "❌ regressed" in files["markdown"].read_text("utf-8")
    assert json.loads(files["json"].read_text("utf-8"))["exit_status"] == 1
    printed = capsys.readouterr().out
    assert "Regression gate failed: worse against main" in printed
    assert "FAILED: usmle: regressed, -8.00 points" in printed


def test_json_to_stdout_stands_alone(folders, capsys):
    main(["gate", str(folders / "worse"), "--baseline", str(folders / "main"), "--json", "-"])
    assert json.loads(capsys.readouterr().out)["outcome"] == "failed"


def test_a_file_that_cannot_be_written_is_a_users_mistake(folders, capsys):
    (folders / "gone").write_text("a file, where a folder would have to be", "utf-8")
    gone = str(folders / "gone" / "gate.xml")
    arguments = ["gate", str(folders / "same"), "--baseline", str(folders / "main")]
    assert main([*arguments, "--junit", gone]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_the_compare_command_prints_and_writes(folders, capsys):
    page, data = folders / "page.md", folders / "data.json"
    arguments = ["compare", str(folders / "main"), str(folders / "worse")]
    assert main([*arguments, "--markdown", str(page), "--json", str(data)]) == 0
    assert "worse against main" in capsys.readouterr().out
    assert "| usmle | 1000 | 60.00 | 52.00 | -8.00 (" in page.read_text("utf-8")
    assert json.loads(data.read_text("utf-8"))["tasks"]["usmle"]["test"] == "exact McNemar"
    assert main([*arguments, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["candidate"] == "worse"
