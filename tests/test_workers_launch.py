"""`accelerate launch` and `torchrun`: two real processes on the CPU compute one run."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("torch")

from test_routing_engine import assert_near
from test_run_command import checkpoint, own_cache, run_named  # noqa: F401 (fixtures)

from mingmoe_eval.run_store import load_run

ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
PROCESSES = ("--nproc-per-node", "2")
LAUNCHERS = {
    "accelerate": (*ACCELERATE, "--main_process_port", "0", "--module"),
    "torchrun": ("-m", "torch.distributed.run", "--standalone", *PROCESSES, "-m"),
}


def launch(launcher, *arguments):
    return subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], "mingmoe_eval", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def options(folder, name, checkpoint):  # noqa: F811
    return [
        *("--tasks", "usmle,usmle_ll", "--model", str(checkpoint), "--sample", "--limit", "4"),
        *("--output", str(folder), "--name", name, "--no-cache"),
    ]


@pytest.mark.slow
def test_two_processes_give_the_run_of_one(tmp_path, checkpoint):  # noqa: F811
    assert run_named(tmp_path, "one", checkpoint, "--no-cache") == 0
    done = launch("accelerate", *options(tmp_path, "two", checkpoint))
    assert done.returncode == 0, done.stderr
    one, two = (load_run(tmp_path / name) for name in ("one", "two"))
    for task, samples in one.samples.items():
        for a, b in zip(samples, two.samples[task], strict=True):
            assert (a.doc_id, a.answered, a.response) == (b.doc_id, b.answered, b.response)
            assert a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-5)
    assert_near(two.routing["tasks"], one.routing["tasks"])
    assert two.provenance["model"]["workers"]["workers"] == 2
    # One of the two speaks.
    scores = done.stdout.partition("right answer")[0]  # what follows is the table of costs
    assert scores.count("│ usmle_ll") == 1
    assert len(re.findall("the adapter is live", done.stderr)) == 1


@pytest.mark.slow
def test_a_mistake_is_told_once_and_ends_all_processes(tmp_path, checkpoint):  # noqa: F811
    folder = options(tmp_path, "r", checkpoint)
    done = launch("torchrun", *folder, "--split", "nowhere")
    assert done.returncode != 0
    assert len(re.findall(r"^error: ", done.stderr, re.MULTILINE)) == 1
    statuses = re.findall(r"exitcode\s*: (\d+)", done.stderr)
    assert set(statuses) == {"2"}


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_nobody_waiting(tmp_path, checkpoint):  # noqa: F811
    command = [sys.executable, *LAUNCHERS["torchrun"], "mingmoe_eval"]
    with subprocess.Popen(
        [*command, *options(tmp_path, "r", checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as launched:
        children = []
        while len(children) < 2:
            time.sleep(0.05)
            assert launched.poll() is None
            found = subprocess.run(
                ["pgrep", "-P", str(launched.pid), "-f", "mingmoe_eval"],
                capture_output=True,
                text=True,
                check=False,
            )
            children = [int(line) for line in found.stdout.split()]
        time.sleep(1)
        os.kill(max(children), signal.SIGKILL)
        launched.communicate(timeout=120)
    assert launched.returncode != 0
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
