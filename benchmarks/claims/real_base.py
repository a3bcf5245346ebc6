"""One mixture against one LoRA of the same trained size, on a real base.

    python -m benchmarks.claims.real_base --base Qwen2.5-0.5B-Instruct [--seeds 3] [--threads 1]

Each seed draws its own records of four tasks (`clinic_tasks`) and its own adapters. What is done is
kept in --output: a second call goes on, also from a training state. Writes RESULTS_REAL_BASE.md
from the seeds that are whole.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
import transformers

from benchmarks.claims.asking import choice_scores, is_right
from benchmarks.claims.base import CHAT_TEMPLATE
from benchmarks.claims.clinic_tasks import make_clinic_tasks
from benchmarks.claims.methods import write_items
from benchmarks.claims.tables import Estimate, estimate
from benchmarks.claims.tables import table as markdown_table
from benchmarks.claims.tasks import Item, Sizes
from mingmoe_eval.engine import CheckpointLM
from mingmoe_eval.training import train_adapter
from mingmoe_eval.training.output_folder import training_states
from mingmoe_eval.training.spec import AdapterShape, DataStream, Method, Schedule, TrainingSpec

HERE = Path(__file__).parent

# Of equal trained size on Qwen2.5-0.5B (width 896, inner 4,864, key and value 128): a rank costs
# 5,632 numbers a layer on attention and 17,280 on the feed-forward block, routers cost 53,256.
# 8 x 6 x 17,280 + 53,256 + 6 x 5,632 = 916,488 and 40 x 22,912 = 916,480.
CONTENDERS: dict[Method, AdapterShape] = {
    "lora": AdapterShape(rank=40, alpha=80.0),
    "molora": AdapterShape(num_experts=8, experts_per_token=2, rank=6, alpha=12.0),
}
NAMES = {"base": "base", "lora": "LoRA", "molora": "MoLoRA"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How long adapters are trained, and on how many records of each task."""

    steps: int = 60
    batch: int = 4
    learning_rate: float = 5e-4
    train: int = 60
    test: int = 24


class Trial:
    """One seed: its records, its two adapters, and what they and the base answer."""

    def __init__(self, seed: int, base: str, effort: Effort, folder: Path) -> None:
        self.seed, self.base, self.effort, self.folder = seed, base, effort, folder
        self.tasks = make_clinic_tasks(seed, Sizes(effort.train, effort.test))
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, Any]:
        """Per doc of each task, for the base and both adapters, the scores of all choices."""
        return {"base": self._answers("base"), **{m: self._answers(m) for m in CONTENDERS}}

    def _answers(self, method: str) -> dict[str, Any]:
        kept = self.folder / f"{method}.json"
        if not kept.is_file():
            begun = perf_counter()
            trained = None if method == "base" else self._train(method)
            lm = CheckpointLM(trained or self.base, dtype="float32", device="cpu")
            scores = choice_scores(lm, {name: data.test for name, data in self.tasks.items()})
            size = 0 if trained is None else lm.model.loaded.description.parameters.adapter
            outcome = {"effort": asdict(self.effort), "trained": size, "scores": scores}
            kept.write_text(json.dumps(outcome), "utf-8")
            print(f"seed {self.seed}, {method}: {perf_counter() - begun:.0f} s", flush=True)
        found = json.loads(kept.read_text("utf-8"))
        if found["effort"] != asdict(self.effort):
            raise SystemExit(f"{kept} was made with another effort: choose another --output")
        return found

    def _train(self, method: Any) -> Path:
        output = self.folder / method
        template = self.folder / "template.jinja"
        template.write_text(CHAT_TEMPLATE, "utf-8")
        files = [
            write_items(self.folder / f"{name}.jsonl", data.train)
            for name, data in self.tasks.items()
        ]
        schedule = Schedule(
            learning_rate=self.effort.learning_rate,
            steps=self.effort.steps,
            batch_size=self.effort.batch,
            seed=self.seed,
            bf16=True,
            log_every=10,
            save_every=20,
            keep=1,
        )
        spec = TrainingSpec(
            base=self.base,
            data=tuple(DataStream(file, 1.0) for file in files),
            method=method,
            shape=CONTENDERS[method],
            schedule=schedule,
            chat_template=template,
        )
        if not (output / "adapter_config.json").is_file():
            train_adapter(spec, output, resume="last" if training_states(output) else None)
        return output

    def items(self, task: str) -> Sequence[Item]:
        """The test items of a task."""
        return self.tasks[task].test


def refuse_unequal(outcome: dict[str, Any]) -> None:
    """Ranks are chosen for one base: on another one the adapters would not be of one size."""
    one, other = (outcome[method]["trained"] for method in CONTENDERS)
    if not 0.98 < one / other < 1.02:
        raise SystemExit(f"the adapters train {one} and {other} numbers: choose CONTENDERS' ranks")


def right(trial: Trial, outcome: dict[str, Any], method: str, task: str) -> list[float]:
    """1 or 0 for each doc."""
    pairs = zip(trial.items(task), outcome[method]["scores"][task], strict=True)
    return [float(is_right(item, scores)) for item, scores in pairs]


def loss(trial: Trial, outcome: dict[str, Any], method: str, task: str) -> list[float]:
    """For each doc minus the log-probability of the right choice among all, in nats."""
    losses = []
    for item, scores in zip(trial.items(task), outcome[method]["scores"][task], strict=True):
        top = max(scores)
        total = top + math.log(sum(math.exp(score - top) for score in scores))
        losses.append(total - scores[item.choices.index(item.answer)])
    return losses


def document(done: list[tuple[Trial, dict[str, Any]]], base: str) -> str:
    """RESULTS_REAL_BASE.md."""
    effort = done[0][0].effort
    seeds = ", ".join(str(trial.seed) for trial, _ in done)
    sizes = done[0][1]
    accuracy, losses = _by_task(done, right), _by_task(done, loss)
    rows = [
        [NAMES[m], str(sizes[m]["trained"]), *(f"{100 * v:.1f}" for v in accuracy[m]),
         f"{fmean(losses[m]):.3f}"]
        for m in NAMES
    ]  # fmt: skip
    head = ["adapter", "trained numbers", *_tasks(done), "mean", "loss"]
    compared = [
        [
            what,
            *(_paired(done, of, by_seed=by_seed).times(scale, digits) for by_seed in (True, False)),
        ]
        for what, of, scale, digits in (("accuracy, points", right, 100, 1), ("loss", loss, 1, 3))
    ]
    return f"""# One mixture against one LoRA on a real base: figures

Made by `python -m benchmarks.claims.real_base`; README.md says what is compared, and how to read
it. Base {base}; seeds {seeds}; {effort.steps} steps of {effort.batch} records in bfloat16, learning
rate {effort.learning_rate}; {effort.test} test docs a task and seed.
{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}, \
torch {torch.__version__}, transformers {transformers.__version__}.

Right answers in per cent; loss is minus the log-probability of the right choice among all, in nats.

{markdown_table(head, rows)}

## MoLoRA less LoRA, paired

{markdown_table(["what", "over seeds", "over docs"], compared)}

Over seeds: Student's t of {len(done)} differences of means, each of other records and another
start. Over docs: of the pooled differences by doc, which holds for these adapters alone.
"""


def _tasks(done: list[tuple[Trial, dict[str, Any]]]) -> list[str]:
    return list(done[0][0].tasks)


def _by_task(done: list[tuple[Trial, dict[str, Any]]], of: Any) -> dict[str, list[float]]:
    """By method, the mean of each task over seeds, and behind them the mean of those."""
    means = {
        method: [
            fmean(fmean(of(trial, outcome, method, task)) for trial, outcome in done)
            for task in _tasks(done)
        ]
        for method in NAMES
    }
    return {method: [*values, fmean(values)] for method, values in means.items()}


def _paired(done: list[tuple[Trial, dict[str, Any]]], of: Any, *, by_seed: bool) -> Estimate:
    """The mixture's less the LoRA's."""
    seeds = []
    for trial, outcome in done:
        differences: list[float] = []
        for task in _tasks(done):
            pairs = zip(*(of(trial, outcome, m, task) for m in ("molora", "lora")), strict=True)
            differences += [a - b for a, b in pairs]
        seeds.append(differences)
    return estimate([fmean(s) for s in seeds] if by_seed else [d for s in seeds for d in s])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", required=True, help="a directory or hub id")
    parser.add_argument("--called", help="what RESULTS_REAL_BASE.md calls it; default: its name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Effort().steps)
    parser.add_argument("--output", type=Path, default=Path("build/claims/real_base"))
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS_REAL_BASE.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    called = options.called or Path(options.base).name
    done: list[tuple[Trial, dict[str, Any]]] = []
    for seed in range(options.seeds):
        trial = Trial(
            seed, options.base, Effort(steps=options.steps), options.output / f"seed-{seed}"
        )
        done.append((trial, trial.run()))
        refuse_unequal(done[-1][1])
        # After each seed, so that what is known is written.
        options.results.write_text(document(done, called), "utf-8")
    print(options.results)


if __name__ == "__main__":
    main()
