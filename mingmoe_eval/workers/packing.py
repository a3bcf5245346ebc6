"""Questions and answers as few bytes, since the driver carries all of them.

Questions of a shard follow one another in sorted order: each is sent as what it has beyond its
predecessor, so that 5 examples in front of 1,000 questions travel once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mingmoe_eval.engine.prefix_plan import common_length
from mingmoe_eval.engine.prompts import GenerationSettings, Prompt
from mingmoe_eval.engine.response_store import StoredAnswer
from mingmoe_eval.engine.tokenisation import EncodedPair, Tokens
from mingmoe_eval.routing.counts import RoutingCounts, RoutingLayout

Kind = Literal["score", "generate"]
Question = EncodedPair | Prompt


@dataclass(frozen=True, slots=True, eq=False)
class PackedTokens:
    """Token sequences, each without what it shares with the one before: `shared` [n] of them."""

    shared: npt.NDArray[np.int32]
    own: npt.NDArray[np.int32]
    tokens: Tokens

    @classmethod
    def of(cls, sequences: Sequence[Tokens]) -> "PackedTokens":
        """Pack; unpacking gives the same sequences in the same order."""
        shared = [0] * len(sequences)
        for place in range(1, len(sequences)):
            shared[place] = common_length(sequences[place - 1], sequences[place])
        own = [tokens[start:] for tokens, start in zip(sequences, shared, strict=True)]
        return cls(
            np.array(shared, np.int32),
            np.array([len(tokens) for tokens in own], np.int32),
            np.concatenate(own) if own else np.empty(0, np.int32),
        )

    def unpack(self) -> list[Tokens]:
        """The sequences."""
        found: list[Tokens] = []
        before = np.empty(0, np.int32)
        own = np.split(self.tokens, np.cumsum(self.own)[:-1]) if len(self.own) else []
        for shared, tokens in zip(self.shared.tolist(), own, strict=True):
            before = np.concatenate([before[:shared], tokens])
            found.append(before)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class PackedQuestions:
    """A shard: all of one kind. Columns that the kind does not have are empty."""

    kind: Kind
    tokens: PackedTokens
    n_targets: npt.NDArray[np.int32]
    settings: tuple[GenerationSettings, ...] = ()
    settings_of: npt.NDArray[np.int32] | None = None
    opened: tuple[str, ...] = ()
    repeats: tuple[int, ...] = ()

    @classmethod
    def of_pairs(cls, pairs: Sequence[EncodedPair]) -> "PackedQuestions":
        """Pairs to score."""
        targets = np.array([pair.n_targets for pair in pairs], np.int32)
        return cls("score", PackedTokens.of([pair.tokens for pair in pairs]), targets)

    @classmethod
    def of_prompts(cls, prompts: Sequence[Prompt]) -> "PackedQuestions":
        """Prompts to continue."""
        numbers: dict[GenerationSettings, int] = {}
        of = [numbers.setdefault(prompt.settings, len(numbers)) for prompt in prompts]
        return cls(
            "generate",
            PackedTokens.of([prompt.tokens for prompt in prompts]),
            np.empty(0, np.int32),
            tuple(numbers),
            np.array(of, np.int32),
            tuple(prompt.opened for prompt in prompts),
            tuple(prompt.repeat for prompt in prompts),
        )

    def pairs(self) -> list[EncodedPair]:
        """The pairs again; whether a prompt was cut is not the worker's concern."""
        tokens = self.tokens.unpack()
        return [EncodedPair(one, n) for one, n in zip(tokens, self.n_targets.tolist(), strict=True)]

    def prompts(self) -> list[Prompt]:
        """The prompts again."""
        assert self.settings_of is not None
        columns = (self.settings_of.tolist(), self.opened, self.repeats)
        return [
            Prompt(tokens, self.settings[number], opened, repeat)
            for tokens, number, opened, repeat in zip(self.tokens.unpack(), *columns, strict=True)
        ]


class ReceivedCounts(RoutingCounts):
    """Routing counts that came packed, and go into the store as they came."""

    __slots__ = ("_packed",)
    _packed: bytes

    def to_bytes(self) -> bytes:
        """What came; packing it again would take longer than all else that is done with it."""
        return self._packed

    @classmethod
    def of(cls, packed: bytes, layout: RoutingLayout) -> "ReceivedCounts | None":
        """Unpack; None if it belongs to another layout."""
        counts = RoutingCounts.from_bytes(packed, layout)
        if counts is None:
            return None
        received = cls(counts.values, counts.tokens)
        object.__setattr__(received, "_packed", packed)
        return received


Answered = tuple[int, StoredAnswer, bytes | None]
"""The place of a question in its shard, its answer, and its packed routing counts if it has any."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some answers of a shard, by the places of their questions in it."""

    places: npt.NDArray[np.int32]
    log_likelihoods: npt.NDArray[np.float64] | None
    greedy: npt.NDArray[np.bool_] | None
    texts: tuple[StoredAnswer, ...] | None
    routing: tuple[bytes | None, ...] | None

    @classmethod
    def of(cls, answered: Sequence[Answered]) -> "Piece":
        """Pack answers of one kind."""
        places = np.array([place for place, _, _ in answered], np.int32)
        routing = tuple(counts for _, _, counts in answered)
        packed = routing if any(counts is not None for counts in routing) else None
        answers = [answer for _, answer, _ in answered]
        if answers and answers[0].log_likelihood is None:
            return cls(places, None, None, tuple(answers), packed)
        values = np.array([answer.log_likelihood for answer in answers], np.float64)
        greedy = np.array([answer.greedy for answer in answers], np.bool_)
        return cls(places, values, greedy, None, packed)

    def answers(self) -> list[Answered]:
        """The answers again, bit for bit."""
        places = self.places.tolist()
        routing: Iterable[bytes | None] = self.routing or (None,) * len(places)
        return list(zip(places, self._stored(), routing, strict=True))

    def _stored(self) -> list[StoredAnswer]:
        if self.texts is not None:
            return list(self.texts)
        assert self.log_likelihoods is not None
        assert self.greedy is not None
        return [
            StoredAnswer(log_likelihood=value, greedy=greedy)
            for value, greedy in zip(
                self.log_likelihoods.tolist(), self.greedy.tolist(), strict=True
            )
        ]
