"""What to install when a library of an optional part is absent."""

import re
import shlex


def how_to_install(extra: str) -> str:
    """The pip command that brings an extra's libraries, wherever this package was installed from.

    It names the libraries, not this package: no registry has that, and pip cannot know whether it
    came from a checkout or from a wheel.
    """
    return shlex.join(["pip", "install", *_requirements(extra)])


def _requirements(extra: str) -> list[str]:
    """As `torch<2.14,>=2.6`; with those of the extras that it takes in, which hatchling adds."""
    # Here, for it takes as long to import as the command does to answer --help.
    from importlib import metadata

    try:
        declared = metadata.requires("mingmoe-eval") or []
    except metadata.PackageNotFoundError:  # run_eval.py of a checkout that was never installed
        return [f".[{extra}]"]
    of_extra = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    parts = (line.partition(";") for line in declared)
    named = [requirement.strip() for requirement, _, marker in parts if of_extra.search(marker)]
    return named or [f".[{extra}]"]  # a checkout that has gained the extra since
