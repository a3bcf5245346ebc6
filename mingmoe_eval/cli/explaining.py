"""`mingmoe-eval explain`: why a run's number differs from a published one."""

from pathlib import Path
from typing import Annotated

import typer


def explain(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    published: Annotated[
        str, typer.Option(help="The source to stand beside, by its key, such as medcare.")
    ],
    row: Annotated[
        str | None, typer.Option(help="Only published models whose name holds this.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the page as Markdown.")] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the page as JSON to a file, or - .")
    ] = None,
) -> None:
    """Say why a run's number differs from a paper's: same, compatible, or not comparable and why.

    Which questions the printed number is over, what the run has under every official way of
    reading replies, what is known of how the paper asked, and what a rerun would need.
    Example: mingmoe-eval explain reports/ming-7b --published medcare --row "MedCare-7B"
    """
    from mingmoe_eval.cli.console import print_line, print_table, write_json, write_page
    from mingmoe_eval.explanation import explain_run, output
    from mingmoe_eval.run_store import load_run

    found = explain_run(load_run(run), published, model=row)
    if markdown is not None:
        write_page(markdown, output.explanation_markdown(found))
    if json_to is not None:
        write_json(output.explanation_json(found), json_to)
    if json_to == "-":
        return
    for one in found:
        print_line(output.headline(one))
        for column in one.columns:
            print_line(f"\n{column.title} (form {column.form})")
            for line in output.list_lines(column):
                print_line(f"- {line}")
            headings, *rows = output.cell_table(column)
            print_table("", headings, rows, words=("why", "published model"))
            for line in output.reason_lines(column):
                print_line(f"- {line}")
            print_table("", output.READING_HEADINGS, output.reading_rows(column))
            for line in output.protocol_lines(one, column):
                print_line(f"- {line}")
