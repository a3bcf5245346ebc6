"""Exit statuses: 1 is the regression gate's alone; streams that break; bugs that say so."""

import errno
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mingmoe_eval.cli import main
from mingmoe_eval.cli.exits import explain
from mingmoe_eval.demo import checkpoints_dir
from mingmoe_eval.errors import DataError
from mingmoe_eval.extras import how_to_install

ROOT = Path(__file__).parents[1]

VERB_THAT_FAILS = """
import sys, types
from mingmoe_eval import cli
def boom():
    "A verb that fails."
    print("a result")
    {action}
sys.modules["mingmoe_eval.cli.boom"] = types.SimpleNamespace(boom=boom)
cli.VERBS["boom"] = cli.Verb("boom", "fails")
raise SystemExit(cli.main(["boom"]))
"""


def run_shell(command, **options):
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m mingmoe_eval {command}"],
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("raise KeyError('spec')", 70),
        ("assert False", 70),
        ("raise SystemExit(1)", 70),
        ("raise EOFError", 70),
        ("raise RecursionError", 70),
        ("import mingmoe_eval.nowhere", 70),
        ("open('/nowhere/at/all')", 70),
        ("raise KeyboardInterrupt", 130),
        ("import surely_not_installed", 2),
        ("raise OSError(28, 'No space left on device', 'a/file')", 2),
        ("raise MemoryError", 2),
        ("raise BrokenPipeError(32, 'Broken pipe')", 70),
    ],
)
def test_whatever_a_verb_ends_with_it_is_not_the_gates_status(action, status):
    code = VERB_THAT_FAILS.format(action=action)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stdout == "a result\n"
    assert ("Traceback" in done.stderr) == (status == 70)
    assert ("a bug in mingmoe-eval" in done.stderr) == (status == 70)


def test_an_interrupted_verb_says_so():
    code = VERB_THAT_FAILS.format(action="raise KeyboardInterrupt")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_a_bug_is_told_last_after_its_traceback(capsys):
    assert explain(KeyError("spec")) == 70
    last = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert last.startswith("error: this is a bug in mingmoe-eval")
    assert "KeyError: 'spec'" in last


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("no such file"), "error: no such file\n"),
        (
            ModuleNotFoundError("torch", name="torch.nn"),
            "error: this needs torch.nn, which the light install leaves out: "
            f"{how_to_install('hf')}\n",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "a/file"),
            "error: a/file: Permission denied; free some space, or choose another place\n",
        ),
    ],
)
def test_a_mistake_gets_one_line_and_status_2(capsys, error, message):
    assert explain(error) == 2
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    "arguments",
    [
        ["runn"],
        ["gate"],
        ["gate", "a", "--baseline", "b"],
        ["gate", "a", "--baselin", "b"],
        ["score"],
        ["score", "nothing"],
        ["table"],
        ["report", "a", "--language", "fr"],
        ["run", "--limit", "0", "--model", "m", "--tasks", "usmle"],
        ["tasks", "no*such"],
        ["--json"],
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_command_is_status_2(capsys, arguments):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "rror: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", ["tasks", "--help", "gate --help", "tasks --json -"])
def test_a_full_disk_behind_stdout_is_told(arguments):
    done = run_shell(f"{arguments} >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_both_streams_hold_all_that_was_said_buffered_or_not(tmp_path, unbuffered):
    action = "print('药' * 100_000); print('more', file=sys.stderr); raise KeyError(1)"
    done = subprocess.run(
        [sys.executable, "-c", VERB_THAT_FAILS.format(action=action)],
        capture_output=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert done.stdout.decode() == "a result\n" + "药" * 100_000 + "\n"
    assert done.stderr.startswith(b"more\nTraceback")
    assert b"a bug in mingmoe-eval" in done.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_closed_streams_break_nothing(redirection):
    done = run_shell(f"tasks {redirection}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert (done.stdout == "") == (">&-" in redirection.replace("2>&-", ""))


@pytest.mark.slow
def test_an_error_that_nobody_can_read_keeps_its_status():
    assert run_shell("inspect nowhere/at/all 2>/dev/full").returncode == 2
    assert run_shell("inspect nowhere/at/all 2>&-").returncode == 2


@pytest.mark.parametrize("arguments", ["tasks", "tasks --json -", "gate --help"])
def test_a_reader_that_has_had_enough_is_no_mistake(arguments):
    done = run_shell(f"{arguments} | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_a_verb_goes_on_and_keeps_its_status_when_its_reader_is_gone():
    action = "sys.stdout.flush(); print('more'); sys.stdout.flush(); import typer; "
    code = VERB_THAT_FAILS.format(action=action + "raise typer.Exit(3)")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 3


def test_characters_that_the_terminal_lacks_are_escaped():
    action = "print('药')"
    code = VERB_THAT_FAILS.format(action=action)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (0, b"a result\n\\u836f\n")


@pytest.mark.slow
def test_a_task_of_lm_evals_own_without_its_data_is_one_message(tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = run_shell(
        f"--tasks arc_easy --model {checkpoints_dir() / 'base'} --output runs",
        cwd=tmp_path,
        env={**os.environ, **offline},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: arc_easy, a task of lm-eval's own, cannot be loaded: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize(
    "made", ["ImportError('half', name='torch')", "RuntimeError('x')", "SystemError('y')"]
)
def test_what_a_library_makes_of_an_interrupt_is_still_one(number, status, made):
    action = f"""import os, signal
    try:
        os.kill(os.getpid(), signal.{number})
    except KeyboardInterrupt:
        raise {made}"""
    code = VERB_THAT_FAILS.format(action=action)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "\ninterrupted\n")


def test_a_signal_that_changed_nothing_is_no_failure():
    action = """import os, signal
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass"""
    code = VERB_THAT_FAILS.format(action=action)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a result\n", "")


def test_every_way_to_start_the_command_is_the_one_that_ctrl_c_never_finds_unready():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert stated == {"mingmoe-eval": "mingmoe_eval.__main__:command"}
    assert "from mingmoe_eval.__main__ import command" in (ROOT / "run_eval.py").read_text("utf-8")
