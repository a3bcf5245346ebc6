"""What tasks and models are called, by us and by the user."""

import json

import pytest

from mingmoe_eval.cli import main
from mingmoe_eval.errors import UsageError
from mingmoe_eval.labels import Labels, read_labels
from mingmoe_eval.paper_table import LAYOUTS
from mingmoe_eval.records import RunSpec
from mingmoe_eval.task_catalog import load_catalog


def test_names_come_by_pairs_and_by_files_the_last_first(tmp_path):
    (tmp_path / "names.yaml").write_text("usmle: MedQA (US)\nmy-run: Ours, 7B\n", "utf-8")
    (tmp_path / "names.json").write_text(json.dumps({"cmexam": "考试"}), "utf-8")
    files = [str(tmp_path / "names.yaml"), str(tmp_path / "names.json")]
    found = read_labels([*files, "usmle=A, b and c,other=D=E"])
    assert found == {"usmle": "A, b and c", "my-run": "Ours, 7B", "cmexam": "考试", "other": "D=E"}


@pytest.mark.parametrize("word", ["usmle", "=x", "usmle=", "nowhere.yaml"])
def test_what_names_nothing_is_refused(word):
    with pytest.raises(UsageError, match="neither NAME=TEXT nor a file"):
        read_labels([word])


@pytest.mark.parametrize("text", ["- a\n", "a: [1]\n", "a: 1\n", "a: {\n"])
def test_a_file_that_is_no_list_of_names_is_refused(tmp_path, text):
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"must hold lines|cannot be read"):
        read_labels([str(tmp_path / "names.yaml")])


def test_tasks_that_papers_report_have_names_and_no_two_tasks_the_same():
    layouts = {column.task for layout in LAYOUTS.values() for column in layout.columns}
    assert [task for task in layouts if task and task in Labels().task(task)] == []
    named = [Labels().task(name) for name in load_catalog().names]
    assert len({label.en for label in named}) == len({label.zh for label in named}) == len(named)


def test_forms_and_unknown_tasks():
    assert Labels().task("cmmlu_med_anatomy_cot") == (
        "CMMLU anatomy, reasoning",
        "CMMLU 解剖学（先推理）",
    )
    assert Labels().task("usmle_ll").en == "MedQA US, letters"
    assert Labels().task("my_task_ll") == ("my_task_ll", "my_task_ll")
    assert Labels({"usmle_ll": "X"}).task("usmle_ll") == ("X", "X")


def test_a_run_keeps_the_names_that_it_was_given(tmp_path):
    spec = RunSpec(model="m", tasks="usmle", labels={"usmle": "X"})
    assert RunSpec.from_json(spec.to_json()) == spec


def test_a_name_that_is_none_ends_with_status_2(capsys):
    assert main(["--model", "m", "--tasks", "usmle", "--labels", "usmle"]) == 2
    assert "--labels 'usmle'" in capsys.readouterr().err
