"""Which libraries talk, and how they are kept quiet while they work for us.

A user reads on stderr what is ours: of a library only what it logs as an error. Everything is put
back when the work is done, for a program that calls us has libraries, bars and warnings of its own.
"""

import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

LOGGERS = (
    "accelerate",
    "datasets",  # "Using the latest cached version", retries
    "huggingface_hub",  # "Retrying in 8s", "You are sending unauthenticated requests"
    "lm_eval",  # "Custom kwargs can be passed to `--metadata`"
    "peft",
    "ray",
    "torch",
    "transformers",  # "The following generation flags are not valid", reports of keys
)
"""Each is set to let errors alone through; a logger below them has no level of its own."""

_VARIABLES = {
    # A library that is imported while we work sets its logger's level then, after these.
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}

_OF_THE_COMMAND = {
    # Read once, on import: of use in a process that is ours from the start, and in what it starts.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",  # else a warning after each fork
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TQDM_DISABLE": "1",
}


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries quiet that are imported by now; also a decorator.

    Warnings that a filter of the caller's own asks for, such as `-W error`, still come.
    """
    with contextlib.ExitStack() as put_back:
        put_back.enter_context(warnings.catch_warnings())
        # Appended, so that it decides last.
        warnings.simplefilter("ignore", append=True)
        put_back.enter_context(_variables(_VARIABLES))
        for name in LOGGERS:
            put_back.enter_context(_errors_alone(logging.getLogger(name)))
        for name, without_bars in _BARS.items():
            if module := sys.modules.get(name):
                put_back.enter_context(without_bars(module))
        yield


@contextlib.contextmanager
def quiet_command() -> Iterator[None]:
    """The same for a process that does nothing but our work: before any library is imported."""
    for name, value in _OF_THE_COMMAND.items():
        os.environ.setdefault(name, value)
    with quiet_libraries():
        yield


@contextlib.contextmanager
def _errors_alone(logger: logging.Logger) -> Iterator[None]:
    before = logger.level
    logger.setLevel(max(before, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _variables(wanted: dict[str, str]) -> Iterator[None]:
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


# A library's bars are switched in the library. tqdm itself is left alone: a caller's `Watch` may
# well draw a bar of its own.


@contextlib.contextmanager
def _switched(module: ModuleType, off: str, on: str, is_off: Callable[[], bool]) -> Iterator[None]:
    if is_off():
        yield
        return
    getattr(module, off)()
    try:
        yield
    finally:
        getattr(module, on)()


def _transformers(module: ModuleType) -> contextlib.AbstractContextManager[None]:
    return _switched(
        module,
        "disable_progress_bar",
        "enable_progress_bar",
        lambda: not module.is_progress_bar_enabled(),
    )


def _hub(module: ModuleType) -> contextlib.AbstractContextManager[None]:
    return _switched(
        module,
        "disable_progress_bars",
        "enable_progress_bars",
        module.are_progress_bars_disabled,
    )


@contextlib.contextmanager
def _lm_eval(module: ModuleType) -> Iterator[None]:
    """Its bar over the docs, while requests are built, has no switch."""
    bar = module.tqdm
    module.tqdm = functools.partial(bar, disable=True)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.tqdm = bar  # type: ignore[attr-defined]


_BARS: dict[str, Callable[[ModuleType], contextlib.AbstractContextManager[None]]] = {
    "datasets.utils.tqdm": _hub,  # the same names as huggingface_hub's
    "huggingface_hub.utils.tqdm": _hub,
    "lm_eval.api.task": _lm_eval,
    "transformers.utils.logging": _transformers,
}
