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

from mingmoe_eval.errors import RunStoreError, UsageError
from mingmoe_eval.report import render_report, view
from mingmoe_eval.report.drawings import loads
from mingmoe_eval.report.libraries import can_draw
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


def test_every_number_of_a_marked_run_carries_its_mark(tmp_path):
    marked = run_named("a", spec={"sample": True, "limit": 30})
    rows = re.findall(r"<tr.*?</tr>", visible(page_of(tmp_path, marked)), re.DOTALL)
    numbers = [row for row in rows if 'class="value"' in row]
    assert len(numbers) >= 4
    for row in numbers:
        assert row.count("invented sample") == row.count("first 30 docs") == row.count("value")


def test_one_run_has_no_comparison_and_two_have(tmp_path):
    assert 'id="comparison"' not in page_of(tmp_path, run_named("a"))
    assert 'id="comparison"' in page_of(tmp_path, run_named("a"), run_named("b", 2))


def test_runs_that_cannot_be_compared_say_why_instead(tmp_path):
    other = run_named("b", 2)
    results = {t: dataclasses.replace(r, num_fewshot=5) for t, r in other.results.items()}
    page = visible(page_of(tmp_path, run_named("a"), dataclasses.replace(other, results=results)))
    assert "cmexam: 0 against 5 [fewshot]" in page
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
    first, second, third, last = loads(column, one)[:4]
    assert (first.panel, first.place) == ("cmexam", "0")
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
    section = page[page.index('id="robustness"') : page.index('id="comparison"')]
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
    source = "".join((templates / name).read_text("utf-8") for name in ("page.js", "page.html.j2"))
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
        for name in ("differences", "load_0", "results", "routing_0")
        for ending in ("pdf", "svg", "vl.json")
    ]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == names
    for path in (tmp_path / "figures").iterdir():
        assert (path.suffix == ".pdf") == path.read_bytes().startswith(b"%PDF")
        assert b"var(" not in path.read_bytes()


@needs_charts
def test_a_chart_carries_its_numbers_as_labels_and_its_runs_marks(tmp_path):
    page = visible(page_of(tmp_path, run_named("a</svg><b>", spec={"sample": True})))
    assert re.search(r'aria-label="cmexam, a&lt;/svg[^"]*\(invented sample\): \d+\.\d \[', page)
    assert "</svg><b>" not in page


@needs_charts
def test_each_task_has_a_small_chart_of_its_experts(tmp_path):
    page = visible(page_of(tmp_path, run_named("a", routing=ROUTING)))
    assert 'aria-label="cmexam, expert 0: 0.500 [0.250, 0.750]"' in page
    assert 'aria-label="usmle, expert 3: 0.125 [0.000, 0.250]"' in page


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
