"""The processes that `accelerate launch` or `torchrun` started, as workers of the first of them.

They talk through the key-value store of torch's rendezvous, not through collectives: the first
process alone reads data, writes files and speaks, the others load the model and answer shards.
"""

import contextlib
import dataclasses
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mingmoe_eval.engine.backend import Checkpoint
from mingmoe_eval.errors import MingMoeError, UsageError
from mingmoe_eval.workers.crew import Crew
from mingmoe_eval.workers.packing import PackedQuestions, Piece
from mingmoe_eval.workers.worker import Opened, Remote, Worker, WorkerDiedError, WorkerFailedError

_POLL_SECONDS = 0.02
_BEAT_SECONDS = 2.0
# A process that was not heard of for so long is gone: its launcher should have ended the others.
_SILENT_SECONDS = 60.0
_FAREWELL_SECONDS = 10.0
# The store takes no value above 8 MB.
_CHUNK_BYTES = 4 * 2**20


def launched() -> tuple[int, int]:
    """(Number of this process, how many there are) as the launcher says; (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class _Mail:
    """Values under names in the common store; each is read once."""

    def __init__(self, store: Any) -> None:
        self._store = store
        # The store's client answers one call at a time, whoever calls.
        self._lock = threading.Lock()

    def put(self, name: str, value: object) -> None:
        data = pickle.dumps(value)
        chunks = [data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES)]
        with self._lock:
            for number, chunk in enumerate(chunks):
                self._store.set(f"{name}/{number}", chunk)
            self._store.set(name, str(len(chunks)))

    def has(self, name: str) -> bool:
        with self._lock:
            there: bool = self._store.check([name])
            return there

    def take(self, name: str) -> Any:
        """What is there."""
        with self._lock:
            parts = [f"{name}/{number}" for number in range(int(self._store.get(name)))]
            data = b"".join(self._store.get(part) for part in parts)
            for part in (name, *parts):
                self._store.delete_key(part)
        return pickle.loads(data)

    def beat(self, rank: int, count: int) -> int:
        """Add to a process's heartbeats; gives their sum."""
        with self._lock:
            return int(self._store.add(f"beat/{rank}", count))


class Ranks:
    """All processes of this launch, seen from one of them."""

    def __init__(self) -> None:
        from torch import distributed

        self.rank, self.world = launched()
        try:
            store, _, _ = next(iter(distributed.rendezvous("env://")))  # type: ignore[attr-defined]
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"process {self.rank} of {self.world} does not find the others ({error}): start "
                "them with `accelerate launch` or `torchrun`, or take RANK and WORLD_SIZE out of "
                "the environment"
            ) from error
        self._mail = _Mail(distributed.PrefixStore("mingmoe_eval", store))  # type: ignore[attr-defined]
        self._jobs = [0] * self.world
        self._crew: Crew | None = None

    def crew(self, checkpoint: Checkpoint, on_note: Callable[[str], None]) -> Crew:
        """All processes, this one among them, as workers with this model; in the first process."""
        if self._crew is not None:
            self._crew.close()

        def spawn(rank: int) -> Remote:
            if rank == 0:
                return _Here(checkpoint)
            return _There(self._mail, rank, self._next_job, checkpoint)

        self._crew = Crew(spawn, self.world, on_note=on_note)
        return self._crew

    def end(self, status: int) -> None:
        """Let the other processes end with this exit status; in the first process."""
        if self._crew is not None:
            self._crew.close()
        others = range(1, self.world)
        for rank in others:
            self._mail.put(self._next_job(rank), ("end", status))
        # The store may live in this process: it must outlast their reading of it.
        stop = time.monotonic() + _FAREWELL_SECONDS
        while time.monotonic() < stop:
            if all(self._mail.has(f"gone/{rank}") for rank in others):
                return
            time.sleep(_POLL_SECONDS)

    def serve(self) -> int:
        """Answer shards until the first process ends; gives its exit status."""
        stop = threading.Event()
        beating = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        beating.start()
        worker: Worker | None = None
        try:
            while True:
                name = self._next_job(self.rank)
                while not self._mail.has(name):
                    time.sleep(_POLL_SECONDS)
                kind, *given = self._mail.take(name)
                if kind == "end":
                    self._mail.put(f"gone/{self.rank}", True)
                    return int(given[0])
                if kind == "open":
                    worker = None  # its model goes before the next one comes
                    worker = Worker(_on_own_device(given[0]))
                    self._tell(name, iter([worker.open()]))
                else:
                    assert worker is not None
                    self._tell(name, self._until_stopped(worker, *given))
        except RuntimeError:
            return 1  # the store is gone, and the first process with it
        finally:
            stop.set()

    def _next_job(self, rank: int) -> str:
        self._jobs[rank] += 1
        return f"job/{rank}/{self._jobs[rank]}"

    def _tell(self, name: str, said: Iterator[object]) -> None:
        """Send what a job gives, and how it ended: None, or the exception's text."""
        number, failure = 0, None
        try:
            for number, one in enumerate(said, start=1):
                self._mail.put(f"{name}/said/{number}", one)
        except Exception as error:  # told to the first process, which decides
            failure = f"{type(error).__name__}: {error}"
        self._mail.put(f"{name}/said/{number + 1}", _End(failure))

    def _until_stopped(
        self, worker: Worker, number: int, questions: PackedQuestions
    ) -> Iterator[object]:
        for piece in worker.work(number, questions):
            yield piece
            if self._mail.has(f"stop/{self.rank}"):
                worker.stop(self._mail.take(f"stop/{self.rank}"))

    def _beat(self, stop: threading.Event) -> None:
        with contextlib.suppress(RuntimeError):
            while not stop.wait(_BEAT_SECONDS):
                self._mail.beat(self.rank, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    """The last word of a job."""

    failure: str | None


class _Here(Remote):
    """The first process's own worker, in the thread that waits for it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._worker = Worker(_on_own_device(checkpoint))

    def is_placed(self, seconds: float) -> bool:
        return True

    def open(self) -> Opened | MingMoeError:
        with _told():
            return self._worker.open()

    def work(self, number: int, questions: PackedQuestions) -> Iterator[Piece | MingMoeError]:
        with _told():
            yield from self._worker.work(number, questions)

    def stop(self, number: int) -> None:
        self._worker.stop(number)

    def kill(self) -> None:
        """It ends with its process; until then it may finish a pass."""


class _There(Remote):
    """Another process's worker."""

    def __init__(
        self, mail: _Mail, rank: int, next_job: Callable[[int], str], checkpoint: Checkpoint
    ) -> None:
        self._mail, self._rank, self._next_job = mail, rank, next_job
        self._checkpoint = checkpoint
        self._closed = False
        self._beats, self._heard = -1, time.monotonic()

    def is_placed(self, seconds: float) -> bool:
        """A process that fell silent is not replaced, but it may have been only slow."""
        if self._mail.beat(self._rank, 0) > 0:
            return True
        time.sleep(seconds)
        return False

    def open(self) -> Opened | MingMoeError:
        (opened,) = self._ask("open", self._checkpoint)
        answer: Opened | MingMoeError = opened
        return answer

    def work(self, number: int, questions: PackedQuestions) -> Iterator[Piece | MingMoeError]:
        yield from self._ask("work", number, questions)

    def stop(self, number: int) -> None:
        self._mail.put(f"stop/{self._rank}", number)

    def kill(self) -> None:
        self._closed = True

    def _ask(self, *job: object) -> Iterator[Any]:
        name = self._next_job(self._rank)
        self._mail.put(name, job)
        number = 0
        while True:
            number += 1
            self._wait_for(f"{name}/said/{number}")
            said = self._mail.take(f"{name}/said/{number}")
            if not isinstance(said, _End):
                yield said
            elif said.failure is not None:
                raise WorkerFailedError(said.failure)
            else:
                return

    def _wait_for(self, name: str) -> None:
        self._heard = time.monotonic()
        while not self._mail.has(name):
            if self._closed:
                raise WorkerDiedError("closed")
            beats = self._mail.beat(self._rank, 0)
            if beats != self._beats:
                self._beats, self._heard = beats, time.monotonic()
            elif time.monotonic() - self._heard > _SILENT_SECONDS:
                raise WorkerDiedError(
                    f"process {self._rank} was not heard of for {_SILENT_SECONDS:.0f} seconds"
                )
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise WorkerFailedError(f"{type(error).__name__}: {error}") from error


def _on_own_device(checkpoint: Checkpoint) -> Checkpoint:
    """The GPU that the launcher means for this process, unless the user named a device."""
    import torch

    if checkpoint.device != "auto" or not torch.cuda.is_available():
        return checkpoint
    return dataclasses.replace(checkpoint, device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
