"""What of a doc must be found in training data for the doc to count as seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """A test question as parts, the telling one first; equal for docs that ask the same.

    The key is no part of it: training data without the answer gives a question away no less.
    """

    parts: tuple[str, ...]


def item_of(doc: Mapping[str, Any]) -> Item:
    """The item of a doc: of an exam question, of a PromptCBLUE record, or of anything else."""
    question, options = doc.get("question"), doc.get("options")
    if isinstance(question, str) and isinstance(options, Mapping):
        # Options are often too short to be looked for one by one.
        return Item(
            (question, "\n".join(map(str, options.values())), str(doc.get("context") or ""))
        )
    if isinstance(doc.get("input"), str) and "target" in doc:
        return Item((doc["input"],))
    return Item(tuple(texts_in(doc)))


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, in order, whatever the fields are called."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += reversed(list(value.values()))
        elif isinstance(value, list | tuple):
            waiting += reversed(value)
