"""Workers in threads of the test's own process: they die, hang and refuse on command."""

import threading
from collections.abc import Callable, Iterator

from mingmoe_eval.errors import MingMoeError
from mingmoe_eval.workers.packing import PackedQuestions, Piece
from mingmoe_eval.workers.worker import (
    OpenBackend,
    Opened,
    Worker,
    WorkerDiedError,
    WorkerFailedError,
)


class ThreadWorker:
    """A `Remote`; `pieces_until_death`: after so many it dies, `hangs`: it gives none, ever."""

    def __init__(
        self,
        open_backend: OpenBackend,
        *,
        pieces_until_death: int | None = None,
        hangs: bool = False,
        placed: bool = True,
    ) -> None:
        self._worker = Worker(open_backend, piece_seconds=0.0)
        self._left, self._hangs, self._placed = pieces_until_death, hangs, placed
        self._killed = threading.Event()
        self.stopped: list[int] = []

    def is_placed(self, seconds: float) -> bool:
        return self._placed or self._killed.wait(min(seconds, 0.01))

    def open(self) -> Opened | MingMoeError:
        return self._worker.open()

    def work(self, number: int, questions: PackedQuestions) -> Iterator[Piece | MingMoeError]:
        if self._hangs:
            self._killed.wait()
        try:
            for piece in self._worker.work(number, questions):
                if self._killed.is_set() or self._left == 0:
                    raise WorkerDiedError("killed")
                self._left = None if self._left is None else self._left - 1
                yield piece
        except ZeroDivisionError as error:
            raise WorkerFailedError(repr(error)) from error
        if self._killed.is_set():
            raise WorkerDiedError("killed")

    def stop(self, number: int) -> None:
        self.stopped.append(number)
        self._worker.stop(number)

    def kill(self) -> None:
        self._killed.set()


def healthy(open_backend: OpenBackend) -> Callable[[int], ThreadWorker]:
    return lambda worker: ThreadWorker(open_backend)
