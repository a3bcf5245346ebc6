"""One model in a process of its own, and the thread that keeps it alive and waits for it.

A `Worker` answers shards of questions, piece by piece; a `Remote` is one somewhere else; a `Pilot`
gives it work and tells what becomes of it.
"""

import contextlib
import importlib.metadata
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mingmoe_eval import __version__
from mingmoe_eval.engine.backend import Backend, ModelFacts
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.errors import MingMoeError
from mingmoe_eval.records import JsonDict
from mingmoe_eval.routing.counts import RoutingCounts
from mingmoe_eval.workers.packing import Answered, PackedQuestions, Piece

# What a worker has computed and not yet told is lost with it.
_PIECE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A worker's model, as the worker sees it.

    `host`, `process`: where it is; `software`: versions that decide on numbers, by name.
    """

    facts: ModelFacts
    weights_fingerprint: str
    settings_fingerprint: str
    tokenizer_fingerprint: str
    description: JsonDict
    effect: float | None
    host: str
    process: int
    software: dict[str, str]

    def differences(self, other: "Opened") -> list[str]:
        """In what another worker's model may give other answers."""
        mine, theirs = self._deciding(), other._deciding()
        return [
            f"{name}: {mine.get(name)} against {theirs.get(name)}"
            for name in mine.keys() | theirs.keys()
            if mine.get(name) != theirs.get(name)
        ]

    def _deciding(self) -> dict[str, object]:
        return {
            "weights": self.weights_fingerprint,
            "settings": self.settings_fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            "longest input": self.facts.longest_input,
            **self.software,
        }


OpenBackend = Callable[[], tuple[Backend, str]]
"""Loads a model; gives it with its tokenizer's fingerprint. Travels to the workers."""


class Worker:
    """Answers one shard at a time; may be told from another thread to stop.

    `piece_seconds`: what it has computed and not told for so long, it tells.
    """

    def __init__(self, open_backend: OpenBackend, piece_seconds: float = _PIECE_SECONDS) -> None:
        self._open_backend, self._piece_seconds = open_backend, piece_seconds
        self._backend: Backend | None = None
        self._stopped = 0

    def open(self) -> Opened | MingMoeError:
        """Load the model; a mistake of the user's is given back, not raised."""
        try:
            self._backend, of_tokenizer = self._open_backend()
            return _opened(self._backend, of_tokenizer)
        except MingMoeError as error:
            return error

    def work(self, number: int, questions: PackedQuestions) -> Iterator[Piece | MingMoeError]:
        """Answers of a shard as they come; `number` grows from shard to shard."""
        assert self._backend is not None
        try:
            answered: list[Answered] = []
            told = time.monotonic()
            for some in _answers(self._backend, questions):
                if number <= self._stopped:
                    return
                answered += some
                if answered and time.monotonic() - told >= self._piece_seconds:
                    yield Piece.of(answered)
                    answered, told = [], time.monotonic()
            if answered:
                yield Piece.of(answered)
        except MingMoeError as error:
            yield error

    def stop(self, number: int) -> None:
        """Nobody needs the answers of this shard any more, nor of earlier ones."""
        self._stopped = max(self._stopped, number)


def _opened(backend: Backend, of_tokenizer: str) -> Opened:
    return Opened(
        facts=backend.facts,
        effect=backend.probe(),
        weights_fingerprint=backend.weights_fingerprint,
        settings_fingerprint=backend.settings_fingerprint,
        tokenizer_fingerprint=of_tokenizer,
        description=backend.describe(),
        host=platform.node(),
        process=os.getpid(),
        software={
            "mingmoe_eval": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
    )


def _answers(backend: Backend, questions: PackedQuestions) -> Iterator[list[Answered]]:
    """Answers with their routing: one without the other is not told, so both come or neither."""
    counted: dict[int, RoutingCounts] = {}
    waiting: dict[int, StoredAnswer] = {}

    def count(counts: list[tuple[int, RoutingCounts]]) -> None:
        counted.update(counts)

    routed = backend.facts.routing_layout is not None
    sink = count if routed else None
    if questions.kind == "score":
        computed = backend.score(questions.pairs(), sink)
    else:
        computed = backend.generate(questions.prompts(), sink)
    for some in computed:
        waiting.update(some)
        ready = [place for place in waiting if place in counted or not routed]
        yield [(place, waiting.pop(place), _packed(counted.pop(place, None))) for place in ready]
    # A pair without targets has no routing; that of the last texts comes after the last step.
    yield [(place, answer, _packed(counted.get(place))) for place, answer in waiting.items()]


def _packed(counts: RoutingCounts | None) -> bytes | None:
    return None if counts is None else counts.to_bytes()


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
