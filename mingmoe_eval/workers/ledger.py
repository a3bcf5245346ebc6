"""Which questions go where: cut into shards, held by workers, answered; without model or machine.

What begins alike is computed once where it is together (`engine.prefix_plan`). So questions are
sorted by their tokens, a shard is an interval of that order, and it ends where neighbours have
least in common: between two questions rather than between the options of one. A question may be
held by several workers; the first answer counts, later ones are dropped.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mingmoe_eval.engine.prefix_plan import in_prefix_order
from mingmoe_eval.engine.tokenisation import Tokens

# A shard is this part of the work that is left, over all workers: large ones first, since each
# computes its shared prefixes anew, small ones last, so that all workers end together.
_SHARDS_LEFT_A_WORKER = 2
# Fewer tokens do not fill a pass.
_LEAST_TOKENS = 2048
# What a worker holds, and what a message carries, is bounded.
_MOST_QUESTIONS = 2048
# A shard may be so much smaller or larger than meant, for a better place to end.
_SLACK = 0.5


def cut_into_shards(
    sequences: Sequence[Tokens],
    workers: int,
    *,
    new_tokens: Sequence[int] | None = None,
    least_tokens: int = _LEAST_TOKENS,
) -> list[list[int]]:
    """Indices of the sequences, each once, in shards that follow one another in sorted order.

    Args:
        sequences: token ids of the questions.
        workers: how many share them.
        new_tokens: how many tokens each may generate.
        least_tokens: a shard costs about so much, or it is what was left.
    """
    order, shared = in_prefix_order(sequences)
    costs = np.array([len(sequences[index]) for index in order], np.int64) - shared
    if new_tokens is not None:
        costs += np.array([new_tokens[index] for index in order], np.int64)
    before = np.concatenate([[0], np.cumsum(costs)])
    # An end at the very end shares nothing with what follows.
    shared_at = np.concatenate([shared, [-1]])
    shards, low = [], 0
    while low < len(order):
        left = int(before[-1] - before[low])
        target = max(left / (_SHARDS_LEFT_A_WORKER * workers), least_tokens)
        high = _end(before, shared_at, low, target)
        shards.append(order[low:high])
        low = high
    return shards


def _end(
    before: npt.NDArray[np.int64], shared_at: npt.NDArray[np.int64], low: int, target: float
) -> int:
    """Near the wanted cost, where neighbours share least; of equal places the nearest."""
    last = min(len(before) - 1, low + _MOST_QUESTIONS)
    bounds = before[low] + target * np.array([1 - _SLACK, 1, 1 + _SLACK])
    first, meant, most = np.clip(np.searchsorted(before, bounds), low + 1, last).tolist()
    places = np.arange(first, most + 1)
    best = np.lexsort((np.abs(places - meant), shared_at[places]))[0]
    return int(places[best])


# So many workers may compute the same question: two that hang must not stop a run.
_MOST_COPIES = 3


@dataclass(slots=True)
class LedgerCounts:
    """What happened to the questions of a run beside being answered."""

    handed_out: int = 0
    """Times that a question went to a worker; without deaths and copies, one a question."""
    returned: int = 0
    """Questions that a worker held when it died, and that had to be given to another."""
    copied: int = 0
    """Questions that were given to a second worker while the first still had them."""
    answered_twice: int = 0
    """Answers that came for questions which had one."""


class Ledger:
    """The questions of one call, in shards that are to be given out in this order."""

    def __init__(self, shards: Iterable[Sequence[int]], counts: LedgerCounts | None = None) -> None:
        self._waiting = deque(list(shard) for shard in shards)
        self._unanswered = {index for shard in self._waiting for index in shard}
        self._held: dict[int, list[int]] = {}
        self._lone_deaths = 0
        self.counts = counts if counts is not None else LedgerCounts()

    @property
    def done(self) -> bool:
        """Whether every question has an answer."""
        return not self._unanswered

    @property
    def lone_deaths(self) -> int:
        """Deaths of workers that held a single question, since a question was answered."""
        return self._lone_deaths

    @property
    def all_given(self) -> bool:
        """Whether no question waits to be given out."""
        return not self._waiting

    def give(self, worker: int, *, late: bool = False) -> list[int]:
        """Questions for an idle worker: a shard; or none.

        `late`: where none waits, questions that others hold.
        """
        questions: list[int] = []
        while self._waiting and not questions:
            questions = self._open(self._waiting.popleft())
        if not questions and late:
            questions = self._late_questions()
            self.counts.copied += len(questions)
        if questions:
            self._held[worker] = questions
            self.counts.handed_out += len(questions)
        return questions

    def answered(self, questions: Iterable[int]) -> set[int]:
        """Those of them that had no answer before; they have one now."""
        listed = list(questions)
        new = self._unanswered.intersection(listed)
        self._unanswered -= new
        if new:
            self._lone_deaths = 0
        self.counts.answered_twice += len(listed) - len(new)
        return new

    def finished(self, worker: int) -> None:
        """A worker has answered all that it held, or was told to stop."""
        self._held.pop(worker, None)

    def lost(self, worker: int) -> None:
        """A worker died: what it alone still owed waits again, in halves, behind all that waits.

        So a question that kills its worker is alone in the end, when all others are answered.
        """
        owed = self._open(self._held.pop(worker, ()))
        elsewhere = {index for held in self._held.values() for index in held}
        alone = [index for index in owed if index not in elsewhere]
        middle = len(alone) // 2
        self._waiting.extend(half for half in (alone[:middle], alone[middle:]) if half)
        self.counts.returned += len(alone)
        if len(alone) == 1:
            self._lone_deaths += 1

    def _late_questions(self) -> list[int]:
        """Half of the questions that are held by the fewest workers, from the end.

        Half: their holder, if it is only slow, goes on with the others meanwhile.
        """
        copies: dict[int, int] = dict.fromkeys(self._unanswered, 0)
        for held in self._held.values():
            for index in held:
                if index in copies:
                    copies[index] += 1
        fewest = min(copies.values(), default=_MOST_COPIES)
        if fewest >= _MOST_COPIES:
            return []
        candidates = [
            [index for index in held if copies.get(index) == fewest] for held in self._held.values()
        ]
        most = max(candidates, key=len)
        return most[len(most) // 2 :]

    def _open(self, questions: Iterable[int]) -> list[int]:
        return [index for index in questions if index in self._unanswered]
