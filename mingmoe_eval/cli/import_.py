"""`mingmoe-eval import`: an lm-eval output directory becomes a run folder."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def import_(
    directory: Annotated[Path, typer.Argument(help="What lm-eval's --output_path named.")],
    output: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    name: Annotated[str | None, typer.Option(help="The run folder's name.")] = None,
) -> None:
    """Turn the output of stock lm-eval (with --log_samples) into a run folder.

    Example: mingmoe-eval import lm_eval_output/ --name stock
    """
    import dataclasses

    from mingmoe_eval.cli.console import print_results
    from mingmoe_eval.harness.files import read_output
    from mingmoe_eval.run_store import save_run

    run = read_output(directory)
    run = dataclasses.replace(run, name=name or run.name)
    folder = save_run(run, output / run.name)
    print_results(run)
    print(f"{folder}: saved", file=sys.stderr)
