"""The command from end to end, in this process, on a tiny MoLoRA checkpoint with random weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Recipe, save_adapter, save_base
from tiny_language_models import make_tokenizer

from mingmoe_eval.cli import main
from mingmoe_eval.run_store import load_run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`adapter`, whose config names `../base`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = save_base(folder / "base", vocab_size=384, max_position_embeddings=512)
    make_tokenizer().save_pretrained(base)
    save_adapter(folder / "adapter", base, Recipe())
    return folder / "adapter"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINGMOE_EVAL_CACHE", str(tmp_path / "cache"))


def run_named(folder, name, checkpoint, *options, tasks="usmle,usmle_ll"):
    arguments = ["--tasks", tasks, "--model", str(checkpoint), "--sample", "--limit", "4"]
    arguments += ["--output", str(folder), "--name", name, *options]
    return main(arguments)


def comparable(run):
    """Everything of the samples but what the model did not decide."""
    return {task: [sample.to_json() for sample in listed] for task, listed in run.samples.items()}


def test_a_run_prints_its_table_and_leaves_its_folder(tmp_path, checkpoint, capsys):
    assert run_named(tmp_path, "r", checkpoint) == 0
    out, err = capsys.readouterr()
    assert "usmle_ll" in out
    assert "invented sample, first 4 docs" in out
    assert "the adapter is live" in err
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {"run.json", "eval.yaml", "samples", "report.html", "lm_eval"}
    model = load_run(tmp_path / "r").provenance["model"]
    assert model["checkpoint"]["kind"] == "molora"
    assert model["weights_fingerprint"]


def test_the_same_run_twice_is_identical_with_and_without_stored_answers(tmp_path, checkpoint):
    assert run_named(tmp_path, "a", checkpoint, "--no-cache") == 0
    assert run_named(tmp_path, "b", checkpoint, "--no-cache") == 0
    assert run_named(tmp_path, "c", checkpoint) == 0
    assert run_named(tmp_path, "d", checkpoint) == 0
    runs = [load_run(tmp_path / name) for name in "abcd"]
    assert runs[3].timing["requests_from_store"] == runs[3].timing["requests"] > 0
    assert runs[1].timing["requests_from_store"] == 0
    first = comparable(runs[0])
    assert all(comparable(run) == first for run in runs[1:])


@pytest.mark.parametrize("batch_size", ["4", "16"])
def test_the_batch_size_changes_nothing_in_fp32(tmp_path, checkpoint, batch_size):
    assert run_named(tmp_path, "one", checkpoint, "--no-cache", "--batch-size", "1") == 0
    assert run_named(tmp_path, "many", checkpoint, "--no-cache", "--batch-size", batch_size) == 0
    one, many = (load_run(tmp_path / name) for name in ("one", "many"))
    for task, samples in one.samples.items():
        for a, b in zip(samples, many.samples[task], strict=True):
            assert a.answered == b.answered
            assert a.response == b.response
            assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-5)


def test_another_checkpoint_at_the_same_path_never_gets_the_first_ones_answers(
    tmp_path, checkpoint
):
    folder = tmp_path / "swapped"
    shutil.copytree(checkpoint.parent, folder)
    assert run_named(tmp_path, "before", folder / "adapter") == 0
    weights = folder / "base" / "model.safetensors"
    changed = {k: v + 0.01 * torch.ones_like(v) for k, v in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    assert run_named(tmp_path, "after", folder / "adapter") == 0
    before, after = (load_run(tmp_path / name) for name in ("before", "after"))
    assert after.timing["requests_from_store"] == 0
    assert comparable(before) != comparable(after)


@pytest.mark.parametrize("target", ["nowhere/run.json", "."])
def test_json_that_cannot_be_written_is_refused_before_the_run(
    tmp_path, checkpoint, capsys, target
):
    assert run_named(tmp_path, "r", checkpoint, "--json", str(tmp_path / target)) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_json_on_stdout_is_json_and_nothing_else(tmp_path, checkpoint, capsys):
    assert run_named(tmp_path, "r", checkpoint, "--json", "-") == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((tmp_path / "r" / "run.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "usmle"], "--model must be given"),
        (["--model", "x"], "--tasks must be given"),
        (["--model", "x", "--tasks", "usmlee*"], "no task named 'usmlee*'"),
        (["--model", "x", "--tasks", " ,"], "--tasks ' ,' names no task"),
        (["--model", "/nowhere", "--tasks", "usmle", "--sample"], "/nowhere"),
        (["--model", "x", "--tasks", "usmle", "--sample", "--data-dir", "d"], "exclude each other"),
        (["--model", "x", "--tasks", "usmle", "--dtype", "int3"], "--dtype 'int3'"),
        (["--model", "x", "--tasks", "usmle", "--batch-size", "0"], "--batch-size '0'"),
        (["--model", "x", "--tasks", "usmle", "--data-dir", "/nowhere"], "/nowhere"),
        (["run", "--resume", "/nowhere"], "no unfinished run"),
        (["runn"], "no verb 'runn'"),
    ],
)
def test_a_mistake_gets_one_clear_message_and_status_2(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "reports").exists() or not any((tmp_path / "reports").iterdir())


def test_a_run_whose_page_fails_is_finished_and_says_how_to_make_it(
    tmp_path, checkpoint, capsys, monkeypatch
):
    (tmp_path / "vl_convert.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGTRAP)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_named(tmp_path, "r", checkpoint) == 0
    folder = tmp_path / "r"
    said = capsys.readouterr().err
    assert "without its charts: the drawing library was ended by SIGTRAP" in said
    assert f"make it again with:\n  mingmoe-eval report {folder}\n" in said
    assert (folder / "report.html").exists()
    assert main(["run", "--resume", str(folder)]) == run_named(tmp_path, "r", checkpoint) == 2
    assert capsys.readouterr().err.count(f"by `mingmoe-eval report {folder}`") == 2
    assert main(["report", str(folder)]) == 0


def test_a_run_whose_page_cannot_be_written_is_finished(tmp_path, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("mingmoe_eval.report.page.data_tables_script", lambda: 1 / 0)
    assert run_named(tmp_path, "r", checkpoint) == 0
    assert "the run has no page (ZeroDivisionError" in capsys.readouterr().err
    assert load_run(tmp_path / "r").results
    monkeypatch.undo()
    assert main(["report", str(tmp_path / "r")]) == 0


def test_a_name_that_is_taken_is_refused_and_the_run_there_is_kept(tmp_path, checkpoint, capsys):
    assert run_named(tmp_path, "r", checkpoint) == 0
    before = (tmp_path / "r" / "run.json").read_bytes()
    assert run_named(tmp_path, "r", checkpoint) == 2
    assert "already holds a finished run" in capsys.readouterr().err
    assert (tmp_path / "r" / "run.json").read_bytes() == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_mistake(unbuffered):
    root = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, str(root / "run_eval.py"), "--help"],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0


def test_run_eval_is_the_command(tmp_path):
    root = Path(__file__).parents[1]
    ours = subprocess.run(
        [sys.executable, str(root / "run_eval.py"), "--version"], capture_output=True, text=True
    )
    assert ours.returncode == 0
    assert ours.stdout.startswith("mingmoe-eval ")
