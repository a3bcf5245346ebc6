"""The exam tasks as lm-eval sees them: every YAML, the invented samples, the real records."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from mingmoe_eval.errors import DataError, MissingDataError, UsageError
from mingmoe_eval.exams import loading
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.exams.records import stem_key
from mingmoe_eval.task_catalog import load_catalog

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT / "tasks"
REAL = ROOT.parent / "shared" / "data" / "exams"

needs_real_records = pytest.mark.skipif(
    not REAL.is_dir(), reason="../shared/data/exams, the real records, is not here"
)


BENCHMARKS = benchmarks()


@pytest.fixture(scope="module")
def exams():
    return loading


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def real_records(name):
    return [json.loads(line) for line in (REAL / name).read_bytes().splitlines()]


# --- real records --------------------------------------------------------------------------------

COUNTS = [
    ("usmle", None, 300, 0),
    ("usmle_5opt", None, 60, 0),
    ("mcmle", None, 300, 0),
    ("medmcqa_val", None, 300, 0),
    ("pubmedqa_test", None, 100, 0),
    ("cmexam", None, 150, 0),
    ("cmexam", "val", 290, 1),
    ("cmb_exam", "val", 90, 0),
    ("mmlu_med_anatomy", None, 60, 0),
    ("mmlu_med_college_medicine", None, 60, 0),
    ("mmlu_med_medical_genetics", None, 60, 0),
]


@needs_real_records
@pytest.mark.parametrize(("benchmark", "split", "docs", "unusable"), COUNTS)
def test_real_records_become_docs(exams, benchmark, split, docs, unusable):
    loaded = exams.load(benchmark=benchmark, data_dir=str(REAL), split=split)["test"]
    assert len(loaded) == docs
    assert len(loaded.unusable) == unusable
    assert len({doc["id"] for doc in loaded}) == docs
    assert all(set(doc["answer"]) <= doc["options"].keys() for doc in loaded)
    assert "where the official part has" in loaded.marks[0]


@needs_real_records
def test_the_cmexam_row_without_key_is_named_by_its_line(exams):
    loaded = exams.load(benchmark="cmexam", data_dir=str(REAL), split="val")["test"]
    assert [str(row) for row in loaded.unusable] == ["line 289: no key"]
    assert "rows left out as unusable: 1 (line 289: no key)" in loaded.notes


@needs_real_records
def test_real_usmle_keys_agree_with_the_texts_beside_them(exams):
    records = real_records("medqa_usmle_4opt/test.jsonl")
    docs = exams.load(benchmark="usmle", data_dir=str(REAL))["test"]
    assert [doc["options"][doc["answer"]] for doc in docs] == [
        record["answer"].strip() for record in records
    ]


@needs_real_records
def test_real_medmcqa_keys_count_from_1(exams):
    records = real_records("medmcqa/dev.jsonl")
    docs = exams.load(benchmark="medmcqa_val", data_dir=str(REAL))["test"]
    assert [doc["answer"] for doc in docs] == [" ABCD"[record["cop"]] for record in records]


@needs_real_records
def test_real_cmexam_has_41_validation_questions_with_several_right_options(exams):
    docs = exams.load(benchmark="cmexam", data_dir=str(REAL), split="val")["test"]
    records = real_records("cmexam/val.jsonl")
    expected = sum(len(r["Answer"]) > 1 and r["Answer"] != "nan" for r in records)
    assert sum(len(doc["answer"]) > 1 for doc in docs) == expected >= 40


@needs_real_records
def test_cmexam_questions_under_test_are_no_worked_examples(exams):
    loaded = exams.load(benchmark="cmexam", data_dir=str(REAL))
    under_test = {stem_key(doc) for doc in loaded["test"]}
    assert len(loaded["dev"]) > 200
    assert not under_test & {stem_key(doc) for doc in loaded["dev"]}


@needs_real_records
def test_a_part_that_is_tested_serves_no_worked_examples(exams):
    assert not exams.load(benchmark="cmexam", data_dir=str(REAL), split="val")["dev"]


@needs_real_records
def test_mmlu_shows_the_five_official_examples(exams):
    assert len(exams.load(benchmark="mmlu_med_anatomy", data_dir=str(REAL))["dev"]) == 5


@needs_real_records
def test_a_missing_subject_is_refused_with_the_way_out(exams):
    with pytest.raises(MissingDataError, match=r"mmlu_med_college_biology: .*--partial"):
        exams.load(benchmark="mmlu_med_college_biology", data_dir=str(REAL))


# --- third-party layouts -------------------------------------------------------------------------


def test_the_mmlu_archive_without_headers_is_read(exams, tmp_path):
    for part, rows in (
        ("test", [["q1", "w", "x", "y", "z", "B"]]),
        ("dev", [["q2", *"wxyz", "C"]]),
    ):
        path = tmp_path / "mmlu" / "data" / part / f"anatomy_{part}.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    loaded = exams.load(benchmark="mmlu_med_anatomy", data_dir=str(tmp_path))
    assert [(doc["question"], doc["answer"]) for doc in loaded["test"]] == [("q1", "B")]
    assert [(doc["question"], doc["answer"]) for doc in loaded["dev"]] == [("q2", "C")]


def test_the_cmmlu_archive_is_read(exams, tmp_path):
    path = tmp_path / "cmmlu_med" / "test" / "virology.csv"
    path.parent.mkdir(parents=True)
    path.write_text(",Question,A,B,C,D,Answer\n0,病毒？,w,x,y,z,D\n", "utf-8-sig")
    [doc] = exams.load(benchmark="cmmlu_med_virology", data_dir=str(tmp_path))["test"]
    assert (doc["question"], doc["answer"]) == ("病毒？", "D")


def test_the_pharmacist_papers_are_found_under_the_hub_s_names(exams, tmp_path):
    record = {
        "question": "?",
        **dict(zip("ABCDE", "vwxyz", strict=True)),
        "answer": "E",
        "question_type": "Optimal Choice",
    }
    name = "2023_Pharmacist_Licensure_Examination_(TCM_track).jsonl"
    write(tmp_path / "pharmacist2023" / name, record)
    [doc] = exams.load(benchmark="pharmacist2023_tcm", data_dir=str(tmp_path))["test"]
    assert doc["tags"] == {"track": "tcm", "question_type": "Optimal Choice"}


CMB = {
    "id": 7,
    "exam_type": "医师考试",
    "exam_class": "执业医师",
    "question": "?",
    "question_type": "多项选择题",
    "option": {"A": "w", "B": "x", "C": ""},
}


def test_cmb_questions_are_joined_with_their_key(exams, tmp_path):
    folder = tmp_path / "cmb_exam"
    write(folder / "CMB-test-choice-question-merge.json", CMB)
    write(folder / "CMB-test-choice-answer.json", {"id": 7, "answer": "BA"})
    loaded = exams.load(benchmark="cmb_exam", data_dir=str(tmp_path))["test"]
    assert [doc["answer"] for doc in loaded] == ["AB"]
    assert "CMB-test-choice-answer.json" in loaded.source.path


def test_cmb_questions_without_their_key_are_refused(exams, tmp_path):
    write(tmp_path / "cmb_exam" / "test.jsonl", CMB)
    with pytest.raises(DataError, match=r"no answer key.*--split val"):
        exams.load(benchmark="cmb_exam", data_dir=str(tmp_path))


def test_pubmedqa_s_own_files_give_the_test_part_only(exams, tmp_path):
    record = {"QUESTION": "?", "CONTEXTS": ["Text."], "final_decision": "yes"}
    folder = tmp_path / "pubmedqa"
    folder.mkdir()
    (folder / "ori_pqal.json").write_text(json.dumps({"17": record, "18": record}))
    (folder / "test_ground_truth.json").write_text(json.dumps({"18": "yes"}))
    assert len(exams.load(benchmark="pubmedqa_test", data_dir=str(tmp_path))["test"]) == 1


def test_a_file_of_many_subjects_gives_one(exams, tmp_path):
    rows = [
        {"question": s, "subject": s, "choices": ["w", "x"], "answer": 1}
        for s in ("anatomy", "virology")
    ]
    write(tmp_path / "mmlu_med" / "anatomy.test.jsonl", *rows)
    [doc] = exams.load(benchmark="mmlu_med_anatomy", data_dir=str(tmp_path))["test"]
    assert doc["question"] == "anatomy"


def test_a_file_of_another_subject_is_refused(exams, tmp_path):
    row = {"question": "?", "subject": "virology", "choices": ["w", "x"], "answer": 1}
    write(tmp_path / "mmlu_med" / "anatomy.test.jsonl", row)
    with pytest.raises(DataError, match="no row whose subject is anatomy"):
        exams.load(benchmark="mmlu_med_anatomy", data_dir=str(tmp_path))


# --- what may be asked for -----------------------------------------------------------------------


def test_an_unknown_split_is_refused_with_those_there_are(exams):
    with pytest.raises(UsageError, match=r"usmle has no split '\.\./x'; it has test, val"):
        exams.load(benchmark="usmle", data_dir="x", split="../x")


def test_the_sample_has_no_splits(exams):
    with pytest.raises(UsageError, match="the invented sample has no splits"):
        exams.load(benchmark="cmexam", sample=True, split="val")


@pytest.mark.parametrize("asked", ["val", "validation", "dev"])
def test_validation_parts_answer_to_their_three_names(asked):
    assert BENCHMARKS["cmexam"].part(asked) is BENCHMARKS["cmexam"].part("val")


def test_c_eval_s_dev_part_holds_worked_examples_and_is_not_tested():
    with pytest.raises(UsageError):
        BENCHMARKS["ceval_med_physician"].part("dev")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_invented_sample_has_eight_usable_questions(exams, benchmark):
    loaded = exams.load(benchmark=benchmark, sample=True)
    assert len(loaded["test"]) >= 8
    assert not loaded["test"].unusable
    assert not loaded["test"].notes
    assert loaded["test"].source.kind == "sample"
    assert len({stem_key(doc) for doc in loaded["test"]}) == len(loaded["test"])


@pytest.mark.parametrize("benchmark", ["cmexam", "cmb_exam", "pharmacist2023_pharmacy"])
def test_samples_have_questions_with_one_and_with_several_right_options(exams, benchmark):
    sizes = {len(doc["answer"]) > 1 for doc in exams.load(benchmark=benchmark, sample=True)["test"]}
    assert sizes == {True, False}


# --- lm-eval -------------------------------------------------------------------------------------


def manager():
    return TaskManager(include_defaults=False, include_path=str(TASKS), metadata={"sample": True})


LEAVES = [
    name
    for name, definition in load_catalog(TASKS).definitions.items()
    if definition.settings.suite == "choice" and not definition.is_group
]


@pytest.fixture(scope="module")
def loaded_tasks():
    return manager().load(LEAVES)["tasks"]


def test_every_file_of_an_exam_is_a_task_of_that_name():
    files = {path.stem for path in TASKS.rglob("*.yaml") if path.stem[0] != "_"}
    others = {path.stem for path in (TASKS / "promptcblue").glob("*.yaml")}
    assert files - others <= set(manager().all_tasks)


@pytest.mark.parametrize(
    ("group", "leaves"),
    [
        ("exams", 23),
        ("reasoning2026", 6),
        ("world_exams", 13),
        ("world_exams_ll", 6),
        ("world_exams_cot", 13),
        ("igakuqa", 5),
        ("kormedmcqa_ll", 4),
        ("exams_cot", 23),
        ("pharmacist2023", 2),
        ("mmlu_med", 6),
        ("mmlu_med_ll", 6),
        ("cmmlu_med_cot", 7),
        ("ceval_med_ll", 3),
    ],
)
def test_groups_load_with_all_their_tasks(group, leaves):
    loaded = manager().load([group])
    assert len(loaded["tasks"]) == leaves


def test_every_benchmark_has_a_task_and_every_task_a_benchmark(loaded_tasks):
    used = {task.config.dataset_kwargs["benchmark"] for task in loaded_tasks.values()}
    assert used == {name for name, one in BENCHMARKS.items() if one.suite == "choice"}


def test_names_tell_the_form(loaded_tasks):
    for name, task in loaded_tasks.items():
        suffix = {"direct": "", "letters": "_ll", "cot": "_cot"}[task.config.metadata["form"]]
        assert name == task.config.dataset_kwargs["benchmark"] + suffix
        assert task.config.metadata["suite"] == "choice"


def test_likelihood_forms_exist_only_where_each_question_has_one_right_option(loaded_tasks):
    for task in loaded_tasks.values():
        if task.config.metadata["form"] == "letters":
            assert all(doc["single"] and len(doc["answer"]) == 1 for doc in task.eval_docs)


def test_no_definition_pins_zero_shots(loaded_tasks):
    """lm-eval cannot override `num_fewshot: 0`; leaving it out means the same."""
    assert {task.config.num_fewshot for task in loaded_tasks.values()} == {None, 5}


def test_the_subject_sets_show_five_examples_for_likelihoods(loaded_tasks):
    five = {name for name, task in loaded_tasks.items() if task.config.num_fewshot == 5}
    assert five == {
        f"{benchmark}_ll"
        for benchmark in BENCHMARKS
        if benchmark.startswith(("mmlu_med", "cmmlu_med", "ceval_med", "kormedmcqa"))
    }


def test_no_prompt_holds_its_own_answer_or_another_tested_question(loaded_tasks):
    for task in loaded_tasks.values():
        shots = min(5, len(task.sampler.df))
        for doc in task.eval_docs:
            prompt = task.fewshot_context(doc, shots)
            assert prompt.count(doc["question"]) == 1


def test_an_official_five_shot_prompt(loaded_tasks):
    task = loaded_tasks["cmmlu_med_virology_ll"]
    prompt = task.fewshot_context(task.eval_docs[0], 5)
    assert prompt.startswith("以下是关于病毒学的单项选择题，请直接给出正确答案的选项。\n\n题目：")
    assert prompt.count("\n\n题目：") == 6
    assert prompt.endswith("\n答案是：")
    assert "答案是：C\n\n" in prompt


def test_letters_follow_english_prompts_after_a_blank_and_chinese_ones_at_once(loaded_tasks):
    assert loaded_tasks["mmlu_med_anatomy_ll"].config.target_delimiter == " "
    assert loaded_tasks["cmmlu_med_anatomy_ll"].config.target_delimiter == ""


def test_each_task_s_targets_are_right_by_its_own_scoring(loaded_tasks):
    for name, task in loaded_tasks.items():
        for doc in task.eval_docs:
            target = task.doc_to_target(doc)
            if task.config.metadata["form"] == "letters":
                best = [(0.0 if i == target else -1.0, False) for i in range(len(doc["options"]))]
                results = best
            else:
                results = [target]
            assert task.process_results(doc, results) == {"acc": 1.0, "score": 1.0}, (name, doc)


def test_a_log_likelihood_that_is_no_number_gives_no_letter(exams, loaded_tasks):
    doc = loaded_tasks["usmle_ll"].eval_docs[0]
    scores = exams.process_likelihoods(doc, [(math.nan, False)] * 4)
    assert math.isnan(scores["acc"])


@pytest.mark.slow
def test_stock_lm_eval_runs_the_tasks(tmp_path):
    command = [
        *(sys.executable, "-m", "lm_eval", "--include_path", str(TASKS)),
        *("--model", "dummy", "--tasks", "usmle,usmle_ll,cmexam", "--limit", "4"),
        *("--metadata", '{"sample": true}', "--output_path", str(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [results] = tmp_path.rglob("results_*.json")
    by_task = json.loads(results.read_text())["results"]
    assert {"usmle", "usmle_ll", "cmexam"} <= by_task.keys()
    assert all(0 <= values["score,none"] <= 1 for values in by_task.values())


def test_data_that_are_not_the_official_part_are_marked(exams, tmp_path):
    question = {"question": "?", "options": {"A": "x", "B": "y"}, "answer": "x", "answer_idx": "A"}
    write(tmp_path / "medqa_usmle_4opt" / "test.jsonl", question)
    loaded = exams.load(benchmark="usmle", data_dir=str(tmp_path))["test"]
    assert loaded.marks == (
        "1 rows, where the official part has 1,273",
        "at most 2 options, where the exam has 4",
    )
    assert exams.load(benchmark="usmle", sample=True)["test"].marks == ()


def test_questions_with_two_equal_options_are_counted(exams, tmp_path):
    fields = {"question": "?", "answer": "x", "answer_idx": "A"}
    write(
        tmp_path / "medqa_usmle_4opt" / "test.jsonl",
        {**fields, "options": {"A": "x", "B": "y", "C": " y", "D": "z"}},
        {**fields, "options": {"A": "x", "B": "AA", "C": "Aa", "D": "aa"}},
    )
    loaded = exams.load(benchmark="usmle", data_dir=str(tmp_path))["test"]
    assert "1 of 2 questions have two options of the same text" in loaded.notes


def test_a_clone_of_cmmlu_is_found_in_its_own_layout(exams, tmp_path):
    folder = tmp_path / "CMMLU" / "data"
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "anatomy.csv").write_text(
            f",Question,A,B,C,D,Answer\n0,{split}?,a,b,c,d,B\n", "utf-8"
        )
    loaded = exams.load(benchmark="cmmlu_med_anatomy", data_dir=str(tmp_path))
    assert [doc["question"] for doc in loaded["test"]] == ["test?"]
    assert [doc["question"] for doc in loaded["dev"]] == ["dev?"]


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ("ward: {folders: [w], partz: {}}", "partz"),
        ("ward: {folders: [w], parts: {test: {files: [t], rows: many}}}", "rows"),
        ("ward: {folders: [w], parts: {test: {}}}", "files"),
        ("ward: {folders: [w], parts: {}}", "no parts"),
        (
            "ward: {folders: [w], parts: {test: {files: [t]}}, shots: val}",
            "'val', which is no part",
        ),
        ("ward: {folders: [w], parts: {test: {files: [t]}}, declares: maybe}", "declares"),
        ("[1, 2]", "Expected `object`"),
        ("ward: {folders: [", "while parsing"),
    ],
)
def test_a_mistake_in_a_facts_file_is_named_with_the_file_and_the_field(tmp_path, facts, named):
    (tmp_path / "_data.yaml").write_text(facts, "utf-8")
    with pytest.raises(DataError, match=re.escape(named)) as caught:
        benchmarks(tmp_path)
    assert str(tmp_path / "_data.yaml") in str(caught.value)


def test_a_folder_with_facts_is_all_that_a_benchmark_s_loader_needs(tmp_path):
    (tmp_path / "_data.yaml").write_text(
        "ward_{subject}:\n"
        "  subjects: {icu: 3, er: null}\n"
        "  folders: [ward]\n"
        "  parts:\n"
        "    test: {files: ['{subject}.test'], hub: {id: a/b, config: '{subject}', split: test}}\n",
        "utf-8",
    )
    icu, er = benchmarks(tmp_path).values()
    assert (icu.name, icu.subject, icu.tags) == ("ward_icu", "icu", {"subject": "icu"})
    assert (icu.part(None).rows, er.part(None).rows) == (3, None)
    assert icu.part(None).files == ("icu.test",)
    assert str(er.part("test").hub) == "a/b/er/test"
