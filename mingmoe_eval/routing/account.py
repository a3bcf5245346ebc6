"""Whose tokens went through which experts: from the engine's passes to counts of each answer."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from mingmoe_eval.routing.counts import Array, RoutingCounts
from mingmoe_eval.routing.log import Indices, RoutingLog

RoutingSink = Callable[[list[tuple[int, RoutingCounts]]], None]
"""Told (index of the pair or prompt, its counts) of answers that are done."""

_Halves = tuple[Array, Array]
"""Sums of prompt tokens, and of generated ones."""

_Owner = TypeVar("_Owner", bound=Hashable)

_ENOUGH_TEXTS = 64


class TrunkSums:
    """The sums of tokens [start, stop) that many sequences share, by where the prompt ends."""

    def __init__(self, start: int, stop: int, halves: dict[int, _Halves]) -> None:
        self.start, self.stop, self._halves = start, stop, halves

    def halves(self, prompt_stop: int) -> _Halves:
        """Sums before and from `prompt_stop` on."""
        return self._halves[_clip(prompt_stop, self.start, self.stop)]


Below = tuple[TrunkSums, ...]


class Placed(NamedTuple):
    """A sequence's own tokens in a pass: from its `start` on, at `columns` of the flat input."""

    place: int
    start: int
    columns: Indices


class ScoringRouting:
    """Counts for the pairs of one scoring call, over the prefix tree.

    Args:
        log: listens to the model.
        lengths: of the call's inputs in tokens, by their places in the prefix order.
        prompts_at: at each place, the pairs with that input, and how many of its tokens are each
            one's prompt.
        sink: told the counts.
    """

    def __init__(
        self,
        log: RoutingLog,
        lengths: Sequence[int],
        prompts_at: Sequence[Sequence[tuple[int, int]]],
        sink: RoutingSink,
    ) -> None:
        self._log, self._lengths, self._prompts_at, self._sink = log, lengths, prompts_at, sink

    def trunk_done(self, places: Sequence[int], start: int, stop: int, below: Below) -> Below:
        """The latest pass was of tokens [start, stop), which the sequences at `places` share.

        Gives what rows that grow on them need.
        """
        cuts = {_clip(c, start, stop) for place in places for _, c in self._prompts_at[place]}
        columns = np.arange(stop - start)
        sums = self._take({cut: [columns[: cut - start], columns[cut - start :]] for cut in cuts})
        here = (*below, TrunkSums(start, stop, sums))
        ended = [place for place in places if self._lengths[place] == stop]
        self._sink([answer for place in ended for answer in self._answers(place, here, {}, stop)])
        return here

    def rows_done(self, sequences: Sequence[Placed], below: Below) -> None:
        """The latest pass was of what these sequences have past the trunks `below`."""
        wanted: dict[tuple[int, int], list[Indices]] = {}
        for place, start, columns in sequences:
            for cut in self._cuts(place, start, start + len(columns)):
                wanted[place, cut] = [columns[: cut - start], columns[cut - start :]]
        halves = self._take(wanted)
        self._sink(
            [
                answer
                for place, start, _ in sequences
                for answer in self._answers(place, below, halves, start)
            ]
        )

    def _cuts(self, place: int, start: int, stop: int) -> set[int]:
        return {_clip(prompt, start, stop) for _, prompt in self._prompts_at[place]}

    def _answers(
        self, place: int, below: Below, own: Mapping[tuple[int, int], _Halves], start: int
    ) -> Iterator[tuple[int, RoutingCounts]]:
        """Of each pair at a place: the trunks' sums, and those past `start`, which are its own."""
        length = self._lengths[place]
        # Pairs of one input differ in where their prompt ends alone; those that agree share a sum.
        made: dict[int, RoutingCounts] = {}
        for pair, prompt in self._prompts_at[place]:
            if prompt not in made:
                parts = [trunk.halves(prompt) for trunk in below]
                if length > start:
                    parts.append(own[place, _clip(prompt, start, length)])
                made[prompt] = _counts(parts, prompt, length)
            yield pair, made[prompt]

    def _take(self, wanted: Mapping[_Owner, list[Indices]]) -> dict[_Owner, _Halves]:
        for owner, halves in wanted.items():
            for half, columns in enumerate(halves):
                if len(columns):
                    self._log.claim((owner, half), columns)
        return {owner: (self._log.take((owner, 0)), self._log.take((owner, 1))) for owner in wanted}


class GenerationRouting:
    """Counts for the prompts of one generation call, summed after enough steps."""

    def __init__(self, log: RoutingLog, sink: RoutingSink) -> None:
        self._log, self._sink = log, sink
        self._trunk: tuple[Array, int] | None = None
        self._tokens: dict[int, list[int]] = {}
        self._ended: list[int] = []

    def trunk_done(self, tokens: int) -> None:
        """The latest pass computed the first tokens of every prompt."""
        self._log.claim("trunk", np.arange(tokens))
        self._trunk = self._log.take("trunk"), tokens

    def prompt_done(self, index: int, columns: Indices) -> None:
        """The latest pass read the rest of a prompt."""
        self._log.claim((index, 0), columns)
        shared = self._trunk[1] if self._trunk else 0
        self._tokens[index] = [shared + len(columns), 0]

    def step_done(self, rows: Iterable[tuple[int, int]]) -> None:
        """The latest pass read one generated token for each (index, row)."""
        for index, row in rows:
            self._log.claim((index, 1), np.array([row]))
            self._tokens[index][1] += 1

    def ended(self, index: int) -> None:
        """A text is done; it is told of together with others, since sums take a while."""
        self._ended.append(index)
        if len(self._ended) >= _ENOUGH_TEXTS:
            self._tell()

    def close(self) -> None:
        """Tell of what is done, and drop the rest."""
        self._tell()
        self._log.forget()

    def _tell(self) -> None:
        ended, self._ended = self._ended, []
        self._sink([(index, self._counts_of(index)) for index in ended])

    def _counts_of(self, index: int) -> RoutingCounts:
        prompt = self._log.take((index, 0)) + (self._trunk[0] if self._trunk else 0)
        values = np.stack([prompt, self._log.take((index, 1))])
        return RoutingCounts(values, np.array(self._tokens.pop(index), np.float64))


def _counts(parts: Sequence[_Halves], prompt: int, length: int) -> RoutingCounts:
    values = np.stack([sum(half[phase] for half in parts) for phase in (0, 1)])
    read = min(prompt, length)
    return RoutingCounts(values, np.array([read, length - read], np.float64))


def _clip(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)
