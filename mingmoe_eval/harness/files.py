"""lm-eval's own output layout, written beside a run for its viewers; `reading` reads it."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mingmoe_eval.harness.reading import OURS
from mingmoe_eval.records import JsonDict, Run, Sample
from mingmoe_eval.repeats import mean_of
from mingmoe_eval.run_store import write_json, write_json_lines

_UPWARDS = {"higher": True, "lower": False}
"""What lm-eval calls a direction; None, where none is better, is its word too."""


def write_output(run: Run, folder: Path) -> None:
    """Write `results_<time>.json` and `samples_<task>_<time>.jsonl` as lm-eval lays them out."""
    write_json(folder / _results_name(run), _results_dict(run))
    for task, samples in run.samples.items():
        # As lm-eval does, a doc stands once, with the replies of all its repeats.
        docs: dict[int, list[Sample]] = {}
        for sample in samples:
            docs.setdefault(sample.position, []).append(sample)
        rows = (_logged(answers) for answers in docs.values())
        write_json_lines(folder / _samples_name(run, task), rows)


def remove_output(run: Run, folder: Path) -> None:
    """Remove what `write_output` wrote of a run, and the folder where nothing else lies in it."""
    with contextlib.suppress(OSError):  # not there, or not empty
        for name in (_results_name(run), *(_samples_name(run, task) for task in run.leaves)):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _results_name(run: Run) -> str:
    return f"results_{_stamp(run)}.json"


def _samples_name(run: Run, task: str) -> str:
    # A task's name from outside must not lead out of the folder.
    return f"samples_{task.replace('/', '%2F')}_{_stamp(run)}.jsonl"


def _stamp(run: Run) -> str:
    return re.sub(r"[^0-9T+.-]", "-", str(run.provenance.get("created", ""))) or "unknown"


def _results_dict(run: Run) -> JsonDict:
    return {
        "results": {
            name: {
                "alias": name,
                **{f"{m},none": value.value for m, value in result.metrics.items()},
            }
            for name, result in run.results.items()
        },
        "group_subtasks": {
            name: list(result.members) for name, result in run.results.items() if result.is_group
        },
        "configs": {name: {"task": name} for name in run.leaves},
        "versions": {name: result.version for name, result in run.results.items()},
        "n-shot": {name: result.num_fewshot for name, result in run.results.items()},
        "higher_is_better": {
            name: {metric: _UPWARDS.get(value.better) for metric, value in result.metrics.items()}
            for name, result in run.results.items()
        },
        "n-samples": {
            name: dict.fromkeys(("original", "effective"), result.counts.docs // result.repeats)
            for name, result in run.leaves.items()
        },
        "config": {"model": "mingmoe", "model_args": run.spec.model, "limit": run.spec.limit},
        "model_name": run.spec.model,
        "lm_eval_version": run.provenance.get("packages", {}).get("lm_eval"),
        "total_evaluation_time_seconds": run.timing.get("seconds"),
        # What its layout has no place for, so that nothing is lost where this is imported again.
        OURS: {
            "spec": run.spec.to_json(),
            "model": run.provenance.get("model"),
            "tasks": {
                name: {
                    "marks": list(result.marks),
                    "provenance": run.provenance.get("tasks", {}).get(name, {}),
                }
                for name, result in run.leaves.items()
            },
        },
    }


def _logged(answers: Sequence[Sample]) -> JsonDict:
    """One doc as lm-eval logs it: every response value a string."""
    sample = mean_of(answers)
    values = sample.log_likelihoods
    options = [str(letter) for letter in sample.doc.get("options") or {}]
    if values is not None:
        continuations = options if len(options) == len(values) else [""] * len(values)
        requests: Sequence[tuple[str, Any]] = [(sample.prompt, text) for text in continuations]
        responses: list[Any] = [[[str(value), "False"]] for value in values]
    else:
        requests, responses = [(sample.prompt, {})], [[one.response or "" for one in answers]]
    failures = {str(n): one.failure for n, one in enumerate(answers) if one.failure}
    return {
        "doc_id": sample.position,
        "doc": sample.doc,
        "target": sample.expected,
        "arguments": {
            f"gen_args_{i}": {"arg_0": prompt, "arg_1": rest}
            for i, (prompt, rest) in enumerate(requests)
        },
        "resps": responses,
        "filtered_resps": [sample.answered or ""] if values is None else [r[0] for r in responses],
        "filter": "none",
        "metrics": ["score"],
        "doc_hash": sample.doc_id,
        "prompt_hash": sample.prompt_id,
        "target_hash": "",
        "score": sample.score,
        **({"failure": sample.failure} if sample.failure else {}),
        **({"failures": failures} if failures and len(answers) > 1 else {}),
    }
