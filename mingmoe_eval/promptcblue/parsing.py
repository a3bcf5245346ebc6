"""From a text to an answer: which parser reads which task, under which profile."""

from typing import Literal, get_args

from mingmoe_eval.errors import UsageError
from mingmoe_eval.promptcblue import lenient
from mingmoe_eval.promptcblue.answers import Answer, Choices
from mingmoe_eval.promptcblue.catalogue import CblueTask
from mingmoe_eval.promptcblue.events import parse_events
from mingmoe_eval.promptcblue.generation import parse_reply, parse_report
from mingmoe_eval.promptcblue.label_sets import MDCFNPC_NOT_ANNOTATED
from mingmoe_eval.promptcblue.labels import parse_label
from mingmoe_eval.promptcblue.ner import parse_entities
from mingmoe_eval.promptcblue.normalisation import parse_terms
from mingmoe_eval.promptcblue.relations import parse_triples
from mingmoe_eval.promptcblue.status import parse_findings

Profile = Literal["official", "legacy", "lenient"]
"""How texts are read.

official: as the evaluator of August 2023 and MING's copy of it, quirks included.
legacy: as the evaluator of May 2023, which early CCKS-2023 teams were scored with.
lenient: our own, for finding out how much of a low score is format; never comparable.
"""

_HALF_TO_FULL_WIDTH = ((":", "："), (",", "，"), (";", "；"))
_REPLACED_AT_MOST = 100


def profile_named(name: str) -> Profile:
    """The profile of that name, or UsageError."""
    for profile in get_args(Profile):
        if name == profile:
            return profile  # type: ignore[no-any-return]
    raise UsageError(f"no profile named {name!r}; there are {', '.join(get_args(Profile))}")


def parse_answer(
    task: CblueTask, text: str, choices: Choices, profile: Profile = "official"
) -> Answer:
    """Read one text, gold or model output: the same rules for both. Never raises for any text."""
    if profile == "lenient":
        return lenient.parse_answer(task, text, choices)
    if profile == "legacy":
        return _parse(task, _widened(text), choices, _legacy_fallback(task))
    return _parse(task, text, choices, task.fallback_status)


def _parse(task: CblueTask, text: str, choices: Choices, fallback: str) -> Answer:
    match task.family:
        case "ner":
            return parse_entities(text, choices)
        case "relations":
            return parse_triples(text)
        case "events":
            return parse_events(text)
        case "normalisation":
            return parse_terms(text, choices)
        case "status":
            return parse_findings(text, choices, fallback=fallback)
        case "classification" | "matching":
            return parse_label(text, task.name)
        case "generation":
            return (
                parse_report(text) if task.task_type == "report_generation" else parse_reply(text)
            )


def _widened(text: str) -> str:
    """The first 100 half-width colons, commas and semicolons, each kind apart, made full-width.

    Models whose tokenizers emit half-width punctuation depend on this.
    """
    for half, full in _HALF_TO_FULL_WIDTH:
        text = text.replace(half, full, _REPLACED_AT_MOST)
    return text


def _legacy_fallback(task: CblueTask) -> str:
    # Until 2023-08-28 an unknown status counted as the label for "not annotated".
    return MDCFNPC_NOT_ANNOTATED if task.name == "CHIP-MDCFNPC" else task.fallback_status
