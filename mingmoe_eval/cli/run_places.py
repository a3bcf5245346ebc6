"""Where runs are computed: here, by vLLM, by workers of Ray, or by all processes of a launch."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mingmoe_eval.cli.exits import EXIT_BUG, EXIT_DONE, EXIT_INTERRUPTED, EXIT_USER_MISTAKE
from mingmoe_eval.errors import MingMoeError, UsageError

if TYPE_CHECKING:
    from mingmoe_eval.engine.backend import Checkpoint
    from mingmoe_eval.language_model import LanguageModel
    from mingmoe_eval.model_opening import OpenModel, Watch
    from mingmoe_eval.records import RunSpec
    from mingmoe_eval.workers.ray_cluster import Places


@contextlib.contextmanager
def opener(
    workers: int | None, ray_address: str | None, gpus_per_worker: float | None
) -> Iterator["OpenModel | None"]:
    """How to open models, for as long as the block lasts; None: as a run does by itself.

    In all processes of a launch but the first it never gets to the block.
    """
    rank, world = int(os.environ.get("RANK", "0")), launched_processes()
    with_ray = workers is not None or ray_address is not None
    if gpus_per_worker is not None and not with_ray:
        raise UsageError("--gpus-per-worker is for --workers or --ray-address: give one of them")
    if with_ray and world > 1:
        raise UsageError(
            "--workers and --ray-address start workers themselves: run the command without "
            "`accelerate launch` or `torchrun`"
        )
    if with_ray:
        from mingmoe_eval.workers.ray_cluster import Places

        places = Places(workers=workers, address=ray_address, gpus_per_worker=gpus_per_worker)
        with _over_ray(places) as open_model:
            yield open_model
    elif world > 1:
        with _over_ranks(rank) as open_model:
            yield open_model
    else:
        yield None


@contextlib.contextmanager
def by_backend(spec: "RunSpec", open_model: "OpenModel | None") -> Iterator["OpenModel | None"]:
    """How one run opens its model: an engine of vLLM's ends with the block.

    `open_model`: of workers, which have engines of their own; None without any.
    """
    if spec.backend == "local":
        yield open_model
        return
    if open_model is not None:
        if launched_processes() > 1:
            raise UsageError(
                "vLLM starts its processes itself: run the command without `accelerate launch` or "
                "`torchrun`, and with --tensor-parallel or --workers"
            )
        yield open_model
        return
    from mingmoe_eval.vllm.backend import open_model as open_with_vllm

    with contextlib.ExitStack() as until_the_end:

        def open_and_end(spec: "RunSpec", folder: Path | None, watch: "Watch") -> "LanguageModel":
            model = open_with_vllm(spec, folder, watch)
            until_the_end.callback(model.close)
            return model

        yield open_and_end


def launched_processes() -> int:
    """How many processes a launcher started, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def _over_ray(places: "Places") -> Iterator["OpenModel"]:
    from mingmoe_eval.model_opening import open_named
    from mingmoe_eval.workers.ray_cluster import RayCluster, connected

    with contextlib.ExitStack() as until_the_end:
        cluster: list[RayCluster] = []

        def open_model(spec: "RunSpec", folder: Path | None, watch: "Watch") -> "LanguageModel":
            def start(checkpoint: "Checkpoint", on_note: Callable[[str], None]) -> Any:
                # Not before the first model is wanted: a typing mistake should not wait for Ray.
                if not cluster:
                    cluster.append(until_the_end.enter_context(connected(places)))
                if spec.backend == "local":
                    return cluster[0].crew(checkpoint.anywhere(), on_note)
                from mingmoe_eval.vllm.backend import VllmCheckpoint

                return cluster[0].crew(VllmCheckpoint.of(spec, checkpoint).anywhere(), on_note)

            return open_named(spec, folder, watch, start=start)

        yield open_model


@contextlib.contextmanager
def _over_ranks(rank: int) -> Iterator["OpenModel"]:
    if rank > 0:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            from mingmoe_eval.workers.ranks import Ranks

            status = Ranks().serve()
        raise typer.Exit(status)
    from mingmoe_eval.model_opening import open_named
    from mingmoe_eval.workers.ranks import Ranks

    ranks = Ranks()
    try:
        yield functools.partial(open_named, start=ranks.crew)
    finally:
        ranks.end(_status(sys.exc_info()[1]))


def _status(error: BaseException | None) -> int:
    """What this process will end with, given what ends its work."""
    if error is None:
        return EXIT_DONE
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return EXIT_USER_MISTAKE if isinstance(error, MingMoeError | ModuleNotFoundError) else EXIT_BUG
