"""What can be refused at once is refused before the libraries that take seconds to import."""

import os
import subprocess
import sys

import pytest

from mingmoe_eval.demo import checkpoints_dir
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.molora.presence import refuse_absent
from mingmoe_eval.records import RunSpec

BASE, ADAPTER = (str(checkpoints_dir() / name) for name in ("base", "molora-adapter"))

WATCHED = """
import sys
from mingmoe_eval.cli import main
status = main(sys.argv[1:])
heavy = [name for name in ("torch", "transformers", "peft", "lm_eval") if name in sys.modules]
print(status, *heavy)
"""


def refused(*arguments, cwd):
    """The exit status with the heavy libraries that were imported, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip(), done.stderr


RUN = ("--tasks", "usmle", "--sample")
TRAIN = ("train", "--data", "talks.jsonl", "--output", "out")


@pytest.mark.slow  # a process each
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*RUN, "--model", "/nowhere"), "there is no model directory /nowhere"),
        ((*RUN, "--model", "ckpt/adaptr"), "did you mean ckpt/adapter?"),
        ((*RUN, "--model", "http://u:secret@h/v1"), "is named openai:http://HOST:PORT/v1#NAME"),
        ((*RUN, "--model", "talks.jsonl"), "talks.jsonl is a file: a model directory is wanted"),
        ((*RUN, "--model", "no-such-model"), "no-such-model is no directory here"),
        ((*RUN, "--model", ADAPTER, "--base", "./nowhere"), "there is no base model directory"),
        ((*RUN, "--model", "ckpt/adapter"), "names is not there: give its directory"),
        ((*RUN, "--model", BASE, "--name", "taken"), "already holds a finished run"),
        ((*RUN, "--model", BASE, "--output", "talks.jsonl"), "talks.jsonl is a file"),
        (("--tasks", "usmle", "--model", BASE, "--data-dir", "no"), "there is no such folder"),
        (("--tasks", "usmlee*", "--model", BASE), "no task named 'usmlee*'"),
        ((*RUN, "--model", BASE, "--dtype", "int3"), "--dtype 'int3'"),
        ((*RUN, "--model", BASE, "--data-dir", "."), "exclude each other"),
        ((*RUN, "--model", BASE, "--json", "no/where.json"), "cannot write no/where.json"),
        (("run", "--resume", "nowhere"), "holds no unfinished run"),
        (("inspect", "ckpt/adaptr"), "did you mean ckpt/adapter?"),
        ((*RUN, "--model", BASE, "--adapters", f"{ADAPTER},./no"), "no model directory ./no"),
        (
            ("overlap", "--train", "no.jsonl", "--tasks", "usmle", "--sample"),
            "there is no no.jsonl",
        ),
        (("ablate", "nowhere", "--experts", "0"), "is not a run folder"),
        (("blame", "nowhere", "elsewhere"), "is not a run folder"),
        ((*RUN, "--model", ""), "'' names no model"),
        ((*RUN, "--model", " , "), "' , ' names no model"),
        ((*TRAIN, "--base", "./nowhere"), "there is no model directory ./nowhere"),
        ((*TRAIN, "--base", BASE, "--data", "no.jsonl"), "there is no file no.jsonl"),
        ((*TRAIN, "--base", BASE, "--output", "ckpt"), "is there already"),
        (
            ("compose", "--adapters", "a/b/c", "--few-shot", "talks.jsonl", "--output", "out"),
            "there is no model directory a/b/c",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slip_is_refused_before_torch_and_lm_eval_are_imported(tmp_path, arguments, message):
    (tmp_path / "ckpt" / "adapter").mkdir(parents=True)
    (tmp_path / "ckpt" / "adapter" / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "../gone/away"}'
    )
    (tmp_path / "talks.jsonl").write_text("")
    (tmp_path / "reports" / "taken").mkdir(parents=True)
    (tmp_path / "reports" / "taken" / "run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    status, said = refused(*arguments, cwd=tmp_path)
    assert message in said
    assert said.startswith("error: ")
    assert status == "2"
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_data_is_refused_before_torch_is_imported(tmp_path):
    arguments = ("--tasks", "usmle", "--model", BASE, "--data-dir", ".")
    status, said = refused(*arguments, cwd=tmp_path)
    assert "no records in --data-dir" in said
    assert "torch" not in status
    assert "transformers" not in status


def test_what_is_there_is_not_refused(tmp_path):
    refuse_absent(BASE)
    refuse_absent(ADAPTER)
    refuse_absent(ADAPTER, BASE)


def test_a_model_of_ones_own_needs_no_folder_of_its_name():
    class Opened(Exception):
        pass

    def open_model(spec, folder, watch):
        raise Opened

    with pytest.raises(Opened):
        evaluate(RunSpec(model="/nowhere", tasks="usmle", sample=True), open_model=open_model)
