"""A training that is killed goes on as if nothing had been, whatever it was asked for."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bad_day_verbs import is_whole
from safetensors.torch import load_file
from tiny_training import log_lines, rows, save_chat_base, save_rows

from mingmoe_eval.training.output_folder import LOCK, STAGING, training_states


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A base, data, held-out data, and a finished adapter of each kind."""
    folder = tmp_path_factory.mktemp("files")
    save_chat_base(folder / "base")
    save_rows(folder / "data.jsonl", rows(12))
    save_rows(folder / "held.jsonl", rows(4, first=100))
    return folder


def words(files, output, *more):
    small = ("--rank", 4, "--batch-size", 2, "--log-every", 1, "--learning-rate", 0.02)
    base = ("--base", files / "base", "--data", files / "data.jsonl", "--output", output)
    given = (*base, *small, "--steps", 12, "--save-every", 3, "--keep", 2, *more)
    return [sys.executable, "-m", "mingmoe_eval", "train", *map(str, given)]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def environment():
    root = str(Path(__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}


def kill_at(command, output, is_time):
    """Starts the command and kills it when its folder looks so; whether it came to that."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if is_time(output):
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
        time.sleep(0.002)
    return False


def everything(folder):
    """All that a training leaves and a resume has to give again, the optimiser's state too."""
    found = {"log": (folder / "training_log.jsonl").read_bytes()}
    for path in sorted(folder.rglob("*.safetensors")):
        for name, tensor in load_file(path).items():
            found[f"{path.relative_to(folder)}/{name}"] = tensor
    for path in sorted(folder.rglob("optimizer.pt")):
        for number, state in torch.load(path, weights_only=True)["state"].items():
            for name, value in state.items():
                found[f"{path.relative_to(folder)}/{number}/{name}"] = value
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    differing = [
        name
        for name in one
        if not (one[name] == other[name] if name == "log" else torch.equal(one[name], other[name]))
    ]
    assert not differing


def has_state(step):
    return lambda folder: step in training_states(folder)


def lines(count):
    return lambda folder: len(log_lines(folder)) >= count


KINDS = {
    "plain": (),
    "held out, with patience": ("--eval-split", 0.2, "--eval-every", 2, "--patience", 3),
    "held-out file, packed": ("--eval-data", "held", "--packing", "--max-tokens", 120),
    "lora, linear, targets": (
        *("--method", "lora", "--lr-scheduler", "linear", "--warmup", 0.2, "--target", "all"),
        *("--eval-data", "held", "--accumulation", 2),
    ),
    "balanced, constant, bf16": (
        *("--method", "molora-balanced", "--lr-scheduler", "constant", "--bf16", "--packing"),
        *("--max-tokens", 120),
    ),
    "contrastive, held out": ("--method", "molora-contrastive", "--eval-split", 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_with_9_resumes_bit_for_bit(files, tmp_path, kind):
    more = [files / "held.jsonl" if word == "held" else word for word in KINDS[kind]]
    run(words(files, tmp_path / "whole", *more))
    cut = tmp_path / "cut"
    assert kill_at(words(files, cut, *more), cut, has_state(3))
    assert not (cut / "adapter_config.json").exists()
    run([*words(files, cut, *more), "--resume", "last"])
    assert_same(everything(cut), everything(tmp_path / "whole"))
    assert not (cut / LOCK).exists()


@pytest.mark.slow
def test_a_continued_adapter_killed_with_9_resumes_bit_for_bit(files, tmp_path):
    run(words(files, tmp_path / "first", "--steps", 3))
    command = words(files, tmp_path / "whole")
    at = command.index("--rank")
    goes_on = [*command[:at], *command[at + 2 :], "--from", str(tmp_path / "first")]
    run(goes_on)
    cut = tmp_path / "cut"
    again = [str(cut) if word == str(tmp_path / "whole") else word for word in goes_on]
    assert kill_at(again, cut, has_state(6))
    run([*again, "--resume", "last"])
    assert_same(everything(cut), everything(tmp_path / "whole"))


PHASES = {
    "before the first step": lambda folder: (folder / "training.json").exists(),
    "while a state is written": lambda folder: (folder / STAGING).exists(),
    "between two states": lines(5),
    "while the checkpoint is written": lambda f: (
        12 in training_states(f) and (f / STAGING).exists()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_kill_in_any_phase_leaves_whole_files_and_a_way_on(files, tmp_path, phase):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(words(files, whole))
    # Some phases last a few milliseconds: a try that comes too late is tried again.
    for attempt in range(5):
        cut = tmp_path / f"cut{attempt}"
        if kill_at(words(files, cut), cut, PHASES[phase]):
            break
    else:
        pytest.skip("the phase was over before each kill")
    assert [path.name for path in cut.glob("*.json*") if not is_whole(path)] == []
    states = training_states(cut)
    again = subprocess.run(words(files, cut), capture_output=True, text=True, env=environment())
    assert again.returncode == 2
    assert "is there already and nothing is overwritten" in again.stderr
    done = subprocess.run(
        [*words(files, cut), "--resume", "last"], capture_output=True, text=True, env=environment()
    )
    if not states:
        assert done.returncode == 2
        assert "has no training state to resume from: begin anew" in done.stderr
        return
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(everything(cut), everything(whole))
