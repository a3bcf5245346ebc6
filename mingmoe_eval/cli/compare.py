"""`mingmoe-eval compare` and `gate`: one run held against another, doc by doc."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def compare(
    baseline: Annotated[Path, typer.Argument(help="Run folder to compare with.")],
    candidate: Annotated[Path, typer.Argument(help="Run folder in question.")],
    alpha: Annotated[
        float, typer.Option(help="Two-sided error rate over all leaf tasks; intervals at 1-alpha.")
    ] = 0.05,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="A kind of difference between the runs to override, recorded in the output: "
            "tasks, docs, prompt, fewshot, form, reading, profile, version, data, metric, engine, "
            "dtype, attention, device or batch."
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the comparison as JSON to a file, or - .")
    ] = None,
) -> None:
    """Compare two runs, paired within each task by the content of its docs.

    Refuses runs that differ in more than their model, naming each difference.
    Example: mingmoe-eval compare reports/baselines/main reports/candidate
    """
    from mingmoe_eval.cli.console import print_line, print_table, write_json, write_page
    from mingmoe_eval.comparison import compare as compare_runs
    from mingmoe_eval.comparison import kinds_named, output, overall_verdict
    from mingmoe_eval.run_store import load_run

    comparison = compare_runs(
        load_run(baseline), load_run(candidate), allow=kinds_named(allow or ()), alpha=alpha
    )
    if markdown is not None:
        write_page(markdown, output.comparison_markdown(comparison))
    if json_to is not None:
        write_json(output.comparison_json(comparison), json_to)
    if json_to != "-":
        title = f"{comparison.candidate} against {comparison.baseline}"
        print_line(f"{overall_verdict(comparison).sentence}.")
        print_table(title, output.headings(comparison), output.rows(comparison))
        for line in output.remarks(comparison):
            print_line(line)


def gate(
    candidate: Annotated[Path | None, typer.Argument(help="Run folder to judge.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Run folder to hold it against.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="What is asked, as YAML: docs/gate.md. Flags go before it.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Write a policy to begin with, made for the baseline.")
    ] = None,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential",
            help="Ask --model the baseline's questions at random, until the verdict is settled.",
        ),
    ] = False,
    model: Annotated[str | None, typer.Option(help="With --sequential: the candidate.")] = None,
    base: Annotated[str | None, typer.Option(help="With --sequential: an adapter's base.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="With --sequential: of the baseline's tasks, by comma.")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="With --sequential: data, if they are elsewhere by now.")
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="With --sequential; default: the baseline's.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="With --sequential; default: the baseline's.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="With --sequential: questions at most.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Largest difference that counts as none [default: 0.02, two points]."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="One-sided error rate over all leaf tasks and their pooled difference "
            "[default: 0.05]."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 3 until a loss of the margin over all docs is ruled out."
        ),
    ] = False,
    largest_allowed_gain: Annotated[
        float | None, typer.Option(help="Fail on a significant gain beyond this fraction.")
    ] = None,
    unanswered_tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest rise of the share of unanswered docs of a task [default: 0.01]."
        ),
    ] = None,
    truncated_tolerance: Annotated[
        float | None,
        typer.Option(help="Largest rise of the share of docs that were cut off [default: 0.01]."),
    ] = None,
    non_finite_tolerance: Annotated[
        int | None,
        typer.Option(help="Largest rise of the number of non-finite docs [default: 0]."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A kind of difference between the runs to override; see `compare`."),
    ] = None,
    allow_marked: Annotated[
        bool,
        typer.Option("--allow-marked", help="Judge runs of a sample, a limit, a part or a split."),
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary.")] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the verdict as JSON to a file, or - .")
    ] = None,
) -> None:
    """Pass or fail a candidate against a baseline, task by task and all tasks together.

    Exit status: 0 passed, 1 failed, 2 a mistake that you can mend, 3 undecided (with --strict, or
    where the policy holds what is undecided).
    With --sequential a model is asked until the verdict is settled (docs/gate.md).
    Example: mingmoe-eval gate reports/candidate --baseline reports/baselines/main --junit gate.xml
    """
    from mingmoe_eval.cli.console import print_line, print_table, write_json, write_page
    from mingmoe_eval.comparison import kinds_named
    from mingmoe_eval.errors import UsageError
    from mingmoe_eval.regression_gate import Policy, first_policy, judge_by, output, read_policy
    from mingmoe_eval.run_store import load_run

    if baseline is None:
        raise UsageError("name the run to hold the candidate against, with --baseline")
    if init is not None:
        if init.exists():
            raise UsageError(f"{init} exists; name another file, or remove it")
        write_page(init, first_policy(load_run(baseline)))
        said = shlex.join(["--baseline", str(baseline), "--policy", str(init)])
        print_line(f"wrote {init}; next: mingmoe-eval gate CANDIDATE {said}")
        return
    told: dict[str, object] = {"--model": model, "--base": base, "--tasks": tasks}
    told |= {"--data-dir": data_dir}
    told |= {"--batch-size": batch_size, "--device": device, "--budget": budget}
    if sequential:
        from mingmoe_eval.cli.sequential_gate import gate_sequentially

        if candidate is not None or policy is not None or junit is not None or model is None:
            raise UsageError(
                "--sequential takes a --model in place of a run folder, and neither --policy nor "
                "--junit: it asks the same of every task"
            )
        status = gate_sequentially(
            load_run(baseline),
            model,
            Policy().with_flags(margin=margin, alpha=alpha, allow=kinds_named(allow or ())),
            tasks=tasks,
            budget=budget,
            strict=strict,
            allow_marked=allow_marked,
            markdown=markdown,
            json_to=json_to,
            changes={
                "base": base, "data_dir": data_dir, "batch_size": batch_size, "device": device
            },
        )  # fmt: skip
        raise typer.Exit(status)
    if idle := [flag for flag, value in told.items() if value is not None]:
        raise UsageError(f"{', '.join(idle)}: only with --sequential, which asks a model")
    if candidate is None:
        raise UsageError("name the run folder to judge")
    asked = Policy() if policy is None else read_policy(policy)
    verdict = judge_by(
        asked.with_flags(
            margin=margin,
            alpha=alpha,
            strict=strict,
            largest_gain=largest_allowed_gain,
            unanswered=unanswered_tolerance,
            truncated=truncated_tolerance,
            non_finite=non_finite_tolerance,
            allow=kinds_named(allow or ()),
        ),
        load_run(baseline),
        load_run(candidate),
        allow_marked=allow_marked,
    )
    if junit is not None:
        write_page(junit, output.gate_junit(verdict))
    if markdown is not None:
        write_page(markdown, output.gate_markdown(verdict))
    if json_to is not None:
        write_json(output.gate_json(verdict), json_to)
    if json_to != "-":
        print_table(output.headline(verdict), output.headings(verdict), output.rows(verdict))
        for remark in output.remarks(verdict):
            print_line(remark)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        # On stderr, which GitHub reads as well: stdout may be the JSON.
        print(*output.gate_annotations(verdict), sep="\n", file=sys.stderr)
    raise typer.Exit(verdict.exit_status)
