"""A training's folder: written whole or not at all, with the record that a resume is held to."""

import contextlib
import hashlib
import json
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from mingmoe_eval.errors import CheckpointError, UsageError, offence_list
from mingmoe_eval.json_files import read_object
from mingmoe_eval.training.spec import TrainingSpec
from mingmoe_eval.whole_files import write_whole

_STATE = re.compile(r"checkpoint-(\d+)")

STAGING = ".mingmoe-eval-unfinished"
"""Where a checkpoint is written before it is moved into place; whatever is found there is stale.

No user gives a folder that name: it is the only one that is ever removed with all that it holds.
"""

LOCK = ".mingmoe-eval-lock"
"""Held by the process that trains into a folder; one that a kill left holds nothing."""

# torch.save says no more than this of a disk that is full.
_TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream")

LAST_FILES = ("non_lora_trainables.bin", "non_lora_trainables.safetensors")
"""The files that make a folder a MoLoRA checkpoint: moved last."""


def refuse_taken(output: Path) -> None:
    """Refuses a folder that holds anything, and a file.

    Raises:
        UsageError: something is there already.
    """
    if output.exists() and (
        not output.is_dir() or any(path.name != LOCK for path in output.iterdir())
    ):
        raise UsageError(
            f"{output} is there already and nothing is overwritten: choose another --output"
        )


def claim_output(output: Path) -> None:
    """Refuses a folder that holds anything, and makes one that is absent.

    Raises:
        UsageError: something is there already.
        CheckpointError: it cannot be made.
    """
    refuse_taken(output)
    with telling(output):
        output.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def only_training_in(output: Path) -> Iterator[None]:
    """Keeps a second training out of a folder as long as this one lasts.

    Raises:
        UsageError: another one is in it.
        CheckpointError: the folder cannot be written.
    """
    from mingmoe_eval.molora.accelerate_door import processes

    if not processes().is_main_process:
        yield
        return
    lock = FileLock(output / LOCK)
    with telling(output), contextlib.suppress(NotImplementedError):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"another training is writing {output}: wait for it, or choose another --output"
            ) from error
    try:
        yield
    finally:
        (output / LOCK).unlink(missing_ok=True)
        lock.release()


def refuse_small_disk(output: Path, needed: int) -> None:
    """Refuses a disk with less than `needed` bytes left.

    Raises:
        CheckpointError: too little room.
    """
    with telling(output):
        free = shutil.disk_usage(output).free
    if free < needed:
        raise CheckpointError(
            f"{output} has {free / 1e9:.2f} GB left, and this needs about {needed / 1e9:.2f} GB: "
            "make room, keep fewer training states (--keep), or choose another --output"
        )


def staging_folder(output: Path) -> Path:
    """An empty folder below `output` to write into."""
    staging = output / STAGING
    with telling(output):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
    return staging


def move_files(staging: Path, output: Path) -> None:
    """Moves every file into place, and removes the staging folder."""
    with telling(output):
        # A kill in between must leave a folder that no loader takes for whole.
        for path in sorted(staging.iterdir(), key=lambda path: path.name in LAST_FILES):
            path.replace(output / path.name)
        staging.rmdir()


def move_folder(staged: Path, place: Path) -> None:
    """Moves a folder into place, instead of the one that is there; what it has besides stays."""
    old = place.with_name(f".{place.name}.mingmoe-eval-old")
    with telling(place):
        if not place.exists():
            staged.replace(place)
            return
        place.replace(old)
        staged.replace(place)
        drop_state(old, like=place)
        if old.exists():  # what is not ours lies there
            for path in old.iterdir():
                path.replace(place / path.name)
            old.rmdir()


def drop_state(state: Path, like: Path) -> None:
    """Removes an old training state: the files that another one has too, and the folder then."""
    with contextlib.suppress(OSError):  # something of the user's lies there
        for path in like.iterdir():
            (state / path.name).unlink(missing_ok=True)
        state.rmdir()


@contextlib.contextmanager
def telling(place: Path) -> Iterator[None]:
    """Turns what a full or broken disk raises into one message.

    Raises:
        CheckpointError: writing failed.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise _failure(place, error) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _TORCH_CANNOT_WRITE):
            raise
        raise _failure(place, error) from error


def _failure(place: Path, error: Exception) -> CheckpointError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return CheckpointError(
        f"{place} cannot be written ({reason}); what was written before is whole: make room, and "
        "go on with --resume last if there is a training state"
    )


RECORD_FILE = "training.json"


def training_states(output: Path) -> dict[int, Path]:
    """The training states in a folder, by their step."""
    found = ((_STATE.fullmatch(path.name), path) for path in output.glob("checkpoint-*"))
    return {int(match[1]): path for match, path in found if match}


def history_of(state: Path) -> list[dict[str, Any]]:
    """What the Trainer logged up to a training state.

    Raises:
        CheckpointError: the state's file cannot be read.
    """
    file = state / "trainer_state.json"
    found = read_object(file, CheckpointError).get("log_history")
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CheckpointError(f"{file} holds no log_history: go on from another training state")
    return found


def make_record(spec: TrainingSpec) -> dict[str, Any]:
    """What a training's outcome hangs on: the request, the data, and how many processes."""
    from mingmoe_eval.molora.accelerate_door import processes

    return {
        "spec": spec.to_json(),
        "data_sha256": _fingerprints([stream.path for stream in spec.data]),
        "eval_data_sha256": _fingerprints(spec.held_out.files),
        # Another number of them makes other batches.
        "processes": processes().num_processes,
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes what made a checkpoint, with the versions of what computed it."""
    # Not above: what is there already is refused before torch is imported.
    import torch
    import transformers

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    text = json.dumps({**record, "versions": versions}, indent=2, ensure_ascii=False)
    with telling(path):
        write_whole(path, [text, "\n"])


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


def _fingerprints(files: Sequence[Path]) -> list[str | None]:
    """What each file holds; None for one that cannot be read, which reading it will tell."""
    return [
        hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None for file in files
    ]


def _read_record(path: Path) -> dict[str, Any]:
    return _flat(read_object(path, CheckpointError))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
