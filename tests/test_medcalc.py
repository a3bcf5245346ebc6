"""MedCalc-Bench as a task: its records' limits, its authors' prompts, replies in their form."""

import re
from pathlib import Path

import pytest

from mingmoe_eval.exams import prompts
from mingmoe_eval.exams.loading import load
from mingmoe_eval.records import Response, TaskSettings
from mingmoe_eval.run_store import load_run
from mingmoe_eval.scoring import make_sample
from mingmoe_eval.task_catalog import load_catalog

DEMO = Path(__file__).resolve().parents[1] / "mingmoe_eval" / "demo" / "checkpoints"
SETTINGS = TaskSettings(suite="number", version=1.0)
DOCS = {doc["tags"]["calculator"]: doc for doc in load(benchmark="medcalc", sample=True)["test"]}


def earned(calculator, reply):
    doc = DOCS[calculator]
    return make_sample("medcalc", 0, doc, "", Response(text=reply), SETTINGS).score


BMI, DUE, AGE = "Body Mass Index (BMI)", "Estimated Due Date", "Estimated Gestational Age"


@pytest.mark.parametrize(
    ("calculator", "reply", "score"),
    [
        (BMI, '{"answer": "22.86"}', 1),
        (BMI, '{"answer": 22.86}', 1),
        (BMI, '{"step_by_step_thinking": "70 / 1.75^2 = 22.86", "answer": "22.86 kg/m2"}', 1),
        (BMI, '{"answer": "21.714"}', 1),  # the lower limit itself
        (BMI, '{"answer": "21.70"}', 0),
        (BMI, '{"answer": "24.0"}', 1),  # the upper limit itself
        (BMI, '{"answer": "24.1"}', 0),
        (BMI, '{"answer": "Not Found"}', 0),
        (DUE, '{"answer": "10/17/2023"}', 1),
        (DUE, '{"answer": "10/18/2023"}', 0),
        (DUE, "The due date is October 17, 2023.", 1),
        (AGE, '{"answer": "(15 weeks, 2 days)"}', 1),
        (AGE, "15 weeks and 2 days", 1),
        (AGE, '{"answer": "(15 weeks, 3 days)"}', 0),
        ("CHA2DS2-VASc Score", '{"answer": "5"}', 1),
        ("CHA2DS2-VASc Score", '{"answer": "5.2"}', 0),
        ("CHA2DS2-VASc Score", "2 + 1 + 1 + 1 = 5", 1),
    ],
)
def test_a_reply_is_right_within_the_limits_of_its_record(calculator, reply, score):
    assert earned(calculator, reply) == score


def test_the_limits_of_the_sample_are_five_percent_or_the_value_itself():
    exact = {DUE, AGE, "CHA2DS2-VASc Score", "CURB-65"}
    assert {name for name, doc in DOCS.items() if doc["lower"] == doc["upper"]} == exact
    for name in DOCS.keys() - exact:
        doc, value = DOCS[name], float(DOCS[name]["answer"])
        assert doc["lower"] == pytest.approx(0.95 * value, abs=1e-3)
        assert doc["upper"] == pytest.approx(1.05 * value, abs=1e-3)


def test_the_prompts_are_the_authors_own():
    doc = DOCS[BMI]
    direct, steps = prompts.medcalc_answer(doc), prompts.medcalc_reasoning(doc)
    for text in (direct, steps):
        assert text.startswith("You are a helpful assistant for calculating a score for a given")
        assert f"Here is the patient note:\n{doc['context']}\n\nHere is the task:\n" in text
        assert text.endswith("}:")
    assert "Please output answer only without any other text." in direct
    assert steps.count('{"step_by_step_thinking": str(') == 2
    assert "Please think step-by-step to solve the question" in steps


def test_both_forms_run_and_are_split_by_category(tmp_path, monkeypatch):
    from mingmoe_eval.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(DEMO / "base"), "--sample", "--name", "m", "--no-cache"]
    assert main(["--tasks", "medcalc,medcalc_cot", *arguments]) == 0
    run = load_run("reports/m")
    for task in ("medcalc", "medcalc_cot"):
        assert run.results[task].main.n == len(DOCS)
        assert run.results[task].chance is None
        assert set(run.results[task].breakdowns) >= {"category", "calculator"}


def test_no_letters_can_be_compared():
    names = load_catalog().names
    assert {name for name in names if re.match("medcalc", name)} == {"medcalc", "medcalc_cot"}
