"""The workers of a run as one backend: shards out, pieces of answers in, whoever dies is replaced.

One thread a worker waits for it (a pilot); all decisions are made in the thread that asks the
questions, one event after the other. A worker holds one shard at a time, so what is under way is
bounded by the number of workers.
"""

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

from mingmoe_eval.engine.backend import Answers, ModelFacts
from mingmoe_eval.engine.prompts import Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.errors import CheckpointError, MingMoeError, offence_list
from mingmoe_eval.records import JsonDict
from mingmoe_eval.routing.account import RoutingSink
from mingmoe_eval.routing.counts import RoutingCounts
from mingmoe_eval.workers.ledger import Ledger, LedgerCounts, cut_into_shards
from mingmoe_eval.workers.packing import PackedQuestions, Piece, ReceivedCounts
from mingmoe_eval.workers.worker import (
    TICK_SECONDS,
    Ended,
    Event,
    Opened,
    Pilot,
    Spawn,
    WorkerDiedError,
    WorkerFailedError,
)

# Deaths in a row, for each worker, without an answer between them: then it is no accident.
_MOST_DEATHS = 3
# The same for workers that held one question each.
_MOST_LONE_DEATHS = 5
# The same for an exception in a worker's code: it is a bug, and every worker has it.
_MOST_FAILURES = 3
# Nothing waits any more and a worker has been idle so long: it may take from the others.
_LATE_SECONDS = 2.0
# No worker is ready, none is loading, and the cluster has had so long to find a place for one.
_PLACE_SECONDS = 180.0
_EVENTS_A_WORKER = 8
_JOIN_SECONDS = 10.0


class _Told(NamedTuple):
    """New answers, and the routing counts of those that have any, by question."""

    answers: list[tuple[int, StoredAnswer]]
    routing: list[tuple[int, RoutingCounts]]


class _Shard(NamedTuple):
    """What a number stands for: whose questions, and which."""

    ledger: Ledger
    worker: int
    questions: list[int]


class Crew:
    """Workers that all have the same model loaded; a `Backend`.

    Ready as soon as the first worker is; the others join when they are.

    Args:
        spawn: starts a worker, also in place of one that died.
        workers: how many.
        on_note: told of deaths.
        waits_for: what to say when there is no place for a worker.
        place_seconds: how long to wait for a place, when no worker is at work.

    Raises:
        MingMoeError: no worker can load the model, or there is no place for any.
    """

    def __init__(
        self,
        spawn: Spawn,
        workers: int,
        *,
        on_note: Callable[[str], None] = lambda text: None,
        waits_for: str = "",
        place_seconds: float = _PLACE_SECONDS,
    ) -> None:
        self._place_seconds = place_seconds
        self._note, self._waits_for = on_note, waits_for
        self._events: queue.Queue[Event] = queue.Queue(_EVENTS_A_WORKER * workers)
        self._pilots = [Pilot(number, spawn, self._events) for number in range(workers)]
        self._first: Opened | None = None
        self._joined: dict[int, Opened] = {}
        self._hosts: set[str] = set()
        self._idle: set[int] = set()
        self._refused: dict[int, MingMoeError] = {}
        self._shards: dict[int, _Shard] = {}
        self._numbers = 0
        self._deaths = self._deaths_in_a_row = self._failures_in_a_row = 0
        self._counts = LedgerCounts()
        self._last_live = time.monotonic()
        for pilot in self._pilots:
            pilot.start()
        try:
            while self._first is None:
                self._take_events()
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> ModelFacts:
        """See `Backend`."""
        return self._opened.facts

    @property
    def weights_fingerprint(self) -> str:
        """See `Backend`."""
        return self._opened.weights_fingerprint

    @property
    def settings_fingerprint(self) -> str:
        """See `Backend`; nobody changes a worker's model."""
        return self._opened.settings_fingerprint

    def score(self, pairs: Sequence[EncodedPair], on_routing: RoutingSink | None) -> Answers:
        """See `Backend`."""
        shards = cut_into_shards([pair.tokens for pair in pairs], len(self._pilots))

        def pack(shard: list[int]) -> PackedQuestions:
            return PackedQuestions.of_pairs([pairs[index] for index in shard])

        return self._answers(shards, pack, on_routing)

    def generate(self, prompts: Sequence[Prompt], on_routing: RoutingSink | None) -> Answers:
        """See `Backend`."""
        shards = cut_into_shards(
            [prompt.tokens for prompt in prompts],
            len(self._pilots),
            new_tokens=[prompt.settings.most_new_tokens for prompt in prompts],
        )

        def pack(shard: list[int]) -> PackedQuestions:
            return PackedQuestions.of_prompts([prompts[index] for index in shard])

        return self._answers(shards, pack, on_routing)

    def describe(self) -> JsonDict:
        """As one worker describes it, with an account of them all."""
        return {
            **self._opened.description,
            "workers": {
                "workers": len(self._pilots),
                "hosts": sorted(self._hosts),
                "deaths": self._deaths,
                **asdict(self._counts),
            },
        }

    def probe(self) -> float | None:
        """See `Backend`; every worker has passed it."""
        return self._opened.effect

    @property
    def processes(self) -> dict[int, tuple[str, int]]:
        """Machine and process of each worker that has its model loaded."""
        return {worker: (one.host, one.process) for worker, one in self._joined.items()}

    def close(self) -> None:
        """End all workers."""
        for pilot in self._pilots:
            pilot.close()
        stop = time.monotonic() + _JOIN_SECONDS
        for pilot in self._pilots:
            pilot.join(max(0.0, stop - time.monotonic()))

    @property
    def _opened(self) -> Opened:
        assert self._first is not None
        return self._first

    def _answers(
        self,
        shards: list[list[int]],
        pack: Callable[[list[int]], PackedQuestions],
        on_routing: RoutingSink | None,
    ) -> Answers:
        ledger = Ledger(shards, self._counts)
        all_given_at: float | None = None
        try:
            while not ledger.done:
                now = time.monotonic()
                if not ledger.all_given:
                    all_given_at = None
                elif all_given_at is None:
                    all_given_at = now
                late = all_given_at is not None and now - all_given_at >= _LATE_SECONDS
                self._give_out(ledger, pack, late=late)
                told = self._take_events()
                if told.routing and on_routing is not None:
                    on_routing(told.routing)
                if told.answers:
                    yield told.answers
        finally:
            for number, shard in list(self._shards.items()):
                self._pilots[shard.worker].stop(number)
            self._shards.clear()

    def _give_out(
        self, ledger: Ledger, pack: Callable[[list[int]], PackedQuestions], *, late: bool
    ) -> None:
        for worker in sorted(self._idle):
            if not (questions := ledger.give(worker, late=late)):
                return
            self._idle.remove(worker)
            self._numbers += 1
            self._shards[self._numbers] = _Shard(ledger, worker, questions)
            self._pilots[worker].inbox.put((self._numbers, pack(questions)))

    def _take_events(self) -> _Told:
        """Wait for an event, and take all that are there; gives the new answers in them."""
        told = _Told([], [])
        try:
            events = [self._events.get(timeout=TICK_SECONDS)]
        except queue.Empty:
            self._refuse_to_wait_for_ever()
            return told
        while not self._events.empty():
            events.append(self._events.get())
        for event in events:
            if isinstance(event.what, Piece):
                self._take_piece(event.number, event.what, told)
            else:
                self._take_news(event)
        return told

    def _take_piece(self, number: int, piece: Piece, told: _Told) -> None:
        shard = self._shards.get(number)
        if shard is None:
            return  # of a call that is over
        self._deaths_in_a_row = self._failures_in_a_row = 0
        layout = self.facts.routing_layout
        answered = piece.answers()
        new = shard.ledger.answered(shard.questions[place] for place, _, _ in answered)
        for place, answer, packed in answered:
            index = shard.questions[place]
            if index in new:
                told.answers.append((index, answer))
                counts = ReceivedCounts.of(packed, layout) if packed and layout else None
                if counts is not None:
                    told.routing.append((index, counts))

    def _take_news(self, event: Event) -> None:
        what, shard = event.what, self._shards.pop(event.number, None)
        self._last_live = time.monotonic()
        if isinstance(what, Opened):
            self._join(event.worker, what)
        elif isinstance(what, Ended):
            self._idle.add(event.worker)
            if shard is not None:
                shard.ledger.finished(event.worker)
        elif isinstance(what, MingMoeError):
            if event.number and shard is None:
                self._idle.add(event.worker)
                return  # of a call that is over; whoever asks again is told again
            if event.number:
                raise what
            self._refuse(event.worker, what)
        elif isinstance(what, WorkerDiedError | WorkerFailedError):
            self._bury(event.worker, what, shard)

    def _join(self, worker: int, opened: Opened) -> None:
        if self._first is None:
            self._first = opened
        if differences := self._first.differences(opened):
            raise CheckpointError(
                offence_list(
                    f"the workers see different models ({self._first.host} against {opened.host}); "
                    "give every machine the same files and versions:",
                    differences,
                )
            )
        self._joined[worker] = opened
        self._hosts.add(opened.host)
        self._idle.add(worker)

    def _refuse(self, worker: int, error: MingMoeError) -> None:
        self._refused[worker] = error
        if len(self._refused) == len(self._pilots):
            raise error
        self._note(f"worker {worker} is left out: {error}")

    def _bury(
        self, worker: int, death: WorkerDiedError | WorkerFailedError, shard: _Shard | None
    ) -> None:
        self._deaths += 1
        self._idle.discard(worker)
        if shard is not None:
            shard.ledger.lost(worker)
        one = self._joined.pop(worker, None)
        where = f" (process {one.process} on {one.host})" if one is not None else ""
        self._note(f"worker {worker}{where} died, its unfinished questions go to others: {death}")
        if isinstance(death, WorkerFailedError):
            self._failures_in_a_row += 1
            # Others may be about to answer what is left besides a question that has no answer.
            patience = _MOST_FAILURES * (len(self._pilots) if self._shards else 1)
            if self._failures_in_a_row >= patience:
                raise MingMoeError(
                    f"{self._failures_in_a_row} workers in a row failed with {death}"
                ) from death
        self._deaths_in_a_row += 1
        if shard is not None and shard.ledger.lone_deaths >= _MOST_LONE_DEATHS:
            raise MingMoeError(
                f"{_MOST_LONE_DEATHS} workers died over the same question, the last of: {death}. "
                "What was answered is kept: see to the machines' memory, then resume the run"
            ) from death
        if self._deaths_in_a_row >= _MOST_DEATHS * len(self._pilots):
            raise MingMoeError(
                f"{self._deaths_in_a_row} workers died without giving an answer, the last of: "
                f"{death}. What was answered is kept: see to the machines' memory, then resume "
                "the run, perhaps with fewer --workers"
            ) from death

    def _refuse_to_wait_for_ever(self) -> None:
        if self._idle or self._shards or any(pilot.loading for pilot in self._pilots):
            self._last_live = time.monotonic()
        elif time.monotonic() - self._last_live > self._place_seconds:
            raise MingMoeError(
                f"no place for a worker in {self._place_seconds:.0f} seconds. {self._waits_for}"
            )
