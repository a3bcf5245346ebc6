"""What a team asks of a candidate, as a file: `gate --policy gate.yaml`.

Tiers say which tasks may lose what; everything else is a limit. The command's flags are the policy
with one tier, `must_not_regress`, over all tasks.
"""

import dataclasses
import difflib
import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec

from mingmoe_eval.comparison.comparability import KINDS
from mingmoe_eval.comparison.verdict import ALPHA, MARGIN
from mingmoe_eval.errors import UsageError, offence_list
from mingmoe_eval.json_files import shown
from mingmoe_eval.metrics.significance import minimum_detectable
from mingmoe_eval.records import Run
from mingmoe_eval.regression_gate.signals import CostLimits, Tolerances
from mingmoe_eval.yaml_files import read_yaml

Undecided = Literal["pass", "hold", "fail"]

MUST, TRADE, WATCH = "must_not_regress", "may_trade", "watch_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Tasks of which the same is asked.

    Attributes:
        tasks: Names, or patterns such as `cmexam*`.
        margin: The largest difference that counts as none; the policy's where None.
        undecided: What it means that a loss of the margin, over all the tier's docs, is not ruled
            out: nothing, exit status 3, or a failure.
        largest_loss: Of `may_trade`: a task that has certainly lost more fails, whatever the
            others gained.
    """

    tasks: tuple[str, ...] = ()
    margin: float | None = None
    undecided: Undecided = "pass"
    largest_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRules:
    """What is asked of some tasks alone; None is what their tier, or the policy, says."""

    margin: float | None = None
    metric: str | None = None
    unanswered: float | None = None
    truncated: float | None = None
    non_finite: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is asked of a candidate.

    Attributes:
        margin: The largest difference that counts as none, as a fraction.
        alpha: The one-sided error rate, shared evenly by the tiers that can fail.
        must_not_regress: Fails where a task, or all of the tier together, regressed. A task that no
            tier names belongs here.
        may_trade: Fails where the tier's tasks together regressed: one may lose what others gain.
        watch_only: Fails nothing.
        tasks: Task or pattern -> what is asked of it alone; the first that fits counts.
        required: Tasks that both runs must have.
        rises: How much worse the candidate's samples may be.
        largest_gain: Fail on a significant gain beyond this; None only warns.
        cost: How much more the candidate may cost.
        allow: Kinds of difference between the runs to override, as for `compare`.
        source: The file that says so; "" where flags do.
    """

    margin: float = MARGIN
    alpha: float = ALPHA
    must_not_regress: Tier = field(default_factory=Tier)
    may_trade: Tier = field(default_factory=Tier)
    watch_only: Tier = field(default_factory=Tier)
    tasks: Mapping[str, TaskRules] = field(default_factory=lambda: MappingProxyType({}))
    required: tuple[str, ...] = ()
    rises: Tolerances = field(default_factory=Tolerances)
    largest_gain: float | None = None
    cost: CostLimits = field(default_factory=CostLimits)
    allow: tuple[str, ...] = ()
    source: str = ""

    @property
    def tiers(self) -> dict[str, Tier]:
        """By name, the strictest first."""
        return {MUST: self.must_not_regress, TRADE: self.may_trade, WATCH: self.watch_only}

    def tier_of(self, task: str) -> str:
        """The tier that names a task, before one whose pattern fits; else the strictest."""
        for fits in (lambda pattern: pattern == task, _fits(task)):
            for name, tier in self.tiers.items():
                if any(fits(pattern) for pattern in tier.tasks):
                    return name
        return MUST

    def rules_of(self, task: str) -> TaskRules:
        """What is asked of a task alone."""
        return next((r for p, r in self.tasks.items() if _fits(task)(p)), TaskRules())

    def margin_of(self, task: str) -> float:
        """The largest difference of a task that counts as none."""
        own, tier = self.rules_of(task).margin, self.tiers[self.tier_of(task)].margin
        return next(m for m in (own, tier, self.margin) if m is not None)

    def tolerances_of(self, task: str) -> Tolerances:
        """How much worse a task's samples may be."""
        rules = dataclasses.asdict(self.rules_of(task))
        own = {f.name: rules[f.name] for f in dataclasses.fields(Tolerances)}
        return dataclasses.replace(
            self.rises, **{name: value for name, value in own.items() if value is not None}
        )

    def with_flags(
        self,
        *,
        margin: float | None = None,
        alpha: float | None = None,
        strict: bool = False,
        largest_gain: float | None = None,
        allow: frozenset[str] = frozenset(),
        **rises: float | None,
    ) -> "Policy":
        """The same where the command says otherwise; a tier's or a task's own word stays."""
        must = self.must_not_regress
        limits: dict[str, Any] = {name: v for name, v in rises.items() if v is not None}
        return dataclasses.replace(
            self,
            margin=self.margin if margin is None else margin,
            alpha=self.alpha if alpha is None else alpha,
            largest_gain=self.largest_gain if largest_gain is None else largest_gain,
            must_not_regress=dataclasses.replace(must, undecided="hold") if strict else must,
            rises=dataclasses.replace(self.rises, **limits),
            allow=tuple(dict.fromkeys((*self.allow, *sorted(allow)))),
        )


def _fits(task: str) -> Any:
    return lambda pattern: fnmatch.fnmatchcase(task, pattern)


def read_policy(file: Path) -> Policy:
    """A policy file, checked whole.

    Raises:
        UsageError: it cannot be read, or is no policy; every offence is named.
    """
    try:
        data = read_yaml(file)
    except ValueError as error:
        raise UsageError(f"{file} cannot be read as YAML: {error}") from error
    return policy_of(data, source=str(file))


def policy_of(data: object, *, source: str) -> Policy:
    """The policy that a file's content states; raises as `read_policy` does."""
    offences: list[str] = []
    values = _fields(Policy, data if data is not None else {}, "", offences, skip={"source"})
    for name in (MUST, TRADE, WATCH):
        if name in values:
            values[name] = _record(Tier, values[name], name, offences)
    for name, cls in (("rises", Tolerances), ("cost", CostLimits)):
        if name in values:
            values[name] = _record(cls, values[name], name, offences)
    if "tasks" in values:
        values["tasks"] = MappingProxyType(
            {
                task: _record(TaskRules, rules, f"tasks.{task}", offences)
                for task, rules in values["tasks"].items()
            }
        )
    policy = Policy(**values, source=source)
    offences += _senseless(policy)
    if offences:
        raise UsageError(offence_list(f"{source} is no policy of the regression gate", offences))
    return policy


_T = TypeVar("_T")

_RAW: dict[Any, Any] = {
    Tier: dict[str, Any],
    Tolerances: dict[str, Any],
    CostLimits: dict[str, Any],
    Mapping[str, TaskRules]: dict[str, Any],
}
"""What a field is while its own fields have not been looked at."""


def _record(cls: type[_T], data: object, where: str, offences: list[str]) -> _T:
    return cls(**_fields(cls, data, f"{where}.", offences))


def _fields(
    cls: Any, data: object, where: str, offences: list[str], skip: Iterable[str] = ()
) -> dict[str, Any]:
    """The values of a record's fields that are there and of their type; what is not is said."""
    hints = {name: hint for name, hint in get_type_hints(cls).items() if name not in set(skip)}
    if not isinstance(data, dict):
        offences.append(f"{where or 'the file'}: `name: value` is expected, not {shown(data)}")
        return {}
    values = {}
    for name, value in data.items():
        if name not in hints:
            offences.append(f"{where}{name}: {_unknown(str(name), hints)}")
            continue
        hint = _RAW.get(hints[name], hints[name])
        try:
            # YAML has no tuples, and reads `tasks: cmexam` as the one name that it is.
            listed = [value] if hint == tuple[str, ...] and isinstance(value, str) else value
            values[name] = msgspec.convert(listed, hint)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:  # half a character
            offences.append(f"{where}{name}: {error}, {shown(value)}")
    return values


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown; did you mean {close[0]}?" if close else f"unknown; it has {', '.join(known)}"


def _senseless(policy: Policy) -> Iterator[str]:
    """Values of the right type that mean nothing."""
    margins: dict[str, float | None] = {"margin": policy.margin}
    margins |= {f"{name}.margin": tier.margin for name, tier in policy.tiers.items()}
    margins |= {f"tasks.{name}.margin": rules.margin for name, rules in policy.tasks.items()}
    margins[f"{TRADE}.largest_loss"] = policy.may_trade.largest_loss
    for where, margin in margins.items():
        if margin is not None and not 0 < margin < 1:
            yield f"{where}: {margin} is no fraction between 0 and 1 (0.02 is two points)"
    if not 0 < policy.alpha < 0.5:
        yield f"alpha: {policy.alpha} is no one-sided error rate between 0 and 0.5"
    for name, tier in policy.tiers.items():
        if tier.largest_loss is not None and name != TRADE:
            yield f"{name}.largest_loss: only tasks of {TRADE} may lose, and so have a limit to it"
        if name == WATCH and tier.undecided != "pass":
            yield f"{name}.undecided: these tasks fail nothing, decided or not"
    limits = {
        **{f"rises.{k}": v for k, v in dataclasses.asdict(policy.rises).items()},
        "largest_gain": policy.largest_gain,
        **{
            f"tasks.{task}.{name}": getattr(rules, name)
            for task, rules in policy.tasks.items()
            for name in ("unanswered", "truncated", "non_finite")
        },
        **{f"cost.{k}": v for k, v in dataclasses.asdict(policy.cost).items()},
    }
    for where, limit in limits.items():
        if limit is not None and not (math.isfinite(limit) and limit >= 0):
            yield f"{where}: {limit} is no limit; a number from 0 up is"
    for kind in policy.allow:
        if kind not in KINDS:
            yield f"allow: {kind!r} is no kind of difference; there are {', '.join(KINDS)}"


FEW_DOCS = 100
"""A task with fewer only shows drops of a dozen points: a first policy watches it."""


def first_policy(baseline: Run) -> str:
    """A policy file to begin with, made for a baseline's tasks, which says what each can show."""
    sizes = {task: result.main.n for task, result in baseline.leaves.items()}
    must = [task for task, docs in sizes.items() if docs >= FEW_DOCS]
    watch = [task for task in sizes if task not in must]
    if not must:
        must, watch = watch, []
    lines = [
        f"# What the regression gate asks of a candidate beside {_word(baseline.name)}.",
        "# mingmoe-eval gate reports/candidate --baseline ... --policy gate.yaml",
        "",
        f"alpha: {ALPHA}  # one-sided error rate of all tests together",
        f"margin: {MARGIN}  # the largest difference that counts as none: two points",
        "",
        f"{MUST}:  # a task, or all together, that is certainly worse fails",
        "  undecided: pass  # or hold (exit status 3), or fail: a loss of the margin not ruled out",
        *_listed(must, sizes),
        "",
        f"{TRADE}:  # fails where its tasks together are worse: one may lose what others gain",
        "  undecided: pass",
        "  largest_loss: 0.05",
        "  tasks: []",
        "",
        f"{WATCH}:  # fails nothing",
        *_listed(watch, sizes),
        "",
        "tasks: {}  # of single tasks or patterns: {cmexam*: {margin: 0.01, metric: macro_f1}}",
        f"required: [{', '.join(map(_word, must))}]",
        "rises: {unanswered: 0.01, truncated: 0.01, non_finite: 0}",
        "largest_gain: null  # such as 0.1: more than that is a changed prompt or a leak",
        "cost: {generated_tokens: null, prompt_tokens: null, seconds: null, money: null}"
        "  # such as 1.5 times",
        "allow: []",
    ]
    return "\n".join(lines) + "\n"


def _listed(tasks: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    if not tasks:
        return ["  tasks: []"]
    level = ALPHA / len(tasks)
    rows = []
    for task in tasks:
        # A fifth of the docs flip between two checkpoints of one model: a deviation of 0.45.
        seen = 100 * minimum_detectable(0.45 / math.sqrt(max(sizes[task], 1)), alpha=level)
        rows.append(
            f"    - {_word(task)}  # {sizes[task]} docs show a drop from {seen:.1f} points up"
        )
    return ["  tasks:", *rows]


def _word(text: str) -> str:
    """A name as YAML takes it for one, whatever it holds."""
    import json

    plain = all(char.isalnum() or char in "_-." for char in text) and text[:1].isalpha()
    known = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    return text if plain and text.isascii() and text.lower() not in known else json.dumps(text)
