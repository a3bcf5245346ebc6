"""Who holds which questions of a call, and which are answered; knows nothing of machines.

A question may be held by several workers; the first answer counts, later ones are dropped.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
