"""Workers as actors of Ray, on this machine or a cluster: the one door to Ray.

Ray starts and places processes, and says when one is gone; what to compute again is decided here.
`RELIES_ON`, `OF_A_NODE` and `BACKPRESSURE` name what is used of it that its documentation does not
promise; a test resolves each, so that a release that takes one away is found by its name.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mingmoe_eval.errors import MingMoeError, UsageError
from mingmoe_eval.workers.crew import Crew
from mingmoe_eval.workers.packing import PackedQuestions, Piece
from mingmoe_eval.workers.worker import (
    OpenBackend,
    Opened,
    Remote,
    Spawn,
    Worker,
    WorkerDiedError,
    WorkerFailedError,
)

RELIES_ON = (
    "actor.ActorMethod",
    "exceptions.RayError",
    "exceptions.RayTaskError",
    "kill",
    "nodes",
)
"""Below `ray`."""

OF_A_NODE = ("Alive", "Resources")
"""What `ray.nodes` tells of each."""

BACKPRESSURE = "_generator_backpressure_num_objects"
"""The option of a method that streams: how many of its pieces may wait to be taken."""

# Pieces are small and taken at once; Ray's own default is a third of the machine's memory.
_OBJECT_STORE_BYTES = 256 * 2**20
# A worker waits when so many of its pieces were not taken.
_PIECES_AHEAD = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where workers are to run, as the user says.

    `workers`: None for as many as the cluster's GPUs allow, without GPUs one a machine;
    `address`: of a running cluster, None for this machine alone; `gpus_per_worker`: None for one
    where there are any.
    """

    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: give a number from 1 up")
        gpus = self.gpus_per_worker
        if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
            raise UsageError(
                f"--gpus-per-worker {gpus:g}: give 0, a part of one, or a whole number"
            )


@dataclass(slots=True, kw_only=True)
class RayCluster:
    """A cluster that this process is connected to, and what a worker gets of it."""

    workers: int
    cpus: int
    gpus: float
    resources: str
    _crew: Crew | None = None

    def crew(self, open_backend: OpenBackend, on_note: Callable[[str], None]) -> Crew:
        """Workers that load this model; those of the model before end."""
        self.release()
        spawn = self._spawn(open_backend)
        self._crew = Crew(spawn, self.workers, on_note=on_note, waits_for=self._waits_for)
        return self._crew

    def release(self) -> None:
        """End the workers."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _spawn(self, open_backend: OpenBackend) -> Spawn:
        import ray

        kind = ray.remote(Worker).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=0,  # the crew replaces the dead, and counts them
            max_concurrency=2,  # so that `stop` is heard during `work`
            scheduling_strategy="SPREAD",
        )
        sent = ray.put(open_backend)
        return lambda worker: _Actor(kind.remote(sent))

    @property
    def _waits_for(self) -> str:
        """What a worker needs and what there is, for people."""
        return (
            f"A worker needs {self.cpus} CPU and {self.gpus:g} GPU, the cluster has "
            f"{self.resources}: give less with --gpus-per-worker, or add machines"
        )


@contextlib.contextmanager
def connected(places: Places) -> Iterator[RayCluster]:
    """A cluster: one that runs already, or one on this machine that ends with the block.

    Raises:
        UsageError: nobody answers at the address, or no machine has GPUs enough for a worker.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _private_token() if places.address is None else contextlib.nullcontext():
        import ray

        try:
            _connect(places)
            cluster = _measured(places)
            try:
                yield cluster
            finally:
                cluster.release()
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _private_token() -> Iterator[None]:
    """Whoever may use a cluster may run code: this one is for this process alone."""
    if "RAY_AUTH_MODE" in os.environ:
        yield
        return
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update(secret)
    try:
        yield
    finally:
        for name in secret:
            os.environ.pop(name, None)


def _connect(places: Places) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if places.address is None:
        cpus = max(os.cpu_count() or 1, places.workers or 1)
        store = _OBJECT_STORE_BYTES
        ray.init(
            "local", num_cpus=cpus, include_dashboard=False, object_store_memory=store, **quiet
        )
        return
    try:
        ray.init(places.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray-address {places.address}: no Ray cluster of this version answers there "
            f"({str(error).splitlines()[0]}); start one with `ray start --head`"
        ) from error


def _measured(places: Places) -> RayCluster:
    """What there is, shared out among the workers."""
    import ray

    every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive, resources = OF_A_NODE
    nodes = [node[resources] for node in every if node[alive]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    a_worker = places.gpus_per_worker
    if a_worker is None:
        a_worker = 1 if gpus else 0
    if a_worker > max(node.get("GPU", 0) for node in nodes):
        raise UsageError(f"--gpus-per-worker {a_worker:g}: no machine of the cluster has so many")
    workers = places.workers or max(1, int(gpus / a_worker) if a_worker else len(nodes))
    share = min(sum(cpus) // workers, max(cpus, default=1))
    return RayCluster(
        workers=workers,
        cpus=max(1, share),
        gpus=a_worker,
        resources=f"{sum(cpus)} CPU and {gpus:g} GPU on {len(nodes)} machines",
    )


class _Actor(Remote):
    """One actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._placed: Any = None

    def is_placed(self, seconds: float) -> bool:
        import ray

        # The first method answers when the actor's process is there.
        if self._placed is None:
            self._placed = self._actor.stop.remote(0)
        done, _ = ray.wait([self._placed], timeout=seconds)
        return bool(done)

    def open(self) -> Opened | MingMoeError:
        import ray

        with _translated():
            ray.get(self._placed)
            opened: Opened | MingMoeError = ray.get(self._actor.open.remote())
            return opened

    def work(self, number: int, questions: PackedQuestions) -> Iterator[Piece | MingMoeError]:
        import ray

        with _translated():
            pieces = self._actor.work.options(
                num_returns="streaming", **{BACKPRESSURE: _PIECES_AHEAD}
            ).remote(number, questions)
            for piece in pieces:
                yield ray.get(piece)

    def stop(self, number: int) -> None:
        self._actor.stop.remote(number)

    def kill(self) -> None:
        import ray

        # Whatever Ray has to say of an actor that is gone already.
        with contextlib.suppress(Exception):
            ray.kill(self._actor)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    import ray.exceptions as errors

    try:
        yield
    except errors.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        raise WorkerFailedError(f"{type(cause).__name__}: {cause}") from cause
    except errors.RayError as error:
        raise WorkerDiedError(_in_short(error)) from error


def _in_short(error: Exception) -> str:
    """The line of Ray's explanation that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("The actor is dead because")]
    return (telling or lines or [type(error).__name__])[0].partition(" Worker exit type")[0][:300]
