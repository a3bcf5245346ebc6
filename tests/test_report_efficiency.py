"""The report's calibration and cost: rows, the frontier of runs, and charts that hold them."""

import dataclasses
import math
import re

import pytest
from report_runs import exam_run, exam_samples

from mingmoe_eval.metrics import calibration
from mingmoe_eval.report import efficiency, render_report, view
from mingmoe_eval.report.libraries import can_draw

PRICE = "in=1.0,out=2.0,currency=USD"


def letter_samples(task, docs, sure):
    """Letters with a probability of `sure` for A, which is right for three docs of four."""
    return [
        dataclasses.replace(
            sample,
            response=None,
            log_likelihoods=(math.log(sure), math.log(1 - sure)),
            expected="A" if number % 4 else "B",
            answered="A",
            score=float(bool(number % 4)),
        )
        for number, sample in enumerate(exam_samples(task, docs, lambda n: ("A", "x")))
    ]


def run_named(name, right, tokens, *, active=None, spec=None):
    """Twenty written answers, so many right, each of so many tokens; and twenty letters."""
    written = [
        dataclasses.replace(one, generated_tokens=tokens, thought_tokens=tokens // 2)
        for one in exam_samples("usmle", 20, lambda n: ("A" if n < right else "B", "x"))
    ]
    samples = {"usmle": written, "usmle_ll": letter_samples("usmle_ll", 20, 0.9)}
    run = exam_run(name, samples, spec={"price": PRICE, **(spec or {})})
    model = {"parameters": {"active": active, "total": 9e9}} if active else {}
    return dataclasses.replace(run, provenance={**run.provenance, "model": model})


def places(runs, kind, **options):
    shown = view.columns(runs, 0)
    effort = view.effort(runs, shown)
    found = efficiency.frontiers(runs, shown, effort, options.get("price")).get(kind, [])
    return {runs[place.column.position].name: place for place in found}


def test_the_frontier_holds_the_runs_that_none_beats_for_less():
    runs = [
        run_named("small", 8, 100),
        run_named("good", 16, 300),
        run_named("wasteful", 14, 900),
        run_named("worse", 6, 100),
        run_named("best", 18, 1000),
    ]
    found = places(runs, "tokens")
    assert {name for name, place in found.items() if place.on_frontier} == {"small", "good", "best"}
    # 20 written answers of 300 tokens and 20 letters of (here) one.
    letters = sum(sample.generated_tokens for sample in runs[1].samples["usmle_ll"])
    assert found["good"].amount == pytest.approx((20 * 300 + letters) / 40)
    assert found["good"].score.value == pytest.approx((16 / 20 + 15 / 20) / 2)


def test_runs_of_one_cost_and_score_are_both_on_the_frontier_and_no_plot_alone():
    alike = [run_named("a", 8, 9), run_named("b", 8, 9)]
    assert places(alike, "tokens") == {}
    found = places([*alike, run_named("c", 9, 20)], "tokens")
    assert all(place.on_frontier for place in found.values())
    assert len(found) == 3


def test_money_and_parameters_are_plotted_where_two_runs_say_them():
    two = [run_named("a", 8, 100, active=2e9), run_named("b", 9, 200, active=4e9)]
    assert {name: p.amount for name, p in places(two, "parameters").items()} == {"a": 2, "b": 4}
    prompt = sum(s.prompt_tokens for listed in two[0].samples.values() for s in listed)
    letters = sum(s.generated_tokens for s in two[0].samples["usmle_ll"])
    expected = (prompt * 1 + (2000 + letters) * 2) / 1e6 / 40 * 1000
    assert places(two, "money")["a"].amount == pytest.approx(expected)
    euros = run_named("c", 9, 200, spec={"price": "in=1.0,out=2.0,currency=EUR"})
    assert places([two[0], euros], "money") == {}
    assert places([two[0], euros], "parameters") == {}
    assert places(two[:1], "tokens") == {}


def test_costs_are_told_by_task_and_run_and_of_all():
    runs = [run_named("a", 8, 100), run_named("b", 9, 200)]
    rows = efficiency.cost_rows(runs, view.columns(runs, 0), None)
    assert [(row.task, row.column.position) for row in rows] == [
        *(("usmle", 0), ("usmle", 1), ("usmle_ll", 0), ("usmle_ll", 1), ("", 0), ("", 1)),
    ]
    assert rows[0].cost.right == 8
    assert rows[-1].cost.money == pytest.approx(rows[1].cost.money + rows[3].cost.money)
    dearer = efficiency.cost_rows(runs, view.columns(runs, 0), "10,20")
    assert dearer[0].cost.money == pytest.approx(10 * rows[0].cost.money)


def test_certainty_is_told_of_letters_alone():
    runs = [run_named("a", 8, 100)]
    (one,) = efficiency.certainties(runs, view.columns(runs, 0))
    assert one.task == "usmle_ll"
    assert one.cells[0].metric.value == pytest.approx(0.9 - 0.75)
    assert one.cells[1].metric.value == pytest.approx((15 * 2 * 0.01 + 5 * 2 * 0.81) / 20)
    assert [cell.metric.value for cell in one.selective] == pytest.approx([0.75] * 4)
    assert [(b.low, b.high, b.accuracy.n) for b in one.bins] == [(0.8, 0.9, 20)]
    assert 0 < one.by_chance < 0.15


def test_the_page_shows_calibration_costs_and_charts_in_both_languages(tmp_path):
    runs = [run_named("<b>a", 8, 100, active=2e9), run_named("b", 9, 200, active=4e9)]
    page = render_report(runs, tmp_path / "p.html", language="zh").read_text("utf-8")
    for anchor in ("calibration", "efficiency"):
        assert f'<h2 id="{anchor}">' in page
    assert "校准误差" in page
    assert "What the answers cost" in page
    assert "<b>a" not in page
    if can_draw():
        labels = re.findall(r'aria-label="([^"]*)"', page)
        assert sum("置信度" in label for label in labels) >= 2
        assert any("激活参数" in label for label in labels)


def test_a_page_without_letters_and_tokens_has_neither_section(tmp_path):
    samples = [
        dataclasses.replace(s, prompt_tokens=0, generated_tokens=0)
        for s in exam_samples("usmle", 5, lambda n: ("A", "x"))
    ]
    page = render_report([exam_run("a", {"usmle": samples})], tmp_path / "p.html").read_text(
        "utf-8"
    )
    assert 'id="calibration"' not in page
    assert 'data-t="costs_note"' not in page


def test_questions_about_one_case_widen_what_the_page_says_of_certainty_as_in_the_run():
    run = run_named("a", 8, 100)
    asked = [
        dataclasses.replace(one, doc={**one.doc, "context": f"case {number // 4}"})
        for number, one in enumerate(run.samples["usmle_ll"])
    ]
    run = dataclasses.replace(run, samples={**run.samples, "usmle_ll": asked})
    (one,) = efficiency.certainties([run], view.columns([run], 0))
    clusters = [number // 4 for number in range(20)]
    whole = calibration.metrics(asked, clusters)
    assert [cell.metric for cell in one.cells] == [whole["ece"], whole["brier"]]
    assert one.selective[0].metric == calibration.accuracy_at(1.0, asked, clusters)
