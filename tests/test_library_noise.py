"""Libraries keep quiet while they work for us, and are what they were when the work is done."""

import importlib
import logging
import os
import subprocess
import sys
import warnings

import pytest

from mingmoe_eval.library_noise import LOGGERS, quiet_libraries

# What the libraries call their switches; a release that takes one away fails here by its name.
SWITCHES = [
    ("datasets.utils.tqdm", "are_progress_bars_disabled"),
    ("datasets.utils.tqdm", "disable_progress_bars"),
    ("datasets.utils.tqdm", "enable_progress_bars"),
    ("huggingface_hub.utils.tqdm", "are_progress_bars_disabled"),
    ("huggingface_hub.utils.tqdm", "disable_progress_bars"),
    ("huggingface_hub.utils.tqdm", "enable_progress_bars"),
    ("lm_eval.api.task", "tqdm"),
    ("transformers.utils.logging", "disable_progress_bar"),
    ("transformers.utils.logging", "enable_progress_bar"),
    ("transformers.utils.logging", "is_progress_bar_enabled"),
]


@pytest.mark.parametrize(("module", "name"), SWITCHES, ids=".".join)
def test_a_switch_that_we_rely_on_is_there(module, name):
    assert callable(getattr(importlib.import_module(module), name))


def bars_are_off():
    hub, data, loading = (
        importlib.import_module(name)
        for name in ("huggingface_hub.utils", "datasets.utils", "transformers.utils.logging")
    )
    task = importlib.import_module("lm_eval.api.task")
    return (
        hub.are_progress_bars_disabled(),
        data.are_progress_bars_disabled(),
        not loading.is_progress_bar_enabled(),
        task.tqdm([]).disable,
    )


def state():
    return (
        [logging.getLogger(name).level for name in LOGGERS],
        dict(os.environ),
        list(warnings.filters),
        bars_are_off(),
    )


def test_bars_are_off_within_and_everything_is_put_back():
    before = state()
    with quiet_libraries():
        with quiet_libraries():
            assert all(bars_are_off())
        assert all(bars_are_off())
        assert all(logging.getLogger(name).level >= logging.ERROR for name in LOGGERS)
    assert state() == before


def test_everything_is_put_back_after_an_error_too():
    before = state()

    @quiet_libraries()
    def fails():
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert state() == before


def test_a_user_who_hears_less_of_a_library_hears_no_more_of_it():
    logger = logging.getLogger("transformers")
    before = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        with quiet_libraries():
            assert logger.level == logging.CRITICAL
    finally:
        logger.setLevel(before)


WARNS = """
import warnings
from mingmoe_eval.library_noise import quiet_libraries
with quiet_libraries():
    warnings.warn("of a library", FutureWarning)
"""


def test_a_warning_is_left_out_unless_a_filter_asks_for_it():
    def run(*options):
        return subprocess.run(
            [sys.executable, *options, "-c", WARNS], capture_output=True, text=True
        )

    assert run().stderr == ""
    assert "FutureWarning: of a library" in run("-W", "default").stderr
    assert run("-W", "error").returncode == 1


def test_errors_of_a_library_still_come(caplog):
    with quiet_libraries():
        logging.getLogger("lm_eval.api.task").warning("advice")
        logging.getLogger("lm_eval.api.task").error("a fault")
    assert caplog.messages == ["a fault"]
