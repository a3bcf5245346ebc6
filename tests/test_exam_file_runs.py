"""A file of questions through the whole command: run, compare, rescore, table, report."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mingmoe_eval import RunSpec, compare, evaluate, load_run, rescore
from mingmoe_eval.cli import main
from mingmoe_eval.errors import UsageError
from mingmoe_eval.task_catalog import load_catalog

DEMO = Path(__file__).resolve().parents[1] / "mingmoe_eval" / "demo" / "checkpoints"
KEYS = "ABCDABCD"


@pytest.fixture
def ward(tmp_path, monkeypatch):
    """A folder with a ward's exam, and the same with one question of two right options."""
    monkeypatch.chdir(tmp_path)
    rows = [[f"第{n}题", "甲", "乙", "丙", "丁", key] for n, key in enumerate(KEYS, 1)]
    header = ["题干", "A", "B", "C", "D", "答案"]
    pd.DataFrame([header, *rows]).to_excel("ward exam.xlsx", header=False, index=False)
    rows[0][-1] = "A、C"
    pd.DataFrame([header, *rows]).to_excel("several.xlsx", header=False, index=False)
    return tmp_path


def test_a_file_is_run_in_every_form_and_its_run_serves_every_verb(ward, capsys):
    tasks = "ward exam.xlsx,ward exam.xlsx_ll,ward exam.xlsx_cot"
    for name in ("base", "molora-adapter"):
        arguments = ["--tasks", tasks, "--model", str(DEMO / name), "--name", name]
        assert main([*arguments, "--no-cache"]) == 0
    told = capsys.readouterr().err
    assert "ward exam.xlsx: question: 题干; options: A to D; answer: 答案; 8 questions" in told
    assert told.count("question: 题干") == 2  # once a run
    base, adapter = (load_run(Path("reports") / name) for name in ("base", "molora-adapter"))
    assert list(base.results) == ["ward_exam", "ward_exam_ll", "ward_exam_cot"]
    assert base.marks == ()
    assert base.results["ward_exam"].chance == 0.25
    assert "第1题" in base.samples["ward_exam"][0].prompt
    assert base.provenance["tasks"]["ward_exam"]["data_fingerprint"]
    assert set(compare(base, adapter).tasks) == set(base.results)
    again = rescore(base)
    assert {t: r.main.value for t, r in again.results.items()} == {
        t: r.main.value for t, r in base.results.items()
    }
    Path("train.jsonl").write_text('{"text": "第1题：甲、乙、丙还是丁？甲 乙 丙 丁"}\n', "utf-8")
    assert main(["overlap", "--train", "train.jsonl", "--run", "reports/base"]) == 0
    assert "lm-eval's own" not in capsys.readouterr().err
    assert main(["table", "reports/base", "reports/molora-adapter"]) == 0
    assert main(["gate", "reports/base", "--baseline", "reports/base"]) == 0
    page = Path("secret.html")
    assert main(["report", "reports/base", "--without-docs", "-o", str(page)]) == 0
    assert "第1题" not in page.read_text("utf-8")


def test_option_orders_work_on_a_file(ward):
    spec = RunSpec(
        model=str(DEMO / "base"), tasks="ward exam.xlsx", permute_options="cyclic", limit=2
    )
    run = evaluate(spec)
    assert run.results["ward_exam"].metrics["consistency"].n == 2


def test_letters_are_not_compared_where_several_are_right(ward):
    with pytest.raises(UsageError, match="8 of these may have several"):
        load_catalog().select(["several.xlsx_ll"])


@pytest.mark.parametrize(
    ("tasks", "options", "reason"),
    [
        ("nowhere.xlsx", [], "nowhere.xlsx: there is no such file"),
        ("ward exam.xlsx", ["--sample"], "leave --sample out"),
        ("ward exam.xlsx", ["--columns", "answer=结果"], "has no column '结果'"),
        ("usmle", ["--columns", "answer=答案", "--sample"], "--tasks names none"),
        ("usmle.csv", [], "usmle is a task of ours"),
    ],
)
def test_what_cannot_be_is_said_and_ends_with_2(ward, tasks, options, reason):
    Path("usmle.csv").write_text("question,A,B,answer\n?,a,b,A\n", "utf-8")
    arguments = ["--tasks", tasks, "--model", str(DEMO / "base"), *options]
    done = subprocess.run(
        [sys.executable, "-m", "mingmoe_eval", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
