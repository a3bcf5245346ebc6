"""A task that names no suite keeps lm-eval's scoring, and a task without a score is no success."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from doubles import ScriptedLM

from mingmoe_eval import evaluate, run_store
from mingmoe_eval.demo import BASE, checkpoints_dir
from mingmoe_eval.harness import results
from mingmoe_eval.harness.tasks import load_tasks
from mingmoe_eval.records import Counts, MetricValue, Run, RunSpec, TaskResult
from mingmoe_eval.task_catalog import load_catalog

ROOT = Path(__file__).parents[1]
ROWS = [
    {"question": "1+1?", "choices": ["1", "2"], "answer": 1},
    {"question": "2+2?", "choices": ["4", "2"], "answer": 0},
    {"question": "2+2?", "choices": ["4", "2"], "answer": 0},
    {"question": "0+1?", "choices": ["0", "1"], "answer": 1},
]
TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2.0, homepage: nowhere}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user puts beside our definitions: a YAML of stock lm-eval, and its rows."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    (folder / "sums.yaml").write_text(TASK.format(data=folder / "rows.jsonl"))
    return folder


def test_lm_evals_own_scoring_stays_in_force_without_a_suite(folder):
    spec = RunSpec(model="scripted", tasks=("sums",))
    ((task,), _) = load_tasks(load_catalog(folder).select(["sums"]), spec)
    assert not task.is_ours
    # Likeliest is "2" and else the first: right on 1+1, wrong on both of 2+2, wrong on 0+1.
    lm = ScriptedLM(likelihood=lambda prompt, text: 0.0 if "2" in text else -len(text) - 1.0)
    raw = task.ask(lm, limit=None, chat=False)
    samples = results.foreign_samples("sums", raw, lm.take_usage())
    result = results.foreign_result("sums", samples, raw)
    assert [sample.score for sample in samples] == [1.0, 0.0, 0.0, 0.0]
    assert (result.main.value, result.main.n, result.version) == (0.25, 4, "2.0")
    assert len({sample.doc_id for sample in samples}) == 4  # the same question twice among them
    assert result.shortfall == ""


@pytest.mark.slow
def test_a_users_own_task_runs_to_a_score_through_every_verb(folder, tmp_path):
    """The checkout as a user has it who put a folder of his own below `tasks/`."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "tasks", checkout / "tasks")
    shutil.copytree(folder, checkout / "tasks" / "mine")
    (checkout / "mingmoe_eval").symlink_to(ROOT / "mingmoe_eval")

    def command(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [sys.executable, "-m", "mingmoe_eval", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    done = command(
        *("--model", str(checkpoints_dir() / BASE), "--tasks", "sums", "--name", "r", "--no-cache")
    )
    assert done.returncode == 0, done.stderr
    run = run_store.load_run(tmp_path / "reports" / "r")
    assert run.results["sums"].main.n == 4
    assert run.results["sums"].main.value in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert run.incomplete == ()
    refused = command("rescore", "reports/r")
    assert refused.returncode == 2
    assert "lm-eval's own tasks keep its scores" in refused.stderr


@pytest.mark.parametrize(
    ("value", "n", "failed", "short"),
    [
        (0.5, 10, 0, ""),
        (float("nan"), 10, 0, "no doc has a score"),
        (float("nan"), 0, 0, "no doc has a score"),
        (0.0, 0, 0, "no doc has a score"),
        (0.5, 9, 1, "1 of 10 docs failed"),
    ],
)
def test_a_task_without_a_score_makes_the_run_incomplete(value, n, failed, short):
    result = TaskResult(
        task="t",
        main_metric="score",
        metrics={"score": MetricValue(value=value, n=n)},
        counts=Counts(docs=10, failed=failed),
    )
    run = Run(
        name="r",
        spec=RunSpec(model="m", tasks=("t",)),
        provenance={},
        results={"t": result},
        samples={},
    )
    assert result.shortfall == short
    assert run.incomplete == (("t",) if short else ())


def test_a_run_whose_model_gives_nothing_finite_is_incomplete():
    lm = ScriptedLM(likelihood=lambda prompt, text: float("nan"))
    spec = RunSpec(model="scripted", tasks=("usmle_ll",), sample=True, limit=2)
    run = evaluate(spec, open_model=lambda *_: lm)
    assert run.results["usmle_ll"].main.n == 0
    assert run.incomplete == ("usmle_ll",)
