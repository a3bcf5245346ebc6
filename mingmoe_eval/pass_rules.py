"""Would it pass? An exam's own points and thresholds over the questions of a run.

A rule is a YAML file: sections, the questions of each by their id, number or tags, what a question
is worth, and from how many points on a section is passed. One stands beside a benchmark whose rule
has a source (`_pass_rule.yaml`); others are the user's.

The probability of passing asks how the same model would fare on other questions like these: each
section's questions are drawn again with replacement, those of equal points among themselves, and
the share of draws that pass is counted. Rights and wrongs make that exact: the points of a section
are a sum of binomials. Its interval draws the questions once more and asks again.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mingmoe_eval.errors import DataError, MissingDataError, UsageError, offence_list
from mingmoe_eval.locations import tasks_dir
from mingmoe_eval.metrics.draws import Floats, percentile_interval
from mingmoe_eval.records import Run, Sample
from mingmoe_eval.yaml_files import read_yaml

RULE_FILE = "_pass_rule.yaml"
_DRAWS = 1_000


class Questions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some questions of a section, all worth the same.

    Attributes:
        id: A regular expression that the question's own id matches as a whole.
        numbers: From and to: the last number in the id; without an id, its place from 1.
        where: Tags of the question, each with the values that it may have.
        points: What each is worth.
    """

    id: str | None = None
    numbers: tuple[int, int] | None = None
    where: dict[str, list[str]] = {}
    points: float = 1.0

    def has(self, sample: Sample, place: int) -> bool:
        """Whether a question is one of these; `place` is its own in the exam, from 1."""
        name = str(sample.doc.get("question_id") or "")
        if self.id is not None and not re.fullmatch(self.id, name):
            return False
        if self.numbers is not None:
            last = re.findall(r"\d+", name)
            number = int(last[-1]) if last else place
            if not self.numbers[0] <= number <= self.numbers[1]:
                return False
        return all(sample.tags.get(tag) in values for tag, values in self.where.items())


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the exam with a threshold of its own, or without one."""

    name: str
    questions: tuple[Questions, ...]
    out_of: float
    pass_from: float | None = None


class PassRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an exam is passed.

    Attributes:
        title: What tables call it.
        source: Where the rule stands.
        tasks: The tasks that it is about, without the endings of their forms.
        sections: Its parts; together they hold every question once.
        pass_from: The points of the whole exam that are needed, if there is such a threshold.
        not_applied: What of the official rule cannot be applied, for whoever reads the verdict.
    """

    title: str
    source: str
    tasks: tuple[str, ...]
    sections: tuple[Section, ...]
    pass_from: float | None = None
    not_applied: str = ""

    @property
    def out_of(self) -> float:
        """All points of the exam."""
        return sum(section.out_of for section in self.sections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a run earned in a section; `passed` is None where the section has no threshold."""

    section: Section
    points: float

    @property
    def passed(self) -> bool | None:
        """Whether the threshold is reached."""
        need = self.section.pass_from
        return None if need is None else self.points >= need - 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run fares by a rule.

    Attributes:
        rule: The rule.
        task: The task of the run.
        parts: Its sections, in their order.
        interval: Of the points of the whole exam, over other questions like these, 95 %.
        probability: Of passing, over the same.
        probability_interval: 95 %.
    """

    rule: PassRule
    task: str
    parts: tuple[Part, ...]
    interval: tuple[float, float]
    probability: float
    probability_interval: tuple[float, float]

    @property
    def points(self) -> float:
        """Of the whole exam."""
        return sum(part.points for part in self.parts)

    @property
    def passes(self) -> bool:
        """Whether every threshold is reached."""
        need = self.rule.pass_from
        whole = need is None or self.points >= need - 1e-9
        return whole and all(part.passed is not False for part in self.parts)

    def __str__(self) -> str:
        """One sentence for a table's note."""
        parts = ", ".join(
            f"{part.section.name} {_amount(part.points)} of {_amount(part.section.out_of)}"
            + ("" if part.passed is None else f" ({_amount(part.section.pass_from)} needed)")
            for part in self.parts
        )
        need = "" if self.rule.pass_from is None else f" ({_amount(self.rule.pass_from)} needed)"
        low, high = (_amount(end) for end in self.interval)
        least, most = (f"{100 * end:.0f}" for end in self.probability_interval)
        caveat = f". {self.rule.not_applied}" if self.rule.not_applied else ""
        return (
            f"{self.task} by {self.rule.title}: {_amount(self.points)} of "
            f"{_amount(self.rule.out_of)} points{need} [{low}, {high}]; {parts}: "
            f"{'passes' if self.passes else 'fails'}; probability of passing "
            f"{100 * self.probability:.0f} % [{least}, {most}]{caveat}"
        )


def rule_named(name: str) -> PassRule:
    """The rule that stands beside a benchmark, or in a file of the user's.

    Raises:
        MissingDataError: there is neither; the built-in ones are listed.
        DataError: the file is no rule; what is wrong is named.
    """
    own = built_in_rules()
    if name in own:
        return own[name]
    path = Path(name)
    if not path.is_file():
        raise MissingDataError(
            f"--pass-rule {name!r} is neither a file nor a rule that is known here: "
            f"{', '.join(own)} (docs/pass_rules.md says how to write one)"
        )
    return _read(path)


@functools.cache
def built_in_rules() -> Mapping[str, PassRule]:
    """The rules that stand beside benchmarks, each called after its folder."""
    return {path.parent.name: _read(path) for path in sorted(tasks_dir().rglob(RULE_FILE))}


def verdicts(run: Run, rule: PassRule) -> list[Verdict]:
    """How every task of a run fares that a rule is about; none where it has no such task.

    Raises:
        DataError: a question is in no section or in two, or a section has other points than the
            rule says: the run is not of the whole exam, or the rule is another exam's.
    """
    forms = ("", "_cot", "_ll")
    wanted = {task + form for task in rule.tasks for form in forms}
    # One sitting is one answer a question: of several repeats the first one's.
    return [
        _verdict(task, [s for s in samples if not s.variant and not s.repeat], rule)
        for task, samples in run.samples.items()
        if task in wanted
    ]


def verdicts_of(runs: Sequence[Run], rule: PassRule) -> list[list[Verdict]]:
    """The verdicts of several runs, at least one of which has a task of the rule.

    Raises:
        UsageError: none of them has one.
    """
    found = [verdicts(run, rule) for run in runs]
    if not any(found):
        names = ", ".join(run.name for run in runs)
        raise UsageError(
            f"--pass-rule: {rule.title} is about {', '.join(rule.tasks)}, which {names} did not run"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Stratum:
    """Questions of one section that are worth the same: how many, and what they earned."""

    points: Fraction
    count: int
    earned: float


def _verdict(task: str, samples: Sequence[Sample], rule: PassRule) -> Verdict:
    failed = sum(sample.score is None for sample in samples)
    if failed:
        raise DataError(f"{task}: {failed} questions failed, so that nobody knows its points")
    strata = _strata(task, samples, rule)
    rates = [np.array([one.earned / one.count for one in section]) for section in strata]
    unit = _unit(rule)
    probability = float(_probability(rates, strata, rule, unit)[0])
    rng = np.random.default_rng(0)  # the same run always gets the same interval
    drawn = [
        np.stack(
            [
                rng.binomial(one.count, min(1.0, one.earned / one.count), _DRAWS) / one.count
                for one in section
            ],
            axis=-1,
        )
        for section in strata
    ]
    again = _probability(drawn, strata, rule, unit)
    totals = sum(
        rate @ np.array([float(one.points * one.count) for one in section])
        for rate, section in zip(drawn, strata, strict=True)
    )
    parts = [
        Part(section=section, points=sum(float(one.points) * one.earned for one in own))
        for section, own in zip(rule.sections, strata, strict=True)
    ]
    points = sum(part.points for part in parts)
    low, high = percentile_interval(np.asarray(totals), 0.95)
    least, most = percentile_interval(again, 0.95)
    return Verdict(
        rule=rule,
        task=task,
        parts=tuple(parts),
        interval=(min(low, points), max(high, points)),
        probability=probability,
        probability_interval=(min(least, probability), max(most, probability)),
    )


def _strata(task: str, samples: Sequence[Sample], rule: PassRule) -> list[list[_Stratum]]:
    entries = [(n, one) for n, section in enumerate(rule.sections) for one in section.questions]
    earned: list[list[float]] = [[] for _ in entries]
    offences = []
    asked: dict[str, list[Sample]] = {}
    for sample in samples:
        name = sample.doc.get("question_id") or sample.doc.get("id") or sample.doc_id
        asked.setdefault(str(name), []).append(sample)
    for number, (sample, *again) in enumerate(asked.values(), 1):
        places = [place for place, (_, one) in enumerate(entries) if one.has(sample, number)]
        if len(places) == 1:
            # Of a question that was asked several times, what it earned on average.
            scores = [float(one.score or 0.0) for one in (sample, *again)]
            earned[places[0]].append(math.fsum(scores) / len(scores))
        else:
            name = sample.doc.get("question_id") or f"number {number}"
            offences.append(f"question {name}: in {'several' if places else 'no'} sections")
    for n, section in enumerate(rule.sections):
        there = sum(
            _exact(one.points) * len(scores)
            for (at, one), scores in zip(entries, earned, strict=True)
            if at == n
        )
        if not math.isclose(there, section.out_of):
            offences.append(
                f"{section.name}: its questions are worth {float(there):g} points, by the rule "
                f"{_amount(section.out_of)}"
            )
    if offences:
        raise DataError(offence_list(f"{task} is not the exam of {rule.title}, whole", offences))
    strata: list[list[_Stratum]] = [[] for _ in rule.sections]
    for (at, one), scores in zip(entries, earned, strict=True):
        if scores:
            strata[at].append(_Stratum(_exact(one.points), len(scores), math.fsum(scores)))
    return strata


def _exact(points: float) -> Fraction:
    """Points as they are meant: 0.6667 is two thirds of a point, and of 150 questions 100."""
    return Fraction(str(points)).limit_denominator(1_000)


def _unit(rule: PassRule) -> Fraction:
    """The largest amount of which all points are multiples: points are counted in it."""
    amounts = [_exact(one.points) for section in rule.sections for one in section.questions]
    numerator = functools.reduce(math.gcd, (amount.numerator for amount in amounts))
    return Fraction(numerator, functools.reduce(math.lcm, (a.denominator for a in amounts)))


def _probability(
    rates: Sequence[Floats], strata: Sequence[Sequence[_Stratum]], rule: PassRule, unit: Fraction
) -> Floats:
    """Of passing, for one or many sets of shares of right answers, each [draws, strata]."""
    draws = max(np.atleast_2d(rate).shape[0] for rate in rates)
    passed = np.empty(draws)
    for draw in range(draws):
        whole = np.ones(1)
        for rate, section, own in zip(rates, rule.sections, strata, strict=True):
            spread = np.ones(1)
            for share, one in zip(np.atleast_2d(rate)[draw], own, strict=True):
                spread = np.convolve(spread, _points_of(one, float(share), unit))
            if section.pass_from is not None:
                spread[: math.ceil(_exact(section.pass_from) / unit)] = 0.0
            whole = np.convolve(whole, spread)
        need = _exact(rule.pass_from or 0.0) / unit
        passed[draw] = min(1.0, float(whole[math.ceil(need) :].sum()))
    return passed


def _points_of(one: _Stratum, share: float, unit: Fraction) -> NDArray[np.float64]:
    """How likely each number of points is, by place in units, where a share of them is right."""
    from scipy.stats import binom

    step = int(one.points / unit)
    spread = np.zeros(one.count * step + 1)
    spread[::step] = binom.pmf(np.arange(one.count + 1), one.count, min(1.0, max(0.0, share)))
    return spread


def _read(path: Path) -> PassRule:
    try:
        rule = msgspec.convert(read_yaml(path), PassRule)
    except ValueError as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    if faults := list(_faults(rule)):
        raise DataError(offence_list(f"{path} is no rule that can be applied", faults))
    return rule


def _faults(rule: PassRule) -> Iterator[str]:
    if not rule.sections:
        yield "no sections"
    if rule.pass_from is None and all(section.pass_from is None for section in rule.sections):
        yield "no `pass_from`, in no section and not for the whole: nothing can be failed"
    for section in rule.sections:
        if section.pass_from is not None and not 0 <= section.pass_from <= section.out_of:
            yield f"{section.name}: pass_from is {section.pass_from} of {section.out_of}"
        if not section.questions:
            yield f"{section.name}: no questions"
        for one in section.questions:
            if not 0.001 <= one.points < math.inf:
                yield f"{section.name}: questions of {one.points} points"
            try:
                re.compile(one.id or "")
            except re.error as error:
                yield f"{section.name}: the id {one.id!r} is no regular expression: {error}"


def _amount(points: Any) -> str:
    return f"{round(float(points), 1):g}"
