"""The shipped checkpoints, and the demo that evaluates them."""

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from mingmoe_eval.cli.demo import place_checkpoints
from mingmoe_eval.demo import ADAPTER, BASE, TASKS, checkpoints_dir
from mingmoe_eval.errors import UsageError
from mingmoe_eval.run_store import load_run
from mingmoe_eval.task_catalog import load_catalog
from tools.demo_checkpoints.lessons import lessons
from tools.demo_checkpoints.reading_matter import passages


def files_below(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what is shipped -----------------------------------------------------------------------------


def test_both_checkpoints_together_are_below_two_megabytes():
    assert 0 < sum(map(len, files_below(checkpoints_dir()).values())) < 2_000_000


def test_the_adapter_is_in_mings_format_and_names_the_base_beside_it():
    adapter = checkpoints_dir() / ADAPTER
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "../base"
    names = {path.name for path in adapter.iterdir()}
    assert {"config.json", "non_lora_trainables.bin"} <= names
    assert names & {"adapter_model.safetensors", "adapter_model.bin"}


def test_the_adapter_loads_from_where_it_lies_and_changes_the_answers():
    pytest.importorskip("torch")
    from mingmoe_eval.molora import load_model, probe

    assert probe(load_model(checkpoints_dir() / ADAPTER)) > 1.0


@pytest.mark.parametrize("checkpoint", [BASE, ADAPTER])
@pytest.mark.parametrize(
    "text", ["答案：B", "Answer: C\n", "\t İß鼍😀  <0x41> \x00", "  two  blanks "]
)
def test_the_tokenizer_gives_back_any_text(checkpoint, text):
    pytest.importorskip("transformers")
    from mingmoe_eval.molora import load_tokenizer

    tokenizer = load_tokenizer(checkpoints_dir() / checkpoint)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokens_of_option_letters_are_letters():
    pytest.importorskip("transformers")
    from mingmoe_eval.molora import load_tokenizer

    tokenizer = load_tokenizer(checkpoints_dir() / BASE)
    for prompt, letter in (("Answer:", " C"), ("答案：", "C")):
        ids = tokenizer(prompt + letter)["input_ids"]
        assert ids[:-1] == tokenizer(prompt)["input_ids"]
        assert tokenizer.decode(ids[-1:]) == letter


# --- what they were taught -----------------------------------------------------------------------


def test_the_same_seed_gives_the_same_text():
    assert [*islice(lessons(Random(1)), 50)] == [*islice(lessons(Random(1)), 50)]
    assert [*islice(passages(Random(1)), 50)] == [*islice(passages(Random(1)), 50)]


def test_every_lesson_can_be_answered_from_its_options():
    for lesson in islice(lessons(Random(3)), 500):
        answer = lesson.answer.strip()
        where = f"\n{answer}. " if len(answer) == 1 else answer
        assert where in lesson.prompt or answer == "非上述类型", lesson


def test_right_letters_are_spread_evenly():
    letters = [
        lesson.answer.strip()
        for lesson in islice(lessons(Random(4)), 20_000)
        if "exam" in lesson.subject
    ]
    shares = [letters.count(letter) / len(letters) for letter in "ABCD"]
    assert all(0.2 < share < 0.3 for share in shares), shares


@pytest.mark.slow
def test_the_checkpoints_are_made_again_in_the_form_in_which_they_are_shipped(tmp_path):
    pytest.importorskip("torch")
    from safetensors.torch import load

    from tools.demo_checkpoints.__main__ import make_adapter, make_base

    make_base(tmp_path / BASE, steps=1)
    make_adapter(tmp_path / BASE, tmp_path / ADAPTER, steps=1)
    shipped, made = files_below(checkpoints_dir()), files_below(tmp_path)
    assert made.keys() == shipped.keys()
    # Learned from text alone, and so the same byte for byte; weights take their thousand steps.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert made[Path(BASE, name)] == shipped[Path(BASE, name)], name
    for name in (path for path in shipped if path.suffix == ".safetensors"):
        forms = [
            {key: (tensor.shape, tensor.dtype) for key, tensor in load(files[name]).items()}
            for files in (made, shipped)
        ]
        assert forms[0] == forms[1], name


def test_the_demo_shows_exams_and_promptcblue_tasks_taught_and_not_taught():
    catalog = load_catalog()
    suites = {catalog.definitions[task.name].settings.suite for task in TASKS}
    assert suites == {"choice", "promptcblue"}
    assert {task.taught == "no" for task in TASKS} == {True, False}


# --- the command ---------------------------------------------------------------------------------


def test_checkpoints_are_copied_whole(tmp_path):
    place_checkpoints(tmp_path / "demo")
    assert files_below(tmp_path / "demo") == files_below(checkpoints_dir())


def test_a_second_demo_takes_the_checkpoints_that_are_there(tmp_path):
    place_checkpoints(tmp_path)
    (tmp_path / "runs").mkdir()
    place_checkpoints(tmp_path)
    assert (tmp_path / "runs").is_dir()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty and holds no demo; .*--output"):
        place_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_changed_checkpoints_are_left_alone_and_named(tmp_path):
    place_checkpoints(tmp_path)
    config = tmp_path / BASE / "config.json"
    config.write_text("{}")
    shutil.rmtree(tmp_path / ADAPTER)
    with pytest.raises(UsageError, match=r"base/config.json.*molora-adapter/adapter_config.json"):
        place_checkpoints(tmp_path)
    assert config.read_text() == "{}"


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "demo").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        place_checkpoints(tmp_path / "demo")


@pytest.mark.slow
def test_the_demo_runs_offline_twice_and_the_adapter_is_better_where_taught(tmp_path):
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "mingmoe_eval", "demo", "--output", "demo"]
    environment = {"MINGMOE_EVAL_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    first, second = (run_in(tmp_path, command, environment) for _ in range(2))
    for done in (first, second):
        assert done.returncode == 0, done.stderr
        assert "$ mingmoe-eval --model demo/base --tasks" in done.stdout
        assert "$ mingmoe-eval --model demo/molora-adapter --tasks" in done.stdout
        assert "NOT the benchmark: invented sample" in done.stdout
    runs = sorted((tmp_path / "demo" / "runs").iterdir())
    assert len(runs) == 4
    base = load_run(next(run for run in runs if run.name.startswith(BASE)))
    adapter = load_run(next(run for run in runs if run.name.startswith(ADAPTER)))
    for task in TASKS:
        if task.taught.startswith("yes"):
            assert adapter.results[task.name].main.value > base.results[task.name].main.value + 0.3


def run_in(folder, command, environment):
    import os

    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
