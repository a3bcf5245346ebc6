"""Questions with an option "I don't know": who takes it, and how right the others are.

Only options that speak of the one who answers count, in the words below. "It cannot be determined"
is a statement about the case, and often the right one. Where a key itself says "I don't know", as
in MetaMedQA's questions that nobody can answer, taking it is right, as the data set has it.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mingmoe_eval.metrics.choice_accuracy import ACCURACY
from mingmoe_eval.metrics.metric import Counted, Scored, one_of
from mingmoe_eval.metrics.uncertainty import share
from mingmoe_eval.records import MetricValue, Sample

_DOES_NOT_KNOW = re.compile(
    r"\bI (?:do not|don['\u2019]?t) know\b|\bI(?:['\u2019]m| am) (?:not sure|unsure)\b"
    r"|^(?:don['\u2019]?t know|unsure|not sure|no answer)\W*$"
    r"|^(?:我)?(?:不知道|不清楚|不确定|不会|没有把握)(?:答案|怎么答|怎么选)?\W*$"
    r"|^(?:分からない|わからない|分かりません|わかりません)\W*$"
    r"|^(?:모르겠다|모르겠습니다|모름)\W*$|^no (?:lo )?sé\W*$|^je ne sais pas\W*$",
    re.IGNORECASE,
)

RIGHT, WRONG, UNREAD = "right", "wrong", "could not be read"
ABSTAINED, ABSTAINED_RIGHTLY = "does not know", "does not know, which is the key"


def abstaining_letter(options: Mapping[str, str]) -> str | None:
    """The letter of the option by which one says not to know; None where there is none, or two."""
    letters = [k for k, text in options.items() if _DOES_NOT_KNOW.search(str(text).strip())]
    return letters[0] if len(letters) == 1 else None


def metrics(samples: Sequence[Sample]) -> dict[str, MetricValue]:
    """The share that abstained, and the accuracy of the rest; nothing without such questions."""
    asked = _with_the_option(samples)
    if not asked:
        return {}
    answered = [sample for sample in asked if _kind(sample) in (RIGHT, WRONG)]
    return {
        "abstained": ABSTAINED_SHARE.fold(asked, [s.cluster for s in asked]),
        "acc_when_answered": WHEN_ANSWERED.fold(answered, [s.cluster for s in answered]),
    }


def breakdowns(samples: Sequence[Sample]) -> dict[str, dict[str, MetricValue]]:
    """What became of the questions with such an option, as shares of them all."""
    asked = _with_the_option(samples)
    counts = Counter(map(_kind, asked))
    kinds = (RIGHT, WRONG, ABSTAINED, ABSTAINED_RIGHTLY, UNREAD)
    table = {
        kind: ABSTAINED_SHARE.stamped(share(counts[kind], len(asked)))
        for kind in kinds
        if counts[kind]
    }
    return {"abstention": table} if table else {}


def _with_the_option(samples: Sequence[Sample]) -> list[Sample]:
    return [s for s in samples if abstaining_letter(s.doc.get("options") or {}) is not None]


def _kind(sample: Sample) -> str:
    letter = abstaining_letter(sample.doc["options"])
    if sample.answered is None:
        return UNREAD
    if sample.answered == letter:
        return ABSTAINED_RIGHTLY if sample.expected == letter else ABSTAINED
    return RIGHT if sample.score == 1.0 else WRONG


def _abstains(scored: Scored) -> Counted:
    assert isinstance(scored, Sample)
    return one_of(_kind(scored) in (ABSTAINED, ABSTAINED_RIGHTLY))


ABSTAINED_SHARE = replace(
    ACCURACY,
    name="abstained",
    title="said not to know",
    count=_abstains,
    better="neither",
    chance=None,
)

WHEN_ANSWERED = replace(
    ACCURACY, name="acc_when_answered", title="accuracy where it answered", chance=None
)

RECORDS = (ABSTAINED_SHARE, WHEN_ANSWERED)
"""The metrics of this module."""
