"""What the documents promise: docs/cli.md equals --help, and the README's commands exist."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mingmoe_eval.cli import VERBS

ROOT = Path(__file__).parents[1]


def help_of(*words: str) -> str:
    """A verb's --help at 80 columns, as a user without colours sees it."""
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "mingmoe_eval", *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().split("\n"))


def cli_reference() -> str:
    """The whole of docs/cli.md."""
    parts = ["# The command\n", "Made from `--help` by `make docs`.\n", block(help_of())]
    for name, verb in VERBS.items():
        for words in [(name, below) for below in verb.below] or [tuple(name.split())]:
            parts += [f"## {' '.join(words)}\n", block(help_of(*words))]
    return "\n".join(parts)


def block(text: str) -> str:
    return f"```\n{text}\n```\n"


def test_the_command_reference_equals_the_help():
    pinned = f"typer=={version('typer')}" in (ROOT / "constraints.txt").read_text("utf-8").split()
    if not pinned:
        pytest.skip("docs/cli.md is as the pinned typer prints it")
    written = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert written == cli_reference(), "docs/cli.md is out of date: make docs"


def test_every_verb_that_the_readme_uses_exists():
    readme = (ROOT / "README.md").read_text("utf-8")
    used = re.findall(r"^mingmoe-eval ([a-z]+)", readme, flags=re.MULTILINE)
    assert used
    assert set(used) <= set(VERBS)


def test_every_make_target_that_the_readme_uses_exists():
    readme = (ROOT / "README.md").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", readme, flags=re.MULTILINE)) <= targets


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(cli_reference(), "utf-8")
