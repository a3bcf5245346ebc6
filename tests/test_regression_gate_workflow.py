"""The pipelines that we ship for the regression gate, step by step as they stand in their files.

What installs is left out: the commands run in the present environment, on a copy of the checkout.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
GITHUB = yaml.safe_load((ROOT / ".github/workflows/regression-gate.yml").read_text("utf-8"))
GITLAB = yaml.safe_load(
    re.search(
        r"^## In GitLab\n\n```yaml\n(.*?)^```",
        (ROOT / "docs" / "regression_gate.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )[1]
)["regression-gate"]
# Each stands in for a program of the runner; `told` is what the pipeline said to it.
PROGRAMS = {
    "mingmoe-eval": f'exec {sys.executable} -m mingmoe_eval "$@"',
    "pip": 'echo pip "$@" >> told',
    "gh": 'echo gh "$@" >> told',
    "curl": 'echo curl "$@" >> told',
}


@pytest.fixture
def checkout(tmp_path):
    """A copy of what git tracks, with the runner's programs beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "copy" / name)
    for name, line in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return tmp_path / "copy"


def run_lines(checkout, lines, **variables):
    """Like a runner's shell: exit status and words of the first line that fails, or of the last."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}",
        "MINGMOE_EVAL_CACHE": str(checkout.parent / "cache"),
        **variables,
    }
    for line in lines:
        done = subprocess.run(
            ["bash", "-e", "-c", line],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return done.returncode, done.stdout + done.stderr
    return 0, done.stdout + done.stderr


def github_variables():
    """What the expressions give in a pull request, which has no inputs: their quoted defaults."""
    written = GITHUB["jobs"]["gate"]["env"]
    return {name: re.findall(r"'(.+?)'", expression)[0] for name, expression in written.items()}


def github_steps(*, always):
    """The commands of the steps; those that also run after a failure, or the others."""
    steps = [step for step in GITHUB["jobs"]["gate"]["steps"] if "run" in step]
    return [step["run"] for step in steps if step.get("if", "").startswith("always()") == always]


@pytest.mark.slow
def test_githubs_workflow_passes_as_it_stands_and_comments(checkout, tmp_path):
    summary = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "NUMBER": "7"}
    variables = {**github_variables(), **summary}
    status, said = run_lines(checkout, github_steps(always=False), **variables)
    assert status == 0, said
    status, said = run_lines(checkout, github_steps(always=True), **variables)
    assert status == 0, said
    assert (tmp_path / "summary").read_text() == (checkout / "gate.md").read_text()
    assert (checkout / "gate.xml").exists()
    assert (checkout / "gate.json").exists()
    assert (checkout / "told").read_text().splitlines() == [
        "pip install -c constraints.txt .[hf]",
        "gh pr comment 7 --body-file gate.md --edit-last --create-if-none",
    ]


@pytest.mark.slow
def test_gitlabs_snippet_passes_as_it_stands_and_comments(checkout):
    variables = {
        **GITLAB["variables"],
        "GITLAB_TOKEN": "secret",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_PROJECT_ID": "3",
        "CI_MERGE_REQUEST_IID": "7",
    }
    status, said = run_lines(checkout, [*GITLAB["script"], *GITLAB["after_script"]], **variables)
    assert status == 0, said
    assert (checkout / "gate.md").exists()
    assert (checkout / "gate.xml").exists()
    told = (checkout / "told").read_text()
    assert "body@gate.md https://gitlab.example/api/v4/projects/3/merge_requests/7/notes" in told


def test_a_pull_request_starts_the_workflow_which_may_comment():
    triggers = GITHUB[True]  # what YAML makes of `on`
    assert "pull_request" in triggers
    assert GITHUB["permissions"] == {"contents": "read", "pull-requests": "write"}


def test_without_inputs_the_workflow_takes_their_defaults():
    inputs = GITHUB[True]["workflow_call"]["inputs"]
    defaults = {name.upper(): one["default"] for name, one in inputs.items() if name != "runner"}
    assert github_variables() == defaults
    assert {**GITLAB["variables"]} == defaults
