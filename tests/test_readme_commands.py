"""The README's commands, as written, and every line of their stderr held against what is ours."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from promptcblue_data import HERE

from mingmoe_eval.demo import checkpoints_dir
from mingmoe_eval.locations import tasks_dir

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^mingmoe-eval .*", "".join(BLOCKS), flags=re.MULTILINE)

# One process for all of them: torch is imported once.
DRIVER = """
import shlex, sys
from mingmoe_eval.cli import main
for command in sys.argv[1:]:
    print(f"$ {command}", file=sys.stderr, flush=True)
    status = main(shlex.split(command)[1:])
    print(f"= {status}", file=sys.stderr, flush=True)
"""

OURS = re.compile(
    r"""
      (note|error):\ .+                                  # what the user should know
    | \ \ -\ .+                                          # one of several offences
    | Run\ on\ the\ whole\ test\ data,.*                   # after the offences
    | [\w.]+:\ \d.*\ \(\d+\.\d\ s\)                      # a task is done
    | [\w./-]+:\ saved(\ after\ \d+\.\d\ s)?
    | (loading\ the\ model|[\w.]+):\ .*(so\ far|left)    # half a minute has gone
    """,
    re.VERBOSE,
)

REFUSED = {
    # The runs here are of an invented sample; of these, models or data are not here.
    "gate": "invented sample",
    "table": "invented sample",
    "--tasks pharmacist2023 --model ckpt/": "ckpt/",
    "train": "there is no file conversations.jsonl",
    "compose": "there is no file examples.jsonl",
    "budget": "reports/thinker is not a run folder",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Of each command: its exit status, and the lines of its stderr."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(checkpoints_dir(), folder / "demo")
    samples = {"cmexam": "cmexam/sample", "medqa_usmle_4opt": "medqa/sample_usmle"}
    for name, sample in samples.items():
        (folder / "data" / name).mkdir(parents=True)
        shutil.copy(tasks_dir() / f"{sample}.jsonl", folder / "data" / name / "test.jsonl")
    shutil.copy(folder / "data" / "cmexam" / "test.jsonl", folder / "train.jsonl")
    rows = (folder / "data" / "medqa_usmle_4opt" / "test.jsonl").read_text("utf-8").splitlines()
    replies = [{"question": json.loads(row)["question"], "reply": "A"} for row in rows]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, replies)))
    shutil.copy(HERE / "synthetic" / "records.jsonl", folder / "gold.jsonl")
    predictions = HERE / "synthetic" / "variants" / "mixed_0" / "predictions.jsonl"
    shutil.copy(predictions, folder / "predictions.jsonl")
    runs = {"ours": "molora-adapter", "candidate": "molora-adapter", "base": "base"}
    made = [
        f"mingmoe-eval --tasks usmle,usmle_ll --model demo/{model} --sample --limit 3 {place}"
        for place, model in {
            **{f"--name {name}": model for name, model in runs.items()},
            "--output reports/baselines --name main": "base",
        }.items()
    ]
    commands = [*made, *COMMANDS]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "MINGMOE_EVAL_CACHE": str(folder / "cache"),
    }
    # lm-eval's own layout, as its --output_path leaves it.
    steps = [made, COMMANDS]
    said = ""
    for step in steps:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *step],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said += done.stderr
        shutil.copytree(
            folder / "reports" / "ours" / "lm_eval", folder / "lm_eval_output", dirs_exist_ok=True
        )
    found = {}
    for part in said.split("$ mingmoe-eval ")[1:]:
        command, *lines, status, end = part.split("\n")
        assert end == ""
        found[command] = (int(status.removeprefix("= ")), lines)
    assert len(found) == len(commands)
    return found


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("command", [c.removeprefix("mingmoe-eval ") for c in COMMANDS])
def test_a_command_says_on_stderr_only_what_is_ours(told, command):
    status, lines = told[command]
    assert [line for line in lines if not OURS.fullmatch(line)] == []
    reasons = [why for start, why in REFUSED.items() if command.startswith(start)]
    if reasons:
        assert status == 2
        assert reasons[0] in "\n".join(lines)
    else:
        assert status == 0, lines


@pytest.mark.slow
def test_the_runs_that_the_commands_are_about_were_as_quiet(told):
    first = [lines for command, (_, lines) in told.items() if "--limit" in command]
    assert len(first) == 4
    assert all(OURS.fullmatch(line) for lines in first for line in lines)
