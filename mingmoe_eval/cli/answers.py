"""`mingmoe-eval rescore` and `import`: run folders from answers that are there already."""

from pathlib import Path
from typing import Annotated

import typer

from mingmoe_eval.cli.exits import say


def rescore(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    reading: Annotated[
        str | None,
        typer.Option(help="Exams: how answers are read: default, huatuo2, cmb, cmexam, ming ..."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="PromptCBLUE: official, legacy or lenient.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where run folders go; default: beside the run.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The new run folder's name.")] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write run.json's content to a file, or - .")
    ] = None,
) -> None:
    """Score a run's stored responses again; the new run names its parent.

    Example: mingmoe-eval rescore reports/ming-7b --reading huatuo2
    """
    from mingmoe_eval.cli.console import print_results, write_json
    from mingmoe_eval.metrics.answer_reading import DEFAULT, compat_mode
    from mingmoe_eval.promptcblue.parsing import profile_named
    from mingmoe_eval.rescoring import rescore as rescore_run
    from mingmoe_eval.run_store import folder_named, load_run, save_run, summary

    if reading not in (None, DEFAULT):
        compat_mode(reading)
    if profile is not None:
        profile_named(profile)
    rescored = rescore_run(
        load_run(run),
        reading=reading,
        profile=profile,
        name=name,
        refused=lambda text: say(f"note: {text}"),
    )
    folder = save_run(rescored, folder_named(output or run.parent, rescored.name))
    if json_to:
        write_json(summary(rescored), json_to)
    if json_to != "-":
        print_results(rescored)
    say(f"{folder}: saved")


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
    from mingmoe_eval.run_store import folder_named, save_run

    run = read_output(directory)
    run = dataclasses.replace(run, name=name or run.name)
    folder = save_run(run, folder_named(output, run.name))
    print_results(run)
    say(f"{folder}: saved")
