"""Folders that appear whole or not at all, and room for them before work begins."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from mingmoe_eval.errors import CheckpointError, UsageError

STAGING = "unfinished"
"""Where a checkpoint is written before it is moved into place; whatever is found there is stale."""

# torch.save says no more than this of a disk that is full.
_TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream")

LAST_FILES = ("non_lora_trainables.bin", "non_lora_trainables.safetensors")
"""The files that make a folder a MoLoRA checkpoint: moved last."""


def claim_output(output: Path) -> None:
    """Refuses a folder that holds anything, and makes one that is absent.

    Raises:
        UsageError: something is there already.
        CheckpointError: it cannot be made.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"{output} is there already and nothing is overwritten: choose another --output"
        )
    with telling(output):
        output.mkdir(parents=True, exist_ok=True)


def refuse_small_disk(output: Path, needed: int) -> None:
    """Refuses a disk with less than `needed` bytes left.

    Raises:
        CheckpointError: too little room.
    """
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
        for path in sorted(staging.iterdir(), key=lambda path: path.name in LAST_FILES):
            path.replace(output / path.name)
        staging.rmdir()


def move_folder(staged: Path, place: Path) -> None:
    """Moves a folder into place, instead of whatever is there."""
    with telling(place):
        shutil.rmtree(place, ignore_errors=True)
        staged.replace(place)


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
