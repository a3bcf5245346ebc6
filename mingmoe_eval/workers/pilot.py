"""One worker kept alive and waited for, in a thread of its own that tells what happens to it."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from mingmoe_eval.errors import MingMoeError
from mingmoe_eval.workers.packing import PackedQuestions, Piece
from mingmoe_eval.workers.worker import Opened

TICK_SECONDS = 1.0
"""How long to wait for anything before looking about."""


class WorkerDiedError(Exception):
    """A worker's process or machine is gone; the text says what is known of it."""


class WorkerFailedError(Exception):
    """An exception in a worker's code, which is its cause."""


class Remote(Protocol):
    """A worker somewhere. What waits for it raises WorkerDiedError or WorkerFailedError."""

    def is_placed(self, seconds: float) -> bool:
        """Wait so long for a machine to run it on."""

    def open(self) -> Opened | MingMoeError:
        """See `Worker`."""

    def work(self, number: int, questions: PackedQuestions) -> Iterator[Piece | MingMoeError]:
        """See `Worker`."""

    def stop(self, number: int) -> None:
        """See `Worker`; does not wait."""

    def kill(self) -> None:
        """End it, whatever it does; what waits for it raises."""


Spawn = Callable[[int], Remote]
"""Starts the worker with this number."""


class Ended(NamedTuple):
    """A shard has no more pieces."""


class Event(NamedTuple):
    """What a pilot tells; `number` is that of the shard that it is about, 0 for none."""

    worker: int
    number: int
    what: Opened | MingMoeError | Piece | Ended | WorkerDiedError | WorkerFailedError


class Pilot(threading.Thread):
    """Keeps one worker alive, gives it what is in the inbox, and tells what it says."""

    def __init__(self, worker: int, spawn: Spawn, events: "queue.Queue[Event]") -> None:
        super().__init__(name=f"pilot of worker {worker}", daemon=True)
        self.loading = False
        self.inbox: queue.SimpleQueue[tuple[int, PackedQuestions] | None] = queue.SimpleQueue()
        self._worker, self._spawn, self._events = worker, spawn, events
        self._remote: Remote | None = None
        self._number = 0
        self._closing = threading.Event()

    def run(self) -> None:
        """Until it is closed, or its worker refuses the model."""
        while not self._closing.is_set():
            self._number, self.loading = 0, False
            self._remote = self._spawn(self._worker)
            try:
                if not self._open(self._remote):
                    return
                while (job := self.inbox.get()) is not None:
                    self._number, questions = job
                    for piece in self._remote.work(self._number, questions):
                        self._tell(piece)
                    self._tell(Ended())
            except (WorkerDiedError, WorkerFailedError) as error:
                self._remote.kill()
                self._tell(error)
            else:
                return

    def stop(self, number: int) -> None:
        """The worker need not go on with a shard."""
        if self._remote is not None:
            self._remote.stop(number)

    def close(self) -> None:
        """End worker and thread; does not wait."""
        self._closing.set()
        self.inbox.put(None)
        if self._remote is not None:
            self._remote.kill()

    def _open(self, remote: Remote) -> bool:
        while not remote.is_placed(TICK_SECONDS):
            if self._closing.is_set():
                return False
        self.loading = True
        opened = remote.open()
        self._tell(opened)
        self.loading = False
        return isinstance(opened, Opened)

    def _tell(self, what: object) -> None:
        event = Event(self._worker, self._number, what)  # type: ignore[arg-type]
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self._events.put(event, timeout=TICK_SECONDS)
                return
