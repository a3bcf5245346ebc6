"""Points, thresholds and the probability of passing, against hand calculations and real runs."""

import dataclasses
import itertools
import math

import pytest
import yaml
from report_runs import exam_samples

from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.pass_rules import built_in_rules, rule_named, verdicts, verdicts_of
from mingmoe_eval.records import Run, RunSpec

RULE = {
    "title": "Ward exam",
    "source": "regulations",
    "tasks": ["ward"],
    "sections": [
        {
            "name": "theory",
            "out_of": 4,
            "pass_from": 2,
            "questions": [{"numbers": [1, 4], "points": 1}],
        },
        {
            "name": "practice",
            "out_of": 5,
            "pass_from": 3,
            "questions": [{"numbers": [5, 5], "points": 2}, {"numbers": [6, 6], "points": 3}],
        },
    ],
}


def rule_of(folder, **changes):
    path = folder / "rule.yaml"
    path.write_text(yaml.safe_dump({**RULE, **changes}), "utf-8")
    return rule_named(str(path))


def run_of(right, *, task="ward", name="m"):
    """A run whose questions are right where the text has a 1."""
    samples = exam_samples(task, len(right), lambda n: ("A" if right[n] == "1" else "B", "x"))
    spec = RunSpec(model=name, tasks=task)
    return Run(name=name, spec=spec, provenance={}, results={}, samples={task: samples})


def test_points_are_summed_by_section_and_compared_with_their_thresholds(tmp_path):
    rule = rule_of(tmp_path)
    [one] = verdicts(run_of("110001"), rule)
    assert [part.points for part in one.parts] == [2, 3]
    assert (one.points, one.passes) == (5, True)
    [other] = verdicts(run_of("111110"), rule)
    assert [part.points for part in other.parts] == [4, 2]
    assert (other.points, other.passes) == (6, False)


def test_the_whole_exam_can_have_a_threshold_of_its_own(tmp_path):
    rule = rule_of(tmp_path, pass_from=6)
    assert not verdicts(run_of("110001"), rule)[0].passes
    assert verdicts(run_of("111001"), rule)[0].passes


def by_enumeration(right):
    """Every draw with replacement of each stratum, one by one."""
    strata = [(right[:4], 1, 4), (right[4:5], 2, 1), (right[5:], 3, 1)]
    draws = [
        [(sum(map(int, draw)) * points) for draw in itertools.product(earned, repeat=count)]
        for earned, points, count in strata
    ]
    combined = list(itertools.product(*draws))
    return sum(a >= 2 and b + c >= 3 for a, b, c in combined) / len(combined)


@pytest.mark.parametrize("right", ["110001", "100001", "101111", "010010", "111111", "000000"])
def test_the_probability_of_passing_is_the_share_of_all_draws_that_pass(tmp_path, right):
    [one] = verdicts(run_of(right), rule_of(tmp_path))
    assert one.probability == pytest.approx(by_enumeration(right), abs=1e-12)
    low, high = one.probability_interval
    assert 0 <= low <= one.probability <= high <= 1


def test_the_interval_of_the_points_is_that_of_a_binomial(tmp_path):
    section = {"name": "all", "out_of": 100, "pass_from": 60, "questions": [{"points": 1}]}
    [one] = verdicts(run_of("1" * 70 + "0" * 30), rule_of(tmp_path, sections=[section]))
    error = math.sqrt(100 * 0.7 * 0.3)
    assert one.interval[0] == pytest.approx(70 - 1.96 * error, abs=2)
    assert one.interval[1] == pytest.approx(70 + 1.96 * error, abs=2)
    # P(Bin(100, 0.7) >= 60), from a table of the binomial distribution
    assert one.probability == pytest.approx(0.9875, abs=1e-4)


def test_points_need_not_be_whole(tmp_path):
    questions = [{"numbers": [1, 2], "points": 0.5}, {"numbers": [3, 4], "points": 1.25}]
    section = {"name": "all", "out_of": 3.5, "pass_from": 1.75, "questions": questions}
    rule = rule_of(tmp_path, sections=[section])
    [one] = verdicts(run_of("1010"), rule)
    assert (one.points, one.passes) == (1.75, True)
    # of halves 0, 1 or 2 right and of the others 0, 1 or 2, each with 1/4, 1/2, 1/4
    ways = {
        (a, b): p * q for (a, p), (b, q) in itertools.product(((0, 1), (1, 2), (2, 1)), repeat=2)
    }
    passing = sum(w for (a, b), w in ways.items() if 0.5 * a + 1.25 * b >= 1.75) / 16
    assert one.probability == pytest.approx(passing, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "changes", "reason"),
    [
        ("11000", {}, "practice: its questions are worth 2 points, by the rule 5"),
        ("1100011", {}, "question number 7: in no sections"),
        (
            "110001",
            {"sections": [*RULE["sections"], {**RULE["sections"][0], "name": "again"}]},
            "question number 1: in several sections",
        ),
    ],
)
def test_a_run_that_is_not_the_rule_s_whole_exam_is_refused(tmp_path, right, changes, reason):
    with pytest.raises(DataError, match=reason):
        verdicts(run_of(right), rule_of(tmp_path, **changes))


def test_a_run_with_failed_questions_has_no_verdict(tmp_path):
    run = run_of("110001")
    first, *others = run.samples["ward"]
    failed = dataclasses.replace(first, score=None, status="failed")
    with pytest.raises(DataError, match="1 questions failed"):
        verdicts(dataclasses.replace(run, samples={"ward": [failed, *others]}), rule_of(tmp_path))


def test_questions_are_found_by_id_and_by_tag(tmp_path):
    run = run_of("1011")
    names = ["9A-1", "9A-2", "9B-1", "9B-2"]
    samples = [
        dataclasses.replace(one, doc={**one.doc, "question_id": name})
        for one, name in zip(run.samples["ward"], names, strict=True)
    ]
    run = dataclasses.replace(run, samples={"ward": samples})
    sections = [
        {"name": "A", "out_of": 2, "pass_from": 2, "questions": [{"id": "9A-.*"}]},
        {"name": "B", "out_of": 4, "questions": [{"id": "9B-.*", "points": 2}]},
    ]
    [by_id] = verdicts(run, rule_of(tmp_path, sections=sections))
    assert [(part.points, part.passed) for part in by_id.parts] == [(1, False), (4, None)]
    sections = [
        {"name": track, "out_of": 2, "pass_from": 1, "questions": [{"where": {"track": [track]}}]}
        for track in ("tcm", "pharmacy")
    ]
    [by_tag] = verdicts(run, rule_of(tmp_path, sections=sections))
    assert [part.points for part in by_tag.parts] == [2, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sections": []}, "no sections"),
        ({"sections": [{**RULE["sections"][0], "pass_from": None}]}, "nothing can be failed"),
        ({"sections": [{**RULE["sections"][0], "pass_from": 5}]}, "pass_from is 5.0 of 4.0"),
        ({"sections": [{**RULE["sections"][0], "questions": [{"id": "("}]}]}, "regular expression"),
        (
            {"sections": [{**RULE["sections"][0], "questions": [{"points": 0}]}]},
            "questions of 0.0 points",
        ),
        (
            {"sections": [{**RULE["sections"][0], "questions": [{"points": math.inf}]}]},
            "questions of inf points",
        ),
        ({"sections": [{**RULE["sections"][0], "questions": []}]}, "theory: no questions"),
        ({"sections": [{**RULE["sections"][0], "pass_from": -1}]}, "pass_from is -1.0 of 4.0"),
        ({"passes_from": 3}, "passes_from"),
    ],
)
def test_a_file_that_is_no_rule_is_refused(tmp_path, changes, reason):
    with pytest.raises(DataError, match=reason):
        rule_of(tmp_path, **changes)


def test_an_unknown_rule_is_answered_with_those_there_are():
    with pytest.raises(MissingDataError, match=r"neither a file nor a rule.*jmle2026"):
        rule_named("jmle2027")


def test_runs_without_the_rule_s_task_are_refused_together(tmp_path):
    rule = rule_of(tmp_path)
    assert verdicts_of([run_of("110001"), run_of("11", task="usmle")], rule)[1] == []
    with pytest.raises(UsageError, match="is about ward, which m did not run"):
        verdicts_of([run_of("11", task="usmle")], rule)


def test_every_form_of_the_task_has_its_verdict(tmp_path):
    run = run_of("110001", task="ward_cot")
    assert [one.task for one in verdicts(run, rule_of(tmp_path))] == ["ward_cot"]


def test_the_bundled_rules_say_their_source():
    rules = built_in_rules()
    assert set(rules) == {"jmle2026"}
    assert all(rule.source.startswith("https://") for rule in rules.values())
    assert rules["jmle2026"].out_of == 500


def test_other_orders_of_the_options_earn_no_points_and_move_no_number(tmp_path):
    run = run_of("110001")
    shown = []
    for sample in run.samples["ward"]:
        turned = dataclasses.replace(sample, variant="BA", score=1 - sample.score)
        shown += [sample, turned]
    shown = [dataclasses.replace(one, position=at) for at, one in enumerate(shown)]
    [one] = verdicts(dataclasses.replace(run, samples={"ward": shown}), rule_of(tmp_path))
    assert [part.points for part in one.parts] == [2, 3]


def test_a_question_that_is_asked_several_times_earns_its_mean(tmp_path):
    run = run_of("110001")
    first, *others = run.samples["ward"]
    again = dataclasses.replace(first, score=0.0, answered="B")
    [one] = verdicts(
        dataclasses.replace(run, samples={"ward": [first, again, *others]}), rule_of(tmp_path)
    )
    assert [part.points for part in one.parts] == [1.5, 3]


@pytest.mark.parametrize("third", [0.3333, 0.333333, 0.3333333333333333])
def test_a_third_of_a_point_is_a_third_however_many_digits_it_has(tmp_path, third):
    section = {"name": "all", "out_of": 10, "pass_from": 6, "questions": [{"points": third}]}
    [one] = verdicts(run_of("1" * 18 + "0" * 12), rule_of(tmp_path, sections=[section]))
    assert one.points == pytest.approx(6)
    assert one.passes
    # P(Bin(30, 0.6) >= 18), from a table of the binomial distribution
    assert one.probability == pytest.approx(0.5785, abs=1e-4)
