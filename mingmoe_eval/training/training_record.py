"""What made a checkpoint, beside it: written at the beginning, and held to by a resume."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from mingmoe_eval.errors import CheckpointError, UsageError, offence_list
from mingmoe_eval.training.processes import processes
from mingmoe_eval.training.spec import DataStream, TrainingSpec
from mingmoe_eval.training.trainer import training_states
from mingmoe_eval.training.whole_folders import telling

RECORD_FILE = "training.json"


def make_record(spec: TrainingSpec) -> dict[str, Any]:
    """What a training's outcome hangs on: the request, the data, and how many processes."""
    return {
        "spec": spec.to_json(),
        "data_sha256": _fingerprints(spec.data),
        # Another number of them makes other batches.
        "processes": processes().num_processes,
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes what made a checkpoint, with the versions of what computed it."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    text = json.dumps({**record, "versions": versions}, indent=2, ensure_ascii=False)
    with telling(path):
        path.write_text(text + "\n", "utf-8")


def state_to_resume(output: Path, resume: str, record: dict[str, Any]) -> Path:
    """The training state that `resume` means, "last" or a step, if it was begun with this record.

    Raises:
        UsageError: no such state, or another request, other data or other processes.
        CheckpointError: the record of the beginning cannot be read.
    """
    states = training_states(output)
    if not states:
        raise UsageError(
            f"{output} has no training state to resume from: begin anew without --resume, in "
            "another --output"
        )
    known = ", ".join(map(str, sorted(states)))
    if resume != "last" and not (resume.isdigit() and int(resume) in states):
        raise UsageError(f"{output} has no training state of step {resume!r}; there are {known}")
    before = _read_record(output / RECORD_FILE)
    changes = [
        f"{name}: {before.get(name)!r} became {value!r}"
        for name, value in _flat(record).items()
        if before.get(name) != value
    ]
    if changes:
        headline = f"{output} was begun with other settings, and a resume goes on with the same:"
        raise UsageError(offence_list(headline, changes))
    return states[max(states) if resume == "last" else int(resume)]


def _fingerprints(data: Sequence[DataStream]) -> list[str | None]:
    """What each file holds; None for one that cannot be read, which reading it will tell."""
    return [
        hashlib.sha256(stream.path.read_bytes()).hexdigest() if stream.path.is_file() else None
        for stream in data
    ]


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return _flat(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
