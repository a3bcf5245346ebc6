import base64
import dataclasses
import html.parser
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from report_runs import ROUTING, exam_result, exam_run, exam_samples, guessing, with_orders

from mingmoe_eval.comparison import compare, overall_verdict
from mingmoe_eval.errors import RunStoreError, UsageError
from mingmoe_eval.labels import Labels
from mingmoe_eval.report import compared, render_report, view
from mingmoe_eval.report.drawings import loads
from mingmoe_eval.report.libraries import can_draw
from mingmoe_eval.report.wording import Wording
from mingmoe_eval.routing.view import read_routing

needs_charts = pytest.mark.skipif(not can_draw(), reason="the extra `report` is not installed")


def run_named(name, seed=1, share=0.6, docs=30, tasks=("cmexam", "usmle"), **facts):
    reply = guessing(seed, share)
    return exam_run(name, {task: exam_samples(task, docs, reply) for task in tasks}, **facts)


def page_of(tmp_path, *runs, **options):
    return render_report(runs, tmp_path / "report.html", **options).read_text("utf-8")


class Tags(html.parser.HTMLParser):
    """Start tags of a page, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def visible(page):
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


def test_nothing_in_the_page_names_another_file(tmp_path):
    for tag, attributes in Tags(page_of(tmp_path, run_named("a"), run_named("b", 2))).found:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert "src" not in attributes
        assert not {key for key in attributes if key.startswith("on") or key == "style"}
        if tag == "a":
            assert attributes["href"].startswith("#")


def test_names_from_a_run_are_text(tmp_path):
    evil = '"><img src=x onerror=alert(1)>'
    run = run_named(evil, tasks=(f"task{evil}",), spec={"split": f"</style>{evil}"})
    page = page_of(tmp_path, run, run_named("b", tasks=(f"task{evil}",)))
    assert "<img" not in page
    assert "</style>" + evil not in page


def test_every_table_bears_a_run_s_marks_once_over_its_column(tmp_path):
    marked = run_named("a", spec={"sample": True, "limit": 30})
    page = visible(page_of(tmp_path, marked, run_named("b", spec={"sample": True, "limit": 30})))
    tables = [t for t in re.findall(r"<table.*?</table>", page, re.DOTALL) if 'class="value"' in t]
    assert len(tables) >= 4
    for table in tables:
        heads = re.findall(r"<th scope=\"col\".*?</th>", table, re.DOTALL)
        marks = [(head.count(">invented sample<"), head.count(">first 30 docs<")) for head in heads]
        assert marks.count((1, 1)) == 2
        assert table.count(">invented sample<") == table.count(">first 30 docs<") == 2


def test_a_mark_of_one_task_stands_with_its_row_or_where_runs_differ_at_its_number(tmp_path):
    first, second = run_named("a"), run_named("b", 2)
    short = "10 rows, where the official part has 30"

    def marked(run):
        results = {
            **run.results,
            "usmle": dataclasses.replace(run.results["usmle"], marks=(short,)),
        }
        return dataclasses.replace(run, results=results)

    for runs, cells in (((marked(first), marked(second)), 0), ((marked(first), second), 1)):
        rows = view.headline(runs)
        assert [row.marks for row in rows] == [(), () if cells else (short,)]
        assert sum(short in cell.marks for row in rows for cell in row.cells) == cells
        section = visible(page_of(tmp_path, *runs))
        section = section[section.index('id="results"') : section.index('id="breakdowns"')]
        assert section.count(f">{short}<") == 1


def test_needs_attention_counts_and_opens_for_what_moves_a_number(tmp_path):
    quiet = exam_run("a", {"t": exam_samples("t", 9, lambda n: (None if n < 2 else "A", "A"))})
    page = visible(page_of(tmp_path, quiet))
    assert '<details class="notice" id="attention"><summary>' in page
    assert "unanswered</span> 2</summary>" in page
    cut = [dataclasses.replace(s, finish="length") for s in quiet.samples["t"]]
    page = visible(page_of(tmp_path, exam_run("a", {"t": cut})))
    assert '<details class="notice" id="attention" open><summary>' in page
    assert "cut off</span> 9</summary>" in page


def test_only_a_change_that_the_adjusted_test_finds_is_coloured_by_the_metric_s_direction():
    def tone(difference, better, p_adjusted):
        return compared.Change(difference, None, "share", better, p_adjusted, 0.001, "").tone

    directions = ("higher", "lower", "unknown")
    assert [tone(0.1, better, 0.01) for better in directions] == ["up", "down", ""]
    assert tone(-0.1, "higher", 0.06) == tone(0.5, "lower", float("nan")) == ""
    runs = [run_named("a", 1, 0.2), run_named("b", 1, 0.9)]
    (one,) = compared.compare_all(runs, view.columns(runs, 0), allow=frozenset())
    verdict = overall_verdict(compare(*runs))
    assert one.verdict == verdict
    assert set(one.changes) == set(verdict.tasks) == {"cmexam", "usmle"}
    for task, change in one.changes.items():
        assert (change.tone == "up") == (verdict.tasks[task].outcome == "improved") is True
        assert change.p_adjusted == verdict.tasks[task].p_better < 0.05


def test_the_verdict_comes_first_with_the_numbers_that_compare_says(tmp_path):
    runs = [run_named("a", 1, 0.2), run_named("b", 1, 0.9)]
    page = visible(page_of(tmp_path, *runs))
    first = page[page.index('<div class="verdict') : page.index("</div>", page.index("verdict"))]
    verdict = overall_verdict(compare(*runs))
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in verdict.together.paired.interval)
    assert page.index('class="verdict') < page.index('id="comparison"') < page.index('id="results"')
    assert first.startswith('<div class="verdict better">')
    assert f"[{low}, {high}]" in first
    assert f"{100 * verdict.largest.comparison.paired.difference:+.1f}" in first
    equal = visible(page_of(tmp_path, run_named("a"), run_named("b")))
    assert '<div class="verdict equivalent">' in equal
    assert "every answer is the same" in equal
    alone = visible(page_of(tmp_path, run_named("a")))
    assert '<p class="verdict">' in alone


def test_a_page_about_one_run_says_its_widest_groups_first():
    run = run_named("a")
    inner = dataclasses.replace(run.results["cmexam"], task="inner", members=("cmexam",))
    outer = dataclasses.replace(inner, task="outer", members=("inner", "usmle"))
    grouped = dataclasses.replace(run, results={**run.results, "inner": inner, "outer": outer})
    rows = view.headline([grouped])
    assert [row.name for row, _ in view.first_numbers(grouped, rows)] == ["outer"]
    rows = view.headline([run])
    assert [row.name for row, _ in view.first_numbers(run, rows)] == ["cmexam", "usmle"]


def test_tasks_and_models_are_called_as_the_user_calls_them(tmp_path):
    labels = {"cmexam": "My exam <b>", "models/b": "B-7B", "a": "A-7B"}
    page = page_of(
        tmp_path, run_named("a"), run_named("b", spec={"labels": {"b": "x"}}), labels=labels
    )
    assert "<title>A-7B · x</title>" in page
    assert "My exam &lt;b&gt;" in page
    assert ">MedQA US</span>" in page
    assert 'data-task="cmexam"' in page
    shown = view.columns([run_named("b")], 0, Labels(labels))
    assert [column.label for column in shown] == ["B-7B"]


def test_one_run_has_no_comparison_and_two_have(tmp_path):
    assert 'id="comparison"' not in page_of(tmp_path, run_named("a"))
    assert 'id="comparison"' in page_of(tmp_path, run_named("a"), run_named("b", 2))


def test_runs_that_cannot_be_compared_say_why_instead(tmp_path):
    other = run_named("b", 2)
    results = {t: dataclasses.replace(r, num_fewshot=5) for t, r in other.results.items()}
    page = visible(page_of(tmp_path, run_named("a"), dataclasses.replace(other, results=results)))
    assert '<span data-p="0 against 5">0 against 5</span> <small>[fewshot]</small>: ' in page
    assert page.count("0 against 5</span>") == 1
    told = page[page.index("[fewshot]") : page.index("</li>", page.index("[fewshot]"))]
    assert ">CMExam</span>, " in told
    assert ">MedQA US</span>" in told
    assert "exact McNemar" not in page


def test_routing_shows_only_where_a_run_has_routers(tmp_path):
    load = {"tasks": {"cmexam": {"load": [[1, 3], [2, 2]]}}}
    assert 'id="routing"' not in page_of(tmp_path, run_named("a"))
    page = visible(page_of(tmp_path, run_named("a", routing=load)))
    assert "0.250" in page  # layer 0: 1 of 4 tokens
    assert "0.375" in page  # the mean of 1/4 and 2/4


def test_a_load_is_the_mean_over_layers_with_their_extremes_beside_even_routing():
    run = run_named("a", routing=ROUTING)
    one = read_routing(run.routing)
    (column,) = view.columns([run], 0)
    # Even: half of a router with two experts, a quarter of one with four; the mean of both.
    assert one.even == [0.375, 0.375, 0.125, 0.125]
    first, second, third, last = loads(column, one, Wording("en"))[:4]
    assert (first.panel, first.place) == ("CMExam", "0")
    assert (first.low, first.value, first.high) == (0.25, 0.5, 0.75)
    assert (second.value, third.value, last.value) == (0.25, 0.25, 0.0)
    assert [bar.reference for bar in (first, second, third, last)] == one.even


def test_routing_figures_stand_in_a_table_with_how_to_read_them(tmp_path):
    page = visible(page_of(tmp_path, run_named("a", routing=ROUTING)))
    section = page[page.index('id="routing"') : page.index('id="settings"')]
    for number in ("0.311", "0.401", "1 / 6", "0.662", "0.958", "4,000"):
        assert f">{number}<" in section
    assert "</span>: 0.0520 <" in section
    assert "</span>: 0.0031;" in section
    assert "<strong>0.0489</strong>" in section
    assert section.count(">0.123<") == 2
    assert "Usage is not importance" in section
    assert "not in these numbers:</span> 3<" in section
    for figure in ("variation", "largest_violation", "dead_experts", "token_entropy"):
        assert f'data-t="{figure}_means"' in section
    assert ">–<" in section  # what the run does not say of usmle
    assert "generated tokens</span></strong>" not in section


def test_routing_of_one_task_has_neither_information_nor_distance(tmp_path):
    facts = {**ROUTING["metrics"]["prompt"], "information": None, "distance": None}
    one = {**ROUTING, "metrics": {"prompt": facts}}
    page = visible(page_of(tmp_path, run_named("a", routing=one)))
    assert "above chance" not in page
    assert "Jensen" not in page
    assert 'data-t="variation"' in page


def test_names_of_routed_tasks_are_text(tmp_path):
    evil = '"></svg><img src=x onerror=alert(1)>'
    facts = ROUTING["metrics"]["prompt"]
    hostile = {
        **ROUTING,
        "tasks": {evil: ROUTING["tasks"]["cmexam"]},
        "metrics": {"prompt": {**facts, "distance": {"tasks": [evil], "matrix": [[0.0]]}}},
    }
    page = page_of(tmp_path, run_named("a", routing=hostile))
    assert "<img" not in page


def test_other_orders_of_the_options_have_a_section_of_their_own(tmp_path):
    page = visible(page_of(tmp_path, with_orders(run_named("a"), "usmle")))
    section = page[page.index('id="robustness"') : page.index('id="samples"')]
    (row,) = [row for row in re.findall(r"<tr.*?</tr>", section, re.DOTALL) if "cyclic" in row]
    own = f"{100 * run_named('a').results['usmle'].main.value:.1f}"
    assert re.findall(r'class="value">(.*?)<', row) == [own, "51.5", "33.3", "36.7", "7.1"]
    assert "[20.0, 51.0]" in row
    assert '<td class="num">30</td>' in row
    assert section.count(">43.7<") == section.count(">59.3<") == 2
    assert "<b>" not in section
    rest = page.replace(section, "")
    assert "51.5" not in rest
    assert "43.7" not in rest


def test_a_run_with_one_order_has_no_such_section_and_two_runs_name_themselves(tmp_path):
    runs = [run_named("a"), run_named("b", 2)]
    assert 'id="robustness"' not in page_of(tmp_path, *runs)
    page = visible(page_of(tmp_path, *(with_orders(run, "usmle") for run in runs)))
    section = page[page.index('id="robustness"') : page.index('id="samples"')]
    rows = [row for row in re.findall(r"<tr.*?</tr>", section, re.DOTALL) if "cyclic" in row]
    assert [re.search(r"</span>(\w)</small>", row).group(1) for row in rows] == ["a", "b"]


def test_settings_that_differ_come_first_and_are_marked(tmp_path):
    page = visible(page_of(tmp_path, run_named("a"), run_named("b", 2, spec={"seed": 7})))
    differing = re.findall(r'<tr class="differs"><th scope="row">(.*?)</th>', page)
    assert differing == ["spec.model", "spec.seed"]


def test_without_docs_no_question_gold_or_response_is_in_the_page(tmp_path):
    with_docs = page_of(tmp_path, run_named("a"))
    without = page_of(tmp_path, run_named("a"), with_docs=False)
    assert 'id="chunk-0"' in with_docs
    assert 'id="chunk-0"' not in without
    assert "Questions, gold texts and responses are left out" in visible(without)


def test_registered_access_data_stay_out_unless_asked_for(tmp_path):
    run = run_named("a")
    provenance = {**run.provenance, "tasks": {"cmexam": {"access": "registered"}}}
    registered = dataclasses.replace(run, provenance=provenance)
    assert view.registered_tasks([registered]) == {"cmexam"}
    assert "left out (--without-docs" in visible(page_of(tmp_path, registered))
    assert "left out (--without-docs" not in visible(page_of(tmp_path, registered, with_docs=True))


def test_the_page_opens_in_either_language_and_holds_both(tmp_path):
    page = page_of(tmp_path, run_named("a"), language="zh")
    assert '<html lang="zh">' in page
    assert ">结果</span>" in page
    words = re.search(r'id="words">(.*?)</script>', page).group(1)
    assert json.loads(words)["results"] == {"en": "Results", "zh": "结果"}


def test_every_word_has_both_languages_and_every_word_is_used():
    templates = Path(view.__file__).parent / "templates"
    words = json.loads((templates / "words.json").read_text("utf-8"))
    assert all(len(pair) == 2 and all(pair) for pair in words.values())
    files = ("page.js", "page.html.j2", "../view.py")
    source = "".join((templates / name).read_text("utf-8") for name in files)
    assert [key for key in words if not re.search(rf"\b{key}\b", source)] == []


def test_a_task_without_a_scored_doc_shows_no_number(tmp_path):
    samples = [
        dataclasses.replace(s, status="failed", score=None, failure="not finite")
        for s in exam_samples("t", 3, guessing(1, 1.0))
    ]
    run = exam_run("a", {"t": samples}, results={"t": exam_result("t", samples)})
    page = visible(page_of(tmp_path, run))
    assert "no doc scored" in page
    assert not re.search(r"\bnan\b", page)
    assert "This run is incomplete" in page


@pytest.mark.parametrize(
    ("runs", "baseline", "message"),
    [
        (0, 0, "one to 8 runs, not 0"),
        (9, 0, "one to 8 runs, not 9"),
        (2, 2, "run number 3 cannot be the baseline"),
    ],
)
def test_refuses_what_a_page_cannot_show(tmp_path, runs, baseline, message):
    with pytest.raises(UsageError, match=message):
        render_report([run_named("a")] * runs, tmp_path / "p.html", baseline=baseline)


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunStoreError, match="cannot write"):
        render_report([run_named("a")], tmp_path / "file" / "p.html")


def test_equal_names_are_told_apart(tmp_path):
    shown = view.columns([run_named("a"), run_named("b"), run_named("a")], 0)
    assert [column.label for column in shown] == ["a (1)", "b", "a (2)"]


def test_group_rows_come_first_and_the_best_of_a_row_is_marked():
    low, high = run_named("a", 1, 0.2), run_named("b", 1, 0.9)
    group = dataclasses.replace(low.results["cmexam"], task="all", members=("cmexam", "usmle"))
    runs = [dataclasses.replace(run, results={**run.results, "all": group}) for run in (low, high)]
    rows = view.headline(runs)
    assert [row.name for row in rows] == ["all", "cmexam", "usmle"]
    assert [cell.best for cell in rows[1].cells] == [False, True]
    assert [cell.best for cell in view.headline([low])[0].cells] == [False]


def test_speed_is_tokens_by_seconds():
    (effort,) = view.effort([run_named("a")], view.columns([run_named("a")], 0))
    assert effort.tokens_per_second == pytest.approx((4000 + 900) / 12.5)
    assert (effort.total_parameters, effort.active_parameters) == (7_700_000_000, None)


WITHOUT_CHARTS = """
import sys
sys.modules["vl_convert"] = None
from test_report import run_named
from mingmoe_eval.errors import UsageError
from mingmoe_eval.report import render_report
page = render_report([run_named("a")], sys.argv[1]).read_text("utf-8")
assert "<figure" not in page and 'class="value"' in page
try:
    render_report([run_named("a")], sys.argv[1], figures=sys.argv[1])
except UsageError as error:
    print(error)
"""


def test_without_the_drawing_library_a_page_has_its_tables_and_figures_say_what_to_install(
    tmp_path,
):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHARTS, str(tmp_path / "page.html")],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert "one more library: pip install 'vl-convert-python>=" in done.stdout


@needs_charts
def test_figures_are_written_as_pdf_and_svg(tmp_path):
    load = {"tasks": {"cmexam": {"load": [[1, 3], [2, 2]]}}}
    page_of(tmp_path, run_named("a", routing=load), run_named("b", 2), figures=tmp_path / "figures")
    names = [
        f"{name}.{ending}"
        for name in ("differences", "frontier_tokens", "load_0", "results", "routing_0")
        for ending in ("pdf", "svg", "vl.json")
    ]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == names
    for path in (tmp_path / "figures").iterdir():
        assert (path.suffix == ".pdf") == path.read_bytes().startswith(b"%PDF")
        assert b"var(" not in path.read_bytes()


@needs_charts
def test_a_chart_carries_its_numbers_as_labels_and_its_runs_marks(tmp_path):
    page = visible(page_of(tmp_path, run_named("a</svg><b>", spec={"sample": True})))
    assert re.search(r'aria-label="CMExam, a&lt;/svg[^"]*\(invented sample\): \d+\.\d \[', page)
    assert "</svg><b>" not in page


@needs_charts
def test_each_task_has_a_small_chart_of_its_experts(tmp_path):
    page = visible(page_of(tmp_path, run_named("a", routing=ROUTING)))
    assert 'aria-label="CMExam, expert 0: 0.500 [0.250, 0.750]"' in page
    assert 'aria-label="MedQA US, expert 3: 0.125 [0.000, 0.250]"' in page


def everything_in(page):
    """The page with its compressed data unpacked."""
    packed = re.findall(r'<script[^>]*id="(?:chunk-\d+|index)"[^>]*>([^<]+)</script>', page)
    unpacked = [zlib.decompress(base64.b64decode(data)).decode("utf-8") for data in packed]
    assert unpacked
    return "\n".join([page, *unpacked])


def secret_runs():
    """Two runs on an exam of which no text may be seen, and which has an unusable row."""
    said = "rows left out as unusable: 1 (line 5: the options begin with '机密选项', not a letter)"
    for seed, name in ((1, "a"), (2, "b")):
        run = run_named(name, seed, tasks=("ward",))
        results = {t: dataclasses.replace(r, notes=(said,)) for t, r in run.results.items()}
        facts = {"ward": {"unusable": ["line 5: the options begin with '机密选项', not a letter"]}}
        provenance = {**run.provenance, "tasks": facts}
        yield dataclasses.replace(run, results=results, provenance=provenance)


def texts_of(run):
    """Every text of the exam and of the replies that a reader could recognise it by."""
    for sample in run.samples["ward"]:
        yield from (sample.doc["question"], sample.prompt, *sample.doc["options"].values())
        if len(sample.response) > 1:
            yield sample.response


@pytest.mark.parametrize("options", [{"hashed": True}, {"with_docs": False}])
def test_a_page_on_a_secret_exam_holds_no_text_of_it(tmp_path, options):
    runs = list(secret_runs())
    whole = everything_in(page_of(tmp_path, *runs))
    shared = everything_in(page_of(tmp_path, *runs, **options))
    # The legend of the page may use a character that is an option's whole text.
    texts = {text for run in runs for text in texts_of(run) if len(text) > 1} | {"机密选项"}
    assert all(
        text in whole or json.dumps(text, ensure_ascii=False)[1:-1] in whole for text in texts
    )
    for text in texts:
        assert text not in shared
        assert json.dumps(text, ensure_ascii=False)[1:-1] not in shared


def test_hashes_stand_for_the_questions_of_a_secret_exam_and_rows_and_flips_stay(tmp_path):
    runs = list(secret_runs())
    page = page_of(tmp_path, *runs, hashed=True)
    [packed] = re.findall(r'<script[^>]*id="index"[^>]*>([^<]+)</script>', page)
    rows = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert len(rows) == 30
    assert {row[2] for row in rows} == {f"#{s.doc_id}" for s in runs[0].samples["ward"]}
    by_doc = {row[1]: row for row in rows}
    for one, other in zip(*(run.samples["ward"] for run in runs), strict=True):
        row = by_doc[one.doc_id]
        assert row[3] == ""
        assert row[5] == ["", ""]
        outcomes = [s.score if s.status == "scored" else s.status for s in (one, other)]
        assert row[4] == outcomes
        assert bool(row[6] & 1) == ((one.score == 1) != (other.score == 1))
    assert "each is shown by its hash" in visible(page)
    again = page_of(tmp_path, runs[1], hashed=True)
    assert all(f"#{s.doc_id}" in everything_in(again) for s in runs[0].samples["ward"])


def test_hashes_and_docs_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="--with-docs asks for them"):
        page_of(tmp_path, run_named("a"), hashed=True, with_docs=True)
