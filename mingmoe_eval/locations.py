"""Where things are: task definitions, the bundled ones and others, and stored responses."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mingmoe_eval.errors import DataError, UsageError

TASKS_VARIABLE = "MINGMOE_TASKS"
"""Folders of tasks, separated as those of PATH are."""

CACHE_VARIABLE = "MINGMOE_EVAL_CACHE"
"""The folder of what is kept between runs, in place of the user's cache folder."""

ENTRY_POINTS = "mingmoe_eval.tasks"
"""The group under which a package names the module, or `module:folder`, that holds its tasks."""


def tasks_dir() -> Path:
    """The folder of task definitions: inside the installed package, else the checkout's."""
    bundled = Path(__file__).parent / "_bundled" / "tasks"
    return bundled if bundled.is_dir() else Path(__file__).parents[1] / "tasks"


def plugin_folders(include: Sequence[str | Path] = ()) -> tuple[Path, ...]:
    """The folders of tasks beside the bundled ones, each once.

    Those that are named, those of the variable MINGMOE_TASKS, those of installed packages.

    Raises:
        UsageError: one of them is no folder.
        DataError: a package says that it has tasks, and they cannot be found.
    """
    of_variable = filter(None, os.environ.get(TASKS_VARIABLE, "").split(os.pathsep))
    named = [("--include-path", Path(folder)) for folder in include]
    named += [(TASKS_VARIABLE, Path(folder)) for folder in of_variable]
    for by, folder in named:
        if not folder.is_dir():
            there = "is a file: name its folder" if folder.is_file() else "is no folder here"
            raise UsageError(f"{by}: {folder} {there}")
    found = dict.fromkeys(folder.resolve() for _, folder in named)
    found |= dict.fromkeys(folder.resolve() for folder in _of_packages())
    found.pop(tasks_dir().resolve(), None)
    return tuple(found)


def _of_packages() -> Iterator[Path]:
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist else point.name
        try:
            folder = _folder_of(point)
        except Exception as error:  # whatever a package's own code runs into
            raise DataError(
                f"the installed package {package} offers tasks as {point.value!r}, which cannot "
                f"be loaded: {type(error).__name__}: {error}. Mend or uninstall it"
            ) from error
        if not folder.is_dir():
            raise DataError(
                f"the installed package {package} offers tasks as {point.value!r}, and {folder} "
                "is no folder. Mend or uninstall it"
            )
        yield folder


def _folder_of(point: importlib.metadata.EntryPoint) -> Path:
    """The folder that an entry point means: of its module, or the one that its attribute names."""
    if not point.attr:  # looked up without running the module, which may be a bare folder
        spec = importlib.util.find_spec(point.module)
        if spec is None:
            raise ModuleNotFoundError(f"no module named {point.module}")
        places = [*(spec.submodule_search_locations or ())]
        return Path(places[0]) if places else Path(spec.origin or "").parent
    value = point.load()
    if isinstance(value, ModuleType):
        return Path(value.__file__ or value.__path__[0]).parent
    return Path(value)


def cache_dir() -> Path:
    """Where responses are kept between runs: $MINGMOE_EVAL_CACHE, else the user's cache folder.

    Raises:
        UsageError: the user has none.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "mingmoe-eval"
    try:
        return Path.home() / ".cache" / "mingmoe-eval"
    except RuntimeError as error:  # neither HOME nor an entry in passwd
        raise UsageError(
            f"there is no home folder to keep answers in: name a folder in {CACHE_VARIABLE}, or "
            "keep them beside each run with --no-cache"
        ) from error
