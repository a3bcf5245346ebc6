"""docs/your_own_tasks.md, followed by the page alone in an empty folder."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from mingmoe_eval import run_store
from mingmoe_eval.cli import main
from mingmoe_eval.demo import BASE, checkpoints_dir
from mingmoe_eval.exams.benchmarks import Benchmark
from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.suites.form import Form

PAGE = (Path(__file__).parents[1] / "docs" / "your_own_tasks.md").read_text("utf-8")
BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def follower(tmp_path, monkeypatch):
    """A folder in which the page's files were written, block by block."""
    for block in BLOCK.finditer(PAGE):
        if "/" in block["kind"]:
            path = tmp_path / block["kind"].split()[1]
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(block["text"])
    shutil.copytree(checkpoints_dir() / BASE, tmp_path / "ckpt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_s_commands_do_what_it_says(follower, capsys):
    commands = [
        shlex.split(line)[1:]
        for block in BLOCK.finditer(PAGE)
        for line in block["text"].splitlines()
        if line.startswith("mingmoe-eval")
    ]
    assert [words[0] for words in commands] == ["tasks", "--tasks"]
    check, run = commands
    assert main(check) == 0
    said = capsys.readouterr().out
    assert "ward_exam_ll: suite choice" in said
    assert "right reply 'routine': earns 1" in said
    assert main([*run, "--name", "r", "--no-cache", "--max-new-tokens", "8"]) == 0
    results = run_store.load_run(follower / "reports" / "r").results
    assert set(results) == {
        *("ward_exam", "ward_exam_ll", "ward_exam_cot", "ward_triage", "ward_triage_cot"),
        *("ward_ner", "ward_dose", "ward_summary"),
    }
    assert all(result.main.n == 2 for result in results.values())
    assert main(["tasks", "ward", "--include-path", "ward_tasks"]) == 0


def test_the_page_names_every_field_that_makes_a_task(follower):
    """What only official sets need, such as the ways their files are cut up, is in the code."""
    own = set(Form.__struct_fields__) | {"parts", "shots", "declares", "tags", "tag_fields"}
    named = set(re.findall(r"[a-z_]+", PAGE))
    assert own <= set(Benchmark.__struct_fields__)
    assert own - named == set()
    shown = benchmarks(follower / "ward_tasks").values()
    assert {one.suite for one in shown} == {"choice", "labels", "tuples", "number", "text"}
