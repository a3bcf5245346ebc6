"""How often the gate that stops early errs, and how many questions it asks.

Simulates pairs of models whose true difference is known, and replays real answers in random orders.
Writes `benchmarks/sequential_gate.md`:

    python benchmarks/sequential_gate.py --trials 200 --answers DIR --output PAGE.md

DIR holds `medqa_test.MODEL.jsonl` as the MedAgents benchmark publishes them (gersteinlab/
medagents-benchmark, output/medqa), with `answer_idx` and `predicted_answer`.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mingmoe_eval.metrics.betting import Evidence, settled
from mingmoe_eval.metrics.paired import right_wrong_difference

ALPHA, MARGIN = 0.05, 0.02
FIRST, GROWTH = 32, 0.1  # as the gate looks
OUTCOMES = ("regressed", "improved", "equivalent", "undecided")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    sections = [
        f"# The gate that stops early, measured\n\n`benchmarks/sequential_gate.py`, "
        f"{options.trials} trials a row, seed {options.seed}; one-sided alpha {ALPHA}, margin "
        f"{MARGIN}; looks after {FIRST} questions and each further tenth. A share near 0.05 has a "
        f"standard error of {(0.05 * 0.95 / options.trials) ** 0.5:.3f}.",
        simulated(rng, options.trials),
    ]
    if options.answers:
        sections.append(replayed(rng, options.answers))
    page = "\n\n".join(sections) + "\n"
    print(page)
    if options.output:
        options.output.write_text(page, "utf-8")


def simulated(rng: np.random.Generator, trials: int) -> str:
    rows = []
    for tasks, docs, discordance in (
        (1, 1273, 0.2),
        (1, 6811, 0.2),
        (16, 480, 0.2),
        (16, 1000, 0.1),
    ):
        for drop in (0.0, 0.01, 0.02, 0.03, 0.05, 0.10):
            lost, gained = (max(discordance, drop) + drop) / 2, (max(discordance, drop) - drop) / 2
            ended = Counter()
            asked = []
            for _ in range(trials):
                moves = rng.choice(
                    [-1.0, 1.0, 0.0], tasks * docs, p=[lost, gained, 1 - lost - gained]
                )
                outcome, questions = stops(moves, rng.integers(tasks, size=len(moves)), tasks)
                ended[outcome] += 1
                asked.append(questions / len(moves))
            shares = [f"{ended[outcome] / trials:.3f}" for outcome in OUTCOMES]
            rows.append(
                (tasks, docs, discordance, f"{100 * drop:g}", *shares, f"{np.mean(asked):.2f}")
            )
    text = (
        "Every task drops alike. Regressed at no difference is a false alarm, equivalent at a drop "
        "of two points or more the other error. The last column is the share of the questions that "
        "was asked on average."
    )
    headings = ("tasks", "docs a task", "discordance", "true drop", *OUTCOMES, "asked")
    return section("Simulated", text, headings, rows)


def replayed(rng: np.random.Generator, folder: Path, orders: int = 40) -> str:
    right = {}
    for file in sorted(folder.glob("medqa_test.*.jsonl")):
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        right[file.name.split(".", 1)[1].removesuffix(".jsonl")] = np.array(
            [float(row["answer_idx"] == row["predicted_answer"]) for row in rows]
        )
    rows = []
    for before, after in itertools.permutations(right, 2):
        change = right[after] - right[before]
        whole = right_wrong_difference(
            int((change < 0).sum()),
            int((change > 0).sum()),
            len(change),
            baseline_right=int(right[before].sum()),
            level=1 - 2 * ALPHA,
        )
        ended = [
            stops(rng.permutation(change), np.zeros(len(change), dtype=int), 1)
            for _ in range(orders)
        ]
        names = Counter(outcome for outcome, _ in ended)
        low, high = (f"{100 * end:+.1f}" for end in whole.interval)
        rows.append(
            (
                before,
                after,
                f"{100 * whole.difference:+.1f} ({low} to {high})",
                ", ".join(f"{names[name]} {name}" for name in OUTCOMES if names[name]),
                f"{np.mean([questions for _, questions in ended]):.0f}",
                f"{np.mean([questions for _, questions in ended]) / len(change):.2f}",
            )
        )
    text = (
        f"Real answers to the 1,273 questions of MedQA's US test, each pair in {orders} random "
        "orders; beside it the difference over all questions with its 90 % interval."
    )
    headings = ("baseline", "candidate", "all questions, points", "ended", "asked", "share")
    return section("Replayed", text, headings, rows)


def stops(moves: np.ndarray, task_of: np.ndarray, tasks: int) -> tuple[str, int]:
    """How it ends, and after how many questions: the gate's own rule, on known differences."""
    pooled, each = Evidence(), [Evidence() for _ in range(tasks)]
    alphas = (ALPHA, 0.0) if tasks == 1 else (ALPHA / 2, ALPHA / 2 / tasks)
    asked = 0
    while asked < len(moves):
        more = max(FIRST, int(np.ceil(GROWTH * asked)))
        some, whose = moves[asked : asked + more], task_of[asked : asked + more]
        asked += len(some)
        pooled.add(some.tolist())
        outcome = settled(pooled, margin=MARGIN, alpha=alphas[0])
        if tasks > 1:
            for task, evidence in enumerate(each):
                evidence.add(some[whose == task].tolist())
                # The cheap bound first: a task that lost nothing need not be asked.
                lost = evidence.mean < 0 and evidence.against(0.0, "below") >= 1 / alphas[1]
                if lost and settled(evidence, margin=MARGIN, alpha=alphas[1]) == "regressed":
                    outcome = "regressed"
        if outcome:
            return outcome, asked
    return "undecided", asked


def section(
    title: str, text: str, headings: Sequence[str], rows: Iterable[Sequence[object]]
) -> str:
    lines = [headings, ["---:"] * len(headings), *rows]
    table = ["| " + " | ".join(map(str, line)) + " |" for line in lines]
    return "\n".join([f"## {title}", "", text, "", *table])


if __name__ == "__main__":
    main()
