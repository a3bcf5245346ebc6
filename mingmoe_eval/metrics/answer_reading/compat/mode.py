"""What an official script does with a reply, in two steps: read a string, compare it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq


@dataclass(frozen=True, slots=True)
class CompatMode:
    """One official script's rules.

    `read(reply, options, single)` gives the string that the script compares, None where it reads
    nothing; `correct(read, gold)` says whether the script would count that string as right.
    """

    read: Callable[[str, Mapping[str, str], bool], str | None]
    correct: Callable[[str | None, str], bool] = eq
