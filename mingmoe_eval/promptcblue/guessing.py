"""What guessing scores where the answer is one label: a mean over seeded uniform guesses.

F1 of random labels has no closed form, and the chance level is not one over the number of options:
macro F1 of guesses among 40 options over few docs lies well below it.
"""

from collections.abc import Mapping, Sequence
from math import fsum
from random import Random
from typing import Any

from mingmoe_eval.promptcblue.catalogue import CblueTask, task_named
from mingmoe_eval.promptcblue.measures import measure_of
from mingmoe_eval.promptcblue.parsing import parse_answer

_GUESSES = 20_000
"""So many in all: small samples are guessed at often, large ones a few times."""


def guessing_level(docs: Sequence[Mapping[str, Any]]) -> float | None:
    """The main metric that uniform guesses among each doc's own options have on average.

    None for no docs, for docs without options, and for tasks whose answer is more than one label.
    """
    if not docs or not all(doc.get("answer_choices") for doc in docs):
        return None
    if not (task := task_named(docs[0]["task_dataset"])).default_label:
        return None
    measure = measure_of(task)
    golds = [_answer(task, doc, doc["target"]) for doc in docs]
    choices = [[_answer(task, doc, choice) for choice in doc["answer_choices"]] for doc in docs]
    rng = Random(0)
    rounds = max(20, _GUESSES // len(docs))
    values = [
        measure.corpus(
            [
                measure.compare(gold, rng.choice(options))
                for gold, options in zip(golds, choices, strict=True)
            ]
        )[measure.main]
        for _ in range(rounds)
    ]
    return fsum(values) / rounds


def _answer(task: CblueTask, doc: Mapping[str, Any], text: str) -> Any:
    return parse_answer(task, text, doc["answer_choices"], "official")
