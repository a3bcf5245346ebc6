"""Each question under several orders of its options: does the answer hang on where options stand?

The benchmark's own docs stay as they are; the reordered ones follow them, marked by `variant`. The
letters stay in place and the texts move, so that "BCDA" shows B's text first, under the letter A.
"""

import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mingmoe_eval.errors import UsageError
from mingmoe_eval.records import JsonDict, fingerprint

CYCLIC, ALL = "cyclic", "all"
MOST_ORDERS = 120
"""All orders of five options."""

# Options that speak of others by place or letter mean something else in another order.
_BY_PLACE = re.compile(r"以[上下]|[上下前][述列]|\b(?:above|below|preceding|following)\b", re.I)
_LETTER = r"(?<![A-Za-z])[A-H](?![A-Za-z])"
_BY_LETTER = re.compile(
    rf"{_LETTER}\s*(?:[+＋&/、,，和与及或]|and|or|nor)\s*{_LETTER}"  # "A and B", "A+B", "A、C"
    rf"|(?:options?|answers?|choices?|选项|答案|both|neither|either)\s*{_LETTER}"  # "both A"
)


@dataclass(frozen=True, slots=True)
class OptionOrders:
    """Which orders: every rotation, every order, or `count` of them, drawn once for all."""

    kind: str
    count: int = 0

    @classmethod
    def named(cls, text: str) -> Self:
        """What `--permute-options` was given.

        Raises:
            UsageError: neither cyclic nor all nor a number from 2 up.
        """
        if text in (CYCLIC, ALL):
            return cls(text)
        if text.isascii() and text.isdigit() and 2 <= int(text) <= MOST_ORDERS:
            return cls("drawn", int(text))
        raise UsageError(
            f"--permute-options {text!r} is none of {CYCLIC}, {ALL}, or a number of orders from 2 "
            f"to {MOST_ORDERS} (the benchmark's own counts as one)"
        )

    def of(self, letters: Sequence[str]) -> list[tuple[str, ...]]:
        """The orders of so many options, their own first.

        Raises:
            UsageError: there would be too many.
        """
        own = tuple(letters)
        if self.kind == CYCLIC:
            return [own[shift:] + own[:shift] for shift in range(len(own))]
        if self.kind == ALL and math.factorial(len(own)) > MOST_ORDERS:
            raise UsageError(
                f"--permute-options {ALL}: {len(own)} options have {math.factorial(len(own)):,} "
                f"orders; use {CYCLIC}, or a number of orders"
            )
        if self.kind == ALL or math.factorial(len(own)) <= self.count:
            return list(itertools.permutations(own))
        return self._drawn(own)

    def _drawn(self, own: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The same for all questions with these letters: accuracy can be told by order."""
        generator = random.Random("".join(own))
        orders = dict.fromkeys([own])
        while len(orders) < self.count:
            orders[tuple(generator.sample(own, len(own)))] = None
        return list(orders)


def with_orders(docs: Iterable[Mapping[str, Any]], orders: OptionOrders) -> list[JsonDict]:
    """Every doc as it is, each followed by itself in the other orders.

    A reordered doc says which order (`variant`), of what (`variant_of`), and how many orders there
    are in all (`orders`).
    """
    shown: list[JsonDict] = []
    for doc in docs:
        shown.append(dict(doc))
        if can_be_reordered(doc):
            _, *others = orders.of(list(doc["options"]))
            shown += [{**_reordered(doc, order), "orders": 1 + len(others)} for order in others]
    return shown


def can_be_reordered(doc: Mapping[str, Any]) -> bool:
    """False for a single option, and where an option speaks of others by place or letter."""
    texts = doc["options"].values()
    return len(texts) > 1 and not any(
        _BY_PLACE.search(text) or _BY_LETTER.search(text) for text in texts
    )


def question_id(doc: Mapping[str, Any]) -> str:
    """The same for a question in all its orders."""
    # A doc of a run that others made, or edited, may have no id of its own.
    return str(doc.get("variant_of") or doc.get("id") or fingerprint(doc))


def chosen_options(doc: Mapping[str, Any], answered: str | None) -> frozenset[str] | None:
    """The answer as the letters that the options have in the benchmark's own order."""
    if answered is None:
        return None
    own_letters = dict(zip(doc["options"], doc.get("variant") or doc["options"], strict=True))
    return frozenset(own_letters.get(letter, letter) for letter in answered)


def _reordered(doc: Mapping[str, Any], order: Sequence[str]) -> JsonDict:
    letters = list(doc["options"])
    place = dict(zip(order, letters, strict=True))
    variant = "".join(order)
    return {
        **doc,
        "id": f"{doc['id']}~{variant}",
        "options": {
            letter: doc["options"][own] for letter, own in zip(letters, order, strict=True)
        },
        "answer": "".join(sorted(place[letter] for letter in doc["answer"])),
        "variant": variant,
        "variant_of": doc["id"],
    }
