"""`mingmoe-eval gate --sequential`: a model is asked until the verdict is settled."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mingmoe_eval.cli.console import print_line, print_table, write_json, write_page
from mingmoe_eval.cli.progress import RunProgress
from mingmoe_eval.comparison.output import markdown_table, plain
from mingmoe_eval.errors import UsageError
from mingmoe_eval.questions import Questions
from mingmoe_eval.records import Run
from mingmoe_eval.regression_gate import Policy
from mingmoe_eval.regression_gate import sequential as gate


def gate_sequentially(
    baseline: Run,
    model: str,
    policy: Policy,
    *,
    tasks: str | None,
    budget: int | None,
    strict: bool,
    allow_marked: bool,
    markdown: Path | None,
    json_to: str | None,
    changes: Mapping[str, Any],
) -> int:
    """Ask, say what is settled, and give the exit status.

    `changes` are fields of the baseline's spec that are said anew; None leaves them.
    """
    if baseline.marks and not allow_marked:
        raise UsageError(
            f"{baseline.name}: {', '.join(baseline.marks)}: the regression gate refuses numbers "
            "that are not the benchmark's; --allow-marked lets them through"
        )
    if tasks is not None:
        names = [name.strip() for name in tasks.split(",")]
        if lacking := [name for name in names if name not in baseline.leaves]:
            raise UsageError(f"{baseline.name} has no task {', '.join(lacking)}")
        baseline = replace(baseline, results={name: baseline.results[name] for name in names})
    rules = gate.SequentialRules(
        margin=policy.margin, alpha=policy.alpha, budget=budget, allow=frozenset(policy.allow)
    )
    spec = gate.candidate_spec(baseline, model, **changes)
    with RunProgress() as watch:
        verdict = gate.judge_sequentially(baseline, Questions(spec, watch=watch), rules)
    remarks = [
        *([f"NOT the benchmark: {', '.join(baseline.marks)}."] if baseline.marks else []),
        f"{verdict.sentence}.",
        *(f"{task}: not judged, {why}" for task, why in verdict.left_out.items()),
    ]
    if verdict.failed:
        remarks.append(f"{verdict.failed} questions failed and are left out")
    if verdict.incomplete:
        remarks.append("FAILED: more than 0.1 % of the questions failed")
    if markdown is not None:
        table = markdown_table(gate.HEADINGS, gate.sequential_rows(verdict))
        lines = [*table, "", *(f"- {plain(remark)}" for remark in remarks)]
        write_page(markdown, "\n".join(lines) + "\n")
    if json_to is not None:
        write_json(gate.sequential_json(verdict, strict=strict), json_to)
    if json_to != "-":
        title = f"{verdict.candidate} against {verdict.baseline}"
        print_table(title, gate.HEADINGS, gate.sequential_rows(verdict))
        for remark in remarks:
            print_line(remark)
    return verdict.exit_status(strict=strict)
