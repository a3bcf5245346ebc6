"""`mingmoe-eval tasks`: list the tasks and groups."""

import shutil
import sys
import textwrap
from typing import Annotated

import typer

from mingmoe_eval.task_catalog import TaskDefinition, load_catalog


def tasks(
    pattern: Annotated[
        str | None, typer.Argument(help="Only names that this glob matches.")
    ] = None,
    json_to: Annotated[
        str | None, typer.Option("--json", help="Write the list as JSON to a file, or - .")
    ] = None,
) -> None:
    """List the tasks and groups, with what each stands for.

    Example: mingmoe-eval tasks 'usmle*'
    """
    catalog = load_catalog()
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
