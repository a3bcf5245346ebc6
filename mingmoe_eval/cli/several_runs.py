"""`--model a,b,c` and `--adapters a,b,c`: one run each; one that fails does not stop the others."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from mingmoe_eval.cli.exits import (
    EXIT_INCOMPLETE,
    EXIT_USER_MISTAKE,
    explain,
    headline,
    is_interrupt,
    say,
)
from mingmoe_eval.engine.served_address import is_served, model_in_words
from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import RunSpec

Plan = list[tuple[RunSpec, Path]]
"""What to run, and its folder."""


def split_models(text: str) -> list[str]:
    """The models of a list by comma; a path that is there, and an address, keep their commas.

    An address goes on up to the next path that is there, or the next address.

    Raises:
        UsageError: the list is empty.
    """
    if os.path.exists(text):  # noqa: PTH110
        return [text]
    parts = text.split(",")
    models: list[str] = []
    while parts:
        count = _length_of_path(parts)
        if not count and is_served(parts[0].strip()):
            count = 1
            while count < len(parts) and not _begins_another(parts[count:]):
                count += 1
        taken, parts = ",".join(parts[: count or 1]), parts[count or 1 :]
        if taken.strip():
            models.append(taken.strip())
    if not models:
        raise UsageError(f"{text!r} names no model")
    return models


def plan_runs(specs: Sequence[RunSpec], output: Path, name_of: Callable[[str], str]) -> Plan:
    """A folder for each spec, named after its model with as much of its path as tells it apart.

    Raises:
        UsageError: the same model twice.
    """
    models = [spec.model for spec in specs]
    if twice := [model for model, count in Counter(models).items() if count > 1]:
        raise UsageError(f"{', '.join(twice)}: given twice; each model has one run")
    names = _distinct_names(models)
    if len(set(names)) < len(names):
        raise UsageError(f"{', '.join(models)}: their runs would have the same name; rename one")
    return [(spec, output / name_of(name)) for spec, name in zip(specs, names, strict=True)]


def run_each(plan: Plan, run_one: Callable[[RunSpec, Path], bool]) -> None:
    """Run all of them; those that failed are listed at the end.

    Raises:
        typer.Exit: some failed, or are incomplete, or the user interrupted.
    """
    whole, worst, failed = True, EXIT_USER_MISTAKE, []
    for number, (spec, folder) in enumerate(plan, start=1):
        say(f"model {number} of {len(plan)}: {spec.model}")
        try:
            whole = run_one(spec, folder) and whole
        except typer.Exit:
            raise
        except ModuleNotFoundError:
            raise  # the same for all of them
        except Exception as error:  # not even a bug, shown as such, may cost the other models
            if is_interrupt(error):
                raise
            worst = max(worst, explain(error))
            failed.append(f"{spec.model}: {headline(error)}")
    if failed:
        summary = f"{len(failed)} of {len(plan)} models failed:"
        say("\n  ".join([summary, *failed]))
        raise typer.Exit(worst)
    if not whole:
        raise typer.Exit(EXIT_INCOMPLETE)


def with_models(spec: RunSpec, models: Sequence[str]) -> list[RunSpec]:
    """The same spec for each model."""
    return [dataclasses.replace(spec, model=model) for model in models]


def _length_of_path(parts: Sequence[str]) -> int:
    """How many parts, joined again, are a path that is there; 0 for none."""
    for count in range(len(parts), 0, -1):
        joined = ",".join(parts[:count]).strip()
        # A list of many is too long for the name of a file: False, as of any other absent one.
        if joined and os.path.exists(joined):  # noqa: PTH110  Path.exists takes minutes for 500
            return count
    return 0


def _begins_another(parts: Sequence[str]) -> bool:
    return is_served(parts[0].strip()) or _length_of_path(parts) > 0


def _distinct_names(models: Sequence[str]) -> list[str]:
    paths = [
        (words,) if (words := model_in_words(model)) else Path(model.rstrip("/")).parts
        for model in models
    ]
    names: list[str] = []
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["-".join(part.strip("/") for part in path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
