"""The page's sections on repeats and on budgets of thought: their numbers, or no section."""

import json

import pytest
from report_runs import exam_run, exam_samples
from test_repeats import DrawingLM, run_of, spec_of

from mingmoe_eval.cli import main
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.metrics.repeated import majority_at, pass_at
from mingmoe_eval.repeats import questions
from mingmoe_eval.report import drawings, render_report
from mingmoe_eval.report.reasoning import attempts, curves, repeat_breakdowns, repeated
from mingmoe_eval.report.sample_pack import pack_samples, pair_docs
from mingmoe_eval.report.view import breakdowns, columns
from mingmoe_eval.report.wording import Wording
from mingmoe_eval.run_store import CURVE_FILE, save_run


@pytest.fixture(scope="module")
def runs():
    return [
        run_of(spec_of("usmle", "cmexam", repeats=4)),
        run_of(spec_of("usmle", repeats=2), DrawingLM(skill=0.3)),
    ]


@pytest.fixture(scope="module")
def plain():
    return exam_run("plain", {"usmle": exam_samples("usmle", 6, lambda n: ("A", "A"))})


def test_the_table_says_of_each_run_and_task_what_its_samples_do(runs):
    shown = columns(runs, 0)
    lines = {(one.task, one.column.position): one for one in repeated(runs, shown)}
    assert set(lines) == {("usmle", 0), ("usmle", 1), ("cmexam", 0)}
    for (task, position), line in lines.items():
        asked = questions(runs[position].samples[task])
        k = len(asked[0])
        scores = [[s.score for s in one] for one in asked]
        by_repeat = [sum(one[n] for one in scores) / len(asked) for n in range(k)]
        said = [None if cell is None else cell.metric.value for cell in line.cells]
        assert line.repeats == k
        assert said[0] == pytest.approx(sum(by_repeat) / k)
        assert (line.lowest.value, line.highest.value) == pytest.approx(
            (min(by_repeat), max(by_repeat))
        )
        passes = [pass_at(k, sum(map(int, one)), k) for one in scores]
        assert said[1] == pytest.approx(sum(passes) / len(passes))
        votes = [majority_at([s.score for s in q], [s.answered for s in q], k) for q in asked]
        # A vote of two is settled by ties alone: nobody tells it.
        assert said[2] == (None if k == 2 else pytest.approx(sum(votes) / len(votes)))
        assert said[3] == pytest.approx(sum(min(one) for one in scores) / len(scores))


def test_what_repeats_tell_stands_in_their_section_alone(runs):
    shown = {name for _, parts in breakdowns(runs) for part in parts for name in [part.tag]}
    assert "repeat" not in shown
    rows = {row.name for _, parts in breakdowns(runs) for part in parts for row in part.rows}
    assert not {name for name in rows if name.startswith(("pass@", "majority@", "agreement"))}
    apart = dict(repeat_breakdowns(runs))
    assert [part.tag for part in apart["usmle"]] == ["repeat", ""]
    by_repeat, others = apart["usmle"]
    assert [row.name for row in by_repeat.rows] == ["1", "2", "3", "4"]
    assert by_repeat.rows[3].cells[1] is None  # the other run has two
    assert {"pass@2", "pass@4", "majority@4", "sampling_share"} <= {r.name for r in others.rows}


def test_the_chart_of_draws_begins_with_one_and_ends_with_all(runs):
    drawn = attempts(runs, columns(runs, 0))
    usmle = [a for a in drawn if a.task == "usmle" and a.column.position == 0]
    assert [(a.vote, a.k) for a in usmle] == [
        (False, 1),
        (False, 2),
        (False, 4),
        (True, 1),
        (True, 4),
    ]
    metrics = runs[0].results["usmle"].metrics
    values = [metrics[n].value for n in ("score", "pass@2", "pass@4", "score", "majority@4")]
    assert [a.value.value for a in usmle] == values
    usmle_zh = Wording("zh").task_in_words("usmle")
    panels = {s.panel for s in drawings.curves_of(usmle, [], Wording("zh"))["attempts"]}
    assert panels == {f"{usmle_zh}: 至少一次正确", f"{usmle_zh}: 多数表决正确"}


def test_the_page_has_both_sections_where_there_is_something_to_tell_and_none_else(
    runs, plain, tmp_path
):
    page = render_report(runs, tmp_path / "with.html").read_text()
    assert 'id="repeats"' in page
    assert 'id="budgets"' not in page
    without = render_report([plain], tmp_path / "without.html").read_text()
    assert 'id="repeats"' not in without
    assert 'id="budgets"' not in without
    both = render_report([plain, runs[0]], tmp_path / "both.html").read_text()
    assert 'id="repeats"' in both


def test_each_answer_of_a_question_says_which_repeat_it_is(runs, plain):
    docs = pair_docs(runs, 0)
    usmle = [doc for doc in docs if doc.task == "usmle"]
    assert {doc.repeat for doc in usmle} == {1, 2, 3, 4}
    for doc in docs:
        assert {s.repeat + 1 for s in doc.samples if s is not None} == {doc.repeat}
    pack = pack_samples(docs, withheld_tasks=(), budget=10**7)
    assert [row[7] for row in pack.index["rows"]] == [doc.repeat for doc in docs]
    assert {doc.repeat for doc in pair_docs([plain], 0)} == {0}


# --- budgets of thought ------------------------------------------------------------------------


def curve_of(run, values, **changes):
    main_value = run.results["usmle"].main.value
    points = [
        {"task": "usmle", "budget": budget, "value": value, "n": 6, "docs": 6, "forced": forced}
        for budget, value, forced in values
    ]
    whole = {"task": "usmle", "budget": None, "value": main_value, "n": 6, "docs": 6}
    return {"run": run.name, "points": [*points, {**whole, "tokens": 900.5, **changes}]}


def test_the_curve_is_told_by_budget_with_the_shares_of_its_replies(plain):
    shown = columns([plain], 0)
    kept, stale = curves([plain], shown, [curve_of(plain, [(512, 0.5, 3), (256, 0.25, 6)])])
    assert [(one.point.budget, one.cell.metric.value) for one in kept] == [
        *((256, 0.25), (512, 0.5), (None, 1.0)),
    ]
    assert [one.share("forced") for one in kept] == [1.0, 0.5, 0.0]
    assert stale == []
    spots = drawings.curves_of([], kept, Wording("en"))["thought_budgets"]
    assert [(spot.x, spot.y, spot.panel) for spot in spots] == [
        *((256, 0.25, "MedQA US"), (512, 0.5, "MedQA US")),
    ]


def test_a_curve_of_another_score_is_said_to_be_and_not_shown(plain, tmp_path):
    found = curve_of(plain, [(256, 0.25, 6)], value=0.4)
    kept, stale = curves([plain], columns([plain], 0), [found])
    assert (kept, [(column.label, task) for column, task in stale]) == ([], [("plain", "usmle")])
    page = render_report([plain], tmp_path / "r.html", curves=[found]).read_text()
    assert "is of another score than the run has" in page


@pytest.mark.parametrize(
    "damage", [{}, {"points": 3}, {"points": [{"task": "usmle"}]}, {"points": [{"tusk": 1}]}]
)
def test_a_damaged_curve_is_refused_with_the_way_out(plain, damage):
    with pytest.raises(RunStoreError, match="make it again with `mingmoe-eval budget`"):
        curves([plain], columns([plain], 0), [damage])


def test_the_report_command_takes_the_curve_from_the_run_folder(plain, tmp_path, capsys):
    folder = save_run(plain, tmp_path / "plain")
    (folder / CURVE_FILE).write_text(json.dumps(curve_of(plain, [(256, 0.25, 6)])))
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert 'id="budgets"' in page
    assert "900" in page
    assert "MedQA US tokens of thought at most 256: 25.0" in page  # the chart's own label
