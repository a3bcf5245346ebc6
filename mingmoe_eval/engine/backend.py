"""What computes the answers of a `CheckpointLM`: a model in this process, or many elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mingmoe_eval.engine.generation import Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair
from mingmoe_eval.records import JsonDict
from mingmoe_eval.routing.account import RoutingSink
from mingmoe_eval.routing.counts import RoutingLayout

Answers = Iterator[list[tuple[int, StoredAnswer]]]
"""Answers as they come, each with the index of its question; every question has one in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What must be known of a model before it is asked.

    `generation_defaults`: its generation config, or None.
    """

    longest_input: int
    generation_defaults: Any = None
    routing_layout: RoutingLayout | None = None


class Backend(Protocol):
    """Answers questions that are not in the store."""

    @property
    def facts(self) -> ModelFacts:
        """What must be known before it is asked."""

    @property
    def weights_fingerprint(self) -> str:
        """Equal texts: equal weights."""

    @property
    def settings_fingerprint(self) -> str:
        """Of everything else that decides; read anew each time, as an expert may be masked."""

    def score(self, pairs: Sequence[EncodedPair], on_routing: RoutingSink | None) -> Answers:
        """Log-likelihoods; `on_routing` is told the routing counts of a model with routers."""

    def generate(self, prompts: Sequence[Prompt], on_routing: RoutingSink | None) -> Answers:
        """Texts; likewise."""

    def describe(self) -> JsonDict:
        """What the model is and where it runs, for provenance."""

    def probe(self) -> float | None:
        """The most that the adapter moves a logit; None without an adapter.

        Raises:
            CheckpointError: it moves none, so it is not live; or a logit is not finite.
        """

    def close(self) -> None:
        """Release what it holds."""
