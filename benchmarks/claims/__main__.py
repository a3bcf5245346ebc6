"""Tries the claims: `python -m benchmarks.claims [--seeds N] [--quick]`.

Each seed is a process's work, and keeps what is done of it: a second call goes on from there.
"""

import argparse
import json
import os
import platform
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import torch
import transformers

from benchmarks.claims.tables import Trial, render
from benchmarks.claims.trial import Effort, run_trial

HERE = Path(__file__).parent
QUICK = Effort(base_steps=200, adapter_steps=300, few_shot_steps=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two seeds, too short to conclude")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--output", type=Path, default=Path("build/claims"))
    options = parser.parse_args()
    effort = QUICK if options.quick else Effort()
    folder = options.output / ("quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(2 if options.quick else options.seeds)
    trials = run_trials(seeds, effort, folder, workers=options.workers)
    # Figures of a quick run are not for keeping.
    results = folder / "RESULTS.md" if options.quick else HERE / "RESULTS.md"
    results.write_text(document(trials), "utf-8")
    print(results)


def run_trials(seeds: range, effort: Effort, folder: Path, *, workers: int) -> list[Trial]:
    """The trials of all seeds; those that `folder` holds, made with this effort, are read."""
    files = {seed: folder / f"seed-{seed}.json" for seed in seeds}
    missing = [seed for seed, file in files.items() if not _is_done(file, effort)]
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        begun = perf_counter()
        asked = {
            pool.submit(run_trial, seed, effort, folder / f"seed-{seed}"): seed for seed in missing
        }
        for done in as_completed(asked):
            seed = asked[done]
            files[seed].write_text(json.dumps(done.result(), indent=1) + "\n", "utf-8")
            shutil.rmtree(folder / f"seed-{seed}")
            print(f"seed {seed}: after {perf_counter() - begun:.0f} s", flush=True)
    return [json.loads(file.read_text("utf-8")) for file in files.values()]


def document(trials: list[Trial]) -> str:
    """RESULTS.md: what made the figures, then the tables."""
    made = trials[0]["effort"]
    effort = (
        f"{made['base_steps']} steps for a base, {made['adapter_steps']} for an adapter, "
        f"{made['few_shot_steps']} on few examples"
    )
    head = f"""# Claims tried on tiny models: figures

Made by `python -m benchmarks.claims`; README.md says what is compared, and how to read it. Seeds
{", ".join(str(trial["seed"]) for trial in trials)}; {effort}.
{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}, \
torch {torch.__version__}, transformers {transformers.__version__}.

All values are per cent unless they say otherwise. Intervals: 95 %, Student's t over seeds, of
differences within a seed. No correction for the number of comparisons.
"""
    return f"{head}\n{render(trials)}"


def _is_done(file: Path, effort: Effort) -> bool:
    return file.is_file() and json.loads(file.read_text("utf-8"))["effort"] == asdict(effort)


if __name__ == "__main__":
    main()
