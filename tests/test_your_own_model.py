"""docs/your_own_model.md, followed by the page alone in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mingmoe_eval.language_model import refuse_incomplete
from mingmoe_eval.run_store import load_run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_own_model.md").read_text("utf-8")
MODEL, PROGRAM = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder in which the page was followed."""
    folder = tmp_path_factory.mktemp("own_model")
    (folder / "my_model.py").write_text(MODEL, "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_page_s_program_makes_two_runs_and_their_page(folder):
    guesses, reads = (load_run(folder / "reports" / name) for name in ("guesses", "reads"))
    assert guesses.results["usmle"].counts.unanswered == 0
    assert {s.answered for s in guesses.samples["usmle"]} == {"B"}
    assert {s.answered for s in guesses.samples["usmle_ll"]} == {"B"}
    assert {s.answered for s in reads.samples["usmle"]} > {"B"}
    assert reads.provenance["model"]["notes"] == ["Magnesium", "Right coronary", "Trisomy 21"]
    assert reads.timing["generated_tokens"] > 0
    assert (folder / "comparison.html").stat().st_size > 10_000


def test_the_page_s_model_has_every_member_that_a_run_uses():
    names: dict[str, type] = {}
    exec(MODEL, names)
    refuse_incomplete(names["ScriptedModel"]([]))
