import csv
import dataclasses
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from report_runs import accuracy, exam_result, exam_run, exam_samples, guessing

from mingmoe_eval.comparison import compare
from mingmoe_eval.errors import UsageError
from mingmoe_eval.metrics.uncertainty import mean_of_parts
from mingmoe_eval.paper_table import LAYOUTS, TableSpec, as_text, make_table
from mingmoe_eval.published import published_rows
from mingmoe_eval.task_catalog import load_catalog

TRACKS = ("pharmacist2023_pharmacy", "pharmacist2023_tcm")
TYPES = ("Optimal Choice", "Matched Selection", "Integrated Analysis", "Multiple Choice")
NASTY = '[=cmd|"x"\\] & 50% of $y$ #1_{a}^~<b>*\n-- |'


def pharmacist_run(name, share=0.6, seed=1, suffix="", **facts):
    results, samples = {}, {}
    for track in TRACKS:
        task = track + suffix
        samples[task] = exam_samples(task, 100, guessing(seed, share))
        by_type = {kind: accuracy(20 + n, 40) for n, kind in enumerate(TYPES)}
        results[task] = dataclasses.replace(
            exam_result(task, samples[task]), breakdowns={"question_type": by_type}
        )
    return exam_run(name, samples, results=results, **facts)


def table_of(*runs, **spec):
    return make_table(runs, TableSpec(**{"layout": "pharmacist", **spec}))


def row(table, label):
    cells = next(r for r in table.rows if r.label == label).cells
    return {c.key: cell for c, cell in zip(table.columns, cells, strict=True)}


def test_parts_totals_and_average_of_a_run():
    run = pharmacist_run("ours")
    cells = row(table_of(run), "ours")
    totals = [run.results[track].main for track in TRACKS]
    assert cells["pharmacist2023_pharmacy/optimal"].cell.amount == pytest.approx(50.0)
    assert cells["pharmacist2023_pharmacy/multiple"].cell.amount == pytest.approx(57.5)
    assert cells["pharmacist2023_tcm/total"].cell.amount == pytest.approx(100 * totals[1].value)
    mean = mean_of_parts(totals)
    assert cells["pharmacist2023/average"].cell.amount == pytest.approx(100 * mean.value)
    expected = tuple(100 * bound for bound in mean.interval)
    assert cells["pharmacist2023/average"].cell.interval == pytest.approx(expected)


def test_an_average_is_missing_where_one_of_its_parts_is():
    run = pharmacist_run("ours")
    half = dataclasses.replace(run, results={TRACKS[0]: run.results[TRACKS[0]]})
    cells = row(table_of(half, pharmacist_run("whole"), baseline=None), "ours")
    assert cells["pharmacist2023_pharmacy/total"].cell.amount is not None
    assert cells["pharmacist2023/average"].cell.amount is None


def test_a_form_takes_its_own_tasks_only():
    run = pharmacist_run("ours", suffix="_cot")
    assert row(table_of(run, form="cot"), "ours")["pharmacist2023/average"].cell.amount
    with pytest.raises(UsageError, match="ours has no task of layout pharmacist"):
        table_of(run)


def test_best_and_second_are_ranked_as_printed_and_ties_share():
    cells = [[c.rank for c in r.cells] for r in table_of(*map(pharmacist_run, "abc")).rows]
    assert cells == [[1] * 11] * 3  # three equal runs
    low, high = pharmacist_run("low", 0.2), pharmacist_run("high", 0.9)
    table = table_of(low, high)
    assert row(table, "high")["pharmacist2023/average"].rank == 1
    assert row(table, "low")["pharmacist2023/average"].rank == 2


def test_a_single_row_is_not_ranked():
    table = table_of(pharmacist_run("a"))
    assert {c.rank for c in table.rows[0].cells} == {0}
    assert "Best of a column" not in table.caption
    assert "Best of a column" in table_of(*map(pharmacist_run, "ab")).caption


def test_marks_of_significance_stand_at_tested_tasks_and_the_caption_names_the_test():
    table = table_of(pharmacist_run("low", 0.2), pharmacist_run("high", 0.9))
    stars = {key: cell.cell.stars for key, cell in row(table, "high").items() if cell.cell.stars}
    assert stars == {f"{track}/total": "***" for track in TRACKS}
    assert "against low: two-sided, paired by question (exact McNemar)" in table.caption
    assert not any(cell.cell.stars for cell in table.rows[0].cells)


def test_without_a_baseline_nothing_is_tested():
    table = table_of(pharmacist_run("low", 0.2), pharmacist_run("high", 0.9), baseline=None)
    assert not any(cell.cell.stars for r in table.rows for cell in r.cells)
    assert "p < 0.05" not in table.caption


def test_runs_that_cannot_be_tested_stand_in_the_table_with_the_reason():
    other = pharmacist_run("other", 0.9)
    results = {t: dataclasses.replace(r, num_fewshot=5) for t, r in other.results.items()}
    shots = dataclasses.replace(other, results=results)
    table = table_of(pharmacist_run("base"), shots)
    assert not any(cell.cell.stars for cell in table.rows[1].cells)
    assert "0 against 5 [fewshot]" in table.footnotes[table.rows[1].notes[0]]
    allowed = table_of(pharmacist_run("base"), shots, allow=frozenset({"fewshot"}))
    assert allowed.footnotes == ("tested although the runs differ in: fewshot",)


def test_marked_runs_are_refused_unless_allowed_and_then_say_so():
    marked = pharmacist_run("ours", spec={"sample": True})
    with pytest.raises(UsageError, match=r"not on the benchmark \(invented sample\)"):
        table_of(marked)
    table = table_of(marked, allow_marked=True)
    assert table.footnotes == ("not the benchmark: invented sample",)


def test_incomplete_runs_are_refused_and_every_offence_is_named():
    incomplete = pharmacist_run("a", missing_tasks=("usmle",))
    marked = pharmacist_run("b", spec={"limit": 5})
    with pytest.raises(UsageError, match=r"(?s)a is incomplete: usmle.*b is not on the bench"):
        table_of(incomplete, marked)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"layout": "paper"}, "no layout named 'paper'; there are: ming-nlp"),
        ({"published": ("nobody",)}, "no published results under 'nobody'"),
        ({"published": ("cmexam",)}, "cmexam: nothing of it belongs to a column"),
        ({"baseline": 3}, "run number 4 cannot be the baseline: there are 1 runs"),
    ],
)
def test_refuses_what_makes_no_sense(spec, message):
    with pytest.raises(UsageError, match=message):
        table_of(pharmacist_run("a"), **spec)


def test_a_table_needs_a_run():
    with pytest.raises(UsageError, match="at least one run"):
        table_of()


def test_cited_rows_carry_source_doubts_and_remarks_and_doubtful_cells_are_not_ranked():
    table = table_of(pharmacist_run("ours"), published=("huatuogpt2",))
    gpt4 = next(r for r in table.rows if r.label == "GPT-4 (API)")
    assert gpt4.cited
    assert "arXiv:2311.09774" in table.footnotes[gpt4.notes[0]]
    total = row(table, "GPT-4 (API)")["pharmacist2023_pharmacy/total"]
    assert total.cell.amount == 57.3
    assert "doubtful: printed value; question-weighted mean" in table.footnotes[total.notes[0]]
    assert total.rank == 0


def test_a_row_whose_cells_nobody_could_read_is_left_out_with_a_note_and_never_filled():
    run = exam_run("ours", {"cmexam": exam_samples("cmexam", 20, guessing(1, 0.5))})
    table = table_of(run, layout="ming-exams", published=("sparsedoctor",))
    assert [r.label for r in table.rows] == ["ours"]
    assert "Left out, as no number could be read: SparseDoctor (NOT FOUND" in table.caption


def test_a_column_of_dashes_is_left_out_with_a_note():
    run = exam_run("ours", {"cmexam": exam_samples("cmexam", 20, guessing(1, 0.5))})
    table = table_of(run, layout="ming-exams", published=("cmexam",))
    assert [column.key for column in table.columns] == ["cmexam"]
    assert "no row has a number there: Pharmacist, MedQA, MCMLE," in table.caption


def test_columns_tasks_and_rows_are_chosen_and_the_columns_ordered():
    run = pharmacist_run("ours")
    keys = ["pharmacist2023/average", "pharmacist2023_tcm/*"]
    table = table_of(
        run, columns=tuple(keys), published=("huatuogpt2",), rows=("GPT-4", "Baichuan*")
    )
    assert [column.heading for column in table.columns] == [
        "AVG",
        "Opt",
        "Match",
        "Integ",
        "Multi",
        "Total",
    ]
    assert all("GPT-4" in r.label or r.label.startswith("Baichuan") for r in table.rows[1:])
    assert len(table.rows) > 2
    table = table_of(run, layout="generic", tasks=("*_tcm",))
    assert [column.task for column in table.columns] == ["pharmacist2023_tcm"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"columns": ("usmle",)}, r"no column for 'usmle'; it has pharmacist2023_pharmacy/optimal"),
        ({"tasks": ("usmle",)}, "no column for 'usmle'"),
        (
            {"published": ("huatuogpt2",), "rows": ("GPT-9",)},
            r"(?s)no published row for 'GPT-9'.*GPT-4",
        ),
        ({"rows": ("GPT-4",)}, "none: name some --published"),
    ],
)
def test_a_choice_that_names_nothing_is_refused_with_what_there_is(spec, message):
    with pytest.raises(UsageError, match=message):
        table_of(pharmacist_run("a"), **spec)


def test_labels_name_models_tasks_and_columns():
    labels = {"ours": "MING-MoE", "GPT-4 (API)": "GPT-4", "AVG": "Mean", TRACKS[1]: "CM"}
    table = table_of(pharmacist_run("ours"), published=("huatuogpt2",), labels=labels)
    assert {"MING-MoE", "GPT-4"} <= {r.label for r in table.rows}
    headings = [column.heading for column in table.columns]
    assert headings[-2:] == ["CM", "Mean"]
    assert headings.count("Opt") == 2


def test_the_caption_speaks_of_the_data():
    caption = table_of(pharmacist_run("ours")).caption
    assert (
        "by track and question type: accuracy in %. Questions of our runs: 100 a column." in caption
    )
    marked = table_of(
        pharmacist_run("a", spec={"sample": True}), allow_marked=True, caption="Ours."
    )
    assert marked.caption.startswith("Ours. accuracy in %.")
    assert "Not the benchmark: invented sample." in marked.caption


def test_groups_are_marked_by_their_own_test():
    low, high = pharmacist_run("low", 0.2), pharmacist_run("high", 0.9)
    runs = []
    for run in (low, high):
        totals = [run.results[track].main for track in TRACKS]
        group = dataclasses.replace(
            run.results[TRACKS[0]],
            task="pharmacist2023",
            members=TRACKS,
            breakdowns={},
            metrics={"score": mean_of_parts(totals)},
        )
        runs.append(dataclasses.replace(run, results={**run.results, "pharmacist2023": group}))
    table = table_of(*runs, layout="generic")
    (group,) = compare(*runs).groups.values()
    assert group.p_adjusted < 0.001
    assert [cell.cell.stars for cell in table.rows[1].cells] == ["***"] * 3
    assert "and over their groups" in table.caption


def test_a_cited_number_gets_no_more_decimals_than_its_source_prints():
    run = exam_run("ours", {"cmexam": exam_samples("cmexam", 20, guessing(1, 0.5))})
    table = table_of(run, layout="ming-exams", published=("dpf-cm", "apollo"), decimals=3)
    assert row(table, "Zhongjing")["cmexam"].cell.decimals == 0
    assert row(table, "Apollo-7B")["usmle"].cell.decimals == 2
    assert row(table, "ours")["cmexam"].cell.decimals == 3


def test_every_column_of_the_layouts_is_a_task_that_exists():
    names = set(load_catalog().names)
    for layout in LAYOUTS.values():
        for column in layout.columns:
            assert column.is_average or column.task in names


def test_the_nlp_layout_has_the_columns_that_the_published_table_has():
    (first, *_) = published_rows(["promptcblue"])
    assert {column.key for column in LAYOUTS["ming-nlp"].columns} == set(first.values)


def test_the_generic_layout_shows_every_task_groups_first():
    run = pharmacist_run("ours")
    group = dataclasses.replace(
        run.results[TRACKS[0]], task="pharmacist2023", members=TRACKS, breakdowns={}
    )
    table = table_of(
        dataclasses.replace(run, results={**run.results, "pharmacist2023": group}),
        layout="generic",
    )
    assert [column.task for column in table.columns] == ["pharmacist2023", *TRACKS]
    assert [column.heading for column in table.columns] == [
        "Pharmacist exam 2023",
        "Pharmacist 2023, pharmacy",
        "Pharmacist 2023, TCM",
    ]


def test_markdown_has_a_cell_for_every_column_whatever_the_name():
    table = table_of(pharmacist_run(NASTY), pharmacist_run("b", 0.9), doubt="interval")
    lines = as_text(table, "markdown").splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert len(body) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {13}
    assert r"\*\*\*" in body[3]
    assert "**" in body[3]
    assert "<b>" not in body[2]


def test_csv_reads_back_at_full_precision_and_holds_no_formula():
    table = table_of(pharmacist_run("=1+1"), pharmacist_run("b", 0.9), doubt="stderr")
    first, second = csv.DictReader(io.StringIO(as_text(table, "csv")))
    assert first["model"] == "'=1+1"
    assert float(second["Pharmacy: Multi"]) == pytest.approx(57.5)
    # 57.5 % of 40: sqrt(0.575 * 0.425 / 40) = 7.816 %
    assert float(second["Pharmacy: Multi stderr"]) == pytest.approx(7.816, abs=1e-3)
    assert "Pharmacy: Total: *" in second["notes"]


def test_html_shows_names_as_text():
    page = as_text(table_of(pharmacist_run("<script>alert(1)</script>")), "html")
    parser = HTMLParser()
    tags = []
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(page)
    assert {"table", "td"} <= set(tags)
    assert "script" not in tags


def test_latex_escapes_what_latex_would_obey():
    latex = as_text(table_of(pharmacist_run(NASTY), width=2000.0), "latex")
    line = next(line for line in latex.splitlines() if "cmd" in line)
    assert line.startswith("{}[=cmd\\textbar{}\\textquotedbl{}x\\textquotedbl{}\\textbackslash{}]")
    assert r"\& 50\% of \$y\$ \#1\_\{a\}\textasciicircum{}\textasciitilde{}" in line


def compiled(tmp_path, text, *, encoding="T1"):
    """What LaTeX says of a table."""
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass{{article}}\n\\usepackage[{encoding}]{{fontenc}}\n"
        f"\\usepackage{{booktabs}}\n\\begin{{document}}\n{text}\\end{{document}}\n",
        "utf-8",
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
@pytest.mark.parametrize("doubt", ["none", "interval", "stderr"])
def test_latex_compiles_without_a_complaint(tmp_path, doubt):
    table = table_of(
        pharmacist_run(NASTY), pharmacist_run("*b", 0.9), published=("huatuogpt2",), doubt=doubt
    )
    said = compiled(tmp_path, as_text(table, "latex"))
    assert "Overfull" not in said
    assert "undefined" not in said


@pytest.mark.skipif(not shutil.which("pdffonts"), reason="no poppler here")
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_a_wide_table_is_split_and_nothing_in_it_is_below_8_points(tmp_path):
    names = ["a-model-with-a-long-name-of-one-word-and-more", "短名", "c"]
    runs = [pharmacist_run(name, 0.3 + 0.2 * n) for n, name in enumerate(names)]
    labels = {"短名": "b"}
    table = table_of(
        *runs, published=("huatuogpt2",), doubt="interval", labels=labels, label="tab:x"
    )
    text = as_text(table, "latex")
    assert text.count(r"\begin{tabular}") > 2
    assert text.count(r"\label{tab:x}") == 1
    assert "resizebox" not in text
    assert "superscript" not in text
    said = compiled(tmp_path, text, encoding="OT1")
    assert "Overfull" not in said
    assert "Float too large" not in said
    fonts = subprocess.run(
        ["pdffonts", "paper.pdf"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    # Computer Modern has a cut for each size: CMR8 is eight points.
    sizes = [int(size) for size in re.findall(r"CM[A-Z]+(\d+)", fonts)]
    assert sizes
    assert min(sizes) >= 8


def test_a_narrow_table_stays_in_one_piece_and_each_part_of_a_split_one_has_its_models():
    run = pharmacist_run("ours")
    assert as_text(table_of(run, width=2000.0), "latex").count(r"\begin{tabular}") == 1
    parts = as_text(table_of(run, width=150.0), "latex").split(r"\begin{tabular}")[1:]
    assert len(parts) > 2
    assert all("ours & " in part for part in parts)
    printed = "".join(parts)
    for cell in table_of(run).rows[0].cells:
        assert f"{cell.cell.amount:.1f}" in printed
