"""Runs in processes of their own, to be killed: what those processes execute.

Imported once by multiprocessing's fork server, which then starts each process in milliseconds.
"""

import os
import resource
from pathlib import Path

import torch

from mingmoe_eval.demo import ADAPTER, checkpoints_dir
from mingmoe_eval.engine import CheckpointLM  # noqa: F401  imported here, once for all processes
from mingmoe_eval.errors import RunStoreError
from mingmoe_eval.evaluation import evaluate
from mingmoe_eval.records import RunSpec
from mingmoe_eval.run_store import RUN_FILE, UNFINISHED_FILE

SPEC = RunSpec(
    model=str(checkpoints_dir() / ADAPTER),
    tasks=("usmle_ll", "mcmle"),
    sample=True,
    limit=2,
    dtype="float32",
    device="cpu",
    cache=False,  # the answers lie in the run folder, so that a killed run is all there is
)


def run_or_go_on(folder: Path) -> None:
    """What a user does who finds a folder in any state: start, go on, or leave it finished."""
    quieten()
    if not (folder / RUN_FILE).exists():
        evaluate(SPEC, folder=folder, resume=(folder / UNFINISHED_FILE).exists())


def run_with_small_files(folder: Path, most_bytes: int, said: Path) -> None:
    """A run on a disk that refuses files beyond a size, as a full one does."""
    quieten()
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        evaluate(SPEC, folder=folder)
    except RunStoreError as error:
        os.write(os.open(said, os.O_CREAT | os.O_WRONLY), str(error).encode()[:most_bytes])


def quieten() -> None:
    torch.set_num_threads(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
