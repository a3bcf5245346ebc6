"""Invented replies of 95 kinds, each with the letters that a careful reader would mark.

`data/replies_by_kind.jsonl` holds them: in English, Chinese and Japanese, in the manner of chat,
reasoning and base models, with the options, whether one letter is asked for, and how generation
ended. The expected letters were set by judgement, not by the reader under test. To see precision
and coverage by kind: `python tests/test_reply_kinds.py`.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from mingmoe_eval.metrics.answer_reading import read_answer

REPLIES = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "replies_by_kind.jsonl")
    .read_text("utf-8")
    .splitlines()
]


@dataclass
class Outcome:
    """How the replies of one kind are read."""

    replies: int = 0
    answers: int = 0
    read: int = 0
    right: int = 0
    wrong: list[tuple] = field(default_factory=list)
    unread: list[tuple] = field(default_factory=list)

    def add(self, case):
        reading = read_answer(
            case["reply"],
            case["options"],
            single=case["single"],
            cut_off=case["finish"] == "length",
        )
        self.replies += 1
        self.answers += case["expected"] is not None
        self.read += reading.letters is not None
        self.right += reading.letters is not None and reading.answered == case["expected"]
        if reading.answered != case["expected"]:
            missed = self.unread if reading.letters is None else self.wrong
            missed.append((case["kind"], case["reply"], case["expected"], reading))

    @property
    def precision(self):
        """The share of readings that are right; None where nothing was read."""
        return self.right / self.read if self.read else None

    @property
    def coverage(self):
        """The share of answers that are read as they are; None where no reply answers."""
        return self.right / self.answers if self.answers else None


def by_kind():
    outcomes: defaultdict[str, Outcome] = defaultdict(Outcome)
    for case in REPLIES:
        outcomes[case["kind"]].add(case)
    return outcomes


def table(outcomes):
    def percent(share):
        return "      -" if share is None else f"{100 * share:6.1f}%"

    rows = [
        f"{percent(o.precision)} {percent(o.coverage)} {o.replies:5d} {o.answers:5d}  {kind}"
        for kind, o in outcomes.items()
    ]
    return "\n".join(["precision coverage    n  ans.  kind", *rows])


def test_no_reply_of_any_kind_is_read_as_other_letters_than_it_states():
    assert [case for o in by_kind().values() for case in o.wrong] == []


def test_every_kind_of_answer_is_read():
    assert [case for o in by_kind().values() for case in o.unread] == []


def test_the_replies_are_many_and_of_many_kinds():
    outcomes = by_kind()
    assert len(REPLIES) >= 600
    assert len(outcomes) >= 40
    # Both sides are there: replies that answer, and replies that must not be read.
    assert sum(o.answers for o in outcomes.values()) > 400
    assert sum(o.replies - o.answers for o in outcomes.values()) > 150
    assert sum(not case["single"] for case in REPLIES) > 40
    assert len({(c["reply"], str(c["options"]), c["single"]) for c in REPLIES}) == len(REPLIES)


if __name__ == "__main__":
    print(table(by_kind()))
