"""`mingmoe-eval tasks`: list the tasks and groups; `tasks check`: try those of a folder."""

import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from mingmoe_eval.cli.include_path import IncludePath, folders_said
from mingmoe_eval.task_catalog import open_catalog
from mingmoe_eval.task_definitions import TaskDefinition


def tasks(
    pattern: Annotated[
        str | None, typer.Argument(help="Only names that this glob matches.")
    ] = None,
    include_path: IncludePath = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the list as JSON to a file, or - .")
    ] = None,
) -> None:
    """List the tasks and groups, with what each stands for.

    Example: mingmoe-eval tasks 'usmle*'
    """
    catalog = open_catalog(folders_said(include_path))
    selection = catalog.select([pattern or "*"])
    chosen = sorted((*selection.groups, *selection.leaves), key=lambda d: (not d.is_group, d.name))
    if json_to:
        from mingmoe_eval.cli.console import write_json

        write_json({"tasks": [_as_json(definition) for definition in chosen]}, json_to)
        return
    width = max(len(definition.name) for definition in chosen)
    # A pipe has one task a line, for grep; a terminal folds what is said of it.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for definition in chosen:
        line = f"{definition.name:<{width}}  {_summary(definition)}"
        hanging = width + 2 if columns > width + 30 else 4
        print(textwrap.fill(line, columns, subsequent_indent=" " * hanging))


def check(
    folder: Annotated[Path, typer.Argument(help="The folder of tasks.")],
    pattern: Annotated[
        str | None, typer.Argument(help="Only tasks whose names this glob matches.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Local data: DIR/<data set>/<split>.jsonl and the like.")
    ] = None,
) -> None:
    """Check a folder of tasks: read it, load its data, show what is asked and how replies score.

    Nothing is run. Exit status 2 where anything is wrong; every fault is listed.
    Example: mingmoe-eval tasks check my_tasks/
    """
    from mingmoe_eval.cli.console import print_line
    from mingmoe_eval.cli.exits import say
    from mingmoe_eval.errors import DataError, offence_list
    from mingmoe_eval.task_check import check_tasks

    checked = check_tasks(folder, pattern or "*", data_dir=str(data_dir) if data_dir else None)
    # The forms of one entry share its faults.
    faults = list(dict.fromkeys(fault for task in checked for fault in task.faults))
    for task in checked:
        if not task.prompt:
            continue
        print_line(f"{task.name}: {task.summary}")
        for note in task.notes:
            print_line(f"  note: {note}")
        print_line(textwrap.indent(task.prompt, "  | ", lambda line: True))
        for reply in task.replies:
            print_line(f"  {reply}")
        print_line("")
    if faults:
        bad = sum(bool(task.faults) for task in checked)
        raise DataError(offence_list(f"{folder}: {bad} of {len(checked)} tasks are faulty", faults))
    say(f"{folder}: {len(checked)} tasks can run")


def _summary(definition: TaskDefinition) -> str:
    if definition.is_group:
        return f"group: {', '.join(definition.members)}"
    form = definition.settings.form
    return "; ".join(
        part for part in (definition.settings.description, f"form {form}" if form else "") if part
    )


def _as_json(definition: TaskDefinition) -> dict[str, object]:
    return {
        "name": definition.name,
        "description": definition.settings.description,
        "members": list(definition.members),
        "output_type": definition.output_type,
        "metadata": definition.settings.to_json(),
    }
