"""`run --config`: a run as a file, held against the command's own options; lm-eval's words too."""

import dataclasses
import json
import shlex

import pytest
import yaml
from test_run_command import checkpoint, comparable, own_cache  # noqa: F401 (fixtures)
from typer.main import get_command

from mingmoe_eval.cli import main
from mingmoe_eval.cli.lm_eval_words import in_our_words
from mingmoe_eval.cli.run_file import read_run_file
from mingmoe_eval.errors import UsageError
from mingmoe_eval.exams.exam_files import columns_said
from mingmoe_eval.generation_protocol import gen_kwargs_said, template_args_said
from mingmoe_eval.labels import read_labels
from mingmoe_eval.metrics.calibration import coverage_said
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import load_run, save_unfinished


@pytest.fixture(scope="module")
def command():
    """click's command of the verb `run`."""
    import typer

    from mingmoe_eval.cli.run import run

    app = typer.Typer()
    app.command(name="run")(run)
    return get_command(app)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "eval.yaml"


def options(command):
    return {flag for param in command.params for flag in param.opts}


def test_every_setting_of_a_run_is_an_option_of_the_command(command):
    names = {param.name for param in command.params}
    assert {field.name for field in dataclasses.fields(RunSpec)} <= names


def test_lists_and_pairs_are_what_the_command_takes_by_comma(command, file):
    file.write_text(
        "model: [a, b]\ntasks:\n- usmle\n- exam.csv_ll\ncolumns: {question: 题干, answer: 答案}\n"
    )
    assert read_run_file(file, command) == [
        {"model": "a,b", "tasks": "usmle,exam.csv_ll", "columns": "question=题干,answer=答案"}
    ]


def test_a_runs_own_file_reads_as_what_it_was_asked_for(command, tmp_path):
    spec = RunSpec(
        model="m",
        tasks=("usmle_ll", "usmle"),
        coverage=(0.5, 0.8),
        include_path=("a", "b"),
        gen_kwargs={"temperature": 0.6},
        labels={"usmle": "USMLE"},
    )
    save_unfinished(tmp_path, spec)
    assert read_run_file(tmp_path / "eval.yaml", command) == [
        {
            "model": "m",
            "tasks": "usmle_ll,usmle",
            "coverage": "0.5,0.8",
            "include_path": ["a", "b"],
            "gen_kwargs": "temperature=0.6",
            "labels": "usmle=USMLE",
        }
    ]
    assert coverage_said("0.5,0.8") == spec.coverage


def test_plain_values_are_the_words_that_stand_there(command, file):
    file.write_text("split: no\nname: 1.10\nmodel: 2024-01-01\nlimit: 007\nbase: null\nseed:\n")
    assert read_run_file(file, command) == [
        {"split": "no", "name": "1.10", "model": "2024-01-01", "limit": "007"}
    ]


def test_each_run_has_its_own_settings_over_those_that_all_have(command, file):
    file.write_text("model: a\nlimit: 5\nruns: [{tasks: usmle}, {tasks: ceval, limit: 7}]\n")
    assert read_run_file(file, command) == [
        {"model": "a", "limit": "5", "tasks": "usmle"},
        {"model": "a", "limit": "7", "tasks": "ceval"},
    ]


def test_a_file_may_be_json(command, file):
    file.write_text(json.dumps({"tasks": ["usmle"], "limit": 5, "sample": True}))
    assert read_run_file(file, command) == [{"tasks": "usmle", "limit": "5", "sample": "true"}]


def test_every_offence_is_listed_with_what_to_write_instead(command, file):
    file.write_text(
        "modell: x\ntasks: []\nlimit: 0\nseed: 1.5\nsample: maybe\nbatch-size: [1, 2]\n"
        "model_args: pretrained=x\nresume: x\ncolumns: [a]\n"
        "runs: [3, {numfewshot: 5, runs: [{}]}]\n"
    )
    with pytest.raises(UsageError) as caught:
        read_run_file(file, command)
    offences = str(caught.value).split("\n  - ")[1:]
    beginnings = (
        "modell: no option of `mingmoe-eval run`; did you mean model or max_model_len?",
        "tasks: an empty list",
        "limit: ",
        "seed: ",
        "sample: ",
        "batch-size: a single value is expected, not a list",
        "model_args: lm-eval's word; here: model, base, dtype and device",
        "resume: that is said on the command line alone, as --resume",
        "columns: a single value is expected, not a list",
        "runs, number 1: settings are expected",
        "runs, number 2: numfewshot: no option of `mingmoe-eval run`; did you mean num_fewshot?",
        "runs, number 2: runs: no runs stand below a run",
    )
    assert len(offences) == len(beginnings)
    assert all(map(str.startswith, offences, beginnings))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "settings are expected"),
        (b"- 1", "settings are expected"),
        (b"&a [*a]", "settings are expected"),
        (b"a: [", "is no YAML"),
        (b"limit: 1\nlimit: 2", "limit comes twice"),
        (b"? [1]\n: 2", "is no YAML"),
        (b"!!python/object:os.x {}", "is no YAML"),
        (b"name: !!binary /w==", "a single value is expected"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"[" * 10_000, "is no YAML"),
        (b"x: &a {y: *a}", "no option of"),
        (b"1: 2", "no option of"),
        (b"runs:", "a list of runs is expected"),
        (b"runs: {}", "a list of runs is expected"),
    ],
)
def test_what_is_no_such_file_gets_one_message_and_status_2(file, capsys, text, message):
    file.write_bytes(text)
    assert main(["run", "--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_file_that_is_not_there_is_named(capsys):
    assert main(["--config", "/nowhere.yaml"]) == 2
    assert "--config /nowhere.yaml cannot be read: No such file" in capsys.readouterr().err


def test_a_run_is_repeated_from_its_folder_and_what_is_typed_counts_more(
    tmp_path,
    checkpoint,  # noqa: F811
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    asked = ["--tasks", "usmle,usmle_ll", "--model", str(checkpoint), "--sample", "--limit", "4"]
    assert main([*asked, "--no-chat-template", "--name", "first"]) == 0
    said = yaml.safe_load((tmp_path / "reports" / "first" / "eval.yaml").read_text("utf-8"))
    assert said["tasks"] == ["usmle", "usmle_ll"]
    assert said["chat_template"] is False
    config = ["run", "--config", "reports/first/eval.yaml"]
    assert main([*config, "--name", "again"]) == 0
    assert main([*config, "--name", "less", "--limit", "2", "--tasks", "usmle"]) == 0
    first, again, less = (load_run(tmp_path / "reports" / n) for n in ("first", "again", "less"))
    assert again.spec == first.spec
    assert comparable(again) == comparable(first)
    assert less.spec == dataclasses.replace(first.spec, limit=2, tasks=("usmle",))


def test_one_run_of_a_file_that_fails_does_not_stop_the_others(
    tmp_path,
    checkpoint,  # noqa: F811
    file,
    capsys,
):
    runs = [{"tasks": "usmle", "name": "a"}, {"tasks": "usmlee*"}, {"tasks": "usmle_ll"}]
    common = {"model": str(checkpoint), "sample": True, "limit": 2, "output": str(tmp_path / "r")}
    file.write_text(yaml.safe_dump({**common, "runs": runs}))
    assert main(["run", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert "1 of 3 runs failed:\n  run 2 of 3 (usmlee*): no task named 'usmlee*'" in said
    made = [load_run(folder).spec.tasks for folder in (tmp_path / "r").iterdir()]
    assert sorted(made) == [("usmle",), ("usmle_ll",)]


def test_a_typing_mistake_beside_a_file_of_several_runs_is_said_once(file, capsys):
    file.write_text("model: a\nruns: [{tasks: usmle}, {tasks: usmle_ll}]\n")
    assert main(["run", "--config", str(file), "--limt", "3"]) == 2
    assert capsys.readouterr().err.count("--limt") == 1


def test_what_a_run_leaves_of_itself_reads_back_as_the_same_spec(tmp_path, command):
    spec = RunSpec(
        model="null",
        tasks=("yes", "1e3"),
        split="no",
        partial=True,
        permute_options="4",
        batch_size=8,
        columns={"question": "题 干: #1", "first": "0"},
    )
    save_unfinished(tmp_path, spec)
    (settings,) = read_run_file(tmp_path / "eval.yaml", command)
    context = command.make_context("run", [], default_map=settings)
    assert context.params["model"] == "null"
    assert context.params["tasks"] == "yes,1e3"
    assert context.params["split"] == "no"
    assert context.params["partial"] is True
    assert context.params["batch_size"] == "8"
    assert context.params["columns"] == "question=题 干: #1,first=0"


def test_pairs_that_no_comma_can_part_come_back_as_they_were(tmp_path, command):
    spec = RunSpec(
        model="m",
        tasks=("usmle",),
        gen_kwargs={"temperature": 0.7, "top_k": 20, "do_sample": True},
        chat_template_args={"tools": ["a", "b, c"], "strict": True, "n": 3},
        columns={"question": "题干, 选项", "answer": "答案"},
        labels={"usmle": "MedQA, US", "m": "Ours"},
        system_instruction="You are a doctor.\nAnswer: with a letter, please.",
    )
    save_unfinished(tmp_path, spec)
    (settings,) = read_run_file(tmp_path / "eval.yaml", command)
    assert gen_kwargs_said(settings["gen_kwargs"]) == spec.gen_kwargs
    assert template_args_said(settings["chat_template_args"]) == spec.chat_template_args
    assert columns_said(settings["columns"]) == spec.columns
    assert read_labels([settings["labels"]]) == spec.labels
    assert settings["system_instruction"] == spec.system_instruction


@pytest.mark.parametrize("option", ["--columns", "--labels"])
def test_json_that_is_no_object_of_texts_is_refused(capsys, option):
    assert main(["--model", "m", "--tasks", "usmle", option, '{"a": 3}']) == 2
    assert f"error: {option} '{{\"a\": 3}}'" in capsys.readouterr().err


HF = "--model hf --model_args pretrained=ckpt/,dtype=bfloat16"
CHAT = "--model local-chat-completions --model_args"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            f"{HF} --tasks usmle --batch_size auto:4 --output_path out --log_samples",
            "--model ckpt/ --tasks usmle --batch-size auto --output out --dtype bfloat16 "
            "--no-chat-template",
        ),
        (
            f"{HF} --apply_chat_template -t usmle usmle_ll -f 5 -b 8 -L 10",
            "--model ckpt/ --chat-template --tasks usmle,usmle_ll --num-fewshot 5 --batch-size 8 "
            "--limit 10 --dtype bfloat16",
        ),
        (
            "-m hf -a pretrained=base,peft=lora,parallelize=True --tasks a",
            "--model lora --base base --tasks a --no-chat-template",
        ),
        (
            f"{CHAT} model=q,base_url=http://h:1/v1/chat/completions,num_concurrent=4 --tasks a",
            "--model openai:http://h:1/v1#q --batch-size 4 --tasks a --chat-template",
        ),
        (
            "--model vllm --model_args pretrained=m,tensor_parallel_size=2,max_model_len=4096 "
            "--tasks a --gen_kwargs temperature=0.7,top_p=0.9",
            "--model m --tasks a --gen-kwargs temperature=0.7,top_p=0.9 --backend vllm "
            "--tensor-parallel 2 --max-model-len 4096 --no-chat-template",
        ),
        (
            f"{HF},enable_thinking=False --tasks a --include_path d --system_instruction s",
            "--model ckpt/ --tasks a --include-path d --system-instruction s --dtype bfloat16 "
            "--thinking off --no-chat-template",
        ),
        ("--model ckpt --tasks a --num_fewshot=3", "--model ckpt --tasks a --num-fewshot 3"),
        ("--model ckpt --tasks a --seed 7,7,7,7 -s", "--model ckpt --tasks a --seed 7"),
        ("--model ckpt --tasks a --seed 7,7,7,7", "--model ckpt --tasks a --seed 7"),
        ("--model ckpt --tasks a --limit 20.0", "--model ckpt --tasks a --limit 20"),
    ],
)
def test_a_command_of_lm_eval_is_understood(command, capsys, theirs, ours):
    assert in_our_words(theirs.split(), options(command)) == ours.split()
    assert f"note: in our words: mingmoe-eval {shlex.join(ours.split())}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--model hf --tasks a", "--model a --tasks b --batch-size auto", "--seed 3", ""]
)
def test_our_own_words_stay_as_they_are(command, capsys, words):
    assert in_our_words(words.split(), options(command)) == words.split()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("--limit 0.1", "--limit 0.1: how many docs of each task, not which share"),
        ("--limit 1.5", "--limit 1.5: how many docs of each task, not which share"),
        ("--seed 0,1234", "--seed 0,1234: one seed is for all that is random, such as 1234"),
        ("--tasks list", "--tasks list: `mingmoe-eval tasks`"),
    ],
)
def test_a_value_that_only_lm_eval_takes_is_refused_in_words(command, theirs, said):
    with pytest.raises(UsageError) as caught:
        in_our_words(["--model", "ckpt", *theirs.split()], options(command))
    assert str(caught.value).split("\n  - ")[1:] == [said]


def test_what_lm_eval_has_and_nothing_here_is_like_is_refused_in_one_message(command):
    theirs = (
        "--model hf --model_args load_in_4bit=True,api_key=k --wandb_args project=x --predict_only "
        "--apply_chat_template fancy --seed 0,1,2,3"
    )
    with pytest.raises(UsageError) as caught:
        in_our_words(theirs.split(), options(command))
    assert str(caught.value).split("\n  - ")[1:] == [
        "--wandb_args: read run.json, or the report",
        "--predict_only: score the run again at any time with `mingmoe-eval rescore`",
        "--apply_chat_template fancy: the tokenizer's own template is used, no other",
        "--seed 0,1,2,3: one seed is for all that is random, such as 1234",
        "model_args: pretrained is not among them; here it is --model",
        "model_args load_in_4bit=True: nothing here is like it",
        "model_args api_key: keys come from MINGMOE_API_KEY alone",
    ]
