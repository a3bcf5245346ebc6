"""Run by run, task by task: the rules of the regression gate."""

import difflib
import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal

from mingmoe_eval.comparison import Comparison, Difference, TaskComparison, compare
from mingmoe_eval.comparison.comparability import shared_tasks
from mingmoe_eval.comparison.verdict import (
    ALPHA,
    MARGIN,
    OverallVerdict,
    TaskVerdict,
    Together,
    decide,
    hidden_sentence,
    most_hidden,
    overall_verdict,
)
from mingmoe_eval.errors import IncomparableRunsError, UsageError, offence_list
from mingmoe_eval.records import Run
from mingmoe_eval.regression_gate.policy import MUST, TRADE, WATCH, Policy, Tier
from mingmoe_eval.regression_gate.signals import (
    Finding,
    Tolerances,
    bad_samples,
    dearer,
    missing_parts,
    unjudged_tasks,
    unscored_tasks,
    unusable_tasks,
)

SUSPICIOUS_GAIN = 0.10
"""A gain of this many points in one step is more often a changed prompt or a leak than a feat."""

SIGNALS_SHARE = 0.1
"""Of alpha: what the looks at unanswered and truncated docs may err at most, all together.

The scores have the whole of alpha to themselves; the exact tests, and the tolerances on top of
them, keep both together below alpha (benchmarks/regression_gate.md)."""

ALL_TASKS = "all tasks together"
"""What findings, and the test case of a JUnit file, call the pooled difference."""

FALSE_DISCOVERIES = 0.1
"""Of undecided tasks that a warning calls suspect, this share at most is expected to be well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierVerdict:
    """What the gate says of the tasks of which the same is asked.

    Attributes:
        name: Of the tier.
        title: What findings, and the test case of a JUnit file, call it as a whole.
        rules: What is asked.
        tasks: One verdict a leaf task.
        together: All of them; None where none could be compared in points.
        alpha: The one-sided error rate of the tier's tests.
    """

    name: str
    title: str
    rules: Tier
    tasks: tuple[TaskVerdict, ...]
    together: Together | None
    alpha: float

    @property
    def undecided(self) -> bool:
        """Whether a loss of the margin or more, over all the tier's docs, is not ruled out.

        Of tasks that are no shares, and so no part of the pooled difference, none may be undecided.
        """
        if self.together is not None and self.together.outcome == "regressed":
            return False  # it is decided, for the worse
        pooled = self.together.tasks if self.together else ()
        rest = [v for v in self.tasks if v.task not in pooled and v.outcome == "undecided"]
        return bool(rest) or (self.together is not None and not self.together.not_worse)


_TITLES = {
    MUST: "all tasks that must not regress",
    TRADE: "all tasks that may trade",
    WATCH: "all tasks that are only watched",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says of a candidate.

    Attributes:
        policy: What was asked.
        overall: What the two runs prove, as every output of them says it; None where no task could
            be compared.
        tiers: What is known of the tasks of each tier that has any, the strictest first.
        failures: Everything that fails the gate, regressed tasks among it.
        warnings: What a person should look at.
        marks: Why the numbers are not the benchmark's; empty when they are.
        allowed: Differences between the runs besides the model that were overridden.
    """

    baseline: str
    candidate: str
    policy: Policy
    overall: OverallVerdict | None
    tiers: tuple[TierVerdict, ...]
    failures: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    marks: tuple[str, ...] = ()
    allowed: tuple[Difference, ...] = ()

    @property
    def margin(self) -> float:
        """The largest difference that counts as none, where no tier and no task has its own."""
        return self.policy.margin

    @property
    def alpha(self) -> float:
        """The one-sided error rate over all tests."""
        return self.policy.alpha

    @property
    def tasks(self) -> tuple[TaskVerdict, ...]:
        """One verdict a leaf task, those of the strictest tier first."""
        return tuple(task for tier in self.tiers for task in tier.tasks)

    @property
    def together(self) -> Together | None:
        """All tasks taken together; None where none could be compared in points."""
        return None if self.overall is None else self.overall.together

    @property
    def undecided(self) -> tuple[str, ...]:
        """Tasks with too few docs to tell."""
        return tuple(verdict.task for verdict in self.tasks if verdict.outcome == "undecided")

    @property
    def held(self) -> tuple[TierVerdict, ...]:
        """Tiers that keep the gate from passing until they are decided."""
        return tuple(t for t in self.tiers if t.rules.undecided == "hold" and t.undecided)

    @property
    def outcome(self) -> Literal["passed", "failed", "undecided"]:
        """The whole in a word; what is undecided counts only where the policy says so."""
        if self.failures:
            return "failed"
        return "undecided" if self.held else "passed"

    @property
    def exit_status(self) -> int:
        """0 passed, 1 failed, 3 undecided (only when strict)."""
        return {"passed": 0, "failed": 1, "undecided": 3}[self.outcome]


def judge(
    baseline: Run,
    candidate: Run,
    *,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    strict: bool = False,
    largest_allowed_gain: float | None = None,
    tolerances: Tolerances | None = None,
    allow: frozenset[str] = frozenset(),
    allow_marked: bool = False,
) -> Verdict:
    """Judge a candidate against a baseline, of all tasks the same; see `judge_by` for a policy.

    Args:
        baseline: The run to hold the candidate against; must be complete.
        candidate: The run in question.
        margin: The largest difference that counts as none, as a fraction.
        alpha: The one-sided error rate over all leaf tasks and their pooled difference.
        strict: Keep the gate from passing until a loss of the margin, over all docs of all tasks,
            is ruled out.
        largest_allowed_gain: Fail on a significant gain beyond this; by default only warn.
        tolerances: How much worse the candidate's samples may be.
        allow: Kinds of difference between the runs to override, as for `compare`.
        allow_marked: Judge runs whose numbers are not the benchmark's (sample, limit, ...).

    Raises:
        UsageError: margin or alpha make no sense, or a run is marked.
        IncomparableRunsError: the runs differ in more than their model, share no task, or the
            baseline is incomplete.
    """
    policy = Policy(
        margin=margin,
        alpha=alpha,
        must_not_regress=Tier(undecided="hold" if strict else "pass"),
        rises=tolerances or Tolerances(),
        largest_gain=largest_allowed_gain,
        allow=tuple(allow),
    )
    return judge_by(policy, baseline, candidate, allow_marked=allow_marked)


def judge_by(
    policy: Policy, baseline: Run, candidate: Run, *, allow_marked: bool = False
) -> Verdict:
    """Judge a candidate against a baseline by a policy.

    Args:
        policy: What is asked.
        baseline: The run to hold the candidate against; must be complete.
        candidate: The run in question.
        allow_marked: Judge runs whose numbers are not the benchmark's (sample, limit, ...).

    Raises:
        UsageError: the policy makes no sense, asks for a metric that cannot be made from samples,
            or a run is marked.
        IncomparableRunsError: the runs differ in more than their model, share no task, or the
            baseline is incomplete.
    """
    _check_rules(policy.margin, policy.alpha)
    _check_runs(baseline, candidate, allow_marked=allow_marked)
    allow = frozenset(policy.allow)
    asked, answered = (_by_metrics(policy, run) for run in (baseline, candidate))
    unusable, unjudged = unusable_tasks(asked, answered, shared_tasks(asked, answered))
    comparison = _compare_usable(asked, answered, unusable, alpha=policy.alpha, allow=allow)
    overall: OverallVerdict | None = None
    tiers: tuple[TierVerdict, ...] = ()
    if comparison is not None:
        _refuse_unmade_metrics(policy, comparison)
        overall = overall_verdict(comparison, margin=policy.margin, alpha=policy.alpha)
        tiers = tuple(_tier_verdicts(policy, comparison))
    verdicts = [verdict for tier in tiers for verdict in tier.tasks]
    bad, odd = bad_samples(
        baseline, candidate, policy.tolerances_of, alpha=SIGNALS_SHARE * policy.alpha
    )
    gains, jumps = _gains(verdicts, policy.largest_gain)
    found = [
        *chain.from_iterable(_regressions(tier) for tier in tiers),
        *missing_parts(baseline, candidate),
        *_missing_required(policy, baseline, candidate),
        *unscored_tasks(candidate, unusable),
        *bad,
        *gains,
    ]
    costs, unknown = dearer(policy.cost, baseline, candidate)
    # What the policy only watches fails nothing, whatever is found of it.
    watched = [f for f in found if f.task in _watched(policy, baseline, candidate)]
    return Verdict(
        baseline=baseline.name,
        candidate=candidate.name,
        policy=policy,
        overall=overall,
        tiers=tiers,
        failures=(*(f for f in found if f not in watched), *costs),
        warnings=(
            *watched,
            *chain.from_iterable(_losses_that_pass(tier) for tier in tiers),
            *_suspects(verdicts),
            *jumps,
            *odd,
            *unknown,
            *unjudged_tasks(unjudged),
            *_words_for_nothing(policy, baseline, candidate),
            *_remarks(baseline, candidate, [verdict.comparison for verdict in verdicts]),
        ),
        marks=tuple(dict.fromkeys((*baseline.marks, *candidate.marks))),
        allowed=() if comparison is None else _overridden(comparison, allow),
    )


def _by_metrics(policy: Policy, run: Run) -> Run:
    """The run with those main metrics that the policy asks for."""
    results = dict(run.results)
    for task, result in run.leaves.items():
        metric = policy.rules_of(task).metric
        if metric is not None:
            if metric not in result.metrics:
                raise UsageError(
                    f"{policy.source}: {run.name} has no metric {metric!r} of {task}; it has "
                    f"{', '.join(result.metrics)}"
                )
            results[task] = replace(result, main_metric=metric)
    return replace(run, results=results)


def _refuse_unmade_metrics(policy: Policy, comparison: Comparison) -> None:
    """A metric that a task's samples do not add up to would be judged as another one."""
    for task, compared in comparison.tasks.items():
        metric = policy.rules_of(task).metric
        if metric is not None and compared.notes:
            raise UsageError(
                f"{policy.source}: {metric!r} of {task} cannot be made again doc by doc "
                f"({compared.notes[0]}); choose another metric"
            )


def _tier_verdicts(policy: Policy, comparison: Comparison) -> Iterator[TierVerdict]:
    """Each tier that has tasks; those that can fail share alpha evenly."""
    members: dict[str, list[str]] = {name: [] for name in policy.tiers}
    for task in comparison.tasks:
        members[policy.tier_of(task)].append(task)
    failing = sum(bool(tasks) for name, tasks in members.items() if name != WATCH)
    alpha = policy.alpha / max(failing, 1)
    for name, rules in policy.tiers.items():
        if not members[name]:
            continue
        margin = policy.margin if rules.margin is None else rules.margin
        tested = partial(
            decide,
            comparison,
            members[name],
            margin=margin,
            alpha=alpha,
            margins={task: policy.margin_of(task) for task in members[name]},
        )
        judgement = tested()
        together = judgement.together
        if name == TRADE:  # where only the whole counts, it is tested at the whole of alpha
            together = tested(pooled_share=1.0).together
        yield TierVerdict(
            name=name,
            title=_TITLES[name] if len(list(filter(None, members.values()))) > 1 else ALL_TASKS,
            rules=rules,
            tasks=judgement.tasks,
            together=together,
            alpha=alpha,
        )


def _watched(policy: Policy, *runs: Run) -> set[str]:
    return {
        task
        for run in runs
        for task in (*run.results, *run.missing_tasks)
        if policy.tier_of(task) == WATCH
    }


def _missing_required(policy: Policy, baseline: Run, candidate: Run) -> Iterator[Finding]:
    """Required tasks that the baseline lacks; what only the candidate lacks is said elsewhere."""
    for task in policy.required:
        if task not in baseline.leaves:
            who = "the baseline lacks" if task in candidate.leaves else "both runs lack"
            text = f"{who} this task, which the policy requires"
            yield Finding(kind="missing", task=task, text=text)
        elif task not in candidate.leaves and policy.tier_of(task) == WATCH:
            yield Finding(kind="missing", task=f"{task} (required)", text="the candidate lacks it")


def _words_for_nothing(policy: Policy, *runs: Run) -> Iterator[Finding]:
    """Names and patterns of the policy that fit no task: what is asked there is asked of nothing.

    No refusal: one policy may serve several suites.
    """
    tasks = dict.fromkeys(task for run in runs for task in (*run.leaves, *run.missing_tasks))
    groups = {name for run in runs for name in run.results.keys() - run.leaves.keys()}
    said = dict.fromkeys(pattern for tier in policy.tiers.values() for pattern in tier.tasks)
    for pattern in (*said, *(name for name in policy.tasks if name not in said)):
        if any(fnmatch.fnmatchcase(task, pattern) for task in tasks):
            continue
        text = "the policy names it, and neither run has such a task"
        if pattern in groups:
            text = "the policy names a group, of which nothing is asked: name its tasks"
        elif close := difflib.get_close_matches(pattern, tasks, n=1):
            text += f"; did you mean {close[0]}?"
        yield Finding(kind="unmatched", task=pattern, text=text)


def _check_rules(margin: float, alpha: float) -> None:
    if not 0 < margin < 1:
        raise UsageError(f"margin {margin} is no fraction between 0 and 1 (0.02 is two points)")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha {alpha} is no one-sided error rate between 0 and 0.5")


def _check_runs(baseline: Run, candidate: Run, *, allow_marked: bool) -> None:
    marked = [f"{run.name}: {', '.join(run.marks)}" for run in (baseline, candidate) if run.marks]
    if marked and not allow_marked:
        raise UsageError(
            offence_list("the regression gate refuses numbers that are not the benchmark's", marked)
            + "\nRun on the whole test data, or pass --allow-marked (every output will say so)"
        )
    if baseline.incomplete:
        raise IncomparableRunsError(
            f"the baseline {baseline.name} is incomplete ({', '.join(baseline.incomplete)}) and "
            "cannot serve as one; finish it with --resume, or choose another"
        )


def _compare_usable(
    baseline: Run,
    candidate: Run,
    unusable: Iterable[str],
    *,
    alpha: float,
    allow: frozenset[str],
) -> Comparison | None:
    """Compare what both have; what the candidate lacks is a failure of its own, not a refusal."""
    left_out = set(unusable)
    kept = {task: result for task, result in candidate.results.items() if task not in left_out}
    usable = replace(candidate, results=kept)
    if left_out and not shared_tasks(baseline, usable):
        return None
    # A two-sided rate of 2 alpha gives the 1 - 2 alpha intervals that the verdicts need.
    return compare(baseline, usable, allow=allow | {"tasks"}, alpha=2 * alpha)


def _overridden(comparison: Comparison, allow: frozenset[str]) -> tuple[Difference, ...]:
    return tuple(difference for difference in comparison.allowed if difference.kind in allow)


def _regressions(tier: TierVerdict) -> Iterator[Finding]:
    """What of a tier fails the gate."""
    if tier.name == WATCH:
        return
    for verdict in tier.tasks:
        if tier.name == MUST and verdict.outcome == "regressed":
            yield Finding(kind="regressed", task=verdict.task, text=f"regressed, {verdict.reason}")
        elif tier.name == TRADE and (text := _lost_too_much(verdict, tier)):
            yield Finding(kind="regressed", task=verdict.task, text=text)
    together = tier.together
    # A lone task of those that must not regress is all of them, and has said so itself.
    lone = tier.name == MUST and together is not None and len(together.tasks) == 1
    if together is not None and together.outcome == "regressed" and not lone:
        yield Finding(kind="regressed", task=tier.title, text=f"regressed, {together.reason}")
    if tier.rules.undecided == "fail" and tier.undecided:
        hidden = most_hidden(tier.tasks)
        text = together.reason if together is not None else "no task could be compared in points"
        text += f"; {hidden_sentence(hidden)}" if hidden is not None else ""
        yield Finding(kind="undecided", task=tier.title, text=f"undecided, {text}")


def _lost_too_much(verdict: TaskVerdict, tier: TierVerdict) -> str:
    """Why a task may not be traded any further; "" where it may.

    At the tier's alpha over its tasks (Bonferroni): a task that lost less than the limit, or
    nothing, is never likelier to fail for it.
    """
    limit, one = tier.rules.largest_loss, verdict.comparison
    if limit is None or one.unit != "share" or one.better not in ("higher", "lower"):
        return ""
    low, high = one.paired.interval_at(1 - 2 * tier.alpha / len(tier.tasks))
    least = -high if one.better == "higher" else low
    if least <= limit:
        return ""
    return f"lost more than the {100 * limit:g} points that may be traded, {verdict.reason}"


def _losses_that_pass(tier: TierVerdict) -> Iterator[Finding]:
    """Tasks that certainly lost, in tiers where that fails nothing."""
    for verdict in tier.tasks:
        if tier.name != MUST and verdict.outcome == "regressed":
            if tier.name == TRADE and _lost_too_much(verdict, tier):
                continue
            text = f"regressed, {verdict.reason}; {_PASSES[tier.name]}"
            yield Finding(kind="traded" if tier.name == TRADE else "watched",
                          task=verdict.task, text=text)  # fmt: skip


_PASSES = {TRADE: "the policy lets it be traded", WATCH: "the policy only watches it"}


def _suspects(verdicts: Iterable[TaskVerdict]) -> Iterator[Finding]:
    """Undecided tasks that a laxer look, at false discoveries, takes for worse: a warning only."""
    for verdict in verdicts:
        if verdict.outcome == "undecided" and verdict.false_discovery <= FALSE_DISCOVERIES:
            text = f"probably worse (Benjamini-Hochberg {verdict.false_discovery:.2g}), "
            yield Finding(kind="suspect", task=verdict.task, text=text + verdict.reason)


def _gains(
    verdicts: Iterable[TaskVerdict], largest_allowed: float | None
) -> tuple[list[Finding], list[Finding]]:
    """Jumps upwards: those that fail, and those worth a warning."""
    failures, warnings = [], []
    for verdict in verdicts:
        gain = abs(verdict.comparison.paired.difference)
        text = f"gained {verdict.reason}"
        finding = Finding(kind="gain", task=verdict.task, text=text)
        if verdict.outcome != "improved" or verdict.comparison.unit != "share":
            continue
        if largest_allowed is not None and gain > largest_allowed:
            failures.append(finding)
        elif gain > SUSPICIOUS_GAIN:
            warnings.append(finding)
    return failures, warnings


def _remarks(
    baseline: Run, candidate: Run, compared: Iterable[TaskComparison]
) -> Iterator[Finding]:
    for task in candidate.leaves:
        if task not in baseline.leaves:
            yield Finding(kind="new", task=task, text="the baseline lacks this task: not judged")
    for comparison in compared:
        if comparison.better in ("neither", "unknown"):
            text = "nobody says in which direction its metric is better: no difference can fail it"
            yield Finding(kind="direction", task=comparison.task, text=text)
        for note in comparison.notes:
            yield Finding(kind="note", task=comparison.task, text=note)
