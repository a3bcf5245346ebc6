"""Logs of other evaluation programs, read into runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mingmoe_eval.errors import RunStoreError, UsageError
from mingmoe_eval.foreign_logs import evalscope, inspect_logs, opencompass
from mingmoe_eval.foreign_logs.log import Imported

__all__ = ["Imported", "read_logs"]


def read_logs(
    place: Path, *, filter_name: str | None = None, model_folder: str | None = None
) -> list[Imported]:
    """What another program left at a place, whichever program it was.

    Args:
        place: A file or a folder of its.
        filter_name: Of lm-eval's filter pipelines, the one whose scores count.
        model_folder: Only the model of that name.

    Raises:
        RunStoreError: nothing that is known lies there, or what lies there is damaged.
        UsageError: there is no such model or filter, or the program has no filters.
    """
    if not place.exists():
        raise RunStoreError(f"{place}: there is no such file or folder")
    readers = {"inspect_ai": inspect_logs, "EvalScope": evalscope, "OpenCompass": opencompass}
    for program, reader in readers.items():
        if reader.is_here(place):
            if filter_name is not None:
                raise UsageError(f"--filter is for lm-eval, and {place} is a log of {program}")
            try:
                imported = reader.read(place)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise RunStoreError(f"{place} is not as {program} writes it ({reason})") from error
            return _chosen(imported, model_folder, place)
    from mingmoe_eval.harness.reading import read_outputs

    return read_outputs(place, filter_name=filter_name, model_folder=model_folder)


def _chosen(imported: Sequence[Imported], name: str | None, place: Path) -> list[Imported]:
    chosen = [one for one in imported if name in (None, one.name, one.model)]
    if not chosen:
        there = ", ".join(_names(imported))
        raise UsageError(f"--model-folder {name!r}: {place} holds results of {there}")
    return chosen


def _names(imported: Sequence[Imported]) -> Iterator[str]:
    return (one.name for one in imported)
