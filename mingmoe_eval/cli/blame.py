"""`mingmoe-eval blame`: which layer or expert a change between two checkpoints comes from."""

from pathlib import Path
from typing import Annotated

import typer


def blame(
    baseline: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    candidate: Annotated[
        Path, typer.Argument(help="Folder of a run of another checkpoint of the same base.")
    ],
    alpha: Annotated[float, typer.Option(help="Two-sided error rate of each trial.")] = 0.05,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the trials as JSON to a file, or - .")
    ] = None,
) -> None:
    """Put parts of the baseline's weights into the candidate, and see what of its change is undone.

    Each trial is a run over the same docs. docs/routing.md says how to read the result.
    Example: mingmoe-eval blame reports/good reports/bad
    """
    from mingmoe_eval.cli.console import print_line, print_table, write_json
    from mingmoe_eval.cli.progress import RunProgress
    from mingmoe_eval.molora.presence import refuse_absent
    from mingmoe_eval.run_store import load_run

    runs = load_run(baseline), load_run(candidate)
    for run in runs:
        refuse_absent(run.spec.model, run.spec.base)
    # Only now what imports torch.
    from mingmoe_eval.blame import blame as blame_runs
    from mingmoe_eval.blame import blame_json, blame_rows, sentence

    with RunProgress() as watch:
        found = blame_runs(*runs, watch=watch, alpha=alpha)
    if json_to is not None:
        write_json(blame_json(found), json_to)
    if json_to != "-":
        headings = "put back,turned back,moved,task,candidate's %,change,interval,p (Holm)"
        title = f"{runs[1].name} with parts of {runs[0].name}"
        print_table(title, headings.split(","), blame_rows(found), words=("put back",))
        print_line(sentence(found))
        print_line("p-values are after Holm's procedure over all trials and tasks.")
        if marks := found.whole.marks:
            print_line(f"Not the benchmark: {', '.join(marks)}.")
