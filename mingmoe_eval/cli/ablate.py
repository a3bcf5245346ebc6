"""`mingmoe-eval ablate`: what a run's scores lose without an expert."""

from pathlib import Path
from typing import Annotated

import typer


def ablate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run of a model with routers.")],
    experts: Annotated[
        str,
        typer.Option(
            help="Experts, counted from 0, one trial each: 0,1,2; LAYER:EXPERT for one layer "
            "alone: 5:0; + for several at once: 0+1."
        ),
    ],
    alpha: Annotated[float, typer.Option(help="Two-sided error rate of each trial.")] = 0.05,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the trials as JSON to a file, or - .")
    ] = None,
) -> None:
    """Mask experts one after the other, and compare each time with the run, doc by doc.

    The weights of the other experts are renormalised. docs/routing.md says how to read the result.
    Example: mingmoe-eval ablate reports/ming-7b --experts 0,1,2,3
    """
    from mingmoe_eval.cli.console import print_line, print_table, write_json
    from mingmoe_eval.cli.progress import RunProgress
    from mingmoe_eval.molora.presence import refuse_absent
    from mingmoe_eval.run_store import load_run

    baseline = load_run(run)
    refuse_absent(baseline.spec.model, baseline.spec.base)
    # Only now what imports torch.
    from mingmoe_eval.ablation import ablate as ablate_run
    from mingmoe_eval.ablation import ablation_json, ablation_rows
    from mingmoe_eval.molora.router import read_masks

    trials = read_masks(experts)
    with RunProgress() as watch:
        found = list(ablate_run(baseline, trials, watch=watch, alpha=alpha))
    if json_to is not None:
        write_json(ablation_json(found), json_to)
    if json_to != "-":
        headings = "left out,usage %,task,all experts %,without %,change,interval,p (Holm)"
        print_table(f"{baseline.name}: experts left out", headings.split(","), ablation_rows(found))
        print_line("p-values are after Holm's procedure over all trials and tasks.")
        if baseline.marks:
            print_line(f"Not the benchmark: {', '.join(baseline.marks)}.")
