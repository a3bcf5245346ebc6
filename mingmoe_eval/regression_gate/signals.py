"""What the regression gate looks at besides scores: missing parts, and samples gone bad."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mingmoe_eval.comparison.comparability import Pair, pair_samples, shared_tasks
from mingmoe_eval.comparison.pairwise import says
from mingmoe_eval.cost import Cost, price_of, task_costs, total_cost
from mingmoe_eval.metrics.calibration import is_selective
from mingmoe_eval.metrics.paired import mcnemar_exact
from mingmoe_eval.metrics.repeated import is_of_repeats
from mingmoe_eval.records import Run, Sample
from mingmoe_eval.scoring import metric_of

GROSS_SHARE, GROSS_DOCS = 0.1, 5
"""A rise of flagged docs that fails the gate without a test: small sets have no power for one."""

_NOTHING = "not one doc of the candidate has a score: there is nothing to judge"

LONGER = 2.0
"""Replies that grew or shrank by this factor are worth a word, whatever the scores say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """How much worse a candidate's samples may be, task by task, before the gate fails.

    Attributes:
        unanswered: Largest rise of the share of docs from which no answer could be read.
        truncated: Largest rise of the share of docs whose reply or prompt was cut.
        non_finite: Largest rise of the number of docs with NaN or infinite log-likelihoods.
    """

    unanswered: float = 0.01
    truncated: float = 0.01
    non_finite: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLimits:
    """How many times the baseline's cost the candidate's may be, over the tasks that both have."""

    prompt_tokens: float | None = None
    generated_tokens: float | None = None
    seconds: float | None = None
    money: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about one task, or a whole run, that fails the gate or deserves a warning."""

    kind: str
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.task}: {self.text}" if self.task else self.text


def missing_parts(baseline: Run, candidate: Run) -> Iterator[Finding]:
    """Tasks, metrics and docs that the candidate owes."""
    for task in candidate.incomplete:
        text = "the candidate's run is incomplete here"
        result = candidate.results.get(task)
        if result is not None and not result.counts.failed:
            yield Finding(kind="unscored", task=task, text=_NOTHING)
            continue
        if result is not None:
            text += f": {result.shortfall}"
        yield Finding(kind="incomplete", task=task, text=text)
    for task, result in baseline.leaves.items():
        if task not in candidate.leaves:
            if task not in candidate.missing_tasks:
                yield Finding(kind="missing", task=task, text="the candidate lacks this task")
            continue
        owed = {n for n in result.metrics if not is_of_repeats(n) and not is_selective(n)}
        for metric in sorted(owed - set(candidate.leaves[task].metrics)):
            text = f"the candidate lacks the metric {metric!r}"
            yield Finding(kind="missing", task=task, text=text)


def unscored_tasks(candidate: Run, unusable: Iterable[str]) -> Iterator[Finding]:
    """Unusable tasks that are not named as incomplete: what has no scores cannot pass."""
    for task in unusable:
        if task not in candidate.incomplete:
            yield Finding(kind="unscored", task=task, text=_NOTHING)


def bad_samples(
    baseline: Run, candidate: Run, tolerances_of: Callable[[str], Tolerances], *, alpha: float
) -> tuple[list[Finding], list[Finding]]:
    """Rises of unanswered, truncated and non-finite samples: those that fail, and the warnings.

    A rise of a share beyond its tolerance fails when it is also more than chance (exact McNemar on
    the docs, at `alpha` divided by the number of looks), and is a warning otherwise: models that
    leave a few docs unanswered leave other few unanswered each time. A gross rise always fails.
    """
    failures: list[Finding] = []
    warnings: list[Finding] = []
    tasks = shared_tasks(baseline, candidate)
    for task in tasks:
        pairs = pair_samples(baseline.samples.get(task, ()), candidate.samples.get(task, ()))
        tolerances = tolerances_of(task)
        for kind, tolerance in (
            ("unanswered", tolerances.unanswered),
            ("truncated", tolerances.truncated),
        ):
            rise = _rise(kind, pairs)
            if rise.share > tolerance:
                points = f"{100 * tolerance:g} point" + ("" if tolerance == 0.01 else "s")
                text = f"{rise}; the tolerance is {points}"
                finding = Finding(kind=kind, task=task, text=text)
                more_than_chance = rise.chance < level_of_a_look(alpha, len(tasks))
                fails = more_than_chance or rise.is_gross
                (failures if fails else warnings).append(finding)
        warnings += _longer_replies(task, pairs)
        failures += _non_finite(task, baseline, candidate, tolerances.non_finite)
    return failures, warnings


def level_of_a_look(alpha: float, tasks: int) -> float:
    """Bonferroni over two looks, unanswered and truncated, at each task."""
    return alpha / (2 * tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """How many docs are flagged on either side, and how many of them on one side alone."""

    kind: str
    docs: int
    before: int
    mended: int
    broken: int

    @property
    def after(self) -> int:
        """Docs flagged in the candidate."""
        return self.before - self.mended + self.broken

    @property
    def share(self) -> float:
        """By how much the flagged share of the docs rose."""
        return (self.broken - self.mended) / max(self.docs, 1)

    @property
    def is_gross(self) -> bool:
        """A tenth of the docs, and five at least: no model does that by chance."""
        return self.share >= GROSS_SHARE and self.broken - self.mended >= GROSS_DOCS

    @property
    def chance(self) -> float:
        """How likely chance alone gives such a rise, or a larger one (exact McNemar)."""
        return mcnemar_exact(self.mended, self.broken).higher

    def __str__(self) -> str:
        return f"{self.kind} docs rose from {self.before} to {self.after} of {self.docs}"


def _rise(kind: str, pairs: Iterable[Pair]) -> Rise:
    flags = [(_flagged(kind, pair.baseline), _flagged(kind, pair.candidate)) for pair in pairs]
    return Rise(
        kind=kind,
        docs=len(flags),
        before=sum(before for before, _ in flags),
        mended=sum(before and not after for before, after in flags),
        broken=sum(after and not before for before, after in flags),
    )


def _flagged(kind: str, sample: Sample) -> bool:
    if kind == "unanswered":
        return sample.status == "unanswered"
    return sample.finish == "length" or sample.prompt_truncated


def _non_finite(task: str, baseline: Run, candidate: Run, tolerance: int) -> Iterator[Finding]:
    before = baseline.leaves[task].counts.non_finite
    after = candidate.leaves[task].counts.non_finite
    if after - before > tolerance:
        text = f"docs with non-finite log-likelihoods rose from {before} to {after}"
        yield Finding(kind="non-finite", task=task, text=text)


def dearer(
    limits: CostLimits, baseline: Run, candidate: Run
) -> tuple[list[Finding], list[Finding]]:
    """Costs beyond their limit, and warnings of those that nobody knows, over the shared tasks.

    Seconds count only where neither run took answers from the store, which takes none.
    """
    tasks = set(shared_tasks(baseline, candidate))
    before, after = (
        total_cost(cost for task, cost in task_costs(run, price_of(run)).items() if task in tasks)
        for run in (baseline, candidate)
    )
    failures, warnings = [], []
    for name, limit in dataclasses.asdict(limits).items():
        if limit is None:
            continue
        amounts = [_amount(cost, name) for cost in (before, after)]
        what = name.replace("_", " ")
        if not amounts[0] or amounts[1] is None:
            whose = baseline.name if not amounts[0] else candidate.name
            text = f"nobody knows the {what} of {whose}: the limit of {limit:g} times is not judged"
            warnings.append(Finding(kind="cost", task="", text=text))
        elif amounts[1] > limit * amounts[0]:
            text = f"{what} rose from {amounts[0]:,.6g} to {amounts[1]:,.6g}, "
            text += f"{amounts[1] / amounts[0]:.3g} times; the limit is {limit:g}"
            failures.append(Finding(kind="cost", task="", text=text))
    return failures, warnings


def _amount(cost: Cost | None, name: str) -> float | None:
    if cost is None or (name.endswith("tokens") and not cost.has_tokens):
        return None
    amount: float | None = getattr(cost, name)
    return amount if name != "seconds" or cost.timed else None


def _longer_replies(task: str, pairs: Iterable[Pair]) -> Iterator[Finding]:
    before, after = (
        sum(getattr(pair, side).generated_tokens for pair in pairs)
        for side in ("baseline", "candidate")
    )
    if before and after and not 1 / LONGER <= after / before <= LONGER:
        text = f"replies are {after / before:.2g} times as long as the baseline's"
        yield Finding(kind="length", task=task, text=text)


def unjudged_tasks(tasks: Iterable[str]) -> Iterator[Finding]:
    """Tasks that neither run has numbers of, doc by doc."""
    for task in tasks:
        text = "neither run has a number for each doc (a corpus metric of lm-eval): not judged"
        yield Finding(kind="unjudged", task=task, text=text)


def unusable_tasks(
    baseline: Run, candidate: Run, tasks: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Tasks that the candidate owes every score of, and those whose docs have none in either run.

    A perplexity or a corpus F1 of lm-eval has a value for the whole and none for a doc. A run must
    not fail against itself for that, nor pass where the baseline had scores.
    """
    owed: list[str] = []
    unjudged: list[str] = []
    for task in tasks:
        if not _has_numbers(candidate, task):
            (owed if _has_numbers(baseline, task) else unjudged).append(task)
    return owed, unjudged


def _has_numbers(run: Run, task: str) -> bool:
    metric = metric_of(run.leaves[task])
    return any(says(sample, metric) for sample in run.samples.get(task, ()))
