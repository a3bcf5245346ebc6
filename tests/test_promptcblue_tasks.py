"""The sixteen lm-eval tasks: definitions, data, and scoring for stock lm-eval users."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from doubles import ScriptedLM
from promptcblue_data import HERE, read_json, read_lines, write_lines

from mingmoe_eval.errors import DataError, MingMoeError, MissingDataError, UsageError
from mingmoe_eval.promptcblue.catalogue import TASKS
from mingmoe_eval.records import RunSpec
from mingmoe_eval.task_catalog import load_catalog

TASKS_DIR = Path(__file__).parents[1] / "tasks"
SAMPLE = read_lines(TASKS_DIR / "promptcblue" / "sample.jsonl")
RECORDS = HERE / "synthetic" / "records.jsonl"
NAMES = [task.lm_eval_name for task in TASKS.values()]


def load(name, **metadata):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return manager.load([name])["tasks"]


def loaded_docs(name="promptcblue_cmeee_v2", **metadata):
    return load(name, **metadata)[name].eval_docs


def refusal(**metadata):
    """Our own error out of what lm-eval wraps it in."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - lm-eval decides the type
        loaded_docs(**metadata)
    error = caught.value
    while not isinstance(error, MingMoeError):
        error = error.__cause__ or error.__context__
    return error


def data_dir(tmp_path, stem="test", records=None):
    path = tmp_path / "promptcblue" / f"{stem}.jsonl"
    path.parent.mkdir(parents=True)
    write_lines(path, records or read_lines(RECORDS))
    return str(tmp_path)


def test_the_groups_are_the_sixteen_and_the_families_of_more_than_one():
    definitions = load_catalog(TASKS_DIR / "promptcblue").definitions
    groups = {name: list(d.members) for name, d in definitions.items() if d.is_group}
    assert groups.pop("promptcblue") == NAMES
    families = {}
    for task in TASKS.values():
        families.setdefault(f"promptcblue_{task.family}", []).append(task.lm_eval_name)
    assert groups == {name: members for name, members in families.items() if len(members) > 1}
    assert set(definitions) == {"promptcblue", *groups, *NAMES}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_definition_asks_for_one_greedy_answer_of_any_shape(task):
    [loaded] = load(task.lm_eval_name, sample=True).values()
    assert loaded.config.generation_kwargs == {
        "do_sample": False,
        "temperature": 0,
        "until": [],
        "max_gen_toks": task.max_gen_toks,
    }
    doc = loaded.eval_docs[0]
    assert loaded.doc_to_text(doc) == doc["input"]
    assert loaded.doc_to_target(doc) == doc["target"]


def test_the_sample_has_at_least_eight_records_of_every_task():
    counts = {name: sum(r["task_dataset"] == name for r in SAMPLE) for name in TASKS}
    assert min(counts.values()) >= 8


def test_the_prompt_reaches_the_model_unchanged(tmp_path):
    records = read_lines(RECORDS)
    for record in records:
        record["input"] = f"  {{{{ x }}}} 3\n{record['input']}\n"
    model = ScriptedLM(lambda prompt: "")
    name = "promptcblue_meddg"
    [task] = load(name, data_dir=data_dir(tmp_path, records=records)).values()
    stock_run(task, model)
    assert model.prompts == [r["input"] for r in records if r["task_dataset"] == "MedDG"]


def stock_run(task, model):
    from lm_eval.evaluator import evaluate

    name = task.config.task
    out = evaluate(lm=model, task_dict={name: task}, bootstrap_iters=0)
    return out["results"][name]["score,none"]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_stock_lm_eval_gets_the_official_score(task, tmp_path):
    variant = HERE / "synthetic" / "variants" / "mixed_0"
    said = {
        (r["task_dataset"], r["sample_id"]): r["prediction"]
        for r in read_lines(variant / "predictions.jsonl")
    }
    docs = [r for r in read_lines(RECORDS) if r["task_dataset"] == task.name]
    replies = iter([said[task.name, doc["sample_id"]] for doc in docs])
    [loaded] = load(task.lm_eval_name, data_dir=data_dir(tmp_path)).values()
    score = stock_run(loaded, ScriptedLM(lambda prompt: next(replies)))
    official = read_json(variant / "official_scores.json")["score_map"][task.score_key]
    assert score == pytest.approx(official, abs=1e-9)


def test_a_run_over_all_sixteen_has_the_overall_score(tmp_path):
    from mingmoe_eval.evaluation import evaluate as run_evaluation

    targets = {record["input"]: record["target"] for record in SAMPLE}
    model = ScriptedLM(lambda prompt: targets[prompt])
    spec = RunSpec(model="scripted", tasks=("promptcblue",), sample=True)
    run = run_evaluation(spec, open_model=lambda *_: model, folder=tmp_path / "run")
    assert run.results["promptcblue"].main.value == pytest.approx(1, abs=1e-8)
    assert run.results["promptcblue"].main.n == len(SAMPLE)
    assert set(run.leaves) == set(NAMES)


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("test", None),
        ("dev", "dev"),
        ("train", "train"),
        ("CBLUE", None),
        ("test/CMeEE-V2", None),
        ("dev/CMeEE-V2", "dev"),
        ("CMeEE-V2_dev", "dev"),
    ],
)
def test_records_are_found_by_split_together_or_by_task(tmp_path, stem, split):
    path = tmp_path / "promptcblue" / f"{stem}.jsonl"
    path.parent.mkdir(parents=True)
    write_lines(path, read_lines(RECORDS))
    docs = loaded_docs(data_dir=str(tmp_path), split=split)
    assert [doc["task_dataset"] for doc in docs] == ["CMeEE-V2"] * 10
    assert docs.source.path == str(path)


def test_the_older_name_of_a_task_is_the_same_task(tmp_path):
    records = [
        {**r, "task_dataset": "CMeIE-V2"}
        for r in read_lines(RECORDS)
        if r["task_dataset"] == "CMeIE"
    ]
    assert len(loaded_docs("promptcblue_cmeie", data_dir=data_dir(tmp_path, records=records))) == 10


def test_fewer_records_than_the_official_test_set_are_noted(tmp_path):
    assert loaded_docs(data_dir=data_dir(tmp_path)).notes == ("10 records, where test A has 600",)


def test_unlabelled_records_are_refused_with_the_way_out(tmp_path):
    records = [{**record, "target": ""} for record in read_lines(RECORDS)]
    error = refusal(data_dir=data_dir(tmp_path, records=records))
    assert type(error) is DataError
    assert "use --split dev" in str(error)


def test_a_file_without_the_task_is_missing_data(tmp_path):
    records = [r for r in read_lines(RECORDS) if r["task_dataset"] == "MedDG"]
    error = refusal(data_dir=data_dir(tmp_path, records=records))
    assert type(error) is MissingDataError
    assert "has no record of CMeEE-V2" in str(error)


def test_records_that_lack_a_field_are_refused(tmp_path):
    records = read_lines(RECORDS)
    for record in records:
        del record["answer_choices"]
    error = refusal(data_dir=data_dir(tmp_path, records=records))
    assert "no field 'answer_choices'" in str(error)


def test_an_unknown_split_and_a_split_of_the_sample_are_refused(tmp_path):
    assert type(refusal(data_dir=data_dir(tmp_path), split="val")) is UsageError
    assert type(refusal(sample=True, split="dev")) is UsageError


@pytest.mark.parametrize("with_targets", [True, False])
def test_mings_question_files_are_read_with_gold_beside_them(tmp_path, with_targets):
    rows = [
        {
            "conversations": [
                {"from": "human", "value": r["input"]},
                {"from": "gpt", "value": r["target"] if with_targets else ""},
            ],
            "eval": {
                key: r[key] for key in ("sample_id", "task_dataset", "task_type", "answer_choices")
            },
        }
        for r in read_lines(RECORDS)
    ]
    folder = data_dir(tmp_path, "CBLUE", rows)
    gold = (HERE / "synthetic" / "gold_structured.json").read_text("utf-8")
    (tmp_path / "promptcblue" / "CBLUE_structured.json").write_text(gold, "utf-8")
    expected = [r for r in read_lines(RECORDS) if r["task_dataset"] == "CMeEE-V2"]
    docs = loaded_docs(data_dir=folder)
    assert [doc["target"] for doc in docs] == [r["target"] for r in expected]
    assert [doc["input"] for doc in docs] == [r["input"] for r in expected]


@pytest.mark.slow
def test_the_stock_command_runs_the_tasks():
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--include_path", str(TASKS_DIR)),
        *("--model", "dummy", "--tasks", "promptcblue_cmeee_v2,promptcblue_meddg"),
        *("--metadata", json.dumps({"sample": True}), "--limit", "2"),
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert done.returncode == 0, done.stderr
    assert "|promptcblue_cmeee_v2" in done.stdout
