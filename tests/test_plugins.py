"""A folder of tasks as a user has it: read, checked, run, and scored again without the folder."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doubles import ScriptedLM

from mingmoe_eval import evaluate, run_store
from mingmoe_eval.cli import main
from mingmoe_eval.demo import BASE, checkpoints_dir
from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.locations import plugin_folders, tasks_dir
from mingmoe_eval.promptcblue.catalogue import EVENT_KEYS
from mingmoe_eval.records import RunSpec
from mingmoe_eval.rescoring import rescore
from mingmoe_eval.suites.form import KEYS
from mingmoe_eval.task_catalog import load_catalog, open_catalog

ROOT = Path(__file__).parents[1]

EXAM = "题干,A,B,C,D,答案\n哪个器官泵血？,心,肝,脾,肺,A\n哪个器官呼吸？,心,肝,脾,肺,D\n"
NOTES = [
    {"note": "He has gout.", "found": {"disease": ["gout"]}, "level": "routine", "dose": 100},
    {"note": "She has fever.", "found": {"symptom": ["fever"]}, "level": "urgent", "dose": 200},
]
FACTS = """
ward_exam:
  parts: {test: {file: exam.csv, rows: 2}}
  description: The exam of our ward
ward_ner:
  suite: tuples
  shape: entities
  labels: [disease, symptom]
  parts: {test: {file: notes.jsonl}}
  fields: {answer: found}
  prompt: "Entities of: {{ note }}"
ward_triage:
  suite: labels
  labels: [urgent, routine]
  parts: {test: {file: notes.jsonl}}
  fields: {answer: level}
  metric: macro_f1
  chance: 0.4
  prompt: {direct: "Triage: {{ note }}", cot: "Triage, with reasons: {{ note }}"}
ward_dose:
  suite: number
  tolerance: 0.05
  parts: {test: {file: notes.jsonl}}
  fields: {answer: dose}
  prompt: "Dose for: {{ note }}"
ward_reply:
  suite: text
  parts: {test: {file: notes.jsonl}}
  fields: {answer: level}
  prompt: "Reply to: {{ note }}"
"""
GROUP = """
group: ward
task: [ward_triage, ward_triage_cot]
metadata: {version: 1.0, suite: labels, description: both forms}
"""


@pytest.fixture
def folder(tmp_path):
    """Five entries and a group, with their data beside them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "exam.csv").write_text(EXAM, "utf-8")
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, NOTES)), "utf-8")
    (folder / "_data.yaml").write_text(FACTS, "utf-8")
    (folder / "ward.yaml").write_text(GROUP, "utf-8")
    return folder


def reply(prompt):
    if prompt.startswith("Entities"):
        return "disease: gout\nsymptom: none"
    if prompt.startswith("Triage"):
        return "The answer is routine."
    if prompt.startswith("Dose"):
        return "So it is 100 mg."
    return "urgent" if prompt.startswith("Reply") else "A"


def run_of(folder, *tasks, save=None, **options):
    lm = ScriptedLM(reply, likelihood=lambda prompt, text: float(-ord(text.strip())))
    spec = RunSpec(model="scripted", tasks=tasks, include_path=(str(folder),), **options)
    return evaluate(spec, folder=save, open_model=lambda *_: lm)


def test_an_entry_makes_its_tasks_by_itself(folder):
    catalog = open_catalog([folder])
    mine = sorted(set(catalog.definitions) - set(load_catalog().definitions))
    assert mine == [
        *("ward", "ward_dose", "ward_exam", "ward_exam_cot", "ward_exam_ll"),
        *("ward_ner", "ward_reply", "ward_triage", "ward_triage_cot"),
    ]
    assert catalog.definitions["ward_exam_ll"].output_type == "multiple_choice"


def test_each_suite_runs_to_the_score_that_its_replies_earn(folder):
    run = run_of(folder, "ward*")
    scores = {name: result.main.value for name, result in run.results.items()}
    assert scores == {
        "ward_exam": 0.5,  # "A" to both
        "ward_exam_ll": 0.5,  # A is the likeliest
        "ward_exam_cot": 0.5,
        "ward_ner": pytest.approx(0.5),  # found 1 + 0, invented 0 + 1, missed 0 + 1
        "ward_triage": pytest.approx(1 / 3),  # F1 of routine 2/3, of urgent 0
        "ward_triage_cot": pytest.approx(1 / 3),
        "ward_dose": 0.5,
        "ward_reply": pytest.approx(0.5, abs=1e-6),
        "ward": pytest.approx(1 / 3),
    }
    assert run.results["ward_exam"].chance == 0.25
    assert run.results["ward_triage"].chance == 0.4
    assert run.incomplete == ()
    assert run.marks == ()


def test_prompts_are_the_entrys_own_or_those_of_our_exams(folder):
    (folder / "_data.yaml").write_text(
        "own:\n"
        "  parts: {test: {file: exam.csv}}\n"
        '  prompt: {direct: "{{ question }} [{{ letters }}]\\n{{ options }}"}\n',
        "utf-8",
    )
    (folder / "ward.yaml").unlink()
    run = run_of(folder, "own", "own_ll")
    assert run.samples["own"][0].prompt == (
        "哪个器官泵血？ [A, B, C, D]\nA. 心\nB. 肝\nC. 脾\nD. 肺"
    )
    # A Chinese file is asked in Chinese, and no blank stands before the letter.
    assert run.samples["own_ll"][0].prompt.endswith("D. 肺\n答案：")


def test_few_shots_come_from_another_part_and_never_the_doc_itself(folder):
    facts = FACTS.replace(
        "fields: {answer: level}\n  metric",
        "fields: {answer: level}\n  shots: {file: shots.jsonl}\n  num_fewshot: 1\n  metric",
    )
    (folder / "_data.yaml").write_text(facts, "utf-8")
    shots = [NOTES[0], {"note": "Another.", "level": "urgent"}]
    (folder / "shots.jsonl").write_text("\n".join(map(json.dumps, shots)), "utf-8")
    run = run_of(folder, "ward_triage")
    assert run.samples["ward_triage"][0].prompt == (
        "Triage: Another.\nurgent\n\nTriage: He has gout."
    )


def test_a_run_is_scored_again_and_looked_at_without_the_folder(folder, tmp_path):
    run_of(folder, "ward", "ward_ner", "ward_exam", save=tmp_path / "r")
    run = run_store.load_run(tmp_path / "r")
    known = run.provenance["tasks"]["ward_triage"]["definition"]
    assert known["settings"]["metric"] == "macro_f1"
    assert len(known["fingerprint"]) == 64
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    again = rescore(run)
    assert {name: r.main for name, r in again.results.items()} == {
        name: r.main for name, r in run.results.items()
    }
    assert again.results["ward_triage"].chance == 0.4
    official = rescore(run, profile="official")
    assert official.results["ward_triage"].main.value == 0.0  # no output is a label alone
    out = tmp_path / "out.html"
    assert main(["report", str(tmp_path / "r"), "--output", str(out)]) == 0
    assert main(["compare", str(tmp_path / "r"), str(tmp_path / "r")]) == 0


def test_folders_are_named_by_option_variable_and_package(folder, monkeypatch, capsys):
    assert main(["tasks", "ward_n*", "--include-path", str(folder)]) == 0
    assert "ward_ner" in capsys.readouterr().out
    monkeypatch.setenv("MINGMOE_TASKS", str(folder))
    assert main(["tasks", "ward_n*"]) == 0
    assert "ward_ner" in capsys.readouterr().out
    # Twice the same folder, and ours: each is read once.
    assert plugin_folders([folder, folder, tasks_dir()]) == (folder.resolve(),)


def test_overlap_and_score_exams_know_the_folder(folder, tmp_path):
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"text": "哪个器官泵血？ 心 肝 脾 肺"}), "utf-8")
    found = tmp_path / "found.json"
    where = ["--include-path", str(folder)]
    asked = ["overlap", "--train", str(train), "--tasks", "ward_exam", "--json", str(found)]
    assert main([*asked, *where]) == 0
    assert set(json.loads(found.read_text("utf-8"))["tasks"]) == {"ward_exam"}
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"reply": "The answer is A"}\n{"reply": "答案是D"}\n', "utf-8")
    scored = ["score", "exams", "--task", "ward_exam", "--answers", str(answers)]
    assert main([*scored, "--output", str(tmp_path / "o"), *where]) == 0
    run = run_store.load_run(tmp_path / "o" / "answers")
    assert run.results["ward_exam"].main.value == 1.0
    assert rescore(run).results["ward_exam"].main.value == 1.0  # without the folder


def test_a_file_with_other_rows_is_marked_and_bad_rows_are_counted(folder):
    notes = [*NOTES, {"note": "x", "level": "nonsense", "dose": 1, "found": []}]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)), "utf-8")
    (folder / "_data.yaml").write_text(
        FACTS.replace("{file: notes.jsonl}", "{file: notes.jsonl, rows: 2}"), "utf-8"
    )
    run = run_of(folder, "ward_triage")
    assert run.marks == ("ward_triage: 3 rows, where the official part has 2",)
    assert run.results["ward_triage"].counts.unusable == 1


def test_an_entry_that_a_yaml_asks_for_makes_no_tasks_beside_it(folder):
    (folder / "asked.yaml").write_text(
        "task: asked\n"
        "custom_dataset: !function mingmoe_eval.exams.loading.load\n"
        "dataset_kwargs: {benchmark: ward_exam}\n"
        "test_split: test\n"
        "output_type: generate_until\n"
        "doc_to_text: !function mingmoe_eval.exams.prompts.chinese_letter\n"
        "doc_to_target: answer\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        "metadata: {version: 1.0, suite: choice, form: direct}\n",
        "utf-8",
    )
    assert "ward_exam" not in open_catalog([folder]).definitions
    assert run_of(folder, "asked").results["asked"].main.value == 0.5


def test_an_entry_may_have_a_yaml_to_itself(folder):
    (folder / "alone.yaml").write_text(
        "task: alone\nsuite: number\ntolerance: 0.05\n"
        "parts: {test: {file: notes.jsonl}}\nfields: {answer: dose}\n"
        "prompt: 'Dose for: {{ note }}'\n",
        "utf-8",
    )
    assert run_of(folder, "alone").results["alone"].main.value == 0.5


def test_several_folders_by_comma_and_a_run_is_taken_up_with_them(folder, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.jsonl").write_text(json.dumps(NOTES[0]), "utf-8")
    (other / "_data.yaml").write_text(
        "more: {suite: text, parts: {test: {file: notes.jsonl}}, fields: {answer: level}, "
        "prompt: 'Reply to: {{ note }}'}",
        "utf-8",
    )
    both = f"{folder},{other}"
    assert main(["tasks", "more", "--include-path", both]) == 0
    capsys.readouterr()
    failing = ScriptedLM(reply, failure=lambda prompt: "no answer came")
    spec = RunSpec(model="scripted", tasks=("more",), include_path=tuple(both.split(",")))
    saved = tmp_path / "r"
    assert evaluate(spec, folder=saved, open_model=lambda *_: failing).incomplete == ("more",)
    again = run_store.spec_to_resume(saved)
    assert again == spec
    lm = ScriptedLM(reply)
    assert evaluate(again, folder=saved, resume=True, open_model=lambda *_: lm).incomplete == ()


def test_every_benchmark_of_ours_is_asked_by_a_yaml():
    made = [d.name for d in load_catalog().definitions.values() if d.benchmark is not None]
    assert made == []


def test_what_the_hub_has_may_lie_below_the_data_dir(folder, tmp_path):
    (folder / "ward.yaml").unlink()
    (folder / "_data.yaml").write_text(
        "hubby:\n"
        "  language: zh\n"
        "  parts: {test: {hub: {id: a/b, split: x}}}\n"
        "  fields: {question: 题干, answer: 答案}\n",
        "utf-8",
    )
    (tmp_path / "hubby").mkdir()
    (folder / "exam.csv").rename(tmp_path / "hubby" / "test.csv")
    assert run_of(folder, "hubby", data_dir=str(tmp_path)).results["hubby"].main.value == 0.5
    with pytest.raises(MissingDataError, match=r"looked for hubby/test \(as .*download a/b/x"):
        run_of(folder, "hubby", data_dir=str(folder))


def test_the_keys_of_events_are_those_of_promptcblue():
    assert KEYS["events"] == EVENT_KEYS


# --- plain YAMLs of lm-eval ------------------------------------------------------------------

PLAIN = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2.0, labels: [its, own, words]}}
"""


def test_a_folder_of_lm_evals_yamls_runs_as_lm_eval_scores_them(tmp_path):
    rows = [{"question": "1+1?", "choices": ["1", "2"], "answer": 1}] * 2
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "sums.yaml").write_text(PLAIN.format(data=tmp_path / "rows.jsonl"))
    run = run_of(tmp_path, "sums")
    assert (run.results["sums"].main.value, run.results["sums"].suite) == (0.0, "")
    with pytest.raises(UsageError, match="keep its scores"):
        rescore(run)


# --- what is wrong ---------------------------------------------------------------------------

ENTRY = "x: {suite: text, parts: {test: {file: notes.jsonl}}, prompt: '{{ note }}'"
BROKEN = {
    "no YAML": ("x: [", "while parsing"),
    "not UTF-8": (b"\xff\xfex", "not UTF-8"),
    "a list": ("- x", "entries by their names"),
    "empty": ("", "entries by their names"),
    "an entry that is a word": ("x: y", "x: a mapping is expected, not 'y'"),
    "a name that is a number": ("2024: {parts: {test: {file: exam.csv}}}", "write it in quotes"),
    "a name twice": (
        "x: {parts: {test: {file: exam.csv}}}\nx: {parts: {test: {file: exam.csv}}}",
        "the key 'x' comes twice, again in line 2",
    ),
    "a name with a blank": ("'a b': {parts: {test: {file: exam.csv}}}", "has no blank"),
    "a name like a file": ("a.csv: {parts: {test: {file: exam.csv}}}", "leave the suffix out"),
    "a long name": (f"{'题' * 60}: {{parts: {{test: {{file: exam.csv}}}}}}", "at most 100 bytes"),
    "an unknown key": (
        "x: {parts: {test: {file: exam.csv}}, promt: y}",
        "x.promt: no such field; did you mean prompt?",
    ),
    "an unknown key of a part": (
        "x: {parts: {test: {fiel: exam.csv}}}",
        "x.parts.test.fiel: no such field; did you mean file?",
    ),
    "no parts": ("x: {suite: choice}", "x.parts: it is missing"),
    "a part without records": ("x: {parts: {test: {rows: 3}}}", "there are no records"),
    "a file that is not there": (
        "x: {parts: {test: {file: exma.csv}}}",
        "x.parts.test.file: no file exma.csv beside this one; did you mean exam.csv?",
    ),
    "a file of no records": (
        "x: {parts: {test: {file: _data.yaml}}}",
        "_data.yaml: records of this suite come as",
    ),
    "a spreadsheet for labels": (
        "x: {suite: labels, parts: {test: {file: s.xlsx}}, prompt: '{{ a }}'}",
        "no file s.xlsx",
    ),
    "a hub place without split": (
        "x: {language: en, parts: {test: {hub: {id: a/b}}}}",
        "x.parts.test.hub.split: it is missing",
    ),
    "no language for a hub": (
        "x: {parts: {test: {hub: {id: a/b, split: test}}}}",
        "x.language: zh or en is needed",
    ),
    "an unknown suite": (
        "x: {suite: choise, parts: {test: {file: exam.csv}}}",
        "x.suite: Invalid enum value 'choise'; there are choice, number, labels, tuples, text",
    ),
    "labels that YAML reads as truth": (
        "x: {suite: labels, labels: [yes, no], parts: {test: {file: notes.jsonl}}, "
        "prompt: '{{ a }}'}",
        "write them in quotes",
    ),
    "a label twice": (
        "x: {suite: labels, labels: [a, a], parts: {test: {file: notes.jsonl}}, prompt: '{{ a }}'}",
        "x.labels: each has to be there once",
    ),
    "no prompt": (
        "x: {suite: text, parts: {test: {file: notes.jsonl}}}",
        "x.prompt: suite text has no wording of its own",
    ),
    "a prompt that is no template": (f"{ENTRY[:-12]}'{{{{ note'}}", "no Jinja text"),
    "a prompt without a field": (f"{ENTRY[:-12]}'say something'}}", "shows nothing of a record"),
    "a prompt with the answer": (
        f"{ENTRY[:-12]}'{{{{ note }}}} {{{{ level }}}}', fields: {{answer: level}}}}",
        "it shows the answer",
    ),
    "a prompt with a field that is not there": (
        f"{ENTRY[:-12]}'{{{{ nope }}}}', fields: {{answer: level}}}}",
        "nope: no field 'nope'",
    ),
    "no answer": (f"{ENTRY}}}", "answer: no field 'answer'"),
    "a role that is none": (
        f"{ENTRY}, fields: {{answr: level, answer: level}}}}",
        "x.fields.answr: no prompt shows it",
    ),
    "tuples without a shape": (
        "x: {suite: tuples, parts: {test: {file: notes.jsonl}}, prompt: '{{ note }}'}",
        "x.shape: it is missing: one of entities",
    ),
    "keys for a shape that has its own": (
        "x: {suite: tuples, shape: terms, keys: [a], parts: {test: {file: notes.jsonl}}, "
        "prompt: '{{ note }}'}",
        "x.keys: shape terms has the keys entity",
    ),
    "a field of another suite": (
        f"{ENTRY}, unit: mg}}",
        "x.unit: it belongs to suite number, not to text",
    ),
    "columns that nobody knows": (
        "x: {parts: {test: {file: notes.jsonl}}}",
        "say `fields: {question: NAME}`",
    ),
    "a prompt that is a function": (f"{ENTRY[:-12]}'!function a.b'}}", "it is a text here"),
    "rows below one": ("x: {parts: {test: {file: exam.csv, rows: -1}}}", "x.parts.test.rows"),
    "an unknown metric": (
        f"{ENTRY}, metric: rouge, fields: {{answer: level}}}}",
        "suite text has no 'rouge'; did you mean",
    ),
    "a metric to which not every question adds": (
        "x: {parts: {test: {file: exam.csv}}, metric: consistency}",
        "suite choice has no 'consistency'; there are acc, any_overlap, hamming, answered",
    ),
    "a chance above one": (f"{ENTRY}, chance: 25}}", "x.chance: Expected `float` <= 1.0"),
    "shots from nowhere": (f"{ENTRY}, shots: dev}}", "x.shots: from 'dev', which is no part"),
    "too many shots": (
        f"{ENTRY}, num_fewshot: 3, fields: {{answer: level}}}}",
        "x has no worked examples",
    ),
    "an answer that is no number": (
        "x: {suite: number, parts: {test: {file: notes.jsonl}}, prompt: '{{ note }}', "
        "fields: {answer: level}}",
        "answer: 'routine' is no number",
    ),
    "an answer that is no label": (
        "x: {suite: labels, labels: [a, b], parts: {test: {file: notes.jsonl}}, "
        "prompt: '{{ note }}', fields: {answer: level}}",
        "the answer 'routine' is none of the labels a, b",
    ),
    "the name of a task of ours": (
        "usmle: {parts: {test: {file: exam.csv}}}",
        "the name 'usmle' is taken by a task of ours",
    ),
}


@pytest.mark.parametrize("facts", BROKEN)
def test_what_is_wrong_is_one_message_and_status_2(folder, facts, capsys):
    text, message = BROKEN[facts]
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "_data.yaml").write_bytes(data)
    (folder / "ward.yaml").unlink()
    assert main(["tasks", "check", str(folder)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error:") == 1
    assert "Traceback" not in said
    assert str(folder) in said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "include: b.yaml\ntask: a\n", "it includes itself: a.yaml includes b.yaml"),
        ("a.yaml", "include: gone.yaml\ntask: a\n", "gone.yaml"),
        ("a.yaml", "include: [1]\ntask: a\n", "include: a file's name"),
        ("a.yaml", "output_type: generate_until\n", "neither `task:` nor `group:`"),
        ("a.yaml", "group: a\ntask: [nowhere]\n", "member 'nowhere' is not defined"),
        ("a.yaml", "group: a\ntask: [{task: ward_ner}]\n", "a group's members are names"),
        ("a.yaml", "task: a\ntask: b\n", "the key 'task' comes twice"),
        ("a.yaml", "a: &a [*a]\ntask: x\nsuite: text\nparts: *a\n", "its aliases stand for"),
        ("c.yaml", "task: ward_ner\noutput_type: generate_until\n", "is taken by a task of"),
        ("a.yaml", "task: a\nsuite: text\n", "parts: it is missing"),
    ],
)
def test_a_faulty_yaml_beside_is_named(folder, name, text, message, capsys):
    (folder / name).write_text(text, "utf-8")
    (folder / "b.yaml").write_text(
        "include: a.yaml\ntask: b\n" if "b.yaml" in text else "task: b\n"
    )
    assert main(["tasks", "check", str(folder)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error:") == 1


def test_every_fault_is_listed_at_once(folder, capsys):
    (folder / "_data.yaml").write_text(
        "a: {parts: {test: {file: gone.csv, rows: many}}, declares: maybe, promt: x}\n"
        "b: {suite: labels, parts: {test: {file: gone.csv}}, prompt: {kot: x}}\n",
        "utf-8",
    )
    assert main(["tasks", "check", str(folder)]) == 2
    said = capsys.readouterr().err
    for part in ("a.parts.test.rows", "a.declares", "a.promt", "b.prompt", "gone.csv"):
        assert part in said, said


def test_two_folders_with_the_same_task_are_both_named(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "exam.csv").write_text(EXAM, "utf-8")
    (other / "_data.yaml").write_text("ward_exam: {parts: {test: {file: exam.csv}}}", "utf-8")
    with pytest.raises(DataError) as caught:
        open_catalog([folder, other])
    assert str(folder / "_data.yaml") in str(caught.value)
    assert str(other / "_data.yaml") in str(caught.value)


def test_a_folder_that_is_none_is_said(tmp_path, capsys):
    assert main(["tasks", "--include-path", str(tmp_path / "gone")]) == 2
    assert "is no folder here" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["tasks", "check", str(tmp_path / "file")]) == 2
    assert "is a file: name its folder" in capsys.readouterr().err
    assert main(["tasks", "check", str(tmp_path)]) == 2
    assert "defines no task" in capsys.readouterr().err


def test_a_file_with_the_other_suffix_is_pointed_at(tmp_path, capsys):
    (tmp_path / "_data.yml").write_text("x: {}")
    assert main(["tasks", "check", str(tmp_path)]) == 2
    assert ".yml is not read" in capsys.readouterr().err


def test_own_answers_that_do_not_score_are_a_fault(folder, capsys):
    # A comma inside of an entity tells one from the next in lines: gold loses it.
    facts = FACTS.replace("shape: entities\n  labels: [disease, symptom]", "shape: terms")
    (folder / "_data.yaml").write_text(facts, "utf-8")
    notes = [{**note, "found": "gout, acute"} for note in NOTES]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)), "utf-8")
    assert main(["tasks", "check", str(folder)]) == 2
    assert "the answer holds no terms" in capsys.readouterr().err


def test_letters_are_not_compared_where_several_may_be_right(folder, capsys):
    (folder / "exam.csv").write_text(EXAM + "哪些在胸腔？,心,肝,脾,肺,AD\n", "utf-8")
    (folder / "_data.yaml").write_text("ward_exam: {parts: {test: {file: exam.csv}}}", "utf-8")
    (folder / "ward.yaml").unlink()
    assert main(["tasks", "check", str(folder)]) == 2
    assert "Write `declares: nothing` in its entry" in capsys.readouterr().err
    (folder / "_data.yaml").write_text(
        "ward_exam: {parts: {test: {file: exam.csv}}, declares: nothing}", "utf-8"
    )
    assert main(["tasks", "check", str(folder)]) == 0


# --- packages --------------------------------------------------------------------------------


# What any build backend does, so that the test needs none: the files, and the entry point.
BACKEND = """
import zipfile
from pathlib import Path

def build_wheel(directory, settings=None, metadata=None):
    name = "ward_tasks-1.0-py3-none-any.whl"
    info = "ward_tasks-1.0.dist-info"
    files = {str(p): p.read_bytes() for p in Path("ward_tasks").rglob("*") if p.is_file()}
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\\nName: ward-tasks\\nVersion: 1.0\\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{info}/entry_points.txt"] = b"[mingmoe_eval.tasks]\\nward = ward_tasks:TASKS\\n"
    files[f"{info}/RECORD"] = "".join(f"{n},,\\n" for n in [*files, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(Path(directory) / name, "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)
    return name
"""


@pytest.mark.slow
def test_a_package_that_ships_tasks_is_installed_and_run(folder, tmp_path):
    source = tmp_path / "source"
    package = source / "ward_tasks"
    package.mkdir(parents=True)
    inner = package / "tasks"
    folder.rename(inner)
    (package / "__init__.py").write_text(
        "from pathlib import Path\nTASKS = Path(__file__).parent / 'tasks'\n"
    )
    (source / "backend.py").write_text(BACKEND)
    (source / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'ward-tasks'\nversion = '1.0'\n"
    )
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"]
    done = subprocess.run(
        [*pip, "--target", str(site), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    command = [sys.executable, "-m", "mingmoe_eval"]
    listed = subprocess.run(
        [*command, "tasks", "ward_*"], capture_output=True, text=True, env=environment
    )
    assert listed.returncode == 0, listed.stderr
    assert "ward_exam_ll" in listed.stdout
    checked = subprocess.run(
        [*command, "tasks", "check", str(site / "ward_tasks" / "tasks")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert checked.returncode == 0, checked.stderr
    model = str(checkpoints_dir() / BASE)
    run = [*command, "--model", model, "--tasks", "ward_exam_ll,ward_ner", "--no-cache"]
    done = subprocess.run(
        [*run, "--name", "r"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    results = run_store.load_run(tmp_path / "reports" / "r").results
    assert {name: result.main.n for name, result in results.items()} == {
        "ward_exam_ll": 2,
        "ward_ner": 2,
    }


def entry_point(monkeypatch, value):
    point = importlib.metadata.EntryPoint("ward", value, "mingmoe_eval.tasks")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == point.group else []
    )


def test_an_entry_point_may_be_a_bare_module(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_point(monkeypatch, "mine")  # a folder without any Python
    assert plugin_folders() == (folder.resolve(),)


@pytest.mark.parametrize("value", ["no_such_module", "json:NOTHING", "sys:path", "json:dumps"])
def test_a_package_whose_tasks_cannot_be_found_is_named(value, monkeypatch):
    entry_point(monkeypatch, value)
    with pytest.raises(DataError, match=r"the installed package ward offers tasks as .* uninstall"):
        open_catalog()
