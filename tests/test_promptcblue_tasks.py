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
from mingmoe_eval.promptcblue.parsing import parse_answer
from mingmoe_eval.promptcblue.scorer import score_files
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


def test_fewer_records_than_the_official_test_set_are_marked(tmp_path):
    docs = loaded_docs(data_dir=data_dir(tmp_path))
    assert (docs.marks, docs.notes) == (("10 records, where test A has 600",), ())


@pytest.mark.parametrize("empty", ["", None, " \n"])
@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_unlabelled_records_are_refused_with_the_way_out(task, empty, tmp_path):
    records = [{**record, "target": empty} for record in read_lines(RECORDS)]
    error = refusal(name=task.lm_eval_name, data_dir=data_dir(tmp_path, records=records))
    assert type(error) is DataError
    assert "10 of 10 records" in str(error)
    assert "use --split dev" in str(error)


def test_the_advice_for_an_unlabelled_split_is_not_that_very_split(tmp_path):
    records = [{**record, "target": ""} for record in read_lines(RECORDS)]
    error = refusal(data_dir=data_dir(tmp_path, "dev", records), split="dev")
    assert "--split dev" not in str(error)
    assert "a dev file has to have them" in str(error)


def with_first_target_empty(name):
    records = [record for record in read_lines(RECORDS) if record["task_dataset"] == name]
    return [{**records[0], "target": ""}, *records[1:]]


def test_an_empty_target_of_cmeie_is_gold_with_nothing_in_it_as_the_file_scorer_has_it(tmp_path):
    name, records = "CMeIE", with_first_target_empty("CMeIE")
    folder = data_dir(tmp_path, records=records)
    docs = loaded_docs("promptcblue_cmeie", data_dir=folder)
    assert [doc["target"] for doc in docs] == [record["target"] for record in records]
    assert docs.notes == ("1 of 10 records have an empty target",)
    replies = iter(record["target"] or "具有病因关系的头尾实体对如下：" for record in records)
    [loaded] = load("promptcblue_cmeie", data_dir=folder).values()
    assert stock_run(loaded, ScriptedLM(lambda prompt: next(replies))) == 1
    gold = tmp_path / "promptcblue" / "test.jsonl"
    assert score_files(gold, gold, partial=True).scores == {TASKS[name].score_key: 1}


def test_one_empty_label_is_refused_by_line(tmp_path):
    folder = data_dir(tmp_path, records=with_first_target_empty("KUAKE-IR"))
    error = refusal(name="promptcblue_kuake_ir", data_dir=folder)
    assert "1 of 10 records of KUAKE-IR have an empty target (the first on line 1)" in str(error)


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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer_choices": "疾病，药物"}, "answer_choices is neither a list of strings nor null"),
        ({"answer_choices": [1]}, "answer_choices is neither a list of strings nor null"),
        ({"target": ["疾病实体：肺炎"]}, "the text is not a string but list"),
        ({"input": None}, "the input is not a string but NoneType"),
    ],
)
def test_records_that_would_be_read_otherwise_than_they_say_are_refused(change, problem, tmp_path):
    records = read_lines(RECORDS)
    records[0] |= change
    error = refusal(
        name=TASKS[records[0]["task_dataset"]].lm_eval_name,
        data_dir=data_dir(tmp_path, records=records),
    )
    assert f"line 1: {problem}" in str(error)


def test_converted_records_are_marked_in_the_data_and_in_the_run(tmp_path):
    from mingmoe_eval.evaluation import evaluate as run_evaluation

    records = [r for r in read_lines(RECORDS) if r["task_dataset"] == "KUAKE-IR"]
    records[3]["converted_from"] = "CBLUE"
    folder = data_dir(tmp_path, "dev", records)
    mark = "records converted from CBLUE"
    assert loaded_docs("promptcblue_kuake_ir", data_dir=folder, split="dev").marks == (mark,)
    spec = RunSpec(model="x", tasks=("promptcblue_kuake_ir",), data_dir=folder, split="dev")
    model = ScriptedLM(lambda prompt: "相关")
    run = run_evaluation(spec, open_model=lambda *_: model, folder=tmp_path / "run")
    assert run.marks == ("split dev", f"promptcblue_kuake_ir: {mark}")


def test_an_unknown_split_and_a_split_of_the_sample_are_refused(tmp_path):
    assert type(refusal(data_dir=data_dir(tmp_path), split="val")) is UsageError
    assert type(refusal(sample=True, split="dev")) is UsageError


def mings_files(tmp_path, records, gold, *, with_targets=False):
    facts = ("sample_id", "task_dataset", "task_type", "answer_choices")
    rows = [
        {
            "conversations": [
                {"from": "human", "value": r["input"]},
                {"from": "gpt", "value": r["target"] if with_targets else ""},
            ],
            "eval": {key: r[key] for key in facts},
        }
        for r in records
    ]
    folder = data_dir(tmp_path, "CBLUE", rows)
    text = json.dumps(gold, ensure_ascii=False)
    (tmp_path / "promptcblue" / "CBLUE_structured.json").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("with_targets", [True, False])
def test_mings_question_files_are_read_with_gold_beside_them(tmp_path, with_targets):
    gold = read_json(HERE / "synthetic" / "gold_structured.json")
    folder = mings_files(tmp_path, read_lines(RECORDS), gold, with_targets=with_targets)
    expected = [r for r in read_lines(RECORDS) if r["task_dataset"] == "CMeEE-V2"]
    docs = loaded_docs(data_dir=folder)
    assert [doc["target"] for doc in docs] == [r["target"] for r in expected]
    assert [doc["input"] for doc in docs] == [r["input"] for r in expected]
    assert docs.marks == ()  # the size of MING's copy of the test set is not published


def ming_ner(*answers):
    """Records of the same id, one for each answer, and the structured file of gold."""
    record = next(r for r in read_lines(RECORDS) if r["task_dataset"] == "CMeEE-V2")
    record["answer_choices"] = ["疾病", "药物"]
    gold = [{"sample_id": record["sample_id"], "answer": answer} for answer in answers]
    return [{**record, "input": f"第{n}句"} for n in range(len(answers))], {"CMeEE-V2": gold}


def test_of_mings_samples_with_one_id_each_gets_its_own_gold_by_order(tmp_path):
    answers = [[{"entity": name, "type": "疾病"}] for name in ("肺炎", "哮喘")]
    docs = loaded_docs(data_dir=mings_files(tmp_path, *ming_ner(*answers)))
    assert ["肺炎" in doc["target"] for doc in docs] == [True, False]
    assert ["哮喘" in doc["target"] for doc in docs] == [False, True]


def test_ids_that_come_more_often_in_one_of_mings_files_are_refused_by_name(tmp_path):
    records, gold = ming_ner([{"entity": "肺炎", "type": "疾病"}], [])
    error = refusal(data_dir=mings_files(tmp_path, records[:1], gold))
    name = records[0]["sample_id"]
    assert f"line 1: no target, and 1 of sample {name}, 2 in the gold file" in str(error)


@pytest.mark.parametrize(
    "answer", [[{"entity": "甲，乙", "type": "疾病"}], [{"entity": "肺炎", "type": "没问过"}], "无"]
)
def test_gold_of_mings_that_no_target_can_hold_is_refused(answer, tmp_path):
    error = refusal(data_dir=mings_files(tmp_path, *ming_ner(answer)))
    assert type(error) is DataError
    assert "cannot be written as a target" in str(error) or "cannot be used as gold" in str(error)


def test_mings_gold_fills_no_empty_target_of_a_labelled_file(tmp_path):
    folder = data_dir(tmp_path, "dev", with_first_target_empty("CMeIE"))
    gold = json.dumps({"CMeIE": [{"sample_id": "another", "answer": []}]})
    (tmp_path / "promptcblue" / "CBLUE_structured.json").write_text(gold, "utf-8")
    docs = loaded_docs("promptcblue_cmeie", data_dir=folder, split="dev")
    assert docs.notes == ("1 of 10 records have an empty target",)


def test_relations_of_mings_gold_that_were_not_offered_stay_gold(tmp_path):
    record = next(r for r in read_lines(RECORDS) if r["task_dataset"] == "CMeIE")
    answer = [{"predicate": "没问过", "subject": "甲", "object": "乙"}]
    gold = {"CMeIE": [{"sample_id": record["sample_id"], "answer": answer}]}
    [doc] = loaded_docs("promptcblue_cmeie", data_dir=mings_files(tmp_path, [record], gold))
    assert parse_answer(TASKS["CMeIE"], doc["target"], doc["answer_choices"]) == answer


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
