"""The suite `number`: a reply is right when the number or date that it states lies within limits.

After MedCalc-Bench (Khandekar et al. 2024), whose records bring their limits: 5 % around the
right value where it is a decimal number, the value itself for scores and dates. How a reply is read
is ours (`metrics.number_reading`); the official script looks for the last number of an answer that
has to be JSON.

A doc: `answer` (as the record has it), `lower` and `upper` (a date as its proleptic ordinal, weeks
of pregnancy as days), `kind`, `unit`, `day_first`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mingmoe_eval.metrics.choice_accuracy import ACCURACY, ANSWERED
from mingmoe_eval.metrics.number_reading import Kind, NumberReading, read_number
from mingmoe_eval.records import AnyDoc, Response, Score, TaskSettings
from mingmoe_eval.suites.sampled import SampledSuite

WITHIN_LIMITS = replace(ACCURACY, name="within_limits", title="within limits", chance=None)


class Doc(AnyDoc):
    """What the suite reads of a doc."""

    answer: str
    lower: float
    upper: float
    kind: Kind
    unit: str
    day_first: bool


def number_facts(
    *,
    answer: Any,
    lower: Any = None,
    upper: Any = None,
    kind: Kind | None = None,
    unit: str = "",
    tolerance: float = 0.0,
    day_first: bool = False,
) -> Doc:
    """What the suite reads of a doc, from what a record says of the right answer.

    Args:
        answer: The right answer: a number, a date, or weeks and days, as number or text.
        lower: The least value that is right.
        upper: The largest one.
        kind: What is asked for; None: what the answer looks like.
        unit: The unit of answer and limits.
        tolerance: Where a record has no limits: the share of the answer that a reply may miss.
        day_first: 3/4/2024 is the third of April.

    Raises:
        ValueError: the answer or a limit is no such quantity, or the limits shut the answer out.
    """
    text = "" if answer is None else str(answer).strip()
    looks_like: Kind = next((k for k, sign in _SIGNS.items() if sign.search(text)), "number")
    kind = kind or looks_like
    value = _quantity(text, kind, unit, day_first, "answer")
    room = abs(value) * tolerance if kind == "number" else 0.0
    ends = [value - room, value + room]
    for place, (name, limit) in enumerate((("lower", lower), ("upper", upper))):
        if limit is not None and str(limit).strip():
            ends[place] = _quantity(str(limit).strip(), kind, unit, day_first, name)
    slack = 1e-9 * abs(value)
    if not ends[0] - slack <= value <= ends[1] + slack:
        raise ValueError(f"the answer {text} does not lie within {ends[0]:g} to {ends[1]:g}")
    return Doc(answer=text, lower=ends[0], upper=ends[1], kind=kind, unit=unit, day_first=day_first)


def _score_doc(doc: Mapping[str, Any], response: Response, settings: TaskSettings) -> Score:
    reading = _reading(
        response.text or "",
        doc,
        cut_off=bool(response.usage) and response.usage[-1].finish == "length",
    )
    right = reading.within(doc["lower"], doc["upper"])
    return Score(value=float(right), answered=reading.answered, reading=reading.rule)


def _expected(doc: Mapping[str, Any]) -> str:
    return str(doc["answer"])


SUITE = SampledSuite(
    METRICS={metric.name: metric for metric in (WITHIN_LIMITS, ANSWERED)},
    score_doc=_score_doc,
    expected=_expected,
)


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """For stock lm-eval: what one reply earned."""
    value = _score_doc(doc, Response(text=str(results[0])), TaskSettings(suite="number")).value
    return {"within_limits": value, "score": value}


def _reading(reply: str, doc: Mapping[str, Any], *, cut_off: bool) -> NumberReading:
    return read_number(
        reply, doc["kind"], unit=doc["unit"], day_first=doc["day_first"], cut_off=cut_off
    )


# What an answer looks like that is no plain number: 03/14/2024, "(33 weeks, 5 days)".
_SIGNS: Mapping[Kind, re.Pattern[str]] = {
    "weeks": re.compile("week|周", re.IGNORECASE),
    "date": re.compile(r"\d{1,4}\s?[-/.年]\s?\d{1,2}\s?[-/.月]\s?\d{1,4}|[A-Za-z]{3}\S*\s.*\d{4}"),
}


def _quantity(text: str, kind: Kind, unit: str, day_first: bool, role: str) -> float:
    if not text:
        raise ValueError(f"no {role}")
    try:
        exact = float(text) if kind == "number" else math.nan
    except ValueError:
        exact = math.nan
    if math.isfinite(exact):
        return exact
    values = read_number(text, kind, unit=unit, day_first=day_first).values
    if not values:
        raise ValueError(f"{role}: {text!r} is no {kind}")
    return values[0]
