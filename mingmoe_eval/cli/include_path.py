"""`--include-path`: folders of tasks beside ours, the same for every verb that names tasks."""

import os
from typing import Annotated

import typer

from mingmoe_eval.locations import TASKS_VARIABLE

IncludePath = Annotated[
    list[str] | None,
    typer.Option(
        metavar="<dirs>",
        help="Folders of tasks beside ours, by comma or repeated; those of MINGMOE_TASKS and of "
        "installed packages are always there.",
    ),
]


def folders_said(include_path: list[str] | None) -> tuple[str, ...]:
    """The folders of the option, then those of the variable, so that a run keeps both."""
    said = [part.strip() for text in include_path or () for part in text.split(",")]
    of_variable = os.environ.get(TASKS_VARIABLE, "").split(os.pathsep)
    return tuple(dict.fromkeys(folder for folder in (*said, *of_variable) if folder))
