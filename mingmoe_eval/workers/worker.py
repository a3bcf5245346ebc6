"""One model in a process of its own: answers shards of questions, piece by piece."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
