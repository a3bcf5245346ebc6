"""Adds the routing counts of answers to a run's sums, and keeps them beside the stored answers."""

from collections.abc import Sequence
from typing import Protocol

from mingmoe_eval.engine.response_store import ResponseStore
from mingmoe_eval.engine.routing_account import RoutingSink
from mingmoe_eval.molora.routing import RunRouting
from mingmoe_eval.molora.routing_counts import RoutingCounts


class Request(Protocol):
    """As much of lm-eval's Instance as says whose an answer is."""

    task_name: str
    doc_id: int


Routed = tuple[Request, bytes]
"""A request, and the key of its routing: empty where nothing is stored."""


class RoutingRecord:
    """The counts of one call's answers.

    Args:
        routing: the sums that they go into.
        store: keeps them; without it, answers are counted as they come.
    """

    def __init__(self, routing: RunRouting, store: ResponseStore | None) -> None:
        self._routing, self._store = routing, store

    def add_stored(self, answered: Sequence[Routed]) -> None:
        """Counts of answers that came out of the store; such as have none there are told apart."""
        if self._store is None or not answered:
            return
        packed = self._store.get_routing(list({key for _, key in answered}))
        for request, key in answered:
            data = packed.get(key)
            counts = RoutingCounts.from_bytes(data, self._routing.layout) if data else None
            self._routing.add(request.task_name, request.doc_id, counts)

    def sink(self, asked: Sequence[Routed]) -> RoutingSink:
        """What to tell of the counts of answers that the model gives now."""

        def add(counted: list[tuple[int, RoutingCounts]]) -> None:
            for place, counts in counted:
                request, _ = asked[place]
                self._routing.add(request.task_name, request.doc_id, counts)
            if self._store is not None:
                sound = {asked[place][1]: c for place, c in counted if c.is_finite}
                self._store.put_routing({key: c.to_bytes() for key, c in sound.items()})

        return add
