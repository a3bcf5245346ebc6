"""Which lists of questions a printed percentage can be a whole number of right answers of.

A percentage with two decimals gives its list away: of 1,354 questions only every seventh such
number is a whole number of right answers, so that a column of nineteen cells which all are was
counted over that list, or over a multiple of it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mingmoe_eval.exams.facts_files import benchmarks
from mingmoe_eval.task_catalog import TaskCatalog

_TOLERANCE = 1e-9  # of binary fractions: 64.33 is not quite 64.33


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionList:
    """A task, or a group that pools its tasks' questions, with their official numbers."""

    name: str
    parts: Mapping[str, int]

    @property
    def questions(self) -> int:
        """How many there are."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFit:
    """How many cells of a published column are whole numbers of right answers of a list.

    Attributes:
        fitting: Of so many cells.
        cells: The cells that were printed, doubtful ones left out.
        by_chance: Which share of all numbers with so many decimals fits by chance.
    """

    list: QuestionList
    fitting: int
    cells: int
    by_chance: float

    @property
    def tells(self) -> bool:
        """Whether a fit says anything: with more questions than numbers, every number fits."""
        return self.by_chance < 0.5


def right_answers(percentage: float, decimals: int, questions: int) -> int | None:
    """The whole number of right answers that prints as this percentage; None if there is none.

    Args:
        percentage: As printed.
        decimals: With how many decimals it is printed.
        questions: How many there are.
    """
    reach = 0.5 * 10.0**-decimals + _TOLERANCE
    nearest = round(percentage * questions / 100)
    candidates = [right for right in (nearest - 1, nearest, nearest + 1) if 0 <= right <= questions]
    fitting = [r for r in candidates if abs(100 * r / questions - percentage) <= reach]
    return min(fitting, key=lambda r: abs(100 * r / questions - percentage), default=None)


def share_by_chance(decimals: int, questions: int) -> float:
    """Which share of the percentages with so many decimals is a whole number of right answers.

    A half is taken for either of its two roundings.
    """
    steps = round(100 * 10.0**decimals)
    exact = [steps * right / questions for right in range(questions + 1)]
    printed = {math.floor(x + 0.5 + _TOLERANCE) for x in exact}
    return len(printed | {math.ceil(x - 0.5 - _TOLERANCE) for x in exact}) / (steps + 1)


def fits(
    cells: Sequence[float], decimals: Sequence[int], lists: Iterable[QuestionList]
) -> list[ListFit]:
    """Each list with how many cells it fits, the best first."""
    found = [
        ListFit(
            list=one,
            fitting=sum(
                right_answers(cell, places, one.questions) is not None
                for cell, places in zip(cells, decimals, strict=True)
            ),
            cells=len(cells),
            by_chance=math.fsum(share_by_chance(d, one.questions) for d in decimals)
            / max(1, len(decimals)),
        )
        for one in lists
    ]
    return sorted(found, key=lambda fit: -fit.fitting)


def lists_of(task: str, catalog: TaskCatalog) -> list[QuestionList]:
    """The lists that a number of this task could be over: its own, then those that share a part.

    Empty where the official number of questions is not known, as of tasks that are no exams.
    """
    own = _list(task, catalog)
    if own is None:
        return []
    names = [n for n, one in catalog.definitions.items() if n != task and one.is_group]
    others = [found for n in names if (found := _list(n, catalog)) and _one_exam(own, found)]
    return [own, *others]


def _one_exam(own: QuestionList, other: QuestionList) -> bool:
    """Whether the other holds a part of the first, and nothing of any other exam.

    A group of several exams shares all their parts; nobody prints its pooled accuracy under the
    name of one of them.
    """
    exams = benchmarks()
    folders = {exams[name].folders[0] for name in {**own.parts, **other.parts}}
    return bool(own.parts.keys() & other.parts.keys()) and len(folders) == 1


def _list(task: str, catalog: TaskCatalog) -> QuestionList | None:
    exams, parts = benchmarks(), {}
    for leaf in catalog.leaves_of(task):
        rows = exams[leaf].part(None).rows if leaf in exams else None
        if rows is None:
            return None
        parts[leaf] = rows
    return QuestionList(name=task, parts=parts)
