"""Which questions hang together: what their data set says, and what their text shows.

Questions about one case, or under one block of options, are right or wrong together, and count as
one draw in intervals and tests. Exams print the case once; data files repeat it before each of its
questions, mostly without saying so. Nothing here changes a doc, whose content is its identity.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from mingmoe_eval.records import fingerprint

MOST_QUESTIONS = 12
"""More that begin alike are no case but a set phrase, or an instruction before every question."""

_ENOUGH = 90
"""A shared beginning of so many Latin letters, or a third as many Chinese characters, is a case.

"A 27-year-old man presents to the emergency department with" is 59, and two thirds of what American
exam questions that have nothing else in common begin with."""

# What numbers the question itself, before the case: "62　", "3. ", "(63)", and the line that says
# which questions share it: "次の文を読み、62～64の問いに答えよ。", "(1~3题共用题干)".
_NUMBER = re.compile(r"^[\W_]*\d{1,4}[\W_]+(?=\D)")
_SHARED_BY = re.compile(r"^.{0,12}?\d+\W+\d+.{0,16}?(?:共用题干|共用備選|共用备选|問いに答えよ)\W*")
_SENTENCE_END = re.compile(r"[。！？!?\n]|\.(?=\s|$)")


class Asked(Protocol):
    """What is kept of a question: a `Sample`, or anything else with these fields."""

    @property
    def doc(self) -> Mapping[str, Any]:
        """The question as data."""

    @property
    def cluster(self) -> str | None:
        """What its data set says that it shares with others."""


def clusters_of(asked: Sequence[Asked]) -> list[str | None]:
    """What each question shares with others of its task; None where it stands alone.

    In this order: what the data set says, a `context` that several questions are about, a case at
    the beginning of their text, a block of five or more options.
    """
    clusters = [one.cluster for one in asked]
    for shared in (_contexts, _beginnings, _option_blocks):
        alone = [place for place, cluster in enumerate(clusters) if cluster is None]
        for places in shared([asked[place].doc for place in alone]):
            if 1 < len(places) <= MOST_QUESTIONS:
                name = f"{shared.__name__.strip('_')} of {alone[places[0]]}"
                for place in places:
                    clusters[alone[place]] = name
    return clusters


def _contexts(docs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    return _grouped([_text(doc.get("context")) for doc in docs])


def _option_blocks(docs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Five at least: "yes, no, maybe" and "true, false" stand under questions of every kind."""
    blocks = [doc.get("options") for doc in docs]
    return _grouped(
        [
            fingerprint(block) if isinstance(block, Mapping) and len(block) >= 5 else ""
            for block in blocks
        ]
    )


def _grouped(keys: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key:
            groups[key].append(place)
    return list(groups.values())


def _beginnings(docs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Questions whose texts begin with the same whole sentences; sorted, they are neighbours."""
    texts = [_stem(_text(doc.get("question"))) for doc in docs]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    groups: list[list[int]] = [[order[0]]] if order else []
    for before, after in pairwise(order):
        if _shares_case(texts[before], texts[after]):
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups


def _stem(text: str) -> str:
    text = _NUMBER.sub("", unicodedata.normalize("NFKC", text))
    return _SHARED_BY.sub("", text)


def _shares_case(one: str, other: str) -> bool:
    shorter = min(len(one), len(other))
    alike = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), shorter)
    beginning = one[:alike]
    if alike < shorter:
        # Whole sentences only: numbers and names differ within the first that is not shared.
        ends = [end.end() for end in _SENTENCE_END.finditer(beginning)]
        beginning = beginning[: ends[-1]] if ends else ""
    return sum(3 if ord(char) > 0x2E80 else 1 for char in beginning) >= _ENOUGH


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
