"""`mingmoe-eval rescore` and `import`: run folders from answers that are there already."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mingmoe_eval.foreign_logs.log import Imported

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
    coverage: Annotated[
        str | None,
        typer.Option(help="Accuracy of this part of the questions, the surest: 0.5,0.8."),
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
    from mingmoe_eval.metrics.calibration import coverage_said
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
        coverage=coverage_said(coverage),
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
    log: Annotated[
        Path,
        typer.Argument(
            help="What lm-eval's --output_path named; a log of inspect_ai (.eval, .json) or a "
            "folder of them; a work directory of EvalScope or OpenCompass."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("reports"),
    name: Annotated[
        str | None, typer.Option(help="The run folder's name; with the model's where several are.")
    ] = None,
    filter_name: Annotated[
        str | None,
        typer.Option(
            "--filter", help="lm-eval: the filter whose scores count; default: the first."
        ),
    ] = None,
    model_folder: Annotated[
        str | None, typer.Option(help="Only this model's folder; default: one run for each.")
    ] = None,
) -> None:
    """Turn what another program logged into run folders: lm-eval, inspect_ai and others.

    Tasks without samples become numbers to cite. Example: mingmoe-eval import lm_eval_output/
    """
    import dataclasses

    from mingmoe_eval.cli.console import print_line, print_results
    from mingmoe_eval.foreign_logs import read_logs
    from mingmoe_eval.run_store import (
        folder_named,
        refuse_taken,
        refuse_unreadable,
        save_run,
        write_json,
    )

    imported = read_logs(log, filter_name=filter_name, model_folder=model_folder)
    names = [_name_of(one, name, several=len(imported) > 1) for one in imported]
    folders = [folder_named(output, own) for own in names]
    for one, folder in zip(imported, folders, strict=True):
        refuse_taken(folder)  # none of them, before all can be written
        if one.run is not None:
            refuse_unreadable(one.run)
    for one, own, folder in zip(imported, names, folders, strict=True):
        for line in one.left_out:
            print(f"note: left out: {line}", file=sys.stderr)
        if one.run is not None:
            run = dataclasses.replace(one.run, name=own)
            save_run(run, folder)
            print_results(run)
        if one.cited:
            write_json(folder / "cited.json", one.cited_source())
            for number in one.cited:
                value = f"{100 * number.value:.2f} %" if number.is_share else f"{number.value:g}"
                print_line(f"{number.task}: {number.metric} {value}, without its docs")
            cited = shlex.quote(str(folder / "cited.json"))
            again = f"`mingmoe-eval table --published {cited}`"
            print(f"note: cite these with {again}", file=sys.stderr)
        print(f"{folder}: saved", file=sys.stderr)


def _name_of(one: "Imported", name: str | None, *, several: bool) -> str:
    if name is None:
        return one.run.name if one.run is not None and not several else one.name
    return f"{name}-{one.name}" if several else name
