"""What made a run: versions, machine, seeds, and fingerprints of weights, data and prompts."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from mingmoe_eval import __version__
from mingmoe_eval.records import JsonDict, Sample, TaskSettings, fingerprint

_PACKAGES = ("lm_eval", "torch", "transformers", "peft", "datasets", "numpy", "scipy", "tokenizers")


class TaskProvenance(TypedDict, total=False):
    """What the verbs read of what stands behind a task's numbers."""

    form: str
    reading: str
    profile: str
    access: str
    data_fingerprint: str | None
    definition: JsonDict


class Provenance(TypedDict, total=False):
    """What the verbs read of a run's provenance; what else it says is shown as it is."""

    tasks: dict[str, TaskProvenance]
    groups: dict[str, TaskProvenance]
    packages: dict[str, str | None]
    created: str


def environment() -> JsonDict:
    """Versions, machine and time; what cannot be known is null, never invented."""
    return {
        "mingmoe_eval": __version__,
        "commit": _checkout_commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def task_provenance(docs: Any, samples: Sequence[Sample], settings: TaskSettings) -> JsonDict:
    """What stands behind one task's numbers: its data, its prompts, its rules.

    Args:
        docs: The task's docs; ours carry `source`, where they came from.
        samples: The samples of the run; their prompts and ids are fingerprinted in order.
        settings: How the task is scored: what of it decides its numbers, or who may see its docs.
    """
    source = getattr(docs, "source", None)
    is_sample = getattr(source, "kind", "") == "sample"
    decisive = {
        "form": settings.form,
        "reading": settings.reading,
        "profile": settings.profile,
        "access": "" if is_sample else settings.access,  # the bundled sample is ours to show
    }
    return {
        "data_path": str(getattr(source, "path", "")) or None,
        "data_fingerprint": getattr(source, "fingerprint", None),
        "data_commit": getattr(source, "commit", None),
        "docs_fingerprint": fingerprint(sorted(sample.doc_id for sample in samples)),
        "prompts_fingerprint": fingerprint([sample.prompt_id for sample in samples]),
        "unusable": [str(row) for row in getattr(docs, "unusable", ())],
        **{name: value for name, value in decisive.items() if value},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _checkout_commit() -> str | None:
    """The commit of the checkout that this package runs from, or None when it is installed."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
