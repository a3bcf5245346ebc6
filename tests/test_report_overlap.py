"""The page's section on test questions that stand in training data."""

import dataclasses
import json
import re

import pytest
from doubles import ScriptedLM
from statsmodels.stats.proportion import confint_proportions_2indep

from mingmoe_eval.cli import main
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec
from mingmoe_eval.report import render_report, view
from mingmoe_eval.report.sample_pack import SEEN, pair_docs
from mingmoe_eval.report.seen_docs import places_by_run, seen_docs
from mingmoe_eval.run_store import load_overlap, load_run

TASK = "pharmacist2023_pharmacy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run in which three docs of two tasks stand in training data, one of each not quite."""
    path = tmp_path_factory.mktemp("overlap")
    spec = RunSpec(model="scripted", tasks=("pharmacist2023", "usmle"), sample=True)
    lm = ScriptedLM(reply=lambda prompt: "C")
    run = evaluate(spec, folder=path / "r", open_model=lambda *_: lm)
    known = []
    for task in (TASK, "usmle"):
        first, second, third = [sample.doc["question"] for sample in run.samples[task][:3]]
        known += [first, second, third[:-3]]
    (path / "train.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in known), "utf-8")
    assert main(["overlap", "--train", str(path / "train.jsonl"), "--run", str(path / "r")]) == 0
    return path / "r"


def shown(run, overlap):
    (one,) = seen_docs([run], view.columns([run], 0), [overlap])
    return one


def section(tmp_path, run, overlap, **options):
    page = render_report([run], tmp_path / "r.html", overlaps=[overlap], **options)
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
    if 'id="overlap"' not in page:
        return ""
    return page[page.index('id="overlap"') : page.index('id="samples"')]


def test_scores_stand_with_and_without_what_was_found(folder, tmp_path):
    run = load_run(folder)
    samples = run.samples[TASK]
    one = shown(run, load_overlap(folder))
    (row,) = [row for row in one.tasks if row.task == TASK]
    assert (row.docs, row.found, row.exact) == (len(samples), 3, 2)
    seen, rest = samples[:3], samples[3:]
    means = [sum(s.score for s in part) / len(part) for part in (samples, rest, seen)]
    assert [cell.metric.value for cell in row.scores] == pytest.approx(means)
    assert row.change.value == pytest.approx(means[1] - means[0])
    assert [r.task for r in one.tasks if r.is_group] == ["pharmacist2023"]
    text = section(tmp_path, run, load_overlap(folder))
    for mean in means:
        assert f">{100 * mean:.1f}<" in text
    digest = one.files[str(folder.parent / "train.jsonl")]
    assert f"{digest[:16]}…" in text
    assert "60 %" in text
    assert 'data-outcome="seen"' in text


def test_the_interval_of_the_change_is_newcombes_times_the_share_that_was_found(folder):
    run = load_run(folder)
    # A task without clusters, whose intervals are plain Wilson ones.
    (row,) = [row for row in shown(run, load_overlap(folder)).tasks if row.task == "usmle"]
    samples = run.samples["usmle"]
    right = [sum(s.score for s in part) for part in (samples[3:], samples[:3])]
    low, high = confint_proportions_2indep(
        right[0], len(samples) - 3, right[1], 3, method="newcomb"
    )
    share = 3 / len(samples)
    assert row.change.interval == pytest.approx((share * low, share * high), abs=1e-9)


def test_a_group_of_unequal_parts_has_a_change_without_an_interval(folder):
    (group,) = [row for row in shown(load_run(folder), load_overlap(folder)).tasks if row.is_group]
    assert group.change.interval is None
    assert (group.docs, group.found) == (None, None)


def test_without_findings_there_is_no_section(folder, tmp_path):
    assert section(tmp_path, load_run(folder), None) == ""


def test_the_found_docs_are_flagged_for_the_browser_of_samples_run_by_run(folder):
    run = load_run(folder)
    seen = seen_docs([run, run], view.columns([run, run], 0), [None, load_overlap(folder)])
    docs = pair_docs([run, run], 0, places_by_run(seen, 2))
    flagged = {doc.doc_id: doc for doc in docs if doc.task == TASK and doc.flags >= SEEN}
    assert set(flagged) == {sample.doc_id for sample in run.samples[TASK][:3]}
    assert all(doc.flags & (SEEN << 1) and not doc.flags & SEEN for doc in flagged.values())
    first = flagged[run.samples[TASK][0].doc_id]
    assert first.seen == ("", f"{folder.parent / 'train.jsonl'}:1 · 100 %")


def test_findings_about_other_docs_are_said_to_be_and_not_shown(folder, tmp_path):
    run = load_run(folder)
    fewer = dataclasses.replace(run, samples={**run.samples, TASK: run.samples[TASK][1:]})
    text = section(tmp_path, fewer, load_overlap(folder))
    assert "speaks of other docs or scores" in text
    assert TASK in text
    assert "<table" not in text
    assert shown(fewer, load_overlap(folder)).places == {}


def test_findings_about_other_scores_are_said_to_be_and_not_shown(folder, tmp_path):
    overlap = load_overlap(folder)
    overlap["scores"][TASK]["all"]["n"] -= 1  # as before a failed doc was asked again
    assert shown(load_run(folder), overlap).mismatches == (TASK,)
    assert "<table" not in section(tmp_path, load_run(folder), overlap)


@pytest.mark.parametrize(
    "damage",
    [
        lambda overlap: overlap.pop("rules"),
        lambda overlap: overlap["tasks"][TASK].pop("docs_fingerprint"),
        lambda overlap: overlap.update(scores=[]),
        lambda overlap: overlap["tasks"][TASK].update(seen_docs=[{"doc_id": "x"}]),
        lambda overlap: overlap["scores"][TASK].update(seen="0.5"),
    ],
)
def test_damaged_findings_are_refused_with_the_way_out(folder, damage):
    overlap = load_overlap(folder)
    damage(overlap)
    with pytest.raises(RunStoreError):
        shown(load_run(folder), overlap)


def test_the_report_command_takes_the_findings_from_the_run_folder(folder, capsys):
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text("utf-8")
    assert 'id="overlap"' in page
    assert '<option value="seen"' in page


def test_names_of_training_files_are_text(folder, tmp_path):
    overlap = load_overlap(folder)
    overlap["training"]["files"] = {"<img src=x onerror=alert(1)>": "<b>" * 9}
    assert "<img" not in section(tmp_path, load_run(folder), overlap)
