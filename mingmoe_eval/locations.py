"""Where things are: the bundled task definitions, and the folder for stored responses."""

import os
from pathlib import Path


def tasks_dir() -> Path:
    """The folder of task definitions: inside the installed package, else the checkout's."""
    bundled = Path(__file__).parent / "_bundled" / "tasks"
    return bundled if bundled.is_dir() else Path(__file__).parents[1] / "tasks"


def cache_dir() -> Path:
    """Where responses are kept between runs: $MINGMOE_EVAL_CACHE, else the user's cache folder."""
    if own := os.environ.get("MINGMOE_EVAL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mingmoe-eval"
