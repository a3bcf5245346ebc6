"""What `compare` and `gate` print and write, beside JSON."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mingmoe_eval.cli.console import printable
from mingmoe_eval.errors import RunStoreError


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, the first column to the left and the rest to the right."""
    table = Table(title=escape(printable(title)))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    _console().print(table)


def print_line(text: str) -> None:
    """One line on stdout, however long."""
    _console().print(escape(printable(text)), soft_wrap=True)


def write_page(path: Path, text: str) -> None:
    """Write a text file; its folder must exist."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise RunStoreError(f"cannot write {path}: {error.strerror}") from error


def _console() -> Console:
    # A pipe has no width of its own; a table cut to 80 columns would lose numbers.
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)
