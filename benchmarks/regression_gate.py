"""How often the regression gate errs, and what it sees, beside a gate with a fixed tolerance.

Draws flips of right and wrong answers for pairs of models whose true difference is known, and puts
them through the gate's own rules. Writes the tables of `benchmarks/regression_gate.md`:

    python benchmarks/regression_gate.py --trials 4000 --output benchmarks/regression_gate.md
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from mingmoe_eval.comparison import Comparison, Judgement, TaskComparison, decide
from mingmoe_eval.metrics.metric import tabulate_sides
from mingmoe_eval.metrics.paired import bonett_price, count_difference, right_wrong_difference
from mingmoe_eval.metrics.pooling import Stratum
from mingmoe_eval.metrics.resampling import paired_counts
from mingmoe_eval.metrics.significance import holm_adjusted
from mingmoe_eval.metrics.tuple_f1 import MICRO_F1
from mingmoe_eval.metrics.uncertainty import normal_quantile
from mingmoe_eval.records import Counts, MetricValue, Run, RunSpec, Sample, TaskResult
from mingmoe_eval.regression_gate import Tolerances, judge
from mingmoe_eval.regression_gate.judgement import SIGNALS_SHARE
from mingmoe_eval.regression_gate.signals import Rise, level_of_a_look

ALPHA, MARGIN, TOLERANCE = 0.05, 0.02, 0.02
SIZES = (480, 1000, 6811)  # a track of the pharmacist paper, a round number, CMExam's test split
DROPS = (0.01, 0.02, 0.05)
ACCURACY = 0.6
UNANSWERED = 0.02  # share of docs unanswered by either model alone


@dataclass(frozen=True)
class Flips:
    """One task of one trial: docs lost and gained, and docs that only one side left unanswered."""

    docs: int
    lost: int
    gained: int
    mended: int
    broken: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    started = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    sections = [
        f"# The regression gate, measured\n\n`benchmarks/regression_gate.py`, {options.trials} "
        f"trials a cell, seed {options.seed}; one-sided alpha {ALPHA}, margin {MARGIN}. "
        "Discordance is the share of docs that flip between two models that are equally good; the "
        "fixed-tolerance gate fails when any task drops by more than two points. A share near "
        f"0.05 has a standard error of {(0.05 * 0.95 / options.trials) ** 0.5:.4f}.",
        false_alarms(rng, options.trials),
        power(rng, options.trials),
        everywhere(rng, options.trials // 2),
        stems(rng, options.trials // 2),
        strictly(rng, options.trials // 4),
        verdicts_at_no_difference(rng, options.trials),
        coverage(rng, options.trials),
        whole_runs(rng),
    ]
    page = "\n\n".join(sections) + "\n"
    print(page)
    print(f"{time.perf_counter() - started:.0f} s")
    if options.output:
        options.output.write_text(page, "utf-8")


def false_alarms(rng: np.random.Generator, trials: int) -> str:
    rows = []
    for tasks, discordance, docs in itertools.product((1, 6, 16), (0.10, 0.20), SIZES):
        drawn = [draw_tasks(rng, [docs] * tasks, [0.0] * tasks, discordance) for _ in range(trials)]
        scores, overall, fixed = (
            np.mean([rule(flips) for flips in drawn])
            for rule in (scores_fail, gate_fails, fixed_fails)
        )
        rows.append((tasks, discordance, docs, f"{scores:.4f}", f"{overall:.4f}", f"{fixed:.4f}"))
    headings = (
        "tasks",
        "discordance",
        "docs a task",
        "scores alone",
        "exit status 1",
        "fixed tolerance",
    )
    text = "No true difference: how often the gate fails all the same. The exit status also counts "
    text += f"rises of unanswered docs, {UNANSWERED:.0%} of which come and go by chance."
    return section("False alarms", text, headings, rows)


def power(rng: np.random.Generator, trials: int) -> str:
    rows = []
    for tasks, discordance, docs, drop in itertools.product((1, 6), (0.10, 0.20), SIZES, DROPS):
        drops = [drop] + [0.0] * (tasks - 1)
        drawn = [draw_tasks(rng, [docs] * tasks, drops, discordance) for _ in range(trials)]
        found = np.mean([gate_fails(flips) for flips in drawn])
        fixed = np.mean([fixed_fails(flips) for flips in drawn])
        rows.append((tasks, discordance, docs, f"{100 * drop:g}", f"{found:.3f}", f"{fixed:.3f}"))
    headings = (
        "tasks",
        "discordance",
        "docs a task",
        "true drop, points",
        "gate",
        "fixed tolerance",
    )
    text = "One task is truly worse, the others are not: how often the gate fails. Inside the "
    text += "margin of two points a drop may rightly pass as equivalent; the fixed-tolerance gate "
    text += "must be read beside its false alarms above."
    return section("Power", text, headings, rows)


def everywhere(rng: np.random.Generator, trials: int) -> str:
    """Losses in all of 16 tasks, beside Holm's procedure alone and with a pooled test apart."""
    rows = []
    shapes = [
        *((f"all 16, {points} points", [points / 100] * 16) for points in (0, 1, 2, 3)),
        *((f"half of 16, {points} points", [points / 100] * 8 + [0.0] * 8) for points in (2, 4)),
        *((f"1 of 16, {points} points", [points / 100] + [0.0] * 15) for points in (5, 7, 9)),
    ]
    for name, drops in shapes:
        drawn = [draw_tasks(rng, [480] * 16, drops, 0.20) for _ in range(trials)]
        judged = [comparison(flips) for flips in drawn]
        found = [np.mean([rule(one) for one in judged]) for rule in (fails, holm_alone, apart)]
        rows.append((name, *(f"{share:.4f}" for share in found)))
    text = (
        "16 tasks of 480 docs, a fifth of which flip. Holm: the gate without a pooled test. "
        "Apart: Holm's procedure at 0.04 and one test of the mean of all tasks at 0.01, neither "
        f"handing anything on. {trials} trials."
    )
    return section("A loss that is everywhere", text, ("true drop", "gate", "Holm", "apart"), rows)


def stems(rng: np.random.Generator, trials: int) -> str:
    """No difference, and questions that go the same way together."""
    rows = []
    for tasks, forms in ((2, 2), (4, 2), (16, 2), (16, 4), (16, 16)):
        for agreement in (0.5, 0.9):
            drawn = [shared_questions(rng, tasks, forms, agreement) for _ in range(trials)]
            known = np.mean([fails(one) for one in drawn])
            unknown = np.mean([fails(strangers(one)) for one in drawn])
            rows.append((tasks, forms, agreement, f"{known:.4f}", f"{unknown:.4f}"))
    text = (
        "No true difference; each question stands in several tasks (forms of one exam), and what "
        "happens to it in one happens in each other with the given chance. Unknown: what the gate "
        f"would do if it took them for different questions. 400 docs a task, {trials} trials."
    )
    headings = ("tasks", "forms of a question", "agreement", "gate", "unknown")
    clustered = (
        "\n\nClusters of four questions about one case within each of 4 tasks of 200 docs, which "
        f"flip together with a chance of 0.5 ({trials // 8} trials, whole runs): the gate fails in "
        f"{np.mean([case_trial(rng) for _ in range(trials // 8)]):.4f}."
    )
    return section("Questions that hang together", text, headings, rows) + clustered


def strictly(rng: np.random.Generator, trials: int) -> str:
    rows = []
    for tasks, docs, discordance in ((1, 480, 0.2), (6, 480, 0.2), (16, 480, 0.2), (30, 480, 0.2),
                                     (16, 480, 0.1), (16, 1000, 0.2)):  # fmt: skip
        for drop in (0.0, MARGIN):
            drawn = [draw_tasks(rng, [docs] * tasks, [drop] * tasks, discordance)
                     for _ in range(trials)]  # fmt: skip
            judged = [decide(comparison(f), margin=MARGIN, alpha=ALPHA) for f in drawn]
            passed = np.mean([j.together.not_worse and not regressed(j) for j in judged])
            each = np.mean([all(t.outcome == "equivalent" for t in j.tasks) for j in judged])
            shown = f"{100 * drop:g}"
            rows.append((tasks, docs, discordance, shown, f"{passed:.3f}", f"{each:.3f}"))
    text = "How often `--strict` passes; beside it, how often every single task is equivalent. "
    text += f"Of a drop of the whole margin in every task at most alpha may pass. {trials} trials."
    headings = ("tasks", "docs", "discordance", "true drop", "strict passes", "each equivalent")
    return section("Strict", text, headings, rows)


def verdicts_at_no_difference(rng: np.random.Generator, trials: int) -> str:
    rows = []
    for discordance, docs, drop in itertools.product((0.10, 0.20), SIZES, (0.0, MARGIN)):
        outcomes = [
            decide(comparison([draw(rng, docs, drop, discordance)]), margin=MARGIN, alpha=ALPHA)
            .tasks[0]
            .outcome
            for _ in range(trials)
        ]
        shares = [
            outcomes.count(name) / trials
            for name in ("equivalent", "regressed", "improved", "undecided")
        ]
        rows.append((discordance, docs, f"{100 * drop:g}", *(f"{share:.3f}" for share in shares)))
    headings = (
        "discordance",
        "docs",
        "true drop, points",
        "equivalent",
        "regressed",
        "improved",
        "undecided",
    )
    text = (
        "One task alone. At a true drop of the whole margin, a verdict of equivalent is an error; "
    )
    text += "the interval is approximate, so about alpha of them at most."
    return section("Verdicts", text, headings, rows)


def coverage(rng: np.random.Generator, trials: int) -> str:
    rows = []
    for docs, discordance, drop in itertools.product(
        (100, *SIZES), (0.02, 0.10, 0.20), (0.0, 0.02)
    ):
        if drop > discordance:
            continue
        drawn = [draw(rng, docs, drop, discordance) for _ in range(trials)]
        held = [
            [
                low <= -drop <= high
                for low, high in [bonett_price(f.lost, f.gained, docs, level=level) for f in drawn]
            ]
            for level in (0.90, 0.95)
        ]
        rows.append(
            (
                "Bonett-Price",
                docs,
                discordance,
                f"{100 * drop:g}",
                *(f"{np.mean(h):.3f}" for h in held),
            )
        )
    some = max(trials // 10, 100)
    for docs in (100, 480, 1000):
        held = [[], []]
        for _ in range(some):
            counts = extraction_docs(rng, docs)
            for level, into in zip((0.90, 0.95), held, strict=True):
                low, high = count_difference(counts, clusters=None, level=level, rng=rng).interval
                into.append(low <= 0 <= high)
        rows.append(("bootstrap of micro F1", docs, "", "0", *(f"{np.mean(h):.3f}" for h in held)))
    headings = (
        "interval",
        "docs",
        "discordance",
        "true drop, points",
        "90 % covers",
        "95 % covers",
    )
    text = f"How often intervals hold the true difference ({some} trials for the bootstrap)."
    return section("Coverage", text, headings, rows)


def whole_runs(rng: np.random.Generator, trials: int = 40) -> str:
    """Some of the trials as whole runs through `judge`: the short cut must say the same."""
    same = 0
    for _ in range(trials):
        flips = draw_tasks(rng, [480, 480], [0.04, 0.0], 0.20)
        baseline, candidate = runs_of(flips)
        same += judge(baseline, candidate).exit_status == int(gate_fails(flips))
    assert same == trials, f"{trials - same} of {trials} whole runs end otherwise"
    return (
        f"{trials} trials were also built as whole runs and judged by `judge`: every exit status "
        "is the same."
    )


def draw_tasks(
    rng: np.random.Generator, docs: Sequence[int], drops: Sequence[float], discordance: float
) -> list[Flips]:
    return [draw(rng, n, drop, discordance) for n, drop in zip(docs, drops, strict=True)]


def draw(rng: np.random.Generator, docs: int, drop: float, discordance: float) -> Flips:
    """Flips of one task: lost and gained docs differ by the drop, and add up to the discordance."""
    flips = max(discordance, drop)
    lost, gained = (flips + drop) / 2, (flips - drop) / 2
    lost, gained, _ = rng.multinomial(docs, [lost, gained, 1 - lost - gained])
    mended, broken, _ = rng.multinomial(docs, [UNANSWERED, UNANSWERED, 1 - 2 * UNANSWERED])
    return Flips(docs, int(lost), int(gained), int(mended), int(broken))


def scores_fail(flips: Sequence[Flips]) -> bool:
    return fails(comparison(flips))


def fails(one: Comparison) -> bool:
    return regressed(decide(one, margin=MARGIN, alpha=ALPHA))


def regressed(judgement: Judgement) -> bool:
    return any(one.outcome == "regressed" for one in (*judgement.tasks, judgement.together))


def holm_alone(one: Comparison) -> bool:
    adjusted = holm_adjusted([task.p_worse for task in one.tasks.values()])
    return any(
        p < ALPHA and task.paired.interval[0] <= -MARGIN
        for p, task in zip(adjusted, one.tasks.values(), strict=True)
    )


def apart(one: Comparison) -> bool:
    """Holm's procedure at 0.04, and a normal test of the plain mean of all tasks at 0.01."""
    errors = [task.paired.standard_error for task in one.tasks.values()]
    mean = np.mean([task.paired.difference for task in one.tasks.values()])
    level = np.linalg.norm(errors) / len(errors)
    adjusted = holm_adjusted([task.p_worse for task in one.tasks.values()])
    return bool(mean / level < normal_quantile(0.01)) or min(adjusted) < 0.04


def shared_questions(
    rng: np.random.Generator, tasks: int, forms: int, agreement: float, docs: int = 400
) -> Comparison:
    """No true difference; tasks in groups of `forms`, which hold the same questions."""
    flips, moved = {}, {}
    for number in range(tasks):
        if number % forms == 0:
            common = rng.choice([-1, 0, 1], docs, p=[0.1, 0.8, 0.1])
        own = rng.choice([-1, 0, 1], docs, p=[0.1, 0.8, 0.1])
        change = np.where(rng.random(docs) < agreement, common, own)
        name = f"task{number}"
        flips[name] = replace(
            _comparison(docs, int((change < 0).sum()), int((change > 0).sum())), task=name
        )
        moved[name] = Stratum(
            paired=flips[name].paired,
            docs=docs,
            moves=change / docs,
            questions=np.arange(docs) + docs * (number // forms),
        )
    return Comparison(
        baseline="baseline",
        candidate="candidate",
        alpha=2 * ALPHA,
        tasks=flips,
        groups={},
        strata=moved,
    )


def strangers(one: Comparison) -> Comparison:
    """The same as if no two tasks shared a question."""
    docs = len(next(iter(one.strata.values())).moves)
    strata = {
        name: replace(stratum, questions=np.arange(docs) + docs * number)
        for number, (name, stratum) in enumerate(one.strata.items())
    }
    return replace(one, strata=strata)


def case_trial(rng: np.random.Generator, tasks: int = 4, docs: int = 200) -> bool:
    """Whether whole runs whose questions hang together by fours fail without a difference."""
    runs: list[dict[str, list[Sample]]] = [{}, {}]
    for number in range(tasks):
        common = np.repeat(rng.choice([-1, 0, 1], docs // 4, p=[0.1, 0.8, 0.1]), 4)
        own = rng.choice([-1, 0, 1], docs, p=[0.1, 0.8, 0.1])
        change = np.where(rng.random(docs) < 0.5, common, own)
        before = np.where(change == 0, rng.random(docs) < ACCURACY, change < 0)
        for scores, side in zip((before, before + change), runs, strict=True):
            side[f"task{number}"] = [
                Sample(
                    task=f"task{number}",
                    doc_id=f"{number} {doc}",
                    position=doc,
                    doc={},
                    prompt="",
                    expected="A",
                    score=float(score),
                    cluster=f"case {doc // 4}",
                )
                for doc, score in enumerate(scores)
            ]
    return judge(run_of("baseline", runs[0]), run_of("candidate", runs[1])).exit_status == 1


def gate_fails(flips: Sequence[Flips]) -> bool:
    level = level_of_a_look(SIGNALS_SHARE * ALPHA, len(flips))
    rises = (
        Rise(kind="unanswered", docs=f.docs, before=f.mended, mended=f.mended, broken=f.broken)
        for f in flips
    )
    unanswered = any(r.share > Tolerances().unanswered and r.chance < level for r in rises)
    return unanswered or scores_fail(flips)


def fixed_fails(flips: Sequence[Flips]) -> bool:
    return any((task.lost - task.gained) / task.docs > TOLERANCE for task in flips)


def comparison(flips: Sequence[Flips]) -> Comparison:
    """A comparison with these flips, of tasks that share no question."""
    names = [f"task{number}" for number in range(len(flips))]
    tasks = {
        name: replace(_comparison(one.docs, one.lost, one.gained), task=name)
        for name, one in zip(names, flips, strict=True)
    }
    first = np.cumsum([0, *(one.docs for one in flips)])
    strata = {
        name: Stratum(
            paired=tasks[name].paired,
            docs=one.docs,
            moves=moves(one),
            questions=np.arange(start, start + one.docs),
        )
        for name, one, start in zip(names, flips, first, strict=False)
    }
    return Comparison(
        baseline="baseline",
        candidate="candidate",
        alpha=2 * ALPHA,
        tasks=tasks,
        groups={},
        strata=strata,
    )


def moves(flips: Flips) -> np.ndarray:
    moved = np.zeros(flips.docs)
    moved[: flips.lost] = -1 / flips.docs
    moved[flips.docs - flips.gained :] = 1 / flips.docs
    return moved


@cache
def _comparison(docs: int, lost: int, gained: int) -> TaskComparison:
    right = round(ACCURACY * docs)
    paired = right_wrong_difference(lost, gained, docs, baseline_right=right, level=1 - 2 * ALPHA)
    return TaskComparison(
        task="task",
        docs=docs,
        clusters=None,
        paired=paired,
        p_adjusted=paired.tails.two_sided,
        alpha_left=2 * ALPHA,
        minimum_detectable=0.0,
    )


def extraction_docs(rng: np.random.Generator, docs: int):
    """Two equally good extractors: easy docs are easy for both."""
    gold, skill = rng.poisson(4, docs) + 1, rng.beta(4, 2, docs)
    sides = []
    for _ in range(2):
        found = rng.binomial(gold, skill)
        counts = np.column_stack([found, rng.poisson(1.0, docs), gold - found])
        sides.append([{"": row} for row in counts.tolist()])
    return paired_counts(*tabulate_sides(sides), MICRO_F1)


def runs_of(flips: Sequence[Flips]) -> tuple[Run, Run]:
    """Whole runs with these flips: the unanswered docs are wrong on both sides, or flips."""
    sides = [{}, {}]
    for number, task in enumerate(flips):
        for side, samples in enumerate(zip(*samples_of(f"task{number}", task), strict=True)):
            sides[side][f"task{number}"] = samples
    return run_of("baseline", sides[0]), run_of("candidate", sides[1])


def samples_of(task: str, flips: Flips) -> Iterator[tuple[Sample, Sample]]:
    right = round(ACCURACY * flips.docs)
    for doc in range(flips.docs):
        before = float(doc < right)
        flipped = doc < flips.lost or right <= doc < right + flips.gained
        from_end = flips.docs - 1 - doc
        silent = (from_end < flips.mended, flips.mended <= from_end < flips.mended + flips.broken)
        scores = (before, 1 - before if flipped else before)
        yield tuple(
            Sample(
                task=task,
                doc_id=str(doc),
                position=doc,
                doc={},
                prompt=str(doc),
                expected="A",
                score=score,
                status="unanswered" if unanswered else "scored",
            )
            for score, unanswered in zip(scores, silent, strict=True)
        )


def run_of(name: str, tasks: dict[str, Sequence[Sample]]) -> Run:
    results = {
        task: TaskResult(
            task=task,
            main_metric="score",
            metrics={
                "score": MetricValue(
                    value=float(np.mean([s.score for s in samples])), n=len(samples)
                )
            },
            counts=Counts(docs=len(samples)),
        )
        for task, samples in tasks.items()
    }
    spec = RunSpec(model=name, tasks=tuple(tasks))
    return Run(name=name, spec=spec, provenance={}, results=results, samples=tasks)


def section(
    title: str, text: str, headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> str:
    lines = [headings, ["---:"] * len(headings), *rows]
    table = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([f"## {title}", "", text, "", *table])


if __name__ == "__main__":
    main()
