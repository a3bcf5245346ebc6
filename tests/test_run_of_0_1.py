"""Run folders that version 0.1.0 wrote load, compare, gate, report, rescore and table for ever."""

import json
import math
import shutil
from pathlib import Path

import pytest

from mingmoe_eval.cli import main
from mingmoe_eval.comparison import compare
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.records import MetricValue
from mingmoe_eval.report.view import Cell
from mingmoe_eval.run_store import load_run

OLD = Path(__file__).parent / "data" / "run_of_0_1"
NAMES = ("base", "mixture", "permuted", "words")


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_an_old_run_is_what_its_file_says(name):
    run = load_run(OLD / name)
    on_disk = json.loads((OLD / name / "run.json").read_text("utf-8"))
    assert run.results.keys() == on_disk["results"].keys()
    for task, metrics in on_disk["results"].items():
        assert run.results[task].metrics.keys() == metrics.keys()
        for metric, said in metrics.items():
            value = run.results[task].metrics[metric]
            assert value.n == said["n"]
            assert value.value == said["value"] or (
                said["value"] == "nan" and math.isnan(value.value)
            )
            assert list(value.interval or ()) == (said["interval"] or [])
    assert list(run.incomplete) == on_disk["incomplete"]
    assert list(run.spec.marks) == on_disk["marks"]
    assert run.provenance == on_disk["provenance"]
    assert run.routing == on_disk["routing"]


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_of_an_old_run_is_what_its_line_says(name):
    run = load_run(OLD / name)
    for task, samples in run.samples.items():
        lines = (OLD / name / "samples" / f"{task}.jsonl").read_text("utf-8").split("\n")
        said = [json.loads(line) for line in lines if line]
        assert len(samples) == len(said) == run.results[task].counts.docs
        for sample, line in zip(samples, said, strict=True):
            assert sample.doc == line["doc"]
            assert sample.response == line["response"]
            assert (sample.doc_id, sample.answered) == (line["doc_id"], line["answered"])
            assert (sample.score, sample.status) == (line["score"], line["status"])
            assert sample.counts == line["counts"]
            assert sample.variant == line["variant"]


def test_what_an_old_run_adds_up_to():
    """Read off the table that 0.1.0 printed."""
    base = load_run(OLD / "base")
    assert {name: (r.main.value, r.main.n) for name, r in base.results.items()} == {
        "pharmacist2023_pharmacy": (0.0, 4),
        "pharmacist2023_tcm": (0.0, 4),
        "promptcblue_kuake_qic": (0.0, 4),
        "promptcblue_cmeee_v2": (0.0, 4),
        "usmle_ll": (0.25, 4),
        "pharmacist2023": (0.0, 8),
    }
    assert base.results["pharmacist2023"].members == (
        "pharmacist2023_pharmacy",
        "pharmacist2023_tcm",
    )
    assert base.incomplete == ()
    permuted = load_run(OLD / "permuted").results["usmle_ll"]
    assert permuted.metrics["robust_accuracy"].value == 0.25  # 2 of 8 orders
    assert permuted.counts.docs == 8


def test_words_for_numbers_that_json_lacks_are_read_back():
    run = load_run(OLD / "words")
    first, second = run.samples["usmle"]
    assert first.log_likelihoods == (-1.0, -math.inf)
    assert second.log_likelihoods is not None
    assert math.isnan(second.log_likelihoods[1])
    assert first.response == "A\u2028 bad \ud800 end"
    assert run.incomplete == ("usmle",)


def test_old_runs_are_compared_doc_by_doc():
    found = compare(
        load_run(OLD / "base"), load_run(OLD / "mixture"), allow=frozenset({"tasks", "docs"})
    )
    assert found.tasks.keys() == {"promptcblue_kuake_qic", "usmle_ll"}
    # Of the two docs in both, base answers the one rightly and mixture the other.
    one = found.tasks["usmle_ll"]
    assert (one.docs, len(one.gained), len(one.lost)) == (2, 1, 1)
    assert (one.gained[0].change, one.lost[0].change) == (1.0, -1.0)


def test_every_verb_takes_an_old_run(tmp_path, capsys):
    for name in NAMES:
        shutil.copytree(OLD / name, tmp_path / name)
    base, mixture, permuted, words = (str(tmp_path / name) for name in NAMES)
    page = str(tmp_path / "page.html")
    allowed = ["--allow", "tasks", "--allow", "docs"]
    assert main(["compare", base, mixture, *allowed]) == 0
    assert main(["report", base, mixture, "-o", page, *allowed]) == 0
    assert main(["report", permuted]) == 0
    assert main(["report", words]) == 0
    assert main(["gate", base, "--baseline", base, "--allow-marked"]) == 0
    assert main(["rescore", base, "--output", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert main(["table", base, "--allow-marked"]) == 0
    printed = capsys.readouterr().out
    assert "| 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 25.0 |" in printed


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("tasks", "usmle_ll", "load"), None, "routing.tasks[...].load: Expected `array`"),
        (("tasks", "usmle_ll", "prompt", "layers"), [], "layers: Expected `object`, got `array`"),
        (("layers", 0, "experts"), "4", "routing.layers[0].experts: Expected `int`, got `str`"),
        (("metrics", "prompt", "agreement", 0, "layers"), [1], "`array` of length 2"),
        (("metrics", "prompt", "distance", "matrix"), [[0.5]], "routing: ValueError"),
    ],
)
def test_what_a_page_reads_of_the_routing_is_checked_when_a_run_is_loaded(
    tmp_path, place, value, said
):
    folder = shutil.copytree(OLD / "mixture", tmp_path / "r")
    summary = json.loads((folder / "run.json").read_text("utf-8"))
    inner = summary["routing"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (folder / "run.json").write_text(json.dumps(summary), "utf-8")
    with pytest.raises(RunStoreError) as caught:
        load_run(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("usmle_ll", {"options": ["x"]}, "Sample.doc.options: Expected `object`, got `array`"),
        ("usmle_ll", {"single": 1}, "Sample.doc.single: Expected `bool`, got `int`, 1"),
        ("usmle_ll", {"orders": []}, "Sample.doc.orders: Expected `int`, got `array`"),
        ("promptcblue_kuake_qic", {"target": None}, "Sample.doc.target: Expected `str`"),
        ("promptcblue_kuake_qic", {"answer_choices": [["x"]]}, "Sample.doc.answer_choices[0]"),
    ],
)
def test_what_a_suite_reads_of_a_doc_is_checked_when_a_run_is_loaded(tmp_path, task, change, said):
    folder = shutil.copytree(OLD / "mixture", tmp_path / "r")
    file = folder / "samples" / f"{task}.jsonl"
    first, *rest = file.read_text("utf-8").split("\n")
    sample = json.loads(first)
    sample["doc"] |= change
    file.write_text("\n".join([json.dumps(sample), *rest]), "utf-8")
    with pytest.raises(RunStoreError) as caught:
        load_run(folder)
    assert f"line 1: {said}" in str(caught.value)


def test_a_share_that_is_no_number_has_no_shade():
    assert Cell(MetricValue(value=math.nan, n=0), ()).level == 0
    assert Cell(MetricValue(value=0.52, n=10), ()).level == 5
