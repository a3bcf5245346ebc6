"""A metric is one record: everything that handles numbers asks it, and its intervals hold."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mingmoe_eval.cli.console import print_results
from mingmoe_eval.comparison import compare
from mingmoe_eval.comparison.output import comparison_markdown
from mingmoe_eval.exams import scoring as exams
from mingmoe_eval.exams.robustness import POSITION_BIAS
from mingmoe_eval.harness.files import write_output
from mingmoe_eval.harness.reading import read_output
from mingmoe_eval.metrics.label_f1 import count_label, label_metrics
from mingmoe_eval.metrics.metric import ClassMean, Metric, mean_of_sums, tabulate, tabulate_sides
from mingmoe_eval.metrics.of_lm_eval import foreign_metric
from mingmoe_eval.metrics.resampling import Bootstrap, Mean
from mingmoe_eval.metrics.showing import best_first, common_direction
from mingmoe_eval.paper_table import FORMATS, TableSpec, as_text, make_table
from mingmoe_eval.promptcblue import measures
from mingmoe_eval.records import MetricValue, Response, Run, RunSpec, TaskSettings
from mingmoe_eval.regression_gate import judge
from mingmoe_eval.regression_gate.output import gate_markdown
from mingmoe_eval.report import render_report
from mingmoe_eval.run_store import load_run, save_run
from mingmoe_eval.scoring import described, fold_task, make_sample, metric_of

# Every metric that is reported: what docs may add to it, by the shape of its counts.

SHARE = st.floats(0, 1, allow_subnormal=False)
LABEL = st.sampled_from(["a", "b", "c", *(f"I would say {n}" for n in range(9))])
COUNTS = {
    "labels": st.tuples(st.sampled_from("abc"), LABEL).map(lambda pair: count_label(*pair)),
    "tuples": st.tuples(*[st.integers(0, 4)] * 3).map(lambda row: {"": row}),
    "rights": st.booleans().map(lambda right: {"": (float(right), 1.0)}),
    "grades": SHARE.map(lambda grade: {"": (grade, 1.0)}),
    "texts": st.tuples(st.integers(1, 3), *[SHARE] * 5).map(
        lambda row: {"": (row[0], *(row[0] * value for value in row[1:]))}
    ),
    "gaps": st.tuples(SHARE, st.booleans()).map(
        lambda row: {f"bin {min(int(10 * row[0]), 9)}": (row[0], float(row[1]), 1.0)}
    ),
    "letters": st.tuples(st.integers(0, 2), st.integers(1, 2)).map(
        lambda row: {"A": row, "B": (1, 1)}
    ),
}


def shape_of(metric):
    if metric is POSITION_BIAS:
        return "letters"
    if metric in (measures.PRECISION, measures.RECALL, measures.MICRO_F1, measures.LABEL_F1):
        return "tuples"
    if metric.name.startswith(("macro_", "weighted_")):
        return "labels"
    if metric is measures.SECTION_ROUGE:
        return "grades"
    if metric.name == "ece":
        return "gaps"
    return "texts" if metric.name.startswith("rouge") else "rights"


REPORTED = {
    f"{suite.__name__.rpartition('.')[2]} {metric.title}": metric
    for suite in (exams, measures)
    for metric in (
        *suite.METRICS.values(),
        *((measures.LABEL_F1, measures.SECTION_ROUGE) if suite is measures else ()),
    )
}


def quicker(metric):
    """The same with fewer draws, which an interval that must hold its value does not need."""
    if type(metric.resampling) is Bootstrap:
        return replace(metric, resampling=Bootstrap(200))
    return metric


@pytest.mark.parametrize("metric", REPORTED.values(), ids=list(REPORTED))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_interval_holds_its_value_keeps_in_range_and_is_never_of_no_width(metric, data):
    docs = data.draw(st.lists(COUNTS[shape_of(metric)], min_size=1, max_size=40))
    clusters = data.draw(st.sampled_from([None, [index // 3 for index in range(len(docs))]]))
    number = quicker(metric).of(docs, clusters)
    low, high = number.interval
    assert metric.range[0] <= low <= number.value <= high <= metric.range[1]
    assert high - low > 1e-6
    assert number.n == len(docs)
    assert (number.metric, number.unit, number.better) == (metric.name, metric.unit, metric.better)
    assert number.interval_method


# Coverage, by simulation: the share of samples whose interval holds what samples score on average.


def labels(rng, docs, *, wrong=0.3, invented=0.0, classes=10):
    """Gold labels of unequal frequency; some wrong, and some replies that nobody else gives."""
    weights = 1 / np.arange(1, classes + 1)
    gold = rng.choice(classes, docs, p=weights / weights.sum())
    said = np.where(rng.random(docs) < wrong, rng.integers(classes, size=docs), gold)
    said = np.where(rng.random(docs) < invented, classes + np.arange(docs), said)
    return [count_label(str(g), str(s)) for g, s in zip(gold, said, strict=True)]


def coverage(metric, draw, samples=600):
    numbers = [metric.of(draw(np.random.default_rng([7, seed]))) for seed in range(samples)]
    truth = np.mean([number.value for number in numbers])
    return np.mean([low <= truth <= high for low, high in (n.interval for n in numbers)])


# Three standard errors of a share of 600 around 0.95 are 0.027: the figures of many more samples,
# in benchmarks/intervals.md, lie between 0.93 and 0.97.
@pytest.mark.parametrize("average", ["macro", "weighted"])
@pytest.mark.parametrize(
    "kind", [{}, {"invented": 0.4}, {"invented": 0.8}, {"wrong": 0.03}], ids=str
)
def test_intervals_of_label_metrics_cover_as_often_as_they_say(average, kind):
    share = coverage(label_metrics(average)[2], lambda rng: labels(rng, 150, **kind))
    assert 0.923 <= share <= 0.98


def test_a_mean_of_grades_covers_near_its_end_too():
    # Nearly all right, some docs with half the credit: normal intervals would cover 0.77.
    def draw(rng):
        grades = np.where(rng.random(30) < 0.05, 0.5, (rng.random(30) < 0.97) * 1.0)
        return [{"": (grade, 1.0)} for grade in grades.tolist()]

    metric = exams.METRICS["acc"]
    assert 0.93 <= coverage(metric, draw) <= 0.985
    numbers = [metric.of(draw(np.random.default_rng(seed))) for seed in range(5)]
    assert "Wilson at the effective number of docs" in {n.interval_method for n in numbers}


def test_the_bootstrap_would_lie_beside_the_value_of_a_chatty_model():
    metric = label_metrics("macro")[2]
    docs = labels(np.random.default_rng(1), 100, wrong=0.05, invented=0.4, classes=5)
    (low, _), _ = Bootstrap(1_000).interval(tabulate(docs), metric)
    number = metric.of(docs)
    assert low > number.value
    assert number.interval[0] < number.value


@settings(max_examples=60, deadline=None)
@given(
    docs=st.lists(st.tuples(st.sampled_from("abc"), LABEL, LABEL), min_size=1, max_size=30),
    average=st.sampled_from(["macro", "weighted"]),
)
def test_the_interval_of_a_difference_holds_it_and_follows_the_two_sides(docs, average):
    metric = label_metrics(average)[2]
    sides = [[count_label(gold, said[side]) for gold, *said in docs] for side in (0, 1)]
    paired = metric.resampling.difference(
        *tabulate_sides(sides), metric, level=0.95, rng=np.random.default_rng(0)
    )
    before, after = (metric.of(side) for side in sides)
    assert paired.baseline == pytest.approx(before.value, abs=1e-12)
    assert paired.candidate == pytest.approx(after.value, abs=1e-12)
    low, high = paired.interval
    assert -1 <= low <= paired.difference <= high <= 1
    assert high - low > 1e-6


# A new main metric is one record: here how many letters are missing or too many.


def count_letters(scored):
    return {"": (len(set(scored.expected) ^ set(scored.answered or "")), 1.0)}


LETTERS_OFF = Metric(
    name="letters_off",
    title="letters missing or too many",
    count=count_letters,
    value=ClassMean(mean_of_sums),
    resampling=Mean(),
    unit="number",
    better="lower",
    range=(0.0, 26.0),
)

OPTIONS = {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}
SETTINGS = TaskSettings(suite="choice", metric="letters_off", version="1.0")


def letters_run(name, replies):
    samples = []
    for number, reply in enumerate(replies):
        doc = {
            "id": str(number),
            "question": f"第{number}题",
            "options": OPTIONS,
            "answer": "AC",
            "single": False,
        }
        response = Response(text=f"答案：{reply}")
        samples.append(make_sample("letters", number, doc, doc["question"], response, SETTINGS))
    return Run(
        name=name,
        spec=RunSpec(model=name, tasks=("letters",)),
        provenance={},
        results={"letters": fold_task("letters", samples, SETTINGS)},
        samples={"letters": samples},
    )


@pytest.fixture
def letters_off(monkeypatch):
    for known in (exams.METRICS, exams.SCORES):
        monkeypatch.setitem(known, LETTERS_OFF.name, LETTERS_OFF)
    better = letters_run("better", ["AC"] * 40 + ["AB"] * 10)
    worse = letters_run("worse", ["AC"] * 5 + ["BD"] * 45)
    return better, worse


def test_a_new_main_metric_is_folded_and_read_back(letters_off, tmp_path):
    better, worse = letters_off
    main = better.results["letters"].main
    assert main.value == pytest.approx(10 * 2 / 50)
    assert worse.results["letters"].main.value == pytest.approx(45 * 4 / 50)
    assert main.interval[0] < main.value < main.interval[1]
    assert (main.metric, main.unit, main.better) == ("letters_off", "number", "lower")
    read = load_run(save_run(better, tmp_path / "run"))
    assert read.results["letters"].main == main
    assert metric_of(read.results["letters"]) is LETTERS_OFF


def test_a_new_main_metric_is_compared_and_judged_in_its_direction(letters_off):
    better, worse = letters_off
    task = compare(better, worse).tasks["letters"]
    assert task.paired.difference == pytest.approx(3.6 - 0.4)
    assert task.p_worse < 0.001
    assert task.p_better > 0.9
    assert (len(task.gained), len(task.lost)) == (0, 35)
    assert [verdict.outcome for verdict in judge(better, worse).tasks] == ["regressed"]
    assert [verdict.outcome for verdict in judge(worse, better).tasks] == ["improved"]
    assert judge(better, worse).exit_status == 1
    text = comparison_markdown(compare(better, worse))
    assert "| 0.4 ↓ | 3.6 ↓ | +3.2 (" in text
    assert "| ❌ regressed | 50 | 0.4 ↓ | 3.6 ↓ | +3.2 (" in gate_markdown(judge(better, worse))


def test_a_new_main_metric_has_its_best_marked_in_tables_of_every_kind(letters_off):
    better, worse = letters_off
    table = make_table([worse, better], TableSpec(baseline=None))
    printed = {name: as_text(table, name) for name in FORMATS}
    assert "| better | **0.4** |" in printed["markdown"]
    assert "| worse | <u>3.6</u> |" in printed["markdown"]
    assert "| Model | letters ↓ |" in printed["markdown"]
    assert r"better & \textbf{0.4}" in printed["latex"]
    assert r"letters $\downarrow$" in printed["latex"]
    assert "<strong>0.4</strong>" in printed["html"]
    assert "better,0.4," in printed["csv"]
    assert "↓: less is better." in table.caption


def test_a_new_main_metric_has_its_best_marked_in_the_report(letters_off, tmp_path):
    page = render_report(list(letters_off), tmp_path / "page.html").read_text("utf-8")
    best = page.partition('<td class="num best"')[2].partition("</td>")[0]
    assert '<span class="value">0.4</span>' in best
    assert '<small class="delta down"' in page
    assert '<small class="delta up"' not in page
    heading = page.partition('<th scope="row"><span>letters</span> ↓')[2].partition("</th>")[0]
    assert "letters missing or too many" in heading
    assert "360.0" not in page


def test_a_new_main_metric_is_printed_in_its_unit(letters_off, capsys):
    print_results(letters_off[0])
    printed = capsys.readouterr().out
    assert "score [95 % interval]" in printed
    assert "0.4 [" in printed
    assert "40.0" not in printed


def test_what_lm_eval_reads_of_a_run_says_the_directions(letters_off, tmp_path):
    write_output(letters_off[0], tmp_path)
    (file,) = tmp_path.glob("results_*.json")
    stated = json.loads(file.read_text("utf-8"))["higher_is_better"]["letters"]
    assert stated == {
        "score": False,
        "letters_off": False,
        "acc": True,
        "any_overlap": None,
        "answered": True,
    }


# Numbers from elsewhere.


def imported(folder, name, perplexity):
    """What lm-eval leaves of a task with a perplexity."""
    folder.mkdir()
    results = {
        "results": {"wikitext": {"alias": "wikitext", "word_perplexity,none": perplexity}},
        "higher_is_better": {"wikitext": {"word_perplexity": False}},
        "n-samples": {"wikitext": {"original": 2, "effective": 2}},
        "config": {"model": "hf", "limit": None},
        "versions": {"wikitext": 2.0},
        "n-shot": {"wikitext": 0},
    }
    (folder / "results_1.json").write_text(json.dumps(results), "utf-8")
    rows = [
        {
            "doc_id": number,
            "doc": {"page": f"page {number}"},
            "target": "text",
            "arguments": {"gen_args_0": {"arg_0": f"page {number}"}},
            "resps": [["-10.5"]],
            "filtered_resps": ["-10.5"],
            "filter": "none",
            "metrics": ["word_perplexity"],
            "word_perplexity": ["-10.5", "5"],
        }
        for number in range(2)
    ]
    text = "\n".join(map(json.dumps, rows))
    (folder / "samples_wikitext_1.jsonl").write_text(text, "utf-8")
    return read_output(folder)


def test_an_imported_perplexity_is_no_percentage_and_the_lower_is_the_better(tmp_path, capsys):
    runs = [imported(tmp_path / name, name, value) for name, value in (("a", 8.0), ("b", 21.5))]
    page = render_report(runs, tmp_path / "page.html").read_text("utf-8")
    assert "800.0" not in page
    best = page.partition('<td class="num best"')[2].partition("</td>")[0]
    assert '<span class="value">8</span>' in best
    printed = as_text(make_table(runs, TableSpec(baseline=None)), "markdown")
    assert "| a | **8** |" in printed
    assert "| b | <u>21.5</u> |" in printed
    print_results(runs[0])
    assert "8 ↓" in capsys.readouterr().out


def test_what_nobody_knows_of_a_foreign_metric_is_said():
    unknown = foreign_metric("fluency")
    assert (unknown.unit, unknown.better) == ("unknown", "unknown")
    assert unknown.stamped(MetricValue(value=0.4, n=3)).interval is None
    assert foreign_metric("fluency", higher_is_better=False).better == "lower"
    assert foreign_metric("fluency", rights_and_wrongs=True).unit == "share"
    assert (foreign_metric("acc_norm").unit, foreign_metric("acc_norm").better) == (
        "share",
        "higher",
    )
    assert foreign_metric("bleu", higher_is_better=True).unit == "number"


def test_numbers_of_unknown_direction_or_of_two_units_have_no_best(tmp_path):
    share = MetricValue(value=0.4, n=3)
    number = MetricValue(value=8.0, n=3, unit="number")
    assert common_direction([share, None, share]) == "higher"
    assert common_direction([share, number]) == "unknown"
    assert best_first([0.4, 0.9, math.nan], "higher") == [0.9, 0.4]
    assert best_first([0.4, 0.9], "unknown") == best_first([0.4, 0.9], "neither") == []


def pairs_run(name, replies):
    """A run over pairs of sentences that mean the same."""
    suite = TaskSettings(suite="promptcblue")
    samples = []
    for number, reply in enumerate(replies):
        doc = {
            "task_dataset": "CHIP-STS",
            "target": "是的",
            "answer_choices": ["是的", "不是"],
            "input": f"第{number}对",
        }
        response = Response(text=reply)
        samples.append(make_sample("sts", number, doc, doc["input"], response, suite))
    return Run(
        name=name,
        spec=RunSpec(model=name, tasks=("sts",)),
        provenance={},
        results={"sts": fold_task("sts", samples, suite)},
        samples={"sts": samples},
    )


def test_the_least_malformed_replies_are_the_best(tmp_path):
    runs = [pairs_run("clean", ["是的"] * 9), pairs_run("broken", ["好的好的"] * 9)]
    assert [run.results["sts"].metrics["malformed"].value for run in runs] == [0, 1]
    page = render_report(runs, tmp_path / "page.html").read_text("utf-8")
    row = page.partition('<th scope="row">malformed ↓</th>')[2].partition("</tr>")[0]
    best = row.partition('<td class="num best')[2].partition("</td>")[0]
    assert '<span class="value">0.0</span>' in best
    assert row.count("num best") == 1


def test_runs_that_did_not_say_what_their_numbers_are_are_told_by_name():
    plain = pairs_run("old", ["是的", "不是", "好的好的"]).results["sts"]
    bare = {
        name: MetricValue(value=v.value, n=v.n, interval=v.interval)
        for name, v in plain.metrics.items()
    }
    old = described(replace(plain, metrics=bare, breakdowns={}))
    assert old.main.metric == "weighted_f1"
    assert old.metrics["malformed"].better == "lower"
    assert metric_of(old) is measures.METRICS["weighted_f1"]
