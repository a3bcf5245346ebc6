"""`mingmoe-eval compare`: two runs, doc by doc."""

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
            "tasks, docs, prompt, fewshot, form, reading, profile, version, data or metric."
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
    from mingmoe_eval.comparison import kinds_named, output
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
        print_table(title, output.headings(comparison), output.rows(comparison))
        for line in output.remarks(comparison):
            print_line(line)
