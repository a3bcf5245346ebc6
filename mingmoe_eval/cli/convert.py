"""`mingmoe-eval convert cblue`: PromptCBLUE records from the original CBLUE files."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from mingmoe_eval.errors import RunStoreError

_WARNING = """\
NOT COMPARABLE: these records have prompts of our own, options drawn by us and other docs than
PromptCBLUE's. No score on them compares with a published PromptCBLUE or MING-MOE number."""


def cblue(
    source: Annotated[
        Path, typer.Argument(help="The folder of the unpacked CBLUE files, or one file.")
    ],
    output: Annotated[Path, typer.Option(help="Where the records go, as JSON Lines.")],
    split: Annotated[
        str, typer.Option(help="Which files: those whose names end in _SPLIT.")
    ] = "dev",
    most: Annotated[int, typer.Option(min=1, help="At most so many records a task.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the options and docs drawn at random.")] = 0,
) -> None:
    """Make PromptCBLUE records from the original CBLUE files, with prompts of our own.

    For those who have CBLUE and not PromptCBLUE. The scores compare with each other only.
    Example: mingmoe-eval convert cblue CBLUE/ --output data/promptcblue/dev.jsonl
    """
    from mingmoe_eval.cblue_conversion.convert import convert

    done = convert(source, split=split, most=most, seed=seed)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in done.records]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise RunStoreError(f"cannot write {output}: {error.strerror}") from error
    for task, count in done.by_task.items():
        lost = done.unwritable[task]
        note = f" ({lost} left out: the format cannot hold their gold)" if lost else ""
        print(f"{task:<14}{count:>6} records{note}")
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    print(_WARNING, file=sys.stderr)
