"""The mistakes a user can mend, as one tree.

MingMoeError
├── UsageError             an option, or a combination of options, that makes no sense
│   └── UnknownTaskError   a task name that does not exist
├── DataError              records that are unreadable or not in any known shape
│   └── MissingDataError   records that are nowhere to be found; `--partial` passes over them
├── CheckpointError        a model directory that cannot be loaded as what it claims to be
├── RunStoreError          a run folder or response store that cannot be read or written
│   └── TakenFolderError   a folder that holds something already, or that another process writes
└── IncomparableRunsError  two runs that differ in more than their model

The command line prints these without a traceback and exits with status 2; anything else that is
raised is a bug, keeps its traceback and exits with 70 (`cli.exits`).
"""

import difflib
from collections.abc import Iterable, Sequence


class MingMoeError(Exception):
    """A mistake that the user can mend; its text names the thing, the value and the way out."""


class UsageError(MingMoeError):
    """An option, or a combination of options, that makes no sense."""


class UnknownTaskError(UsageError):
    """A task name that does not exist; suggests the nearest known ones.

    Args:
        name: The name.
        known: Those that there are.
        meant: What people mean by it, if that is known: then nothing is guessed from the letters.
    """

    def __init__(self, name: str, known: Iterable[str], *, meant: Sequence[str] = ()) -> None:
        close = meant or difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        super().__init__(f"no task named {name!r}{hint} (list them with `mingmoe-eval tasks`)")
        self.name = name


class DataError(MingMoeError):
    """Records that are unreadable, or in no shape that we know."""


class MissingDataError(DataError):
    """Records that are nowhere to be found; with `--partial`, a group goes on without them."""


class CheckpointError(MingMoeError):
    """A model directory that cannot be loaded as what it claims to be."""


class RunStoreError(MingMoeError):
    """A run folder or a response store that cannot be read or written."""


class TakenFolderError(RunStoreError):
    """A folder for a run that holds something already, or that another process is writing."""


class IncomparableRunsError(MingMoeError):
    """Two runs that differ in more than their model."""


def offence_list(headline: str, offences: Sequence[str], *, most: int = 20) -> str:
    """One message that lists every offence, not the first; past `most` the rest are counted."""
    shown = [f"  - {offence}" for offence in offences[:most]]
    if len(offences) > most:
        shown.append(f"  ... and {len(offences) - most} more")
    return "\n".join([headline, *shown])
